//! Supervision of a run: its streams, its deadlines, and its result.
//!
//! The result is decided once, after two things have happened: the output pipe has been read to its
//! end, which comes when no process of the guest and no reaper is left to write to it, and the
//! reaper has made its last report. So a status that the guest has written is never overtaken by
//! the news that its kernel has ended, however the processes are scheduled.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex,
        atomic::Ordering,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, mknodat, open},
    process::{Signal, kill_process_group},
};

use crate::{
    Error, Result,
    deadline_factor::scaled,
    run::Guest,
    run::dir::RunDir,
    run::kernel_log::KernelLogMatcher,
    run::outcome::{Outcome, RunStatus},
    run::reaper::report,
    run::spec::{self, GuestStatus, name},
    run::stdio::{self, Event, Flags, Relay},
    run::terminal,
};

/// Time from the start of the kernel to the first frame of the guest.
const BOOT_DEADLINE: Duration = Duration::from_secs(60);

/// Time from the program's status to the end of the kernel. The guest's own limit for taking the
/// target down is shorter.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(30);

/// Time from the order to kill the guest to the end of its output, and of the reaper.
const KILL_DEADLINE: Duration = Duration::from_secs(15);

/// A deadline that is noticed this much too late passed while this process did not run, as after a
/// SIGSTOP; it is extended by that time.
const STOPPED_MIN: Duration = Duration::from_millis(500);

/// Interval of looking whether the reaper has exited.
const EXIT_INTERVAL: Duration = Duration::from_millis(2);

/// Starts the guest whose folder is prepared and supervises it to its end.
pub(crate) fn run(guest: Guest, program: &Path, folder: RunDir, log: &Path) -> Result<Outcome> {
    let Pipes { input: input_pipe, output: output_pipe, writer } = Pipes::create(&folder)?;
    let mut reaper = ReaperProcess::start(program, &folder)?;
    let (flags, captured) = (Flags::default(), Mutex::default());
    let (sender, events) = mpsc::channel();
    let relay =
        Relay { flags: &flags, events: sender.clone(), captured: &captured, folder: folder.path() };
    let (input, outputs) = (guest.input, [guest.output, guest.error]);
    let reports = reaper.reports.take().expect("the reaper was started with a pipe");
    let mut supervisor = Supervisor::new(reaper, &flags, writer, guest.deadline_factor);
    supervisor.timeout = guest.timeout.map(|limit| (limit, Instant::now() + limit));
    // Opened now, because the reaper removes the folder at its end.
    let cannot_read = |error| Error::io("read", log)(error);
    let mut kernel_log = fs::File::open(log).map_err(cannot_read)?;
    let ending = thread::scope(|scope| {
        scope.spawn(|| forward_reports(BufReader::new(reports), &sender));
        scope.spawn(|| relay.relay_output(&output_pipe, outputs));
        let mut input = Some(input);
        let start_input = || {
            if guest.interactive {
                // The reaper has saved the terminal's settings by now.
                let _ = terminal::make_raw(io::stdin());
            }
            let input = input.take().unwrap_or_default();
            scope.spawn(|| relay.relay_input(&input_pipe, input));
        };
        supervisor.handle_events(&events, start_input);
        supervisor.finish()
    });
    let mut bytes = Vec::new();
    kernel_log.read_to_end(&mut bytes).map_err(cannot_read)?;
    let kernel_log = String::from_utf8_lossy(&bytes).replace('\r', "");
    let kernel_warnings =
        KernelLogMatcher::new(guest.deny).allowing(guest.allow).kernel_warnings(&kernel_log);
    let [stdout, stderr] = captured.into_inner().expect("the threads have ended");
    Ok(Outcome { ending, kernel_warnings, kernel_log, stdout, stderr })
}

/// This process's ends of the two pipes between host and guest.
struct Pipes {
    input: OwnedFd,
    output: OwnedFd,
    /// A writer of the output pipe: as long as it is open, a read of no bytes is impossible.
    writer: OwnedFd,
}

impl Pipes {
    fn create(folder: &RunDir) -> Result<Self> {
        let pipe = |name, flags| {
            let path = folder.path().join(name);
            if flags != OFlags::WRONLY {
                mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
                    .map_err(Error::errno("create", &path))?;
            }
            let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC;
            open(&path, flags, Mode::empty()).map_err(Error::errno("open", &path))
        };
        Ok(Self {
            // Opening it for writing alone fails until the kernel reads.
            input: pipe(name::INPUT, OFlags::RDWR)?,
            output: pipe(name::OUTPUT, OFlags::RDONLY)?,
            writer: pipe(name::OUTPUT, OFlags::WRONLY)?,
        })
    }
}

/// The reaper process, which kills the guest when its liveness pipe ends.
struct ReaperProcess {
    process: Child,
    liveness: Option<ChildStdin>,
    reports: Option<ChildStdout>,
    folder: PathBuf,
}

impl ReaperProcess {
    fn start(program: &Path, folder: &RunDir) -> Result<Self> {
        let mut process = Command::new(program)
            .arg("reaper")
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()
            .map_err(Error::io("start", program))?;
        let (liveness, reports) = (process.stdin.take(), process.stdout.take());
        Ok(Self { process, liveness, reports, folder: folder.path().into() })
    }

    /// Ends the liveness pipe: the reaper kills the guest and exits.
    fn release(&mut self) {
        self.liveness = None;
    }

    /// Kills the guest from here, for a reaper that was killed or does not react.
    fn kill_guest(&self) {
        if let Some(kernel) = spec::load_session(&self.folder) {
            let _ = kill_process_group(kernel, Signal::KILL);
        }
    }

    /// Waits for the reaper's exit; kills it at the deadline.
    fn wait(&mut self) {
        let deadline = Instant::now() + KILL_DEADLINE;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(EXIT_INTERVAL);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// State of a run, and the time until which the next thing has to happen.
struct Supervisor<'a> {
    reaper: ReaperProcess,
    flags: &'a Flags,
    /// Held until the reaper has opened the output pipe.
    writer: Option<OwnedFd>,
    deadline: Option<Deadline>,
    /// Factor by which deadlines are longer on this machine.
    deadline_factor: u32,
    /// The caller's time limit, and the time at which it is reached.
    timeout: Option<(Duration, Instant)>,
    /// Output could not be delivered to its reader; outranks the program's status.
    output_failure: Option<RunStatus>,
    /// The program's status as the guest sent it; outranks every other reason.
    status: Option<RunStatus>,
    /// The first reason for an end without a status.
    reason: Option<RunStatus>,
    /// End of the kernel, as the reaper reported it.
    kernel_end: Option<String>,
    booted: bool,
    killing: bool,
    output_ended: bool,
    reaper_ended: bool,
}

impl<'a> Supervisor<'a> {
    fn new(reaper: ReaperProcess, flags: &'a Flags, writer: OwnedFd, deadline_factor: u32) -> Self {
        Self {
            reaper,
            flags,
            writer: Some(writer),
            deadline: Some(Deadline::after(scaled(BOOT_DEADLINE, deadline_factor))),
            deadline_factor,
            timeout: None,
            output_failure: None,
            status: None,
            reason: None,
            kernel_end: None,
            booted: false,
            killing: false,
            output_ended: false,
            reaper_ended: false,
        }
    }

    /// Handles events until the output has been read to its end and the reaper has reported.
    fn handle_events(&mut self, events: &Receiver<Event>, mut start_input: impl FnMut()) {
        while !(self.output_ended && self.reaper_ended) {
            match self.next(events) {
                Ok(Event::Ready) => {
                    self.booted = true;
                    self.deadline = None;
                    start_input();
                }
                Ok(Event::Status(status)) => {
                    self.status.get_or_insert_with(|| status.into());
                    if !self.killing {
                        let limit = scaled(SHUTDOWN_DEADLINE, self.deadline_factor);
                        self.deadline = Some(Deadline::after(limit));
                    }
                }
                Ok(Event::Note(text)) => stdio::warn(&text),
                Ok(Event::Reaper(report)) => self.on_report(report.as_deref()),
                Ok(Event::OutputFailed(error)) => self.on_output_failure(&error),
                Ok(Event::InvalidFrame) => {
                    self.kill(RunStatus::NoResult("its frames could not be decoded".into()));
                }
                Ok(Event::OutputEnded) => self.output_ended = true,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    if !self.expire() {
                        return;
                    }
                }
            }
        }
    }

    fn next(&self, events: &Receiver<Event>) -> std::result::Result<Event, RecvTimeoutError> {
        match self.next_deadline() {
            None => Ok(events.recv()?),
            Some(deadline) => {
                events.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let limit = self.timeout.map(|(_, at)| at);
        let deadline = self.deadline.map(|deadline| deadline.at);
        deadline.into_iter().chain(limit.filter(|_| !self.killing)).min()
    }

    /// Handles a report of the reaper, or its end.
    fn on_report(&mut self, report: Option<&str>) {
        // The reaper opens the output pipe before its first report.
        self.writer = None;
        match report {
            Some(line) if line.starts_with(report::STARTED) => return,
            Some(line) => match line.strip_prefix(report::ENDED) {
                Some(how) => self.kernel_end = Some(how.into()),
                None => {
                    let reason = line.strip_prefix(report::FAILED).unwrap_or(line);
                    self.reason.get_or_insert_with(|| RunStatus::NoResult(reason.into()));
                }
            },
            None if self.reaper_ended => return,
            None => {
                self.reaper.kill_guest();
                let reason = "the guest's reaper was killed";
                self.reason.get_or_insert_with(|| RunStatus::NoResult(reason.into()));
            }
        }
        self.reaper_ended = true;
        self.flags.guest_ended.store(true, Ordering::Relaxed);
        // The rest of the output is delivered at its reader's pace.
        if !self.killing {
            self.deadline = None;
        }
    }

    fn on_output_failure(&mut self, error: &io::Error) {
        let failure = match error.kind() {
            io::ErrorKind::BrokenPipe => RunStatus::BrokenPipe,
            _ => RunStatus::OutputFailed(error.to_string()),
        };
        self.output_failure.get_or_insert(failure.clone());
        self.kill(failure);
    }

    /// Acts on a deadline that has passed; returns false when nothing more is to be waited for.
    fn expire(&mut self) -> bool {
        let now = Instant::now();
        if let Some((limit, _)) = self.timeout.filter(|(_, at)| *at <= now && !self.killing) {
            self.kill(RunStatus::TimedOut(limit));
            return true;
        }
        let Some(deadline) = self.deadline.filter(|deadline| deadline.at <= now) else {
            return true;
        };
        if let Some(extended) = deadline.extend(now) {
            self.deadline = Some(extended);
        } else if self.killing {
            // The reaper does not react, or nothing takes the rest of the output.
            self.reaper.kill_guest();
            return false;
        } else if self.status.is_some() {
            stdio::warn("the guest did not power off in time; it was killed");
            self.kill(RunStatus::NoResult("it did not power off".into()));
        } else {
            let seconds = scaled(BOOT_DEADLINE, self.deadline_factor).as_secs();
            let reason = format!("it did not reach its first program in {seconds} s");
            self.kill(RunStatus::NoResult(reason));
        }
        true
    }

    /// Has the guest killed, for this reason unless there is an earlier one.
    fn kill(&mut self, reason: RunStatus) {
        self.reason.get_or_insert(reason);
        self.reaper.release();
        if !self.killing {
            self.killing = true;
            self.deadline = Some(Deadline::after(KILL_DEADLINE));
        }
    }

    /// Ends the threads and the reaper, and decides the result.
    fn finish(mut self) -> RunStatus {
        self.flags.guest_ended.store(true, Ordering::Relaxed);
        self.flags.abandoned.store(true, Ordering::Relaxed);
        self.writer = None;
        self.reaper.release();
        self.reaper.wait();
        let during = if self.booted { "before the program did" } else { "while booting" };
        let how = self.kernel_end.unwrap_or_else(|| "unknown".into());
        let ended = || RunStatus::NoResult(format!("its kernel ended ({how}) {during}"));
        self.output_failure.or(self.status).or(self.reason).unwrap_or_else(ended)
    }
}

/// End of a wait.
#[derive(Clone, Copy)]
struct Deadline {
    at: Instant,
    extended: bool,
}

impl Deadline {
    fn after(time: Duration) -> Self {
        Self { at: Instant::now() + time, extended: false }
    }

    /// Returns a later deadline, once, when this process has not run while this one passed: what
    /// was waited for may have happened meanwhile.
    fn extend(self, now: Instant) -> Option<Self> {
        let late = now.saturating_duration_since(self.at);
        (late >= STOPPED_MIN && !self.extended).then_some(Self { at: now + late, extended: true })
    }
}

impl From<GuestStatus> for RunStatus {
    fn from(status: GuestStatus) -> Self {
        match status {
            GuestStatus::Exited(status) => Self::Exited(status),
            GuestStatus::Killed(signal) => Self::Killed(signal),
            GuestStatus::NotStarted { status, reason } => Self::NotStarted(status, reason),
            GuestStatus::NotSetUp(reason) => Self::NotSetUp(reason),
        }
    }
}

/// Forwards the reaper's reports as events, then its end.
fn forward_reports(reports: impl BufRead, events: &Sender<Event>) {
    for line in reports.lines().map_while(io::Result::ok) {
        let _ = events.send(Event::Reaper(Some(line)));
    }
    let _ = events.send(Event::Reaper(None));
}
