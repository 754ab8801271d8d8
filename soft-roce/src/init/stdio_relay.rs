//! Guest side of the frames: between the program's standard streams and the host.

use std::{
    fs::{self, File},
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    thread::{self, JoinHandle},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    termios::{Winsize, tcsetwinsize},
};

use crate::{
    run::mux::{self, Kind, Reader},
    run::spec::name,
};

/// Device through which frames go to the host; locked while a frame is written.
#[derive(Clone)]
pub(super) struct SharedLine {
    line: Arc<Mutex<File>>,
}

impl SharedLine {
    pub(super) fn new(line: File) -> Self {
        Self { line: Arc::new(Mutex::new(line)) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, File> {
        self.line.lock().expect("nobody panics holding this")
    }
}

/// Output stream of the program.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stream {
    Output,
    Error,
}

/// This process's ends of the program's standard streams.
#[derive(Default)]
pub(super) struct StdioRelay {
    pub(super) input: Option<File>,
    pub(super) outputs: Vec<(File, Stream)>,
    /// The program's terminal, whose size follows the user's.
    pub(super) terminal: Option<OwnedFd>,
}

impl StdioRelay {
    /// Starts the threads, and tells the host that it may send.
    pub(super) fn start(self, line: &SharedLine, folder: &Path) -> io::Result<Running> {
        let reader = line.lock().try_clone()?;
        let Self { input, outputs, terminal } = self;
        let folder = folder.to_owned();
        thread::spawn(move || feed(reader, input, terminal, &folder));
        let (stopped, stop) = io::pipe()?;
        let out = line.clone();
        let thread = thread::spawn(move || drain(outputs, &stopped, &out));
        mux::write(&mut *line.lock(), Kind::Ready, &[])?;
        Ok(Running { stop, thread })
    }
}

/// A relay whose threads run.
pub(super) struct Running {
    stop: PipeWriter,
    thread: JoinHandle<()>,
}

impl Running {
    /// Sends what the program has written so far, and ends.
    pub(super) fn finish(self) {
        drop(self.stop);
        // A panic of the thread is in the kernel's log.
        let _ = self.thread.join();
    }
}

/// Moves bytes from the host to the program.
fn feed(mut line: File, mut input: Option<File>, terminal: Option<OwnedFd>, folder: &Path) {
    let mut reader = Reader::default();
    while let Ok(Some((kind, bytes))) = reader.wait_frame(&mut line) {
        let bytes = match kind {
            Kind::Input => bytes,
            Kind::InputFile => take_file(folder, &bytes),
            Kind::InputEnd => {
                input = None;
                continue;
            }
            Kind::Resize => {
                resize(terminal.as_ref(), &bytes);
                continue;
            }
            _ => return,
        };
        let written = input.as_mut().map_or(Ok(()), |input| input.write_all(&bytes));
        // The program has closed its input; the rest is dropped.
        if written.is_err() {
            input = None;
        }
    }
}

/// Reads a file with input and removes it, which makes room for the next.
fn take_file(folder: &Path, number: &[u8]) -> Vec<u8> {
    let Ok(number) = number.try_into() else { return Vec::new() };
    let path = folder.join(name::input_file(u64::from_le_bytes(number)));
    let bytes = fs::read(&path).unwrap_or_default();
    let _ = fs::remove_file(path);
    bytes
}

fn resize(terminal: Option<&OwnedFd>, bytes: &[u8]) {
    let (Some(terminal), &[a, b, c, d]) = (terminal, bytes) else { return };
    let (ws_row, ws_col) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
    // A wrong size does not stop the program.
    let _ = tcsetwinsize(terminal, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 });
}

/// Moves bytes from the program to the host, until its streams end or, once the program has ended,
/// hold nothing more: a process that it left running does not keep the run alive.
fn drain(mut outputs: Vec<(File, Stream)>, stopped: &PipeReader, line: &SharedLine) {
    let mut buffer = vec![0; mux::PAYLOAD_MAX];
    let mut ending = false;
    while !outputs.is_empty() {
        let ready = match ready(&outputs, (!ending).then_some(stopped)) {
            Ok(ready) => ready,
            Err(_) => return,
        };
        if ending && !ready.contains(&true) {
            return;
        }
        ending |= ready.last() == Some(&true) && ready.len() > outputs.len();
        let mut index = 0;
        outputs.retain_mut(|(file, stream)| {
            index += 1;
            !ready[index - 1] || forward(file, *stream, &mut buffer, line)
        });
    }
}

/// Tells of each file if it has data or has ended; the stop pipe comes last.
fn ready(outputs: &[(File, Stream)], stop: Option<&PipeReader>) -> io::Result<Vec<bool>> {
    let mut waited: Vec<_> =
        outputs.iter().map(|(file, _)| PollFd::new(file, PollFlags::IN)).collect();
    waited.extend(stop.map(|stop| PollFd::new(stop, PollFlags::IN)));
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let patience = if stop.is_some() { None } else { Some(&at_once) };
    match poll(&mut waited, patience) {
        Ok(_) => Ok(waited.iter().map(|fd| !fd.revents().is_empty()).collect()),
        Err(rustix::io::Errno::INTR) => Ok(vec![false; waited.len()]),
        Err(errno) => Err(errno.into()),
    }
}

/// Moves one frame; returns false when the stream has ended.
fn forward(file: &mut File, stream: Stream, buffer: &mut [u8], line: &SharedLine) -> bool {
    let kind = match stream {
        Stream::Output => Kind::Output,
        Stream::Error => Kind::Error,
    };
    match file.read(buffer) {
        // A terminal that no process has open gives an error.
        Ok(0) | Err(_) => false,
        Ok(count) => mux::write(&mut *line.lock(), kind, &buffer[..count]).is_ok(),
    }
}
