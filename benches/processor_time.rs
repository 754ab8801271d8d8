//! Runs a command, and tells it on its standard input, for each line `processor time?` that it
//! prints, the processor time of the processes that were started for it: user and system time in
//! seconds, of those that have ended too. Other lines are passed on. For a guest of the test bed,
//! which can't measure by itself how much of the machine it takes.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    fs,
    io::{BufRead, BufReader, Write},
    process::{Command, ExitCode, Stdio, id},
};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut words = std::env::args_os().skip(1);
    let program = words.next().ok_or("usage: processor_time PROGRAM [ARGUMENT...]")?;
    let mut child =
        Command::new(program).args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().ok_or("no pipe")?;
    let output = BufReader::new(child.stdout.take().ok_or("no pipe")?);
    for line in output.lines() {
        match line? {
            question if question == "processor time?" => {
                writeln!(input, "{}", of_descendants()?)?;
            }
            other => println!("{other}"),
        }
    }
    drop(input);
    let code = child.wait()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Processor time of the processes below this one, in seconds. A process that ends while they are
/// listed would count twice or not at all, so they are listed until none came or went.
fn of_descendants() -> Result<f64, Box<dyn Error>> {
    let mut processes = descendants()?;
    loop {
        let again = descendants()?;
        if processes.keys().eq(again.keys()) {
            let ticks: u64 = again.values().sum();
            return Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64);
        }
        processes = again;
    }
}

/// Processes below this one, each with its time in clock ticks.
fn descendants() -> Result<BTreeMap<u32, u64>, Box<dyn Error>> {
    let mut processes = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(process) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        // It may have ended meanwhile.
        let Ok(text) = fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
        if let Some((parent, ticks)) = parent_and_ticks(&text) {
            processes.insert(process, (parent, ticks));
        }
    }
    let is_below = |mut process: u32| {
        while let Some(&(parent, _)) = processes.get(&process) {
            if parent == id() {
                return true;
            }
            process = parent;
        }
        false
    };
    let below = processes.iter().filter(|(process, _)| is_below(**process));
    Ok(below.map(|(process, (_, ticks))| (*process, *ticks)).collect())
}

/// Parent of a process, and its time and that of the children it has waited for, in clock ticks,
/// from its `/proc/PID/stat` (proc_pid_stat(5)).
fn parent_and_ticks(stat: &str) -> Option<(u32, u64)> {
    // The second field is a name, which may have spaces and brackets.
    let fields: Vec<_> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok());
    Some((fields.get(1)?.parse().ok()?, ticks.sum::<Option<u64>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_spaces_and_brackets() {
        let stat = "7 (a) b (c) S 3 7 7 0 -1 0 0 0 0 0 10 20 30 40 20 0 1 0 0";
        assert_eq!(parent_and_ticks(stat), Some((3, 100)));
        assert_eq!(parent_and_ticks("7 (a) S"), None);
    }

    #[test]
    fn a_child_that_computes_takes_time() {
        let before = of_descendants().unwrap();
        let mut child = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let began = std::time::Instant::now();
        while of_descendants().unwrap() < before + 0.05 {
            assert!(began.elapsed().as_secs() < 60, "it was never counted");
        }
        child.kill().and_then(|()| child.wait()).expect("it ran");
    }
}
