//! What crosses the one line between host and guest: small frames over a raw terminal.
//!
//! A terminal line carries bytes but no end-of-file that leaves its other direction open, and one
//! line carries several streams: so each piece has a header of kind (1 byte) and length (2 bytes,
//! little-endian).
//!
//! The kernel takes a byte of input at a time, some two microseconds each. So input in bulk goes
//! through files in the run's folder, and only their numbers over the line.

use std::io::{self, Read, Write};

/// No piece is longer.
pub(crate) const PAYLOAD_MAX: usize = 16 * 1024;

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Host to guest: bytes for the program's standard input.
    Input,
    /// Host to guest: the number of a file with bytes for the program's standard input.
    InputFile,
    /// Host to guest: standard input has ended.
    InputEnd,
    /// Host to guest: the terminal's size, rows then columns, two bytes each.
    Resize,
    /// Guest to host: the line is raw; input may come.
    Ready,
    /// Guest to host: bytes of the program's standard output.
    Output,
    /// Guest to host: bytes of the program's standard error.
    Error,
    /// Guest to host: how it ended, as JSON.
    Status,
    /// Guest to host: something for the user's eyes that is not the program's.
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

/// Writes one piece; longer bytes are cut into several.
pub(crate) fn write(line: &mut impl Write, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return write_piece(line, kind, bytes);
    }
    bytes.chunks(PAYLOAD_MAX).try_for_each(|chunk| write_piece(line, kind, chunk))
}

/// Cuts what arrives back into pieces.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    held: Vec<u8>,
}

impl Reader {
    /// Takes bytes as they arrive.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next whole piece, if it has arrived.
    pub(crate) fn poll_frame(&mut self) -> io::Result<Option<(Kind, Vec<u8>)>> {
        let [kind, low, high, rest @ ..] = &self.held[..] else { return Ok(None) };
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        if rest.len() < length {
            return Ok(None);
        }
        let garbled = || io::Error::new(io::ErrorKind::InvalidData, "the line is garbled");
        let kind = *KINDS.get(usize::from(*kind)).ok_or_else(garbled)?;
        let payload = rest[..length].to_vec();
        self.held.drain(..3 + length);
        Ok(Some((kind, payload)))
    }

    /// Reads from `line` until a whole piece is there; none at its end.
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

fn write_piece(line: &mut impl Write, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    let number = KINDS.iter().position(|known| *known == kind).expect("every kind is listed");
    let number = u8::try_from(number).expect("there are few kinds");
    let length = u16::try_from(bytes.len()).expect("a piece is short");
    let mut piece = Vec::with_capacity(3 + bytes.len());
    piece.push(number);
    piece.extend_from_slice(&length.to_le_bytes());
    piece.extend_from_slice(bytes);
    line.write_all(&piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_survive_any_cut() {
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
