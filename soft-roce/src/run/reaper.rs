//! The reaper: a process that outlives its caller just long enough to leave nothing behind.
//!
//! Its standard input is a liveness pipe: when that ends, the caller is done or dead. Whatever comes
//! first, the kernel's end or the liveness pipe's, the reaper kills every process of the guest and, at
//! last, removes the run's folder. It needs no signal handler, and the caller may be killed in any
//! way.

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, set_child_subreaper,
    setsid, wait,
};

use crate::{
    Error, Result,
    kernel::remove_folder,
    run::cpu::{self, CpuSlot},
    run::spec::{self, LaunchSpec, name},
    run::terminal::Saved,
};

/// Killing takes microseconds; a process stuck in the host's kernel may never go.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// `__WALL`: also children that are silent about their end, as the kernel's helpers are.
const WAIT_ALL: u32 = 0x4000_0000;

/// What the reaper tells its caller, one line each.
pub(crate) mod report {
    /// The kernel runs; its process id follows.
    pub(crate) const STARTED: &str = "started ";
    /// No process of the guest is left; how the kernel ended follows.
    pub(crate) const ENDED: &str = "ended ";
    /// The kernel could not be started; the reason follows.
    pub(crate) const FAILED: &str = "failed ";
}

enum Event {
    KernelEnded(String),
    CallerGone,
}

/// Starts the kernel of the run in `folder` and stays until all of it is gone.
pub(crate) fn run(folder: &Path) -> Result<()> {
    let launch: LaunchSpec = spec::load(folder, name::LAUNCH)?;
    // A signal for the caller's terminal or session must not reach the reaper.
    let _ = setsid();
    set_child_subreaper(Some(getpid())).map_err(Error::errno("watch", folder))?;
    let place = match launch.cpu {
        Some(_) => None,
        None => cpu::pick(launch.cpu_locks.as_deref()),
    };
    let saved = launch.terminal.as_deref().and_then(Saved::of);
    let (sender, events) = mpsc::channel();
    let kernel = match start(folder, &launch, place.as_ref()) {
        Ok(kernel) => kernel,
        Err(error) => {
            say(report::FAILED, &error.to_string());
            return remove_folder(folder);
        }
    };
    say(report::STARTED, &kernel.as_raw_nonzero().to_string());
    watch(kernel, sender);
    conclude(kernel, &events);
    drop(saved);
    remove_folder(folder)
}

fn start(folder: &Path, launch: &LaunchSpec, place: Option<&CpuSlot>) -> Result<Pid> {
    let program = std::env::current_exe().map_err(Error::io("find", "soft-roce"))?;
    let mut command = Command::new(program);
    command.arg("launch").arg(folder);
    if let Some(cpu) = launch.cpu.or(place.map(|place| place.cpu)) {
        command.arg(cpu.to_string());
    }
    let log = fs::OpenOptions::new().append(true).open(&launch.log);
    let log = log.map_err(Error::io("write", &launch.log))?;
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
    let child = child.map_err(Error::io("start", &launch.kernel))?;
    Ok(Pid::from_child(&child))
}

fn watch(kernel: Pid, sender: Sender<Event>) {
    let other = sender.clone();
    thread::spawn(move || {
        // Ends at end-of-file; the caller never writes.
        let _ = io::stdin().read(&mut [0]);
        let _ = sender.send(Event::CallerGone);
    });
    thread::spawn(move || {
        let _ = other.send(Event::KernelEnded(await_kernel(kernel)));
    });
}

/// Waits for the kernel and meanwhile for every orphan that falls to us.
fn await_kernel(kernel: Pid) -> String {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == kernel => {
                return match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => format!("exit {code}"),
                    (None, Some(signal)) => format!("signal {signal}"),
                    (None, None) => "lost".into(),
                };
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return "lost".into(),
        }
    }
}

fn conclude(kernel: Pid, events: &Receiver<Event>) {
    let mut caller_gone = false;
    let mut ending = None;
    while ending.is_none() && !caller_gone {
        match events.recv() {
            Ok(Event::KernelEnded(how)) => ending = Some(how),
            Ok(Event::CallerGone) | Err(_) => caller_gone = true,
        }
    }
    kill_all(kernel);
    say(report::ENDED, &ending.unwrap_or_else(|| "killed".into()));
    while !caller_gone {
        caller_gone = !matches!(events.recv(), Ok(Event::KernelEnded(_)));
    }
}

/// Kills the kernel's whole group, and whatever else has become a child of ours.
fn kill_all(kernel: Pid) {
    let deadline = Instant::now() + KILL_DEADLINE;
    loop {
        let _ = kill_process_group(kernel, Signal::KILL);
        let children = children();
        for &child in &children {
            let _ = kill_process(child, Signal::KILL);
        }
        let all = WaitOptions::from_bits_retain(WAIT_ALL) | WaitOptions::NOHANG;
        while let Ok(Some(_)) = wait(all) {}
        if children.is_empty() || Instant::now() >= deadline {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn children() -> Vec<Pid> {
    let me = getpid().as_raw_nonzero().get();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let names = processes.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let numbers = names.filter_map(|name| name.parse::<i32>().ok());
    numbers.filter(|pid| parent(*pid) == Some(me)).filter_map(Pid::from_raw).collect()
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; the fields after it are numbers.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// The caller may be gone; then nobody has to know.
fn say(what: &str, more: &str) {
    let mut output = io::stdout();
    let _ = writeln!(output, "{what}{more}");
    let _ = output.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_of_a_process_is_found() {
        let me = getpid().as_raw_nonzero().get();
        let child = Command::new("sleep").arg("10").spawn();
        let mut child = child.unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert_eq!(parent(pid), Some(me));
        assert!(children().contains(&Pid::from_child(&child)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
