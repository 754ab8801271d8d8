//! Text files that are read whole: regular files, up to a limit.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::OFlags;
use serde_json::error::Category;
use zeroize::Zeroizing;

use crate::size;

/// Bytes of a buffer beyond the text, without which the last read goes by way of the stack.
const SPARE: usize = 64;

/// Opens a regular file. A FIFO is refused without waiting for its writer.
pub fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    // Of the open file, since the path may name another one by now.
    let metadata = file.metadata()?;
    if metadata.is_file() {
        Ok((file, metadata))
    } else {
        Err(io::Error::new(
            ErrorKind::InvalidInput,
            "this is no file, but a folder, pipe or device",
        ))
    }
}

/// Reads an open file or stream of at most `max` bytes. The text is wiped when dropped, and no copy
/// of it is left in memory.
pub fn read(file: File, max: usize) -> io::Result<Zeroizing<String>> {
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    let length = if metadata.is_file() { metadata.len() } else { max as u64 };
    // Allocated once, with room to read more than there is: growing would leave copies.
    let capacity = usize::try_from(length).unwrap_or(max).min(max) + SPARE;
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    file.take(max as u64 + 1).read_to_string(&mut text)?;
    if text.len() > max {
        let reason = format!("this has more than {}", size::format_bytes(max as u64));
        return Err(io::Error::new(ErrorKind::FileTooLarge, reason));
    }
    Ok(text)
}

/// Reason for which a text is not JSON of the wanted form, with its place, without what stands
/// there.
pub fn json_reason(error: &serde_json::Error) -> String {
    match error.classify() {
        Category::Data if error.line() == 0 => "a value is of another type than is due".to_owned(),
        Category::Data => {
            let (line, column) = (error.line(), error.column());
            format!("a value of another type is due at line {line} column {column}")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn files_are_read_up_to_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let read = |bytes: &[u8], max| {
            fs::write(&path, bytes).unwrap();
            super::read(open(&path).unwrap().0, max)
        };
        assert_eq!(read(b"", 4).unwrap().as_str(), "");
        assert_eq!(read(b"four", 4).unwrap().as_str(), "four");
        assert!(read(b"fives", 4).unwrap_err().to_string().contains("more than 4 B"));
        assert_eq!(read(b"\xff", 4).unwrap_err().kind(), ErrorKind::InvalidData);
        let zero = File::open("/dev/zero").unwrap();
        assert_eq!(super::read(zero, 4096).unwrap_err().kind(), ErrorKind::FileTooLarge);
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"piped").unwrap();
        drop(writer);
        assert_eq!(
            super::read(File::from(std::os::fd::OwnedFd::from(reader)), 9).unwrap().len(),
            5
        );
    }

    #[test]
    fn json_is_not_quoted() {
        let reason = |text| json_reason(&serde_json::from_str::<u8>(text).unwrap_err());
        assert!(reason("").contains("EOF"), "{}", reason(""));
        let other = reason("\n\"secret\"");
        assert_eq!(other, "a value of another type is due at line 2 column 8");
    }

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for path in [folder.path(), &fifo, Path::new("/dev/zero")] {
            assert_eq!(open(path).unwrap_err().kind(), ErrorKind::InvalidInput, "{path:?}");
        }
    }
}
