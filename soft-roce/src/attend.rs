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

use super::{
    Error, Result,
    folder::RunFolder,
    guard::report,
    kernel_log::Judge,
    outcome::{Ending, Outcome},
    run::Guest,
    spec::{GuestEnding, name},
    streams::{self, Event, Line},
    terminal,
};

/// A guest that has not said a word by then never will.
const BOOT_DEADLINE: Duration = Duration::from_secs(60);

/// Taking the target down and powering off, after the program has ended; the guest's own bound is
/// shorter.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(30);

/// From the order to kill until the guard has reported that nothing is left.
const KILL_DEADLINE: Duration = Duration::from_secs(15);

/// Starts the guest whose folder is prepared, and stays with it to the end.
pub(crate) fn run(guest: Guest, program: &Path, folder: RunFolder, log: &Path) -> Result<Outcome> {
    let pipes = Pipes::create(&folder)?;
    let mut guard = Guard::start(program, &folder)?;
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
    let words = guard.words.take().expect("the guard was started with a pipe");
    let mut watch = Watch::new(guard, &shared, guest.timeout);
    // Opened now: the folder goes with the guard, and that may be sooner than we think.
    let cannot_read = |error| Error::io("read", log)(error);
    let mut kernel_log = fs::File::open(log).map_err(cannot_read)?;
    thread::scope(|scope| {
        scope.spawn(|| relay(BufReader::new(words), &sender));
        scope.spawn(|| line.pump_output(&pipes.output, output, error));
        let mut input = Some(input);
        let feed = || {
            if guest.interactive {
                // The guard knows by now what it was like before.
                let _ = terminal::make_raw(io::stdin());
            }
            let input = input.take().unwrap_or_default();
            scope.spawn(|| line.pump_input(&pipes.input, input));
        };
        watch.attend(&events, feed);
        // The guard's words end with it, and the thread that hears them.
        watch.guard.cut();
    });
    let ending = watch.end();
    let mut bytes = Vec::new();
    kernel_log.read_to_end(&mut bytes).map_err(cannot_read)?;
    let kernel_log = String::from_utf8_lossy(&bytes).replace('\r', "");
    let complaints = Judge::new(guest.deny).allowing(guest.allow).complaints(&kernel_log);
    let [stdout, stderr] = shared.captured.into_inner().expect("the threads have ended");
    Ok(Outcome { ending, complaints, kernel_log, stdout, stderr })
}

/// The line to the guest, our ends of it.
struct Pipes {
    input: OwnedFd,
    output: OwnedFd,
}

impl Pipes {
    fn create(folder: &RunFolder) -> Result<Self> {
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

/// The guard process, which ends the guest when its life line ends.
struct Guard {
    process: Child,
    life_line: Option<ChildStdin>,
    words: Option<ChildStdout>,
    kernel: Option<Pid>,
}

impl Guard {
    fn start(program: &Path, folder: &RunFolder) -> Result<Self> {
        let mut process = Command::new(program)
            .arg("guard")
            .arg(&folder.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()
            .map_err(Error::io("start", program))?;
        let (life_line, words) = (process.stdin.take(), process.stdout.take());
        Ok(Self { process, life_line, words, kernel: None })
    }

    /// Has everything killed.
    fn cut(&mut self) {
        self.life_line = None;
    }

    /// Somebody killed the guard: what it would have done falls to us.
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
struct Watch<'a> {
    guard: Guard,
    shared: &'a Shared,
    deadline: Option<Instant>,
    /// The caller's time limit and when it is up.
    timeout: Option<(Duration, Instant)>,
    ending: Option<Ending>,
    booted: bool,
    cut: bool,
}

impl<'a> Watch<'a> {
    fn new(guard: Guard, shared: &'a Shared, timeout: Option<Duration>) -> Self {
        let now = Instant::now();
        let timeout = timeout.map(|limit| (limit, now + limit));
        Self {
            guard,
            shared,
            deadline: Some(now + BOOT_DEADLINE),
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
                Ok(Event::Guard(Some(words))) => self.hear(&words),
                Ok(Event::Guard(None)) => {
                    self.guard.replace();
                    self.settle(|| Ending::NoResult("the guest's guard was killed".into()));
                    self.shared.ended.store(true, Ordering::Relaxed);
                }
                Ok(Event::Note(text)) => streams::warn(&text),
                Ok(Event::Ending(ending)) => {
                    self.settle(|| ending.into());
                    self.deadline = Some(Instant::now() + SHUTDOWN_DEADLINE);
                }
                Ok(Event::BrokenPipe) => self.cut(Ending::BrokenPipe),
                Ok(Event::Garbled) => {
                    self.cut(Ending::NoResult("what it said was garbled".into()));
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
            self.guard.kernel = pid.parse().ok().and_then(Pid::from_raw);
        } else if let Some(reason) = words.strip_prefix(report::FAILED) {
            self.settle(|| Ending::NoResult(reason.into()));
            self.shared.ended.store(true, Ordering::Relaxed);
        } else if let Some(how) = words.strip_prefix(report::ENDED) {
            let place = if self.booted { "before the program did" } else { "while booting" };
            self.settle(|| Ending::NoResult(format!("its kernel ended ({how}) {place}")));
            self.shared.ended.store(true, Ordering::Relaxed);
            // What is left to do is to print what has arrived, at the reader's pace.
            self.deadline = None;
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        if self.cut {
            // The guard did not manage, or nobody takes what is left of the output.
            self.guard.replace();
            self.shared.ended.store(true, Ordering::Relaxed);
            self.shared.abandoned.store(true, Ordering::Relaxed);
            self.deadline = None;
        } else if let Some((limit, _)) = self.timeout.filter(|(_, at)| *at <= now) {
            self.ending = None;
            self.cut(Ending::TimedOut(limit));
        } else if self.ending.is_some() {
            streams::warn("the guest did not power off in time; it was killed");
            self.cut(Ending::BrokenPipe);
        } else {
            let seconds = BOOT_DEADLINE.as_secs();
            let reason = format!("it did not reach its first program in {seconds} s");
            self.cut(Ending::NoResult(reason));
        }
    }

    /// Ends the run now, for this reason unless there is an earlier one.
    fn cut(&mut self, ending: Ending) {
        self.settle(|| ending);
        self.guard.cut();
        self.cut = true;
        self.deadline = Some(Instant::now() + KILL_DEADLINE);
    }

    /// The first ending that is known is the true one.
    fn settle(&mut self, ending: impl FnOnce() -> Ending) {
        self.ending.get_or_insert_with(ending);
    }

    /// Waits for the guard, which now has nothing more to do.
    fn end(mut self) -> Ending {
        self.guard.cut();
        let _ = self.guard.process.wait();
        self.ending.unwrap_or_else(|| Ending::NoResult("nothing is known of it".into()))
    }
}

impl From<GuestEnding> for Ending {
    fn from(ending: GuestEnding) -> Self {
        match ending {
            GuestEnding::Exited(status) => Self::Exited(status),
            GuestEnding::Killed(signal) => Self::Killed(signal),
            GuestEnding::NotStarted { status, reason } => Self::NotStarted(status, reason),
            GuestEnding::NotSetUp(reason) => Self::NotSetUp(reason),
        }
    }
}

/// Brings the guard's words as events.
fn relay(words: impl BufRead, events: &Sender<Event>) {
    for line in words.lines().map_while(io::Result::ok) {
        let _ = events.send(Event::Guard(Some(line)));
    }
    let _ = events.send(Event::Guard(None));
}
