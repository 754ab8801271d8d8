//! The whole host in simulation: see the crate `simulation` for what must hold.
//!
//! `tests/simulate SEED` shows one run.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use simulation::{
    Counts, Report, Script,
    faults::{CommandFault, WorldFault},
    random::noise,
    run,
};

/// Runs of the ordinary test, half of which are of new seeds each time.
const RUNS: u64 = if cfg!(debug_assertions) { 400 } else { 20_000 };

/// States of a controller, in which faults happen.
const STATES: [&str; 6] = ["unconnected", "connecting", "live", "resetting", "waiting", "dead"];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Runs many scripts on all processors; returns the sum of their counts, and the first that failed.
fn run_all(seeds: std::ops::Range<u64>) -> (Counts, Option<(Script, Report)>) {
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new((Counts::new(), None));
    let worker = || {
        let mut counts = Counts::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || found.lock().expect("no worker panics").1.is_some() {
                break;
            }
            let script = Script::from_seed(seed);
            let report = run(&script);
            add(&mut counts, &report.counts);
            *counts.entry("virtual seconds".to_owned()).or_default() += report.time.as_secs();
            *counts.entry("runs".to_owned()).or_default() += 1;
            if fails(&report) {
                found.lock().expect("no worker panics").1 = Some((script, report));
            }
        }
        add(&mut found.lock().expect("no worker panics").0, &counts);
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(worker);
        }
    });
    found.into_inner().expect("no worker panics")
}

fn add(sum: &mut Counts, counts: &Counts) {
    for (name, count) in counts {
        *sum.entry(name.clone()).or_default() += count;
    }
}

/// Tells if a run is one to be shown: something does not hold, or, with `SIMULATION_STRICT`, a
/// write landed after its repeat.
fn fails(report: &Report) -> bool {
    let is_strict = std::env::var_os("SIMULATION_STRICT").is_some();
    !report.violations.is_empty() || is_strict && report.counts.contains_key("late repeats")
}

/// Shortens a script that fails, and shows it.
fn show(script: Script, report: &Report) -> ! {
    let seed = script.seed;
    let script = script.shortened(|shorter| fails(&run(shorter)));
    let shortest = run(&script);
    println!("{}", shortest.transcript);
    panic!(
        "seed {seed}: {:?}; shortened: {:?}: tests/simulate {script}",
        report.violations, shortest.violations
    );
}

/// Prints how often each fault happened in each state of the controller; returns those that never
/// did.
fn print_table(counts: &Counts, names: &[&'static str]) -> Vec<&'static str> {
    let mut never = Vec::new();
    print!("{:36}", "fault");
    STATES.iter().for_each(|state| print!("{state:>12}"));
    println!();
    for name in names {
        print!("{name:36}");
        let in_state = |state| counts.get(&format!("fault: {name} / {state}")).copied();
        STATES.iter().for_each(|state| print!("{:>12}", in_state(state).unwrap_or(0)));
        println!();
        if STATES.iter().all(|state| in_state(state).is_none()) {
            never.push(*name);
        }
    }
    never
}

#[test]
fn what_must_hold_holds_for_any_seed() {
    let start = number("SIMULATION_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.expect("after 1970").as_secs() << 20
    });
    let runs = number("SIMULATION_RUNS").unwrap_or(RUNS);
    println!("seeds {start} to {}", start + runs);
    let began = Instant::now();
    let (counts, failed) = run_all(start..start + runs);
    let rest: BTreeMap<_, _> =
        counts.iter().filter(|(name, _)| !name.starts_with("fault: ")).collect();
    println!("{rest:#?}");
    println!("{runs} runs in {:.1} s", began.elapsed().as_secs_f64());
    let mut never = print_table(&counts, &WorldFault::NAMES);
    never.extend(print_table(&counts, &CommandFault::NAMES));
    if let Some((script, report)) = failed {
        show(script, &report);
    }
    assert!(never.is_empty() || runs < 200, "never happened: {never:?}");
}

#[test]
fn a_seed_decides_everything() {
    let repeats = number("SIMULATION_REPEATS").unwrap_or(3);
    for seed in 0..4 {
        let script = Script::from_seed(seed);
        let first = run(&script);
        for _ in 1..repeats {
            let again = run(&script);
            let lines = first.transcript.lines().zip(again.transcript.lines());
            let differs = lines.enumerate().find(|(_, (one, other))| one != other);
            assert_eq!(differs, None, "seed {seed}");
            assert_eq!(first.transcript.len(), again.transcript.len(), "seed {seed}");
        }
    }
}

/// Prints a hash (FNV-1a) of the transcripts of some seeds.
#[test]
fn transcripts_have_a_hash() {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for seed in 0..8 {
        for byte in run(&Script::from_seed(seed)).transcript.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    println!("transcripts: {hash:016x}");
}

#[test]
fn transcripts_are_the_same_in_another_process() {
    let hash = || {
        let program = std::env::current_exe().expect("the path of this program");
        let arguments = ["transcripts_have_a_hash", "--exact", "--nocapture"];
        let output = Command::new(program).args(arguments).output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find(|line| line.contains("transcripts: ")).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{output:?}"))
    };
    assert_eq!(hash(), hash());
}

/// Secrets in binary or hexadecimal digits, and the bytes that a challenge is answered with.
#[test]
fn no_transcript_has_a_secret() {
    let mut authentications = 0;
    for seed in 0..40 {
        let report = run(&Script::from_seed(seed));
        authentications += report.counts.get("target: authentications").unwrap_or(&0);
        for seed in [1, 2] {
            let secret = noise(32, seed);
            let digits: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
            let debug = format!("{:?}", &secret[..4]);
            for form in [&digits[..16], &debug[1..debug.len() - 1]] {
                assert!(!report.transcript.contains(form), "seed {seed}");
            }
        }
    }
    assert!(authentications > 0, "no run was authenticated");
}

/// The scripts that have shown a fault of ours, each of which has been mended since.
#[test]
fn what_must_hold_holds_for_the_seeds_that_were_kept() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../simulation/seeds");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the seeds are part of the sources")
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    files.sort();
    for file in files {
        let text = fs::read_to_string(&file).expect("text");
        let line = text.lines().find(|line| !line.starts_with('#')).expect("a script");
        let report = run(&line.trim().parse().expect("a script"));
        let name = file.display();
        assert_eq!(report.violations, Vec::<String>::new(), "{name}:\n{}", report.transcript);
    }
}

/// Shows the run of `SIMULATION_SCRIPT`: `tests/simulate`.
#[test]
fn show_one_run() {
    let Ok(text) = std::env::var("SIMULATION_SCRIPT") else { return };
    let script: Script = text.parse().expect("a script");
    let report = run(&script);
    script.steps().for_each(|step| println!("{step:?}"));
    println!("{}\n{:#?}", report.transcript, report.counts);
    assert_eq!(report.violations, Vec::<String>::new());
}
