//! The host's side of a program's standard streams.

use std::{
    fs,
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
    run::spec::{GuestStatus, StdioSpec, name},
};

/// How often a blocked stream looks whether the run is over.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// A pipe that says it is writable takes this much without blocking.
const PIPE_ATOMIC: usize = 4096;

/// Input from this size on goes through a file.
const BULK_MIN: usize = 1024;

/// The largest such file: what a pipe holds.
const BULK_PIECE: usize = 64 * 1024;

/// How many files may wait for the guest.
const BULK_FILES_MAX: u64 = 8;

/// How often to look whether it has taken one.
const BULK_PATIENCE: Duration = Duration::from_millis(1);

/// Where standard input comes from.
#[derive(Clone, Debug, Default)]
pub enum Input {
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// This process's own standard input.
    #[default]
    Inherit,
    /// Nothing.
    Null,
}

/// Where standard output or error goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Into the outcome.
    Capture,
    /// To this process's own.
    #[default]
    Inherit,
    /// Nowhere.
    Null,
}

/// What the line to the guest brings up.
#[derive(Debug)]
pub(crate) enum Event {
    Ready,
    Status(GuestStatus),
    Note(String),
    /// Nobody reads our output any more.
    BrokenPipe,
    Garbled,
    /// The reaper's words, or none when it is gone.
    Reaper(Option<String>),
    LineEnded,
}

impl Input {
    pub(crate) fn wiring(&self) -> StdioSpec {
        match self {
            Self::Null => StdioSpec::Null,
            Self::Inherit if is_null(io::stdin()) => StdioSpec::Null,
            Self::Bytes(_) | Self::Inherit => StdioSpec::Pipe,
        }
    }
}

impl Output {
    pub(crate) fn wiring(self, own: impl AsFd + IsTerminal) -> StdioSpec {
        match self {
            Self::Null => StdioSpec::Null,
            Self::Capture => StdioSpec::Pipe,
            Self::Inherit if own.is_terminal() => StdioSpec::Terminal,
            Self::Inherit if is_null(own) => StdioSpec::Null,
            Self::Inherit => StdioSpec::Pipe,
        }
    }
}

/// Whether our own standard output and error are the same open file.
pub(crate) fn output_is_error() -> bool {
    let (Ok(output), Ok(error)) = (fstat(io::stdout()), fstat(io::stderr())) else { return false };
    let place = |about: &rustix::fs::Stat| (about.st_dev, about.st_ino, about.st_rdev);
    place(&output) == place(&error)
}

/// The size of the terminal that we have, if we have one.
pub(crate) fn window() -> Option<(u16, u16)> {
    let size = |fd: BorrowedFd<'_>| tcgetwinsize(fd).ok().map(|size| (size.ws_row, size.ws_col));
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    size(output.as_fd()).or_else(|| size(error.as_fd())).or_else(|| size(input.as_fd()))
}

/// The two halves of the line to the guest, and what they share.
pub(crate) struct Line<'a> {
    /// The kernel is gone: what it has said is all there is, and it takes nothing more.
    pub(crate) ended: &'a AtomicBool,
    /// Nobody may wait any longer, not even for a slow reader of our output.
    pub(crate) abandoned: &'a AtomicBool,
    pub(crate) events: Sender<Event>,
    pub(crate) captured: &'a Mutex<[Vec<u8>; 2]>,
    /// Takes bulky input.
    pub(crate) folder: &'a Path,
}

impl Line<'_> {
    /// Brings what the guest writes to where it belongs, until no process holds the other end.
    pub(crate) fn pump_output(&self, line: &OwnedFd, output: Output, error: Output) {
        let mut reader = Reader::default();
        let mut buffer = [0; 64 * 1024];
        loop {
            let ended = self.ended.load(Ordering::Relaxed);
            match rustix::io::read(line, &mut buffer) {
                Ok(count) if count > 0 => reader.feed(&buffer[..count]),
                // Before the kernel has opened its end, this looks like the end too.
                Ok(_) | Err(Errno::AGAIN) if ended => break,
                Ok(_) | Err(Errno::AGAIN) => wait_for(line, PollFlags::IN),
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
            loop {
                match reader.poll_frame() {
                    Ok(Some(frame)) => self.deliver(frame, output, error),
                    Ok(None) => break,
                    Err(_) => return self.tell(Event::Garbled),
                }
            }
        }
        self.tell(Event::LineEnded);
    }

    /// Brings our standard input to the guest.
    pub(crate) fn pump_input(&self, line: &OwnedFd, input: Input) {
        let sent = match input {
            Input::Null => Ok(()),
            Input::Bytes(bytes) => {
                let mut bulk = Bulk::default();
                let mut pieces = bytes.chunks(BULK_PIECE);
                pieces.try_for_each(|piece| self.pass(line, piece, &mut bulk))
            }
            Input::Inherit => self.forward_input(line),
        };
        // The line outlives the guest's end; that there is nobody to read is no error here.
        let _ = sent.and_then(|()| self.send(line, Kind::InputEnd, &[]));
    }

    fn forward_input(&self, line: &OwnedFd) -> io::Result<()> {
        let input = io::stdin();
        let is_terminal = input.is_terminal();
        let mut window = window();
        let mut bulk = Bulk::default();
        let mut buffer = vec![0; BULK_PIECE];
        while !self.ended.load(Ordering::Relaxed) {
            let now = self::window();
            if let Some((rows, columns)) = now.filter(|_| is_terminal && now != window) {
                let [a, b] = rows.to_le_bytes();
                let [c, d] = columns.to_le_bytes();
                self.send(line, Kind::Resize, &[a, b, c, d])?;
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
                Ok(count) => self.pass(line, &buffer[..count], &mut bulk)?,
                Err(Errno::INTR | Errno::AGAIN) => {}
                // For instance a terminal that has gone: it gives nothing more.
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Hands a piece of input to the guest, by the cheaper way.
    fn pass(&self, line: &OwnedFd, piece: &[u8], bulk: &mut Bulk) -> io::Result<()> {
        if piece.len() < BULK_MIN {
            return self.send(line, Kind::Input, piece);
        }
        while bulk.is_full(self.folder) && !self.ended.load(Ordering::Relaxed) {
            thread::sleep(BULK_PATIENCE);
        }
        let path = self.folder.join(name::input_file(bulk.written));
        fs::write(path, piece)?;
        self.send(line, Kind::InputFile, &bulk.written.to_le_bytes())?;
        bulk.written += 1;
        Ok(())
    }

    fn deliver(&self, (kind, bytes): (Kind, Vec<u8>), output: Output, error: Output) {
        match kind {
            Kind::Output => self.put(output, 0, &bytes),
            Kind::Error => self.put(error, 1, &bytes),
            Kind::Ready => self.tell(Event::Ready),
            Kind::Note => self.tell(Event::Note(String::from_utf8_lossy(&bytes).into_owned())),
            Kind::Status => match serde_json::from_slice(&bytes) {
                Ok(ending) => self.tell(Event::Status(ending)),
                Err(_) => self.tell(Event::Garbled),
            },
            Kind::Input | Kind::InputFile | Kind::InputEnd | Kind::Resize => {
                self.tell(Event::Garbled)
            }
        }
    }

    fn put(&self, place: Output, index: usize, bytes: &[u8]) {
        let written = match place {
            Output::Null => Ok(()),
            Output::Capture => {
                let mut captured = self.captured.lock().expect("nobody panics holding this");
                captured[index].extend_from_slice(bytes);
                Ok(())
            }
            Output::Inherit if index == 0 => write(io::stdout(), bytes, self.abandoned),
            Output::Inherit => write(io::stderr(), bytes, self.abandoned),
        };
        if written.is_err() {
            self.tell(Event::BrokenPipe);
        }
    }

    fn send(&self, line: &OwnedFd, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        let mut framed = Vec::with_capacity(bytes.len() + 3);
        mux::write(&mut framed, kind, bytes)?;
        write(line, &framed, self.ended)
    }

    fn tell(&self, event: Event) {
        // The receiver ends only when the run is over.
        let _ = self.events.send(event);
    }
}

/// Input that went through files; the guest removes each when it has taken it.
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

/// Writes it all, unless `stop` comes first: never blocks for long.
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

/// Writes one line to standard error, whatever happens to it.
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

fn wait_for(fd: &impl AsFd, flags: PollFlags) {
    is_ready(fd, flags);
}

fn is_ready(fd: &impl AsFd, flags: PollFlags) -> bool {
    let mut waited = [PollFd::new(fd, flags)];
    // A hang-up is an event too: reading or writing then tells what it is.
    poll(&mut waited, Some(&PATIENCE)).is_ok_and(|count| count > 0)
}
