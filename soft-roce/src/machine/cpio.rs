//! Archives in the format that a kernel unpacks as its first file system: cpio, "newc".

/// Magic number of the format, in front of every header.
const MAGIC: &[u8] = b"070701";

/// Name of the entry that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// Alignment of names and contents, in bytes.
const ALIGNMENT: usize = 4;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// One entry of an archive.
#[derive(Default)]
struct Entry<'a> {
    path: &'a str,
    mode: u32,
    contents: &'a [u8],
    device: [u32; 2],
}

/// An archive under construction. Parents must be added before what they contain.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// Adds a folder.
    pub(super) fn directory(&mut self, path: &str) {
        self.add(&Entry { path, mode: DIRECTORY, ..Entry::default() });
    }

    /// Adds a file that may be executed.
    pub(super) fn file(&mut self, path: &str, contents: &[u8]) {
        self.add(&Entry { path, mode: PROGRAM, contents, ..Entry::default() });
    }

    /// Adds a character device, by its major and minor number.
    pub(super) fn device(&mut self, path: &str, device: [u32; 2]) {
        self.add(&Entry { path, mode: CHARACTER_DEVICE, device, ..Entry::default() });
    }

    /// Ends the archive. The kernel takes several, one behind the other.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.add(&Entry { path: TRAILER, ..Entry::default() });
        self.bytes
    }

    fn add(&mut self, entry: &Entry<'_>) {
        let Entry { path, mode, contents, device: [major, minor] } = *entry;
        self.inode += 1;
        let size = |bytes: usize| u32::try_from(bytes).expect("an entry is smaller than 4 GiB");
        let path = path.trim_start_matches('/');
        let (owner, links, time, check) = (0, 1, 0, 0);
        let fields = [
            self.inode,
            mode,
            owner,
            owner,
            links,
            time,
            size(contents.len()),
            0,
            0,
            major,
            minor,
            size(path.len() + 1),
            check,
        ];
        self.bytes.extend_from_slice(MAGIC);
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries of an archive as path, mode and contents, read by the format's own description.
    fn entries(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        loop {
            let field = |index: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * index..14 + 8 * index]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            assert_eq!(&bytes[..6], b"070701");
            let (mode, size, name) = (field(1), field(6) as usize, field(11) as usize);
            let path = String::from_utf8(bytes[110..109 + name].to_vec()).unwrap();
            assert_eq!(bytes[109 + name], 0);
            let start = (110 + name).next_multiple_of(4);
            let contents = bytes[start..start + size].to_vec();
            bytes = &bytes[(start + size).next_multiple_of(4)..];
            if path == "TRAILER!!!" {
                assert!(bytes.is_empty());
                return found;
            }
            found.push((path, mode, contents));
        }
    }

    #[test]
    fn entries_are_aligned_and_complete() {
        let mut archive = Archive::default();
        archive.directory("/dev");
        archive.device("/dev/console", [5, 1]);
        archive.file("/init", b"12345");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let expected = [
            ("dev".into(), 0o040_755, vec![]),
            ("dev/console".into(), 0o020_600, vec![]),
            ("init".into(), 0o100_755, b"12345".to_vec()),
        ];
        assert_eq!(entries(&bytes), expected);
    }

    #[test]
    fn device_numbers_have_their_place() {
        let mut archive = Archive::default();
        archive.device("c", [5, 1]);
        let header = String::from_utf8(archive.finish()[..110].to_vec()).unwrap();
        // Major and minor of the device are the tenth and eleventh field.
        assert_eq!(&header[6 + 8 * 9..6 + 8 * 11], "0000000500000001");
    }
}
