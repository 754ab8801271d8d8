//! The file that frames are written to.

use std::{
    fmt,
    io::{self, ErrorKind, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::SystemTime,
};

use crate::{
    frame::{self, Message, Route},
    lock, pcapng,
};

/// Comment of the file.
const COMMENT: &str = "Frames are derived from work requests and completions of one process. \
    Hardware addresses, packet sequence numbers and communication ids are made up; RDMA reads and \
    writes by the peer are missing; payload beyond a limit is zero.";

/// Comment of the last packet of a file that is full.
const FULL: &str = "The limit of the file's size is reached: later frames are missing.";

/// A pcapng file, or another stream. Clones refer to the same file.
///
/// Each frame is written by one call of [`Write::write_all`]. Where `out` has no buffer, the file
/// is complete also if the process is killed.
#[derive(Clone)]
pub struct CaptureFile {
    shared: Arc<Shared>,
}

struct Shared {
    writer: Mutex<Writer>,
    payload_bytes: fn(&[u8]) -> usize,
    last_id: AtomicU32,
}

struct Writer {
    out: Box<dyn Write + Send>,
    /// Bytes written; none before the first frame, which the header precedes.
    bytes: u64,
    bytes_max: u64,
    /// First error, or that the file is full; nothing is written after it.
    error: Option<io::Error>,
}

impl CaptureFile {
    /// Least limit of the size of a file, in bytes.
    pub const BYTES_MIN: u64 = 1 << 20;

    /// Makes a file of at most `bytes_max` bytes, or of [`BYTES_MIN`](Self::BYTES_MIN) if that is
    /// more; nothing is written before the first frame. `payload_bytes` tells how many of a
    /// message's bytes are written, from its start, with zeroes for the rest: 64 is an NVMe command
    /// without its in-capsule data.
    pub fn new(
        out: impl Write + Send + 'static,
        payload_bytes: fn(&[u8]) -> usize,
        bytes_max: u64,
    ) -> Self {
        let bytes_max = bytes_max.max(Self::BYTES_MIN);
        let writer = Mutex::new(Writer { out: Box::new(out), bytes: 0, bytes_max, error: None });
        let last_id = AtomicU32::new(0);
        Self { shared: Arc::new(Shared { writer, payload_bytes, last_id }) }
    }

    /// Writes out what is buffered and tells whether the capture is complete so far.
    ///
    /// # Errors
    ///
    /// The first error of writing, or [`ErrorKind::FileTooLarge`] if the file has reached its
    /// limit; frames from then on are missing.
    pub fn finish(&self) -> io::Result<()> {
        let mut writer = lock(&self.shared.writer);
        match &writer.error {
            Some(error) => Err(io::Error::new(error.kind(), error.to_string())),
            None => writer.out.flush(),
        }
    }

    /// A number that no other connection in the file has.
    pub(crate) fn next_id(&self) -> u32 {
        self.shared.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn write_management(
        &self,
        route: Option<Route>,
        sequence_number: u32,
        datagram: &[u8; 256],
    ) {
        if let Some(route) = route {
            lock(&self.shared.writer).write(&frame::management(route, sequence_number, datagram));
        }
    }

    pub(crate) fn write_message(&self, route: Option<Route>, message: &Message<'_>) {
        let Some(route) = route else { return };
        let mut payload = message.payload.to_vec();
        let kept = (self.shared.payload_bytes)(&payload);
        payload.iter_mut().skip(kept).for_each(|byte| *byte = 0);
        let frame = frame::message(route, &Message { payload: &payload, ..*message });
        lock(&self.shared.writer).write(&frame);
    }
}

impl fmt::Debug for CaptureFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureFile").finish_non_exhaustive()
    }
}

impl Writer {
    fn write(&mut self, frame: &[u8]) {
        if self.error.is_none()
            && let Err(error) = self.try_write(frame)
        {
            self.error = Some(error);
        }
    }

    fn try_write(&mut self, frame: &[u8]) -> io::Result<()> {
        const PACKET_MAX: u64 = frame::BYTES_MAX as u64 + pcapng::PACKET_OVERHEAD;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if self.bytes == 0 {
            self.bytes = pcapng::write_header(&mut self.out, COMMENT)?;
        }
        let bytes = self.bytes + frame.len() as u64 + pcapng::PACKET_OVERHEAD;
        let is_last = bytes + PACKET_MAX > self.bytes_max;
        let comment = is_last.then_some(FULL);
        self.bytes += pcapng::write_packet(&mut self.out, now, frame, comment)?;
        if is_last {
            let text = format!("it has reached its limit of {} bytes", self.bytes_max);
            return Err(io::Error::new(ErrorKind::FileTooLarge, text));
        }
        Ok(())
    }
}
