//! Attending a run: its streams, its deadlines, and its end.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read},
    os::fd::OwnedFd,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, mknodat, open},
    process::{Pid, Signal, kill_process_group},
};

use crate::{
    Error, Result,
    machine::scaled,
    run::Guest,
    run::dir::RunDir,
    run::kernel_log::KernelLogMatcher,
    run::outcome::{Outcome, RunStatus},
    run::reaper::report,
    run::spec::{GuestStatus, name},
    run::stdio::{self, Event, Line},
    run::terminal,
};

/// A guest that has not said a word by then never will.
const BOOT_DEADLINE: Duration = Duration::from_secs(60);

/// Taking the target down and powering off, after the program has ended; the guest's own bound is
/// shorter.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(30);

/// From the order to kill until the reaper has reported that nothing is left.
const KILL_DEADLINE: Duration = Duration::from_secs(15);

/// Starts the guest whose folder is prepared, and stays with it to the end.
pub(crate) fn run(guest: Guest, program: &Path, folder: RunDir, log: &Path) -> Result<Outcome> {
    let pipes = Pipes::create(&folder)?;
    let mut reaper = ReaperProcess::start(program, &folder)?;
    let shared = Shared::default();
    let (sender, events) = mpsc::channel();
    let line = Line {
        ended: &shared.ended,
        abandoned: &shared.abandoned,
        events: sender.clone(),
        captured: &shared.captured,
        folder: &folder.path,
    };
    let (input, output, error) = (guest.input, guest.output, guest.error);
    let words = reaper.words.take().expect("the reaper was started with a pipe");
    let mut watch = Supervisor::new(reaper, &shared, guest.timeout, guest.deadline_factor);
    // Opened now: the folder goes with the reaper, and that may be sooner than we think.
    let cannot_read = |error| Error::io("read", log)(error);
    let mut kernel_log = fs::File::open(log).map_err(cannot_read)?;
    thread::scope(|scope| {
        scope.spawn(|| relay(BufReader::new(words), &sender));
        scope.spawn(|| line.pump_output(&pipes.output, output, error));
        let mut input = Some(input);
        let feed = || {
            if guest.interactive {
                // The reaper knows by now what it was like before.
                let _ = terminal::make_raw(io::stdin());
            }
            let input = input.take().unwrap_or_default();
            scope.spawn(|| line.pump_input(&pipes.input, input));
        };
        watch.attend(&events, feed);
        // The reaper's words end with it, and the thread that hears them.
        watch.reaper.cut();
    });
    let ending = watch.end();
    let mut bytes = Vec::new();
    kernel_log.read_to_end(&mut bytes).map_err(cannot_read)?;
    let kernel_log = String::from_utf8_lossy(&bytes).replace('\r', "");
    let kernel_warnings =
        KernelLogMatcher::new(guest.deny).allowing(guest.allow).kernel_warnings(&kernel_log);
    let [stdout, stderr] = shared.captured.into_inner().expect("the threads have ended");
    Ok(Outcome { ending, kernel_warnings, kernel_log, stdout, stderr })
}

/// The line to the guest, our ends of it.
struct Pipes {
    input: OwnedFd,
    output: OwnedFd,
}

impl Pipes {
    fn create(folder: &RunDir) -> Result<Self> {
        let pipe = |name, flags| {
            let path = folder.path.join(name);
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
                .map_err(Error::errno("create", &path))?;
            let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC;
            open(&path, flags, Mode::empty()).map_err(Error::errno("open", &path))
        };
        // To open it for writing alone would be refused until the kernel reads.
        Ok(Self {
            input: pipe(name::INPUT, OFlags::RDWR)?,
            output: pipe(name::OUTPUT, OFlags::RDONLY)?,
        })
    }
}

/// The reaper process, which ends the guest when its liveness pipe ends.
struct ReaperProcess {
    process: Child,
    liveness: Option<ChildStdin>,
    words: Option<ChildStdout>,
    kernel: Option<Pid>,
}

impl ReaperProcess {
    fn start(program: &Path, folder: &RunDir) -> Result<Self> {
        let mut process = Command::new(program)
            .arg("reaper")
            .arg(&folder.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()
            .map_err(Error::io("start", program))?;
        let (liveness, words) = (process.stdin.take(), process.stdout.take());
        Ok(Self { process, liveness, words, kernel: None })
    }

    /// Has everything killed.
    fn cut(&mut self) {
        self.liveness = None;
    }

    /// Somebody killed the reaper: what it would have done falls to us.
    fn replace(&self) {
        if let Some(kernel) = self.kernel {
            let _ = kill_process_group(kernel, Signal::KILL);
        }
    }
}

/// What the threads of a run share.
#[derive(Default)]
struct Shared {
    ended: AtomicBool,
    abandoned: AtomicBool,
    captured: Mutex<[Vec<u8>; 2]>,
}

/// What is known of the run, and until when the next thing has to happen.
struct Supervisor<'a> {
    reaper: ReaperProcess,
    shared: &'a Shared,
    deadline: Option<Instant>,
    /// By how much deadlines are longer on this machine.
    deadline_factor: u32,
    /// The caller's time limit and when it is up.
    timeout: Option<(Duration, Instant)>,
    ending: Option<RunStatus>,
    booted: bool,
    cut: bool,
}

impl<'a> Supervisor<'a> {
    fn new(
        reaper: ReaperProcess,
        shared: &'a Shared,
        timeout: Option<Duration>,
        deadline_factor: u32,
    ) -> Self {
        let now = Instant::now();
        let timeout = timeout.map(|limit| (limit, now + limit));
        Self {
            reaper,
            shared,
            deadline: Some(now + scaled(BOOT_DEADLINE, deadline_factor)),
            deadline_factor,
            timeout,
            ending: None,
            booted: false,
            cut: false,
        }
    }

    /// Follows the events until the line has ended.
    fn attend(&mut self, events: &Receiver<Event>, mut feed: impl FnMut()) {
        loop {
            match self.next(events) {
                Ok(Event::LineEnded) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Event::Ready) => {
                    self.booted = true;
                    self.deadline = None;
                    feed();
                }
                Ok(Event::Reaper(Some(words))) => self.hear(&words),
                Ok(Event::Reaper(None)) => {
                    self.reaper.replace();
                    self.settle(|| RunStatus::NoResult("the guest's reaper was killed".into()));
                    self.shared.ended.store(true, Ordering::Relaxed);
                }
                Ok(Event::Note(text)) => stdio::warn(&text),
                Ok(Event::Status(ending)) => {
                    self.settle(|| ending.into());
                    self.deadline =
                        Some(Instant::now() + scaled(SHUTDOWN_DEADLINE, self.deadline_factor));
                }
                Ok(Event::BrokenPipe) => self.cut(RunStatus::BrokenPipe),
                Ok(Event::Garbled) => {
                    self.cut(RunStatus::NoResult("what it said was garbled".into()));
                    self.shared.ended.store(true, Ordering::Relaxed);
                }
                Err(RecvTimeoutError::Timeout) => self.expire(),
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
        self.deadline.into_iter().chain(limit.filter(|_| !self.cut)).min()
    }

    fn hear(&mut self, words: &str) {
        if let Some(pid) = words.strip_prefix(report::STARTED) {
            self.reaper.kernel = pid.parse().ok().and_then(Pid::from_raw);
        } else if let Some(reason) = words.strip_prefix(report::FAILED) {
            self.settle(|| RunStatus::NoResult(reason.into()));
            self.shared.ended.store(true, Ordering::Relaxed);
        } else if let Some(how) = words.strip_prefix(report::ENDED) {
            let place = if self.booted { "before the program did" } else { "while booting" };
            self.settle(|| RunStatus::NoResult(format!("its kernel ended ({how}) {place}")));
            self.shared.ended.store(true, Ordering::Relaxed);
            // What is left to do is to print what has arrived, at the reader's pace.
            self.deadline = None;
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        if self.cut {
            // The reaper did not manage, or nobody takes what is left of the output.
            self.reaper.replace();
            self.shared.ended.store(true, Ordering::Relaxed);
            self.shared.abandoned.store(true, Ordering::Relaxed);
            self.deadline = None;
        } else if let Some((limit, _)) = self.timeout.filter(|(_, at)| *at <= now) {
            self.ending = None;
            self.cut(RunStatus::TimedOut(limit));
        } else if self.ending.is_some() {
            stdio::warn("the guest did not power off in time; it was killed");
            self.cut(RunStatus::BrokenPipe);
        } else {
            let seconds = scaled(BOOT_DEADLINE, self.deadline_factor).as_secs();
            let reason = format!("it did not reach its first program in {seconds} s");
            self.cut(RunStatus::NoResult(reason));
        }
    }

    /// Ends the run now, for this reason unless there is an earlier one.
    fn cut(&mut self, ending: RunStatus) {
        self.settle(|| ending);
        self.reaper.cut();
        self.cut = true;
        self.deadline = Some(Instant::now() + KILL_DEADLINE);
    }

    /// The first ending that is known is the true one.
    fn settle(&mut self, ending: impl FnOnce() -> RunStatus) {
        self.ending.get_or_insert_with(ending);
    }

    /// Waits for the reaper, which now has nothing more to do.
    fn end(mut self) -> RunStatus {
        self.reaper.cut();
        let _ = self.reaper.process.wait();
        self.ending.unwrap_or_else(|| RunStatus::NoResult("nothing is known of it".into()))
    }
}

impl From<GuestStatus> for RunStatus {
    fn from(ending: GuestStatus) -> Self {
        match ending {
            GuestStatus::Exited(status) => Self::Exited(status),
            GuestStatus::Killed(signal) => Self::Killed(signal),
            GuestStatus::NotStarted { status, reason } => Self::NotStarted(status, reason),
            GuestStatus::NotSetUp(reason) => Self::NotSetUp(reason),
        }
    }
}

/// Brings the reaper's words as events.
fn relay(words: impl BufRead, events: &Sender<Event>) {
    for line in words.lines().map_while(io::Result::ok) {
        let _ = events.send(Event::Reaper(Some(line)));
    }
    let _ = events.send(Event::Reaper(None));
}
