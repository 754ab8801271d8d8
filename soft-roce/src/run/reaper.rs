//! The reaper: a process that outlives its caller long enough to leave nothing behind.
//!
//! Its standard input is a liveness pipe: when that ends, the caller is done or dead. At the end of
//! the kernel or of the liveness pipe, whichever comes first, the reaper kills every process of the
//! guest and removes the run's folders. It has no signal handler, and the caller may be killed in
//! any way.

use std::{
    fs,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags, open},
    process::{
        Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, set_child_subreaper,
        setsid, wait,
    },
};

use crate::{
    Error, Result,
    folder::remove_folder,
    run::cpu::{self, CpuSlot},
    run::cpu_affinity::CpuAffinity,
    run::dir,
    run::process,
    run::spec::{self, LaunchSpec, name},
    run::terminal::SavedSettings,
};

/// Time to wait for the end of killed processes. It takes microseconds, except for a process that
/// hangs in the host's kernel.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// `__WALL`: also wait for children that send no SIGCHLD, as the kernel's helpers.
const WAIT_ALL: u32 = 0x4000_0000;

/// Reports of the reaper to its caller, one line each.
pub(crate) mod report {
    /// The kernel was started; its process id follows.
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

/// Starts the kernel of the run in `folder` and stays until no process of the guest is left.
pub(crate) fn run(folder: &Path) -> Result<()> {
    let launch: LaunchSpec = spec::load(folder, name::LAUNCH)?;
    let _lock = dir::hold(folder);
    let _memory_lock = launch.memory_folder.as_deref().map(dir::hold);
    // Held while processes of the guest may exist, so that the pipe does not end before them.
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let output = open(folder.join(name::OUTPUT), flags, Mode::empty());
    // A signal for the caller's terminal or session must not reach the reaper.
    let _ = setsid();
    set_child_subreaper(Some(getpid())).map_err(Error::errno("watch", folder))?;
    let slot = match launch.cpu {
        Some(_) => None,
        None => cpu::pick(launch.cpu_locks.as_deref()),
    };
    let saved = launch.terminal.as_deref().and_then(SavedSettings::of);
    match start(folder, &launch, slot.as_ref()) {
        Ok(kernel) => {
            let (sender, events) = mpsc::channel();
            report(report::STARTED, &kernel.as_raw_nonzero().to_string());
            watch(kernel, sender);
            conclude(kernel, &events, output.ok());
        }
        Err(error) => report(report::FAILED, &error.to_string()),
    }
    drop(saved);
    if let Some(memory) = &launch.memory_folder {
        remove_folder(memory)?;
    }
    remove_folder(folder)
}

fn start(folder: &Path, launch: &LaunchSpec, slot: Option<&CpuSlot>) -> Result<Pid> {
    let program = std::env::current_exe().map_err(Error::io("find", "soft-roce"))?;
    let mut command = Command::new(program);
    command.arg("launch").arg(folder);
    let given = launch.cpu.and_then(CpuAffinity::one);
    if let Some(cpu) = given.or(slot.map(|slot| slot.cpu)) {
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
        // Returns at end-of-file, because the caller never writes.
        let _ = io::stdin().read(&mut [0]);
        let _ = sender.send(Event::CallerGone);
    });
    thread::spawn(move || {
        let _ = other.send(Event::KernelEnded(await_kernel(kernel)));
    });
}

/// Waits for the kernel, and for every orphan that becomes a child of this process.
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

/// Waits for the end of the kernel or of the caller, kills the guest, and waits for the caller.
fn conclude(kernel: Pid, events: &Receiver<Event>, output: Option<OwnedFd>) {
    let mut caller_gone = false;
    let mut ending = None;
    while ending.is_none() && !caller_gone {
        match events.recv() {
            Ok(Event::KernelEnded(how)) => ending = Some(how),
            Ok(Event::CallerGone) | Err(_) => caller_gone = true,
        }
    }
    kill_all(kernel);
    drop(output);
    report(report::ENDED, &ending.unwrap_or_else(|| "killed".into()));
    while !caller_gone {
        caller_gone = !matches!(events.recv(), Ok(Event::KernelEnded(_)));
    }
}

/// Kills the kernel's process group and every child of this process.
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
    let is_child = |pid: &Pid| process::stat(*pid).is_some_and(|stat| stat.parent == me);
    process::all().filter(is_child).collect()
}

/// Writes a report; the caller may be gone.
fn report(kind: &str, text: &str) {
    let mut output = io::stdout();
    let _ = writeln!(output, "{kind}{text}");
    let _ = output.flush();
}
