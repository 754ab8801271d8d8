//! Memory pressure: the pages that must be written, so that there is memory again, are those of the
//! device, and its process must need none for that.

use std::{io::Seek, time::Instant};

use super::*;

/// Time under pressure; the long version has more.
fn pressure_time() -> Duration {
    let seconds = std::env::var("ATTACH_PRESSURE");
    Duration::from_secs(seconds.map_or(10, |seconds| seconds.parse().expect("a number")))
}

/// Memory that is left to all, in KiB: less than the pages that are written.
const LEFT: std::ops::Range<u64> = (24 << 10)..(40 << 10);

/// Memory that is left to the process that is ended first: taking more of it page by page is slow.
const LEFT_TO_HOLDER: u64 = 128 << 10;

/// Bytes of the file, whose pages are dirty most of the time.
const FILE_BYTES: usize = 36 << 20;
const CHUNK_BYTES: usize = 64 << 10;

/// Number in a line of /proc/meminfo, in KiB.
fn memory(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("Linux has it");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).expect("a number")
}

/// Holds memory until it is killed, in another process, which the kernel ends first.
fn hold_memory() {
    fs::write("/proc/self/oom_score_adj", "1000").expect("root may");
    let mut held = Vec::new();
    loop {
        match memory("MemAvailable") {
            left if left > LEFT.end => held.push(vec![1_u8; 4 << 20]),
            left if left < LEFT.start => drop(held.pop()),
            _ => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// The process that holds memory, killed on drop; started again when the kernel has ended it.
struct Holder {
    child: Child,
    /// Number of times that the kernel has ended it.
    ended: u32,
}

impl Holder {
    fn new() -> Self {
        Self { child: Self::start(), ended: 0 }
    }

    fn start() -> Child {
        let mut command = Command::new(std::env::current_exe().expect("our own path"));
        command.args(["--ignored", "--exact", "pressure::dirty_pages_are_written_without_memory"]);
        command.env("HOLD_MEMORY", "1").stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("it starts")
    }

    fn keep(&mut self) {
        if self.child.try_wait().expect("our child").is_some() {
            (self.child, self.ended) = (Self::start(), self.ended + 1);
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Files in memory, removed on drop.
struct Filled(Mounted);

impl Filled {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder").keep();
        command("mount", &format!("-t tmpfs -o size=100% none {}", folder.display()));
        let this = Self(Mounted(folder));
        let mut file = File::create(this.0.0.join("file")).expect("a file");
        while memory("MemAvailable") > LEFT_TO_HOLDER {
            file.write_all(&[1; 1 << 20]).expect("there is memory");
        }
        this
    }
}

/// Setting of the kernel, put back on drop.
struct Setting(PathBuf, String);

impl Setting {
    fn new(path: &str, value: &str) -> Self {
        let before = fs::read_to_string(path).expect("a setting");
        fs::write(path, value).expect("root may");
        Self(path.into(), before)
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = fs::write(&self.0, &self.1);
    }
}

/// Content of a chunk, which each pass over the file changes.
fn chunk(index: usize, pass: u64) -> Vec<u8> {
    let words = (0..CHUNK_BYTES as u64 / 8).map(|word| pass << 40 | (index as u64) << 16 | word);
    words.flat_map(u64::to_le_bytes).collect()
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn dirty_pages_are_written_without_memory() {
    if std::env::var_os("HOLD_MEMORY").is_some() {
        return hold_memory();
    }
    let device = Attached::new(&["--ns", "1"]);
    let process = device.process();
    command("mkfs.ext4", &format!("-q {}", device.path.display()));
    let mounted = Mounted::new(&device.path);
    let path = mounted.0.join("file");
    let _settings = [("dirty_background_ratio", "70"), ("dirty_ratio", "80")]
        .map(|(name, value)| Setting::new(&format!("/proc/sys/vm/{name}"), value));
    let filled = Filled::new();
    let mut holder = Holder::new();
    wait_for("little memory is left", LIMIT, || {
        holder.keep();
        holder.ended > 0 || memory("MemAvailable") < LEFT.end
    });
    let mut file = File::create(&path).expect("there is room");
    let (deadline, mut passes) = (Instant::now() + pressure_time(), 0);
    let (mut dirty, mut free) = (0, u64::MAX);
    while Instant::now() < deadline || passes < 2 {
        passes += 1;
        file.rewind().unwrap();
        for index in 0..FILE_BYTES / CHUNK_BYTES {
            file.write_all(&chunk(index, passes)).unwrap();
            if index % 16 == 0 {
                (dirty, free) = (dirty.max(memory("Dirty")), free.min(memory("MemFree")));
            }
        }
        if passes % 3 == 0 {
            file.sync_all().unwrap();
        }
        holder.keep();
    }
    file.sync_all().unwrap();
    println!(
        "{passes} passes, at most {dirty} KiB dirty, at least {free} KiB free; the process that \
         holds memory was ended {} times",
        holder.ended
    );
    drop_caches();
    let mut read = File::open(&path).unwrap();
    for index in 0..FILE_BYTES / CHUNK_BYTES {
        let mut found = vec![0; CHUNK_BYTES];
        read.read_exact(&mut found).unwrap();
        assert!(found == chunk(index, passes), "chunk {index}");
    }
    drop((read, file, holder, filled, mounted));
    assert!(dirty > (FILE_BYTES >> 10) as u64 / 3, "only {dirty} KiB were dirty at once");
    assert_eq!(device.process(), process);
    command("e2fsck", &format!("-fn {}", device.path.display()));
}
