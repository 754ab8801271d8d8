//! The exit status under adverse scheduling: each process of a run is stopped at a random moment.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    process::{Child, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Bed, processes_with, text};

/// Number of runs, unless `SOFT_ROCE_STRESS_RUNS` gives another.
const RUNS: usize = 32;

/// Number of runs between two lines on progress.
const REPORT_INTERVAL: usize = 50;

/// Number of runs at a time.
const WORKERS: usize = 8;

/// Time for which a process is stopped.
const STOP_TIME: Duration = Duration::from_secs(1);

/// Time from a run's start within which a process is stopped, as a multiple of the time that a run
/// takes by itself.
const MOMENTS: f64 = 1.2;

/// Programs and their status.
const PROGRAMS: [(&[&str], i32); 3] =
    [(&["true"], 0), (&["false"], 1), (&["sh", "-c", "exit 7"], 7)];

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn the_exit_status_survives_stopped_processes() {
    let given = std::env::var("SOFT_ROCE_STRESS_RUNS").ok();
    let runs = given.map_or(RUNS, |runs| runs.parse().unwrap());
    let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        // The load: one thread that is always ready to run, for each two workers.
        for _ in 0..WORKERS / 2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut usual = Duration::from_secs(1);
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= runs {
                            return;
                        }
                        let found = run_one(number, &mut usual);
                        let mut wrong = wrong.lock().unwrap();
                        wrong.extend(found);
                        if number.is_multiple_of(REPORT_INTERVAL) {
                            println!("run {number} of {runs}: {} wrong so far", wrong.len());
                        }
                    }
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        over.store(true, Ordering::Relaxed);
    });
    let wrong = wrong.into_inner().unwrap();
    println!("{runs} runs, {} wrong", wrong.len());
    assert!(wrong.is_empty(), "{} of {runs}:\n{}", wrong.len(), wrong.join("\n"));
}

/// One run; returns a description when its status is wrong. `usual` is the time that a run takes,
/// measured by each fourth run, in which nothing is stopped.
fn run_one(number: usize, usual: &mut Duration) -> Option<String> {
    let bed = Bed::new();
    let (program, expected) = PROGRAMS[number % PROGRAMS.len()];
    let mut command = bed.run(&["--"]);
    command.args(program).stdout(Stdio::null()).stderr(Stdio::piped());
    let started = Instant::now();
    let child = command.spawn().unwrap();
    let stopped = (!number.is_multiple_of(4)).then(|| stop_one(&bed, &child, number, *usual));
    let output = child.wait_with_output().unwrap();
    if stopped.is_none() {
        *usual = started.elapsed();
    }
    bed.expect_nothing_left();
    let stopped = stopped.unwrap_or_else(|| "nothing stopped".into());
    (output.status.code() != Some(expected)).then(|| {
        let words = program.join(" ");
        format!("{words}: {}, {stopped}: {}", output.status, text(&output.stderr))
    })
}

/// Stops the supervisor, the reaper or the kernel for a while, at a random moment.
fn stop_one(bed: &Bed, supervisor: &Child, number: usize, usual: Duration) -> String {
    let fraction = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
    let moment = usual.mul_f64(fraction * MOMENTS);
    thread::sleep(moment);
    let name = ["supervisor", "reaper", "kernel"][number / 4 % 3];
    let victim = match name {
        "supervisor" => Some(Pid::from_child(supervisor)),
        "reaper" => find(bed, "reaper"),
        _ => find(bed, "mem="),
    };
    // The process may not have started yet, or have ended.
    let is_stopped = victim.is_some_and(|pid| kill_process(pid, Signal::STOP).is_ok());
    if let Some(pid) = victim.filter(|_| is_stopped) {
        thread::sleep(STOP_TIME);
        let _ = kill_process(pid, Signal::CONT);
    }
    format!("{name} stopped at {moment:?}: {is_stopped}")
}

fn find(bed: &Bed, word: &str) -> Option<Pid> {
    let all = processes_with(bed.folder.path());
    let found = all.iter().find(|(_, words)| words.iter().any(|one| one.starts_with(word)));
    found.and_then(|(pid, _)| Pid::from_raw(*pid))
}
