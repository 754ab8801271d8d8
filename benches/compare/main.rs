//! Initiators compared against one target, in turns, within one guest. `benches/versus` starts it.

mod guest;
mod initiator;
mod performance_goals;
mod results;
mod sample;
mod table;

use std::{error::Error, fs, path::PathBuf};

use clap::Parser;
use guest::{AttachedDevice, KernelInitiator};
use initiator::{Class, Initiator, Length, Scenario, Setup};
use results::Results;

/// Measures every initiator in turns: each once in a round.
#[derive(Parser)]
struct Arguments {
    /// Number of rounds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of one run, after half a second of warming up.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// One short round of one scenario, to see that it works.
    #[arg(long)]
    quick: bool,
    /// Only scenarios whose name contains this: "depth 32", "read".
    #[arg(long)]
    only: Option<String>,
    /// Bare verbs alone, with every way to wait.
    #[arg(long)]
    waiting: bool,
    /// Processor time that the machine spends on the guest for a read, of each front end; with the
    /// engine of fio in this file.
    #[arg(long, value_name = "ENGINE")]
    front_ends: Option<String>,
    /// Another initiator, as in name='program --at {address} --queue-depth {depth}'; see
    /// benches/RESULTS.md for what is filled in, and how its output is read.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = program)]
    program: Vec<Initiator>,
    /// Put the results into this file, in the place of those of the same kernel series.
    #[arg(long)]
    results: Option<PathBuf>,
    /// The command that started this, for the results to name.
    #[arg(long, default_value = "benches/versus")]
    command: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        (arguments.rounds, arguments.seconds) = (1, 0.3);
        arguments.only.get_or_insert_with(|| "random read, depth 32".into());
    }
    let address = std::env::var("SOFT_ROCE_ADDRESS")?;
    let kernel = KernelInitiator::connect(&address, NQN)?;
    let programs = std::env::current_exe()?.parent().ok_or("no folder")?.to_owned();
    let nvmf = programs.join("nvmf");
    let attached = match arguments.front_ends {
        Some(_) => Some(AttachedDevice::attach(&nvmf, &address, NQN)?),
        None => None,
    };
    let setup = Setup {
        programs,
        address,
        nqn: NQN.into(),
        device: kernel.device.clone(),
        attached: attached.as_ref().map(|attached| attached.device.clone()),
        engine: arguments.front_ends.clone(),
        length: Length::Seconds(arguments.seconds),
    };
    let results = compete(&arguments, &setup)?;
    drop(attached);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let text = report(&arguments, &results, release.trim());
    println!("{text}");
    if let Some(file) = &arguments.results {
        let before = fs::read_to_string(file).unwrap_or_default();
        let series: Vec<_> = release.split('.').take(2).collect();
        let what = match arguments {
            Arguments { waiting: true, .. } => "waiting",
            Arguments { front_ends: Some(_), .. } => "front ends",
            _ => "versus",
        };
        let mark = format!("{what}, Linux {}", series.join("."));
        fs::write(file, table::replace_block(&before, &mark, &text))?;
    }
    Ok(())
}

fn compete(arguments: &Arguments, setup: &Setup) -> Result<Results, Box<dyn Error>> {
    let mut results = Results::default();
    let scenarios: Vec<_> = scenarios(arguments)
        .into_iter()
        .filter(|(scenario, _)| arguments.only.as_ref().is_none_or(|only| scenario.is_called(only)))
        .collect();
    for round in 1..=arguments.rounds {
        for (scenario, initiators) in &scenarios {
            for initiator in initiators.iter().chain(&arguments.program) {
                let sample = match arguments.front_ends {
                    None => guest::run(initiator, scenario, setup)?,
                    Some(_) => guest::run_twice(initiator, scenario, setup, arguments.seconds)?,
                };
                let time = sample.machine_us.map(|time| format!(", {time:.1} µs of processors"));
                eprintln!(
                    "round {round}: {}: {}: {:.0} IOPS{}",
                    scenario.name(),
                    initiator.name(),
                    sample.iops,
                    time.unwrap_or_default()
                );
                results.note(scenario, initiator, sample);
            }
        }
    }
    Ok(results)
}

/// Scenarios, and the initiators that are measured in each. Small random reads are measured with
/// every initiator; elsewhere only with those that a goal is about.
fn scenarios(arguments: &Arguments) -> Vec<(Scenario, Vec<Initiator>)> {
    let small = |write, depth| Scenario { write, random: true, bytes: 4096, depth };
    if arguments.waiting {
        return [1, 32, 128].map(|depth| (small(false, depth), ways_to_wait())).into();
    }
    if arguments.front_ends.is_some() {
        return [1, 32].map(|depth| (small(false, depth), front_ends(depth > 1))).into();
    }
    let fio = |engine, batched| Initiator::Fio { engine, batched };
    let alone = ["libaio", "io_uring"].map(|engine| fio(engine, false));
    let batched = ["libaio", "io_uring"].map(|engine| fio(engine, true));
    let [poll, event, adaptive] =
        ["poll", "event", "adaptive"].map(|wait| Initiator::Nvmf(wait, Class::Normal));
    let bare_verbs = Initiator::BareVerbs("spin", Class::Idle);
    let mut all = Vec::new();
    for (write, depth) in
        [false, true].into_iter().flat_map(|write| [1, 32, 128].map(|d| (write, d)))
    {
        let mut who = vec![poll.clone(), adaptive.clone(), bare_verbs.clone()];
        if !write {
            who.push(event.clone());
            who.extend(["adaptive", "poll"].map(Initiator::Async));
            who.push(Initiator::LocalFutures("poll"));
        }
        if !write || depth == 1 {
            who.extend(alone.clone());
        }
        if depth == 1 {
            who.push(fio("psync", false));
        }
        if depth > 1 {
            who.extend(batched.clone());
        }
        all.push((small(write, depth), who));
    }
    for bytes in [128 << 10, 1 << 20] {
        for write in [false, true] {
            let mut who = vec![poll.clone(), adaptive.clone(), bare_verbs.clone()];
            who.extend(alone.clone());
            who.extend(batched.clone());
            all.push((Scenario { write, random: false, bytes, depth: 8 }, who));
        }
    }
    all
}

/// The kernel's initiator, and each front end of ours.
fn front_ends(batched: bool) -> Vec<Initiator> {
    let mut all = vec![
        Initiator::Fio { engine: "io_uring", batched },
        Initiator::Nvmf("poll", Class::Normal),
        Initiator::Engine { batched },
        Initiator::Device { batched },
    ];
    if batched {
        all.push(Initiator::Engine { batched: false });
    }
    all
}

/// Bare verbs with every way to wait.
fn ways_to_wait() -> Vec<Initiator> {
    let classes = [Class::Normal, Class::Nice, Class::Idle];
    let waits = ["spin", "yield", "event"];
    waits.iter().flat_map(|&wait| classes.map(|class| Initiator::BareVerbs(wait, class))).collect()
}

fn report(arguments: &Arguments, results: &Results, release: &str) -> String {
    let Arguments { rounds, seconds, command, .. } = arguments;
    let rounds = if *rounds == 1 { "1 round".into() } else { format!("{rounds} rounds") };
    let head = format!(
        "### Linux {release}\n\n`{command}`: medians of {rounds} in turns, {seconds} s each; in \
         brackets the least and the most.\n"
    );
    let goals = |goals: Vec<_>| table::of_goals(&goals, command);
    match arguments {
        Arguments { waiting: true, .. } => format!("{head}\n{}", table::of_runs(results)),
        Arguments { front_ends: Some(_), .. } => {
            let goals = goals(performance_goals::of_front_ends(results));
            format!("{head}\n{goals}\n{}", table::of_machine_time(results))
        }
        _ => {
            let goals = goals(performance_goals::all(results));
            format!("{head}\n{goals}\n{}", table::of_runs(results))
        }
    }
}

fn program(text: &str) -> Result<Initiator, String> {
    let (name, command) = text.split_once('=').ok_or("give it as NAME=COMMAND")?;
    Ok(Initiator::Program { name: name.into(), command: command.into() })
}

/// Subsystem of `benches/target.toml`.
const NQN: &str = "nqn.2026-11.org.soft-roce:versus";
