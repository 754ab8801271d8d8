//! Frames between host and guest, over a raw terminal of the guest.
//!
//! A terminal carries bytes but has no end-of-file that leaves its other direction open, and it
//! carries several streams: so each frame has a header of kind (1 byte) and length (2 bytes,
//! little-endian).
//!
//! The guest's kernel takes input byte by byte, some two microseconds each. So input of many bytes
//! goes through files in the run's folder, and frames carry their numbers.

use std::io::{self, Read, Write};

/// Bytes in the payload of the longest frame.
pub(crate) const PAYLOAD_MAX: usize = 16 * 1024;

/// Kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Host to guest: bytes for the program's standard input.
    Input,
    /// Host to guest: the number of a file with bytes for the program's standard input.
    InputFile,
    /// Host to guest: end-of-file of standard input.
    InputEnd,
    /// Host to guest: the terminal's size, rows then columns, two bytes each.
    Resize,
    /// Guest to host: the terminal is raw, and input may be sent.
    Ready,
    /// Guest to host: bytes of the program's standard output.
    Output,
    /// Guest to host: bytes of the program's standard error.
    Error,
    /// Guest to host: the program's status, as JSON.
    Status,
    /// Guest to host: a message for the user.
    Note,
}

const KINDS: [Kind; 9] = [
    Kind::Input,
    Kind::InputFile,
    Kind::InputEnd,
    Kind::Resize,
    Kind::Ready,
    Kind::Output,
    Kind::Error,
    Kind::Status,
    Kind::Note,
];

/// Writes the bytes as one frame, or as several when they are too long for one.
pub(crate) fn write(line: &mut impl Write, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return write_frame(line, kind, bytes);
    }
    bytes.chunks(PAYLOAD_MAX).try_for_each(|chunk| write_frame(line, kind, chunk))
}

/// Decoder of frames.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    held: Vec<u8>,
}

impl Reader {
    /// Appends bytes that were received.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Returns the next frame if all of it has been received.
    pub(crate) fn poll_frame(&mut self) -> io::Result<Option<(Kind, Vec<u8>)>> {
        let [kind, low, high, rest @ ..] = &self.held[..] else { return Ok(None) };
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        if rest.len() < length {
            return Ok(None);
        }
        let garbled = || io::Error::new(io::ErrorKind::InvalidData, "not a frame");
        let kind = *KINDS.get(usize::from(*kind)).ok_or_else(garbled)?;
        let payload = rest[..length].to_vec();
        self.held.drain(..3 + length);
        Ok(Some((kind, payload)))
    }

    /// Returns what has been received of an output frame whose rest is lost.
    pub(crate) fn partial_frame(&mut self) -> Option<(Kind, Vec<u8>)> {
        let [kind, _, _, payload @ ..] = &self.held[..] else { return None };
        let kind = *KINDS.get(usize::from(*kind))?;
        let is_output = matches!(kind, Kind::Output | Kind::Error);
        (is_output && !payload.is_empty()).then(|| (kind, payload.to_vec()))
    }

    /// Reads from `line` until a whole frame has been received; `None` at end-of-file.
    pub(crate) fn wait_frame(
        &mut self,
        line: &mut impl Read,
    ) -> io::Result<Option<(Kind, Vec<u8>)>> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(frame) = self.poll_frame()? {
                return Ok(Some(frame));
            }
            match line.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => self.feed(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn write_frame(line: &mut impl Write, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    let number = KINDS.iter().position(|known| *known == kind).expect("every kind is listed");
    let number = u8::try_from(number).expect("there are few kinds");
    let length = u16::try_from(bytes.len()).expect("a payload is short");
    let mut frame = Vec::with_capacity(3 + bytes.len());
    frame.push(number);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(bytes);
    line.write_all(&frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut bytes = Vec::new();
        write(&mut bytes, Kind::Output, b"hello\n\0\xff").unwrap();
        write(&mut bytes, Kind::InputEnd, b"").unwrap();
        for cut in 1..bytes.len() {
            let mut reader = Reader::default();
            let mut seen = Vec::new();
            for part in bytes.chunks(cut) {
                reader.feed(part);
                while let Some(frame) = reader.poll_frame().unwrap() {
                    seen.push(frame);
                }
            }
            let expected = [(Kind::Output, b"hello\n\0\xff".to_vec()), (Kind::InputEnd, vec![])];
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn of_a_cut_frame_only_output_is_used() {
        let partial = |kind, cut: usize| {
            let mut bytes = Vec::new();
            write(&mut bytes, kind, b"hello").unwrap();
            let mut reader = Reader::default();
            reader.feed(&bytes[..cut]);
            assert_eq!(reader.poll_frame().unwrap(), None);
            reader.partial_frame()
        };
        assert_eq!(partial(Kind::Output, 5), Some((Kind::Output, b"he".to_vec())));
        assert_eq!(partial(Kind::Error, 7), Some((Kind::Error, b"hell".to_vec())));
        assert_eq!(partial(Kind::Output, 3), None);
        assert_eq!(partial(Kind::Output, 1), None);
        assert_eq!(partial(Kind::Status, 7), None);
    }

    #[test]
    fn long_bytes_are_cut_and_garbage_is_refused() {
        let mut bytes = Vec::new();
        let long = vec![7; PAYLOAD_MAX + 1];
        write(&mut bytes, Kind::Input, &long).unwrap();
        let mut reader = Reader::default();
        let mut line = &bytes[..];
        let first = reader.wait_frame(&mut line).unwrap().unwrap().1;
        let second = reader.wait_frame(&mut line).unwrap().unwrap().1;
        assert_eq!(first.len() + second.len(), long.len());
        assert!(reader.wait_frame(&mut line).unwrap().is_none());
        reader.feed(&[200, 0, 0]);
        assert!(reader.poll_frame().is_err());
    }
}
