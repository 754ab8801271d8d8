//! First process of the guest.
//!
//! It sets the guest up, runs the program, relays its standard streams, reports its status, takes
//! the target down and powers off. Its own standard error is the kernel's log.

pub(crate) mod cpuinfo;
mod environment;
mod session;
mod stdio_relay;

use std::{
    convert::Infallible,
    fs::File,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait},
    system::{RebootCommand, reboot},
};

pub(crate) use session::enter as enter_session;

use crate::{
    artifacts::Artifacts,
    deadline_factor::scaled,
    machine::boot,
    run::mux::{self, Kind},
    run::spec::{self, GuestSpec, GuestStatus, name},
    run::terminal,
};
use stdio_relay::SharedLine;

/// Time for the host to read the last frames before the guest powers off.
const DRAIN_DEADLINE: Timespec = Timespec { tv_sec: 25, tv_nsec: 0 };

/// Time to stop initiators and take the target down; it takes well under a second without faults.
const TEAR_DOWN_DEADLINE: Duration = Duration::from_secs(15);

/// Runs the guest to its end; returns only on failure.
pub(crate) fn run(folder: &Path) -> io::Result<Infallible> {
    // Read before the guest's own file systems cover parts of the host's.
    let spec: Result<GuestSpec, _> = spec::load(folder, name::GUEST);
    let mounted = environment::mount();
    let line = open_line()?;
    let factor = spec.as_ref().map_or(1, |spec| spec.deadline_factor);
    let ending = match (spec, mounted) {
        (Ok(spec), Ok(())) => work(&spec, folder, &line),
        (Err(error), _) => GuestStatus::NotSetUp(error.to_string()),
        (_, Err(error)) => GuestStatus::NotSetUp(error.to_string()),
    };
    let text = serde_json::to_vec(&ending).expect("a status always has a JSON form");
    line.send(Kind::Status, &text)?;
    tear_down(&line, factor);
    line.drain();
    reboot(RebootCommand::PowerOff)?;
    Err(io::Error::other("powering off did nothing"))
}

fn open_line() -> io::Result<SharedLine> {
    let name = std::env::var_os(boot::LINE_VARIABLE).unwrap_or_else(|| "/dev/tty1".into());
    let line = File::options().read(true).write(true).open(name)?;
    // A virtual serial port carries bytes as they are.
    if line.is_terminal() {
        terminal::make_raw(&line)?;
    }
    Ok(SharedLine::new(line))
}

fn work(spec: &GuestSpec, folder: &Path, line: &SharedLine) -> GuestStatus {
    if let Err(reason) = environment::set_up(spec) {
        return GuestStatus::NotSetUp(reason.to_string());
    }
    let (mut command, stdio_relay) = match session::prepare(spec) {
        Ok(prepared) => prepared,
        Err(error) => return GuestStatus::NotSetUp(error.to_string()),
    };
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return not_started(spec, &error),
    };
    // The command holds the program's ends of the pipes; they must close with the program.
    drop(command);
    let Ok(running) = stdio_relay.start(line, folder) else {
        return GuestStatus::NotSetUp("the line to the host broke".into());
    };
    let watch = spec.artifacts.as_ref().and_then(Artifacts::watch);
    let status = await_program(Pid::from_child(&child));
    drop(watch);
    running.finish();
    if let Some(artifacts) = spec.artifacts.as_ref().filter(|_| status.exit_status() != Some(0)) {
        // A folder that cannot be written is reported by the caller's side.
        let _ = artifacts.write_state();
    }
    match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => GuestStatus::Exited(status),
        (None, Some(signal)) => GuestStatus::Killed(signal),
        (None, None) => GuestStatus::NotSetUp("the program ended without a status".into()),
    }
}

/// Waits for the program, and for every orphan, as the first process has to.
fn await_program(program: Pid) -> WaitStatus {
    loop {
        if let Ok(Some((pid, status))) = wait(WaitOptions::empty())
            && pid == program
        {
            return status;
        }
    }
}

fn not_started(spec: &GuestSpec, error: &io::Error) -> GuestStatus {
    let program = PathBuf::from(spec.program.first().cloned().unwrap_or_default());
    let status = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    GuestStatus::NotStarted { status, reason: format!("{}: {error}", program.display()) }
}

/// Kills all processes and takes the target down; gives up at the deadline.
fn tear_down(line: &SharedLine, deadline_factor: u32) {
    let (sender, done) = mpsc::channel();
    thread::spawn(move || {
        kill_everyone();
        let result = environment::tear_down(deadline_factor);
        let _ = sender.send(result);
    });
    let note = match done.recv_timeout(scaled(TEAR_DOWN_DEADLINE, deadline_factor)) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("taking the bed down: {error}"),
        Err(_) => "taking the bed down did not end in time".to_owned(),
    };
    let _ = line.send(Kind::Note, note.as_bytes());
}

fn kill_everyone() {
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    let names = processes.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let others = names.filter_map(|name| name.parse().ok()).filter(|&pid: &i32| pid > 1);
    // Kernel threads ignore the signal.
    for pid in others.filter_map(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

impl SharedLine {
    fn send(&self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        mux::write(&mut *self.lock(), kind, bytes)
    }

    fn drain(&self) {
        let line = self.lock();
        // A failure cannot be reported without the line.
        let _ = if line.is_terminal() {
            rustix::termios::tcdrain(&*line)
        } else {
            // A virtual serial port takes the next piece when the host has taken the last.
            let mut waited = [PollFd::new(&*line, PollFlags::OUT)];
            poll(&mut waited, Some(&DRAIN_DEADLINE)).map(drop)
        };
    }
}
