//! Memory that programs share with a device: requests with their data there are not copied.

use std::os::fd::AsRawFd;

use tests::metrics::Metrics;

use super::*;

/// Reads and writes of a device: those whose data was copied, and those whose data was not.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Requests {
    copied: f64,
    shared: f64,
}

/// Device with shared memory, whose process counts.
struct Sharing {
    device: Attached,
    socket: PathBuf,
    file: PathBuf,
}

/// True where the driver knows shared memory; says so where it does not.
pub(super) fn is_supported() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux has it");
    let is_old = release.starts_with("6.12.");
    if is_old {
        println!("SKIPPED: memory is shared from Linux 7.1 on");
    }
    !is_old
}

/// A file in memory of this many bytes.
fn file_of(folder: &Path, name: &str, bytes: u64) -> PathBuf {
    let path = folder.join(name);
    let file = File::create_new(&path).expect("a folder of ours");
    file.set_len(bytes).expect("no byte is written");
    path
}

impl Sharing {
    fn new(folder: &Path) -> Self {
        let (file, socket) = (file_of(folder, "shared", 8 << 20), folder.join("socket"));
        let words = [&file, &socket].map(|path| path.to_str().expect("text"));
        let options = ["--ns", "1", "--share", words[0], "--metrics-socket", words[1]];
        let device = Attached::new(&options);
        // A request that the kernel merges has its data in several places.
        let merges = format!("/sys/block/ublkb{}/queue/nomerges", device.id);
        fs::write(merges, "2").expect("an attribute");
        Self { device, socket, file }
    }

    /// Kills the process, and takes the device over with these options more.
    fn kill_and_recover(&self, options: &[&str]) {
        let socket = ["--metrics-socket", self.socket.to_str().expect("text")];
        self.device.kill_and_recover_with(&[options, &socket].concat());
    }

    fn requests(&self) -> Requests {
        let metrics = Metrics::ask(&self.socket);
        let [copied, shared] = ["data=\"copied\"", "data=\"shared\""]
            .map(|data| metrics.sum("nvmf_requests_total", &[data]));
        Requests { copied, shared }
    }

    /// Requests of a job.
    fn requests_of(&self, job: impl FnOnce()) -> Requests {
        let before = self.requests();
        job();
        let after = self.requests();
        Requests { copied: after.copied - before.copied, shared: after.shared - before.shared }
    }

    /// A job of fio that writes, reads and verifies with its memory in the file.
    fn fio(&self, loops: usize) -> Option<Fio> {
        let memory = format!("--mem=mmapshared:{}", self.file.display());
        let (loops, verify) = (format!("--loops={loops}"), "--verify=crc32c");
        let job = ["--rw=randwrite", "--bsrange=4k-64k", "--size=16m", &memory, &loops, verify];
        Fio::run(
            &self.device.path,
            &[&job[..], &["--verify_fatal=1", "--verify_state_save=0"]].concat(),
        )
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn requests_in_shared_memory_are_not_copied() {
    if !is_supported() {
        return;
    }
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let sharing = Sharing::new(folder.path());
    let path = sharing.device.path.display();
    let Some(fio) = sharing.fio(2) else { return };
    let all = sharing.requests_of(|| fio.succeed());
    assert_eq!(all.copied, 0.0, "{all:?}");
    assert!(all.shared > 500.0, "{all:?}");
    // A program with other memory.
    let copies = format!("if=/dev/zero of={path} bs=16k count=100 oflag=direct status=none");
    let all = sharing.requests_of(|| command("dd", &copies));
    assert_eq!(all, Requests { copied: 100.0, shared: 0.0 });
    assert!(sharing.device.detach(&[]).status.success());
}

/// The process that takes a device over may have the same memory, none, or another file's: requests
/// that the one before it left, and those of a program that still maps the first, lose nothing.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn shared_memory_is_recovered_or_done_without() {
    if !is_supported() {
        return;
    }
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let sharing = Sharing::new(folder.path());
    let other = file_of(folder.path(), "other", 1 << 20);
    let file = |path: &Path| path.to_str().expect("text").to_owned();
    let Some(mut fio) = sharing.fio(4 * kills()) else { return };
    let same = ["--share", &file(&sharing.file)];
    let other = ["--share", &file(&other)];
    for options in [&same[..], &[], &same, &other].into_iter().cycle().take(kills()) {
        thread::sleep(Duration::from_millis(150));
        assert!(fio.runs(), "{:?}", fio.output());
        sharing.kill_and_recover(options);
    }
    fio.succeed();
    for (options, is_shared) in [(&same[..], true), (&[], false), (&same, true), (&other, false)] {
        sharing.kill_and_recover(options);
        let fio = sharing.fio(1).expect("it was there");
        let all = sharing.requests_of(|| fio.succeed());
        assert_eq!((all.shared > 0.0, all.copied > 0.0), (is_shared, !is_shared), "{all:?}");
    }
    assert!(sharing.device.detach(&[]).status.success());
}

/// Memory that has no name but that of a descriptor.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_memfd_is_shared() {
    if !is_supported() {
        return;
    }
    let flags = rustix::fs::MemfdFlags::empty();
    let memory = File::from(rustix::fs::memfd_create("shared", flags).unwrap());
    memory.set_len(1 << 20).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
    let device = Attached::new(&["--ns", "1", "--share", &path]);
    assert!(device.detach(&[]).status.success());
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn memory_that_cannot_be_shared_is_refused() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let target = uri(SUBSYSTEM);
    let refused = |path: &Path, code: i32, word: &str| {
        let words = ["attach", &target, "--ns", "1", "--share", path.to_str().expect("text")];
        let output = run(nvmf().args(words), &[]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(message.lines().count(), 1, "{message}");
        let expected = if is_supported() { (code, word) } else { (1, "UBLK_F_SHMEM_ZC") };
        assert_eq!(output.status.code(), Some(expected.0), "{message}");
        assert!(message.contains(expected.1), "{message}");
    };
    refused(&folder.path().join("none"), 1, "No such file");
    refused(folder.path(), 2, "not a file");
    refused(Path::new("/dev/zero"), 2, "not a file");
    refused(&file_of(folder.path(), "empty", 0), 2, "0 bytes; share whole pages of 4096");
    refused(&file_of(folder.path(), "odd", 4097), 2, "4097 bytes");
    refused(&file_of(folder.path(), "large", (4 << 30) + 4096), 2, "4294967296 bytes at most");
    let host = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    host.as_file().set_len(4096).unwrap();
    refused(host.path(), 2, "not shared");
    assert!(listed().is_empty());
    let device = Attached::new(&["--ns", "1"]);
    let file = file_of(folder.path(), "good", 4096);
    let words = ["attach", &target, "--ns", "1", "--recover", &device.id];
    let output = run(nvmf().args(words).arg("--share").arg(&file), &[]);
    let message = String::from_utf8_lossy(&output.stderr);
    let word = if is_supported() { "without --share" } else { "UBLK_F_SHMEM_ZC" };
    assert!(message.contains(word) && message.lines().count() == 1, "{message}");
}
