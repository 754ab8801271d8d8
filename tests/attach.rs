//! `nvmf attach`: file systems and fio on a block device, whose process is killed, whose target
//! goes away, and which is detached.

// bed: waits --target tests/targets/attach.toml

#[path = "attach/allocations.rs"]
mod allocations;
#[path = "attach/blktests.rs"]
mod blktests;
#[path = "attach/changes.rs"]
mod changes;
#[path = "attach/metrics.rs"]
mod metrics;
#[path = "attach/names.rs"]
mod names;
#[path = "attach/pressure.rs"]
mod pressure;
#[path = "attach/processors.rs"]
mod processors;
#[path = "attach/sharing.rs"]
mod sharing;
#[path = "attach/udev.rs"]
mod udev;
#[path = "attach/users.rs"]
mod users;

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::{
    SUBSYSTEM, command, controllers, dmsetup, noise, nvmf, nvmf_ok, run, target, uri, wait_for,
};

/// Longest time of what takes milliseconds.
const LIMIT: Duration = Duration::from_secs(60);

/// Longest time of fio's job, kills and lost connections in it.
fn fio_limit() -> Duration {
    Duration::from_secs(200) + Duration::from_secs(10) * u32::try_from(kills()).expect("few")
}

/// Number of kills of one test; the long version has more.
fn kills() -> usize {
    std::env::var("ATTACH_KILLS").map_or(4, |kills| kills.parse().expect("a number"))
}

/// Options of each attach but for the namespace.
const OPTIONS: [&str; 2] = ["--reconnect-delay", "1"];

/// Attached device, which is detached on drop.
struct Attached {
    id: String,
    path: PathBuf,
}

impl Attached {
    fn new(options: &[&str]) -> Self {
        let target = uri(SUBSYSTEM);
        let printed = nvmf_ok(&[&["attach", &target][..], &OPTIONS, options].concat(), &[]);
        let path = String::from_utf8(printed).expect("text").trim_end().to_owned();
        let id = path.strip_prefix("/dev/ublkb").expect("a device").to_owned();
        Self { id, path: path.into() }
    }

    /// Words that take the device over.
    fn recover(&self, namespace: &str) -> Output {
        let target = uri(SUBSYSTEM);
        let words = ["attach", &target, "--recover", &self.id, "--ns", namespace];
        run(nvmf().args(words).args(OPTIONS), &[])
    }

    /// Kills the process, and takes the device over.
    fn kill_and_recover(&self) {
        self.kill_and_recover_with(&[]);
    }

    /// Kills the process, and takes the device over with these options more.
    fn kill_and_recover_with(&self, options: &[&str]) {
        kill_process(self.process(), Signal::KILL).expect("it is there");
        let target = uri(SUBSYSTEM);
        let words = ["attach", &target, "--recover", &self.id, "--ns", "1"];
        let recovered = run(nvmf().args(words).args(OPTIONS).args(options), &[]);
        assert!(recovered.status.success(), "{recovered:?}");
    }

    fn process(&self) -> Pid {
        let entry =
            listed().into_iter().find(|one| one["device"] == self.path.to_str().expect("text"));
        let process = entry.expect("the device is listed")["process"].as_i64().expect("a number");
        Pid::from_raw(process.try_into().expect("32 bits")).expect("no zero")
    }

    fn open(&self) -> File {
        File::options().read(true).write(true).open(&self.path).expect("a device")
    }

    fn detach(&self, more: &[&str]) -> Output {
        run(nvmf().arg("detach").arg(&self.path).args(more), &[])
    }

    fn queue_attribute(&self, name: &str) -> String {
        let path = format!("/sys/block/ublkb{}/queue/{name}", self.id);
        fs::read_to_string(path).expect("an attribute").trim_end().to_owned()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if listed().iter().any(|one| one["device"] == self.path.to_str().expect("text")) {
            let detached = self.detach(&["--force"]);
            if !thread::panicking() {
                assert!(detached.status.success(), "{detached:?}");
            }
        }
    }
}

/// Process in the foreground, whose messages are kept.
struct Foreground {
    child: Child,
    device: Attached,
}

impl Foreground {
    fn new(options: &[&str]) -> Self {
        Self::start(nvmf(), options)
    }

    fn start(mut nvmf: Command, options: &[&str]) -> Self {
        let mut child = nvmf
            .args(["attach", &uri(SUBSYSTEM), "--foreground"])
            .args(OPTIONS)
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut path = String::new();
        let printed = child.stdout.take().expect("a pipe");
        BufReader::new(printed).read_line(&mut path).expect("a line");
        let path = path.trim_end();
        let id = path.strip_prefix("/dev/ublkb").expect("a device").to_owned();
        Self { child, device: Attached { id, path: path.into() } }
    }

    /// Detaches the device, and returns the messages.
    fn detach(self) -> String {
        let detached = self.device.detach(&[]);
        assert!(detached.status.success(), "{detached:?}");
        let output = self.child.wait_with_output().expect("our child");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).expect("text")
    }
}

fn listed() -> Vec<Value> {
    let printed = nvmf_ok(&["list", "-o", "json"], &[]);
    serde_json::from_slice(&printed).expect("a list")
}

/// Mounted file system, unmounted on drop.
struct Mounted(PathBuf);

impl Mounted {
    fn new(device: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder").keep();
        command("mount", &format!("{} {}", device.display(), folder.display()));
        Self(folder)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg(&self.0), &[]);
        let _ = fs::remove_dir(&self.0);
    }
}

fn drop_caches() {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").expect("root may");
}

/// A job of fio on a device, or nothing where no fio is.
struct Fio(Child);

impl Fio {
    /// One that writes and verifies.
    fn start(device: &Path, loops: usize) -> Option<Self> {
        let loops = format!("--loops={loops}");
        let verify = ["--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0"];
        Self::run(
            device,
            &[&["--rw=randwrite", "--bsrange=4k-64k", "--size=16m", &loops][..], &verify].concat(),
        )
    }

    fn run(device: &Path, job: &[&str]) -> Option<Self> {
        let child = Command::new("fio")
            .args(["--name=job", "--iodepth=32", "--direct=1", "--ioengine=io_uring", "--minimal"])
            .args(job)
            .arg(format!("--filename={}", device.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        if child.is_err() {
            println!("SKIPPED: no fio; run: apt-get install fio");
        }
        child.ok().map(Self)
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().expect("our child").is_none()
    }

    fn succeed(self) {
        let output = self.output();
        assert!(output.status.success(), "{output:?}");
    }

    fn output(mut self) -> Output {
        wait_for("the end of fio", fio_limit(), || !self.runs());
        self.0.wait_with_output().expect("our child")
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_file_system_holds_what_was_written() {
    holds_what_was_written("1", ["mkfs.ext4", "-q"], ["e2fsck", "-fn"]);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn xfs_holds_what_was_written() {
    if Command::new("mkfs.xfs").arg("-V").output().is_err() {
        println!("SKIPPED: no mkfs.xfs; run: apt-get install xfsprogs");
        return;
    }
    holds_what_was_written("3", ["mkfs.xfs", "-q"], ["xfs_repair", "-n"]);
}

/// Makes a file system on a device, fills a file, compares it after the caches are dropped, and
/// again when the device was detached and attached; checks the file system.
fn holds_what_was_written(namespace: &str, make: [&str; 2], check: [&str; 2]) {
    let device = Attached::new(&["--ns", namespace, "--queues", "4"]);
    command(make[0], &format!("{} {}", make[1], device.path.display()));
    let mounted = Mounted::new(&device.path);
    let file = mounted.0.join("file");
    let data = noise(24 << 20, 1);
    let read = |file: &Path| fs::read(file).expect("it is there");
    fs::write(&file, &data).expect("there is room");
    drop_caches();
    assert!(read(&file) == data);
    let refused = device.detach(&[]);
    let message = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{message}");
    assert!(message.contains("in use") && message.lines().count() == 1, "{message}");
    assert!(read(&file) == data, "it goes on");
    drop(mounted);
    command(check[0], &format!("{} {}", check[1], device.path.display()));
    let process = device.process();
    assert!(device.detach(&[]).status.success());
    assert!(listed().is_empty() && !device.path.exists());
    let is_gone = || rustix::process::test_kill_process(process).is_err();
    wait_for("the end of the process", LIMIT, is_gone);
    // The bytes are in the namespace, not in a cache.
    let device = Attached::new(&["--ns", namespace]);
    let mounted = Mounted::new(&device.path);
    assert!(read(&mounted.0.join("file")) == data);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_process_is_killed_again_and_again() {
    let device = Attached::new(&["--ns", "1"]);
    let Some(mut fio) = Fio::start(&device.path, 4 * kills()) else { return };
    let mut met = 0;
    for round in 0..kills() {
        thread::sleep(Duration::from_millis(20 + 97 * (round as u64 % 7)));
        met += usize::from(fio.runs());
        device.kill_and_recover();
    }
    fio.succeed();
    assert!(met > kills() / 2, "only {met} kills met the job");
    assert!(device.detach(&[]).status.success());
}

/// Reads that a process is completing when it is killed: most of its time it copies their data.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_process_is_killed_while_it_completes_reads() {
    let device = Attached::new(&["--ns", "1"]);
    let job = ["--rw=randread", "--bs=128k", "--size=64m", "--time_based", "--runtime=600"];
    let Some(mut fio) = Fio::run(&device.path, &job) else { return };
    for round in 0..2 * kills() {
        thread::sleep(Duration::from_millis(100 + 23 * (round as u64 % 7)));
        assert!(fio.runs(), "{:?}", fio.output());
        device.kill_and_recover();
    }
    kill_process(Pid::from_child(&fio.0), Signal::INT).expect("it runs");
    let output = fio.output();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!message.contains("error"), "{output:?}");
    assert!(device.detach(&[]).status.success());
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_target_goes_away_under_load() {
    let device = Attached::new(&["--ns", "1"]);
    let Some(fio) = Fio::start(&device.path, 12) else { return };
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(200));
        target(&["unlink", "port", "1", SUBSYSTEM]);
        thread::sleep(Duration::from_millis(300));
        target(&["link", "port", "1", SUBSYSTEM]);
    }
    fio.succeed();
}

/// Requests wait while nothing serves them, also of a process that was given a signal.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_device_in_use_outlives_a_signal() {
    let device = Attached::new(&["--ns", "1"]);
    command("mkfs.ext4", &format!("-q {}", device.path.display()));
    let mounted = Mounted::new(&device.path);
    let process = device.process();
    kill_process(process, Signal::TERM).unwrap();
    let is_waiting = || listed().iter().any(|one| one["state"] == "waiting for its daemon");
    wait_for("the device waits", LIMIT, is_waiting);
    let refused = device.detach(&[]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && message.contains("--recover"), "{message}");
    let file = mounted.0.join("file");
    let data = noise(1 << 20, 2);
    let writer = thread::spawn({
        let (file, data) = (file.clone(), data.clone());
        move || {
            let mut file = File::create(file).unwrap();
            file.write_all(&data).unwrap();
            file.sync_all().unwrap();
        }
    });
    let wrong = device.recover("2");
    let message = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert_eq!(wrong.status.code(), Some(1), "{message}");
    assert!(message.contains("another one"), "{message}");
    assert!(device.recover("1").status.success());
    writer.join().unwrap();
    drop_caches();
    assert!(fs::read(&file).unwrap() == data);
    // The process that took over has not kept the file system mounted.
    drop(mounted);
    let exclusive = File::options()
        .read(true)
        .custom_flags(rustix::fs::OFlags::EXCL.bits().cast_signed())
        .open(&device.path);
    assert!(exclusive.is_ok(), "{exclusive:?}");
    drop(exclusive);
    // It is not in use: now a signal ends it.
    kill_process(device.process(), Signal::TERM).unwrap();
    wait_for("the device is gone", LIMIT, || listed().is_empty() && !device.path.exists());
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn discards_and_zeros_and_forced_writes_reach_the_namespace() {
    for (namespace, block) in [("1", 4096), ("2", 512)] {
        let device = Attached::new(&["--ns", namespace]);
        assert_eq!(device.queue_attribute("logical_block_size"), block.to_string());
        let file = device.open();
        file.write_all_at(&[0xa5; 1 << 20], 0).unwrap();
        file.sync_all().unwrap();
        let path = device.path.display();
        command("blkdiscard", &format!("-z -o 4096 -l 8192 {path}"));
        if device.queue_attribute("discard_max_bytes") != "0" {
            command("blkdiscard", &format!("-o 65536 -l 65536 {path}"));
        }
        drop_caches();
        let raw = nvmf_ok(
            &["read", &uri(SUBSYSTEM), "--ns", namespace, "--blocks", &(65536 / block).to_string()],
            &[],
        );
        assert!(raw[..4096].iter().all(|byte| *byte == 0xa5));
        assert!(raw[4096..12288].iter().all(|byte| *byte == 0));
        assert!(raw[12288..].iter().all(|byte| *byte == 0xa5));
        let mut read = vec![0; 65536];
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read == raw);
        command(
            "dd",
            &format!("if=/dev/zero of={path} bs=4k count=4 oflag=direct,dsync status=none"),
        );
        assert!(
            nvmf_ok(&["read", &uri(SUBSYSTEM), "--ns", namespace, "--blocks", "1"], &[])
                .iter()
                .all(|byte| *byte == 0)
        );
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_read_only_device_refuses_writes() {
    let device = Attached::new(&["--ns", "2", "--read-only"]);
    assert!(
        File::options()
            .write(true)
            .open(&device.path)
            .is_err_and(|error| { [Some(1), Some(13), Some(30)].contains(&error.raw_os_error()) })
            || device.open().write_all_at(&[0; 4096], 0).is_err()
    );
    let mut block = [0; 4096];
    File::open(&device.path).unwrap().read_exact(&mut block).unwrap();
}

/// Time for which the device of namespace 4 holds writes back, in milliseconds.
const DELAY_MS: u32 = 8_000;

/// Namespace that a test adds to the target, removed on drop.
struct AddedNamespace(PathBuf);

impl AddedNamespace {
    fn new(id: u32, attributes: &[(&str, &str)]) -> Self {
        let subsystems = Path::new("/sys/kernel/config/nvmet/subsystems");
        let path = subsystems.join(SUBSYSTEM).join("namespaces").join(id.to_string());
        fs::create_dir(&path).expect("a namespace is added");
        let this = Self(path);
        attributes.iter().for_each(|(name, value)| this.set(name, value));
        this.set("enable", "1");
        this
    }

    fn set(&self, attribute: &str, value: &str) {
        fs::write(self.0.join(attribute), value).expect("the target takes the value");
    }
}

impl Drop for AddedNamespace {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("enable"), "0");
        let _ = fs::remove_dir(&self.0);
    }
}

/// Device that delays, removed on drop.
struct Delay(String);

impl Delay {
    fn new() -> Self {
        let table = format!("0 2048 delay /dev/ram0 0 0 /dev/ram0 0 {DELAY_MS}");
        dmsetup(&["create", "attach", "--table", &table]);
        let minor = dmsetup(&["info", "-c", "--noheadings", "-o", "minor", "attach"]);
        Self(format!("/dev/dm-{}", minor.trim()))
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        dmsetup(&["remove", "--retry", "attach"]);
    }
}

/// A write of the process that was killed is still in the target: the next process serves the
/// device once the target has no controller of the first any more.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_late_write_of_the_process_before_is_awaited() {
    let slow = Delay::new();
    let _namespace = AddedNamespace::new(4, &[("device_path", &slow.0)]);
    let device = Attached::new(&["--ns", "4"]);
    let before = controllers(SUBSYSTEM);
    let path = device.path.display();
    let copy = format!("if=/dev/zero of={path} bs=4k count=1 oflag=direct status=none");
    let writer = thread::spawn(move || command("dd", &copy));
    let in_flight = format!("/sys/block/ublkb{}/inflight", device.id);
    wait_for("the write is in flight", LIMIT, || {
        let counts = fs::read_to_string(&in_flight).expect("an attribute");
        counts.split_whitespace().nth(1) == Some("1")
    });
    thread::sleep(Duration::from_millis(300));
    kill_process(device.process(), Signal::KILL).unwrap();
    let target = uri(SUBSYSTEM);
    let words = ["attach", &target, "--recover", &device.id, "--ns", "4", "--fence", "proof"];
    let recovered = run(nvmf().args(words), &[]);
    assert!(recovered.status.success(), "{recovered:?}");
    assert_eq!(controllers(SUBSYSTEM), before, "the first controller is still there");
    writer.join().unwrap();
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn what_is_wrong_is_said_in_one_line() {
    let said = |words: &[&str], code: i32, word: &str| {
        let output = run(nvmf().args(words), &[]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{words:?}: {message}");
        assert!(message.contains(word), "{words:?}: {message}");
    };
    let target = uri(SUBSYSTEM);
    said(&["detach", "7"], 2, "no /dev/ublkb7");
    said(&["attach", &target], 2, "--ns");
    said(&["attach", &target, "--ns", "1", "--on-loss", "nothing"], 2, "--on-loss");
    said(&["attach", &target, "--ns", "77"], 2, "77");
    // Not even connected: nothing answers at that address.
    let nowhere = "nvmf-rdma://192.0.2.1/nqn.2026-11.org.soft-roce:none";
    said(&["attach", nowhere, "--metrics-file", "/none/nvmf.prom"], 1, "No such file");
    said(&["monitor", nowhere, "--metrics-socket", "/etc/hostname"], 1, "no socket");
    // A relative path is one of the folder in which the command was given.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("key"), "no secret").unwrap();
    fs::set_permissions(folder.path().join("key"), fs::Permissions::from_mode(0o600)).unwrap();
    let words = ["attach", nowhere, "--dhchap-secret-file", "key"];
    let output = run(nvmf().current_dir(&folder).args(words), &[]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("our secret: the secret does not begin with"), "{message}");
    let device = Attached::new(&["--ns", "1"]);
    said(&["attach", &target, "--ns", "1", "--id", &device.id], 1, "already");
    said(&["attach", &target, "--ns", "1", "--recover", &device.id], 1, "another process");
    fs::rename("/dev/ublk-control", "/dev/ublk-control.away").unwrap();
    said(&["attach", &target, "--ns", "1"], 1, "modprobe ublk_drv");
    fs::rename("/dev/ublk-control.away", "/dev/ublk-control").unwrap();
}

/// systemd is told when the device is there, and messages go to standard error.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn in_the_foreground_the_manager_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut child = nvmf()
        .args(["attach", &uri(SUBSYSTEM), "--ns", "1", "--foreground", "--recover", "3"])
        .env("NOTIFY_SOCKET", &path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut message = [0; 64];
    let length = socket.recv(&mut message).expect("it is told");
    assert_eq!(&message[..length], b"READY=1");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "/dev/ublkb3\n");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(listed().is_empty());
}
