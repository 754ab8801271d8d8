//! The host's side of a program's standard streams.

use std::{
    io::{self, IsTerminal, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, fstat},
    io::Errno,
    termios::{tcgetpgrp, tcgetwinsize},
};

use crate::{
    run::mux::{self, Kind, Reader},
    run::spec::{self, GuestStatus, StdioSpec, name},
};

/// Interval at which a blocked stream looks whether the run is over.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Time that the output pipe may stay open without data once no process of the guest should be
/// left to write to it. Longer than it takes to kill the guest.
const IDLE_DEADLINE: Duration = Duration::from_secs(15);

/// Bytes that a pipe takes without blocking when it is ready for writing.
const PIPE_ATOMIC: usize = 4096;

/// Input of at least this many bytes goes through a file.
const BULK_MIN: usize = 1024;

/// Bytes in the largest such file: the capacity of a pipe.
const BULK_PIECE: usize = 64 * 1024;

/// Number of files that may wait for the guest.
const BULK_FILES_MAX: u64 = 8;

/// Interval of looking whether the guest has taken a file.
const BULK_INTERVAL: Duration = Duration::from_millis(1);

/// Source of the program's standard input.
#[derive(Clone, Debug, Default)]
pub enum Input {
    /// These bytes, then end-of-file.
    Bytes(Vec<u8>),
    /// This process's own standard input.
    #[default]
    Inherit,
    /// End-of-file at once.
    Null,
}

/// Destination of the program's standard output or error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// The [`Outcome`](crate::Outcome).
    Capture,
    /// This process's own stream of that name.
    #[default]
    Inherit,
    /// `/dev/null`.
    Null,
}

/// Events of a run, from the threads that read the guest's and the reaper's pipes.
#[derive(Debug)]
pub(crate) enum Event {
    /// The guest is ready for input.
    Ready,
    /// The program's status.
    Status(GuestStatus),
    /// A message for the user.
    Note(String),
    /// The program's output cannot be written where it belongs.
    OutputFailed(io::Error),
    /// Bytes of the guest that are no frame, or a frame that only the host sends.
    InvalidFrame,
    /// A report of the reaper; `None` at its end.
    Reaper(Option<String>),
    /// The output pipe has been read to its end. The last event of that pipe.
    OutputEnded,
}

impl Input {
    pub(crate) fn spec(&self) -> StdioSpec {
        match self {
            Self::Null => StdioSpec::Null,
            Self::Inherit if is_null(io::stdin()) => StdioSpec::Null,
            Self::Bytes(_) | Self::Inherit => StdioSpec::Pipe,
        }
    }
}

impl Output {
    pub(crate) fn spec(self, own: impl AsFd + IsTerminal) -> StdioSpec {
        match self {
            Self::Null => StdioSpec::Null,
            Self::Capture => StdioSpec::Pipe,
            Self::Inherit if own.is_terminal() => StdioSpec::Terminal,
            Self::Inherit if is_null(own) => StdioSpec::Null,
            Self::Inherit => StdioSpec::Pipe,
        }
    }
}

/// Tells if this process's standard output and error are the same file.
pub(crate) fn output_is_error() -> bool {
    let (Ok(output), Ok(error)) = (fstat(io::stdout()), fstat(io::stderr())) else { return false };
    let identity = |stat: &rustix::fs::Stat| (stat.st_dev, stat.st_ino, stat.st_rdev);
    identity(&output) == identity(&error)
}

/// Rows and columns of the terminal that is one of this process's standard streams.
pub(crate) fn window() -> Option<(u16, u16)> {
    let size = |fd: BorrowedFd<'_>| tcgetwinsize(fd).ok().map(|size| (size.ws_row, size.ws_col));
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    size(output.as_fd()).or_else(|| size(error.as_fd())).or_else(|| size(input.as_fd()))
}

/// State of a run that its threads read while they wait.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    /// The guest's processes have ended: it takes no input, and its output is in the pipe.
    pub(crate) guest_ended: AtomicBool,
    /// The run is over: nothing waits any longer, not even for a slow reader of the output.
    pub(crate) abandoned: AtomicBool,
}

/// Host side of the pipes to the guest.
pub(crate) struct Relay<'a> {
    pub(crate) flags: &'a Flags,
    pub(crate) events: Sender<Event>,
    pub(crate) captured: &'a Mutex<[Vec<u8>; 2]>,
    /// The run's folder, which takes input of many bytes.
    pub(crate) folder: &'a Path,
}

impl Relay<'_> {
    /// Delivers the guest's frames until no process holds the other end of the pipe. `outputs` are
    /// the destinations of standard output and error.
    ///
    /// The caller keeps a writer of its own open until the reaper has one, so that a read of no
    /// bytes always means the end.
    pub(crate) fn relay_output(&self, pipe: &OwnedFd, outputs: [Output; 2]) {
        let mut reader = Reader::default();
        if self.read_frames(pipe, &mut reader, outputs).is_err() {
            self.tell(Event::InvalidFrame);
        } else if let Some((kind, bytes)) = reader.partial_frame() {
            // The kernel was killed in the middle of it.
            self.deliver(kind, bytes, outputs);
        }
        self.tell(Event::OutputEnded);
    }

    fn read_frames(
        &self,
        pipe: &OwnedFd,
        reader: &mut Reader,
        outputs: [Output; 2],
    ) -> io::Result<()> {
        let mut buffer = [0; 64 * 1024];
        let mut idle = Duration::ZERO;
        while !self.flags.abandoned.load(Ordering::Relaxed) && idle < IDLE_DEADLINE {
            match rustix::io::read(pipe, &mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    reader.feed(&buffer[..count]);
                    idle = Duration::ZERO;
                }
                Err(Errno::AGAIN) => {
                    let ready = is_ready(pipe, PollFlags::IN);
                    if !ready && self.flags.guest_ended.load(Ordering::Relaxed) {
                        idle += POLL_INTERVAL;
                    }
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            while let Some((kind, bytes)) = reader.poll_frame()? {
                self.deliver(kind, bytes, outputs);
            }
        }
        Ok(())
    }

    /// Sends standard input to the guest.
    pub(crate) fn relay_input(&self, pipe: &OwnedFd, input: Input) {
        let sent = match input {
            Input::Null => Ok(()),
            Input::Bytes(bytes) => {
                let mut bulk = Bulk::default();
                let mut pieces = bytes.chunks(BULK_PIECE);
                pieces.try_for_each(|piece| self.pass(pipe, piece, &mut bulk))
            }
            Input::Inherit => self.forward_input(pipe),
        };
        // A guest that ended meanwhile reads no more input; that is no error.
        let _ = sent.and_then(|()| self.send(pipe, Kind::InputEnd, &[]));
    }

    fn forward_input(&self, pipe: &OwnedFd) -> io::Result<()> {
        let input = io::stdin();
        let is_terminal = input.is_terminal();
        let mut window = window();
        let mut bulk = Bulk::default();
        let mut buffer = vec![0; BULK_PIECE];
        while !self.flags.guest_ended.load(Ordering::Relaxed) {
            let now = self::window();
            if let Some((rows, columns)) = now.filter(|_| is_terminal && now != window) {
                let [a, b] = rows.to_le_bytes();
                let [c, d] = columns.to_le_bytes();
                self.send(pipe, Kind::Resize, &[a, b, c, d])?;
                window = now;
            }
            // Reading the terminal from the background would stop this whole process.
            if is_terminal && is_background(&input) {
                thread::sleep(Duration::from_millis(200));
                continue;
            }
            if !is_ready(&input, PollFlags::IN) {
                continue;
            }
            match rustix::io::read(&input, &mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => self.pass(pipe, &buffer[..count], &mut bulk)?,
                Err(Errno::INTR | Errno::AGAIN) => {}
                // For example a terminal that was closed.
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Sends a piece of input: in a file when it is large, else in frames.
    fn pass(&self, pipe: &OwnedFd, piece: &[u8], bulk: &mut Bulk) -> io::Result<()> {
        if piece.len() < BULK_MIN {
            return self.send(pipe, Kind::Input, piece);
        }
        while bulk.is_full(self.folder) && !self.flags.guest_ended.load(Ordering::Relaxed) {
            thread::sleep(BULK_INTERVAL);
        }
        let path = self.folder.join(name::input_file(bulk.written));
        spec::create_private(&path)?.write_all(piece)?;
        self.send(pipe, Kind::InputFile, &bulk.written.to_le_bytes())?;
        bulk.written += 1;
        Ok(())
    }

    fn deliver(&self, kind: Kind, bytes: Vec<u8>, [output, error]: [Output; 2]) {
        match kind {
            Kind::Output => self.put(output, 0, &bytes),
            Kind::Error => self.put(error, 1, &bytes),
            Kind::Ready => self.tell(Event::Ready),
            Kind::Note => self.tell(Event::Note(String::from_utf8_lossy(&bytes).into_owned())),
            Kind::Status => match serde_json::from_slice(&bytes) {
                Ok(ending) => self.tell(Event::Status(ending)),
                Err(_) => self.tell(Event::InvalidFrame),
            },
            Kind::Input | Kind::InputFile | Kind::InputEnd | Kind::Resize => {
                self.tell(Event::InvalidFrame)
            }
        }
    }

    fn put(&self, destination: Output, index: usize, bytes: &[u8]) {
        let written = match destination {
            Output::Null => Ok(()),
            Output::Capture => {
                let mut captured = self.captured.lock().expect("nobody panics holding this");
                captured[index].extend_from_slice(bytes);
                Ok(())
            }
            Output::Inherit if index == 0 => write(io::stdout(), bytes, &self.flags.abandoned),
            Output::Inherit => write(io::stderr(), bytes, &self.flags.abandoned),
        };
        if let Err(error) = written {
            self.tell(Event::OutputFailed(error));
        }
    }

    fn send(&self, pipe: &OwnedFd, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        let mut framed = Vec::with_capacity(bytes.len() + 3);
        mux::write(&mut framed, kind, bytes)?;
        write(pipe, &framed, &self.flags.guest_ended)
    }

    fn tell(&self, event: Event) {
        // The receiver is dropped when the run is over.
        let _ = self.events.send(event);
    }
}

/// Counts of input files; the guest removes each when it has read it.
#[derive(Default)]
struct Bulk {
    written: u64,
    taken: u64,
}

impl Bulk {
    fn is_full(&mut self, folder: &Path) -> bool {
        let is_taken = |number| !folder.join(name::input_file(number)).exists();
        while self.taken < self.written && is_taken(self.taken) {
            self.taken += 1;
        }
        self.written - self.taken >= BULK_FILES_MAX
    }
}

/// Writes all bytes unless `stop` is set first; never blocks for longer than [`POLL_INTERVAL`].
fn write(to: impl AsFd, bytes: &[u8], stop: &AtomicBool) -> io::Result<()> {
    let mut left = bytes;
    while !left.is_empty() && !stop.load(Ordering::Relaxed) {
        if !is_ready(&to, PollFlags::OUT) {
            continue;
        }
        match rustix::io::write(&to, &left[..left.len().min(PIPE_ATOMIC)]) {
            Ok(count) => left = &left[count..],
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Writes one line to standard error; a failure to do so is ignored.
pub(crate) fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "soft-roce: {text}");
}

fn is_null(fd: impl AsFd) -> bool {
    let Ok(about) = fstat(fd) else { return true };
    let null = rustix::fs::stat("/dev/null");
    FileType::from_raw_mode(about.st_mode) == FileType::CharacterDevice
        && null.is_ok_and(|null| null.st_rdev == about.st_rdev)
}

fn is_background(terminal: &impl AsFd) -> bool {
    tcgetpgrp(terminal).is_ok_and(|group| group != rustix::process::getpgrp())
}

/// Waits up to [`POLL_INTERVAL`] until reading or writing does not block.
fn is_ready(fd: &impl AsFd, flags: PollFlags) -> bool {
    let mut waited = [PollFd::new(fd, flags)];
    // A hang-up is an event too, which the read or write that follows reports.
    let interval = Timespec::try_from(POLL_INTERVAL).expect("the interval is short");
    poll(&mut waited, Some(&interval)).is_ok_and(|count| count > 0)
}
