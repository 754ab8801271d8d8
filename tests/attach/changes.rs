//! Changes below a device: the controller turns fatal or is given up, the namespace has another
//! size, or is another one.

use std::os::unix::{fs::FileTypeExt, net::UnixDatagram};

use super::*;

/// UUIDs of namespace 5.
const UUIDS: [&str; 2] =
    ["f2a1c5de-7a2b-4a9c-9d6e-1f3b5c7d9e05", "f2a1c5de-7a2b-4a9c-9d6e-1f3b5c7d9e55"];

/// The device as `nvmf list` has it.
fn entry(device: &Attached) -> Option<Value> {
    listed().into_iter().find(|one| one["device"] == device.path.to_str().expect("text"))
}

fn is_failing(device: &Attached) -> bool {
    entry(device).is_some_and(|entry| entry["state"] == "failing")
}

/// Error number of a read past all caches, of a write and of a flush.
fn errors(device: &Attached) -> [Option<i32>; 2] {
    let file = device.open();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("it takes advice");
    let read = file.read_exact_at(&mut [0; 4096], 0);
    let written = file.write_all_at(&[7; 4096], 0).and_then(|()| file.sync_all());
    [read, written].map(|outcome| outcome.err().and_then(|error| error.raw_os_error()))
}

/// A controller that is given up fails the requests; the device stays, and is detached.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_lost_target_fails_requests() {
    let _ = fs::remove_file("/dev/log");
    let log = UnixDatagram::bind("/dev/log").unwrap();
    log.set_read_timeout(Some(LIMIT)).unwrap();
    let device = Attached::new(&["--ns", "2", "--ctrl-loss-tmo", "1"]);
    let file = device.open();
    target(&["unlink", "port", "1", SUBSYSTEM]);
    let written = file.write_all_at(&[7; 4096], 0).and_then(|()| file.sync_all());
    assert!(written.is_err_and(|error| error.raw_os_error() == Some(5)));
    drop(file);
    wait_for("the list says so", LIMIT, || is_failing(&device));
    let failure = entry(&device).expect("it stays")["failure"].to_string();
    assert!(failure.contains("connect"), "{failure}");
    let said = format!("]: {}: all requests fail: ", device.path.display());
    let mut logged = [0; 1024];
    loop {
        let length = log.recv(&mut logged).expect("syslog is told");
        let line = str::from_utf8(&logged[..length]).unwrap();
        assert!(line.starts_with("<29>nvmf["), "{line}");
        if line.contains(&said) {
            break;
        }
    }
    fs::remove_file("/dev/log").unwrap();
    assert_eq!(errors(&device), [Some(5); 2]);
    target(&["link", "port", "1", SUBSYSTEM]);
    assert!(device.detach(&[]).status.success());
}

/// With `--on-loss remove` it goes, though a file system is mounted on it.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_lost_target_removes_the_device() {
    let options = ["--ns", "1", "--ctrl-loss-tmo", "1", "--on-loss", "remove"];
    let Foreground { mut child, device } = Foreground::new(&options);
    command("mkfs.ext4", &format!("-q {}", device.path.display()));
    let mounted = Mounted::new(&device.path);
    let mut file = File::create(mounted.0.join("file")).unwrap();
    target(&["unlink", "port", "1", SUBSYSTEM]);
    let written = file.write_all(&[7; 4096]).and_then(|()| file.sync_all());
    assert!(written.is_err_and(|error| error.raw_os_error() == Some(5)));
    wait_for("the process ends", LIMIT, || child.try_wait().unwrap().is_some());
    let output = child.wait_with_output().unwrap();
    target(&["link", "port", "1", SUBSYSTEM]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.lines().last().unwrap().contains("was removed"), "{message}");
    assert!(listed().is_empty());
    assert!(!device.path.exists(), "{}", device.path.display());
    let detached = device.detach(&[]);
    let message = String::from_utf8_lossy(&detached.stderr);
    assert_eq!(detached.status.code(), Some(2), "{message}");
    assert!(message.contains("there is no") && message.lines().count() == 1, "{message}");
    drop((file, mounted));
    // The number is free again once nothing has the device open.
    let again = Attached::new(&["--ns", "1", "--id", &device.id]);
    assert_eq!(again.path, device.path);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_controller_turns_fatal_under_load() {
    let device = Attached::new(&["--ns", "1"]);
    let Some(fio) = Fio::start(&device.path, 12) else { return };
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(300));
        wait_for("there is a controller", LIMIT, || controllers(SUBSYSTEM) > 0);
        target(&["fatal", SUBSYSTEM]);
    }
    fio.succeed();
}

/// Namespace 5, in a file of this size.
fn namespace_5(folder: &Path, megabytes: u64) -> (AddedNamespace, File) {
    let path = folder.join("namespace");
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
    let file = file.expect("a file");
    file.set_len(megabytes << 20).expect("there is room");
    let path = path.to_str().expect("text");
    (AddedNamespace::new(5, &[("device_path", path), ("device_uuid", UUIDS[0])]), file)
}

/// A device has the size that its namespace has, where the driver can change it.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_namespace_grows_and_shrinks() {
    let follows = !fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().starts_with("6.12.");
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let (namespace, backing) = namespace_5(folder.path(), 8);
    let served = Foreground::new(&["--ns", "5"]);
    let device = &served.device;
    let megabytes = || {
        let path = format!("/sys/block/ublkb{}/size", device.id);
        fs::read_to_string(path).unwrap().trim().parse::<u64>().unwrap() >> 11
    };
    assert_eq!(megabytes(), 8);
    for size in [12, 4, 6] {
        backing.set_len(size << 20).unwrap();
        namespace.set("revalidate_size", "1");
        wait_for("the process knows", LIMIT, || {
            entry(device).unwrap()["namespace_bytes"] == size << 20
        });
        wait_for("the device follows", LIMIT, || megabytes() == if follows { size } else { 8 });
    }
    // The other way: while there is no connection, no event tells.
    target(&["unlink", "port", "1", SUBSYSTEM]);
    backing.set_len(16 << 20).unwrap();
    namespace.set("revalidate_size", "1");
    target(&["link", "port", "1", SUBSYSTEM]);
    wait_for("the device follows", LIMIT, || {
        entry(device).unwrap()["namespace_bytes"] == 16 << 20
            && megabytes() == if follows { 16 } else { 8 }
    });
    let last = if follows { 16 << 20 } else { 8 << 20 } - 4096;
    let file = device.open();
    file.write_all_at(&[0x5a; 4096], last).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let mut block = [0; 4096];
    backing.read_exact_at(&mut block, last).unwrap();
    assert!(block == [0x5a; 4096]);
    let messages = served.detach();
    let said = if follows { "12582912 bytes now, 8388608 before" } else { "detach and attach it" };
    assert!(messages.contains(said), "{messages}");
}

/// Another namespace with the same number is neither read nor written, whether the change is told
/// by an event or found after a reconnect.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn another_namespace_is_not_served() {
    for is_connected in [true, false] {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let (namespace, backing) = namespace_5(folder.path(), 8);
        let served = Foreground::new(&["--ns", "5"]);
        let device = &served.device;
        let link = |verb| {
            if !is_connected {
                target(&[verb, "port", "1", SUBSYSTEM]);
            }
        };
        link("unlink");
        namespace.set("enable", "0");
        namespace.set("device_uuid", UUIDS[1]);
        namespace.set("enable", "1");
        link("link");
        wait_for("it is noticed", LIMIT, || is_failing(device));
        assert_eq!(errors(device), [Some(5); 2]);
        let mut block = [0; 4096];
        backing.read_exact_at(&mut block, 0).unwrap();
        assert!(block == [0; 4096], "nothing was written to the other namespace");
        let failure = entry(device).unwrap()["failure"].to_string();
        assert!(failure.contains("namespace 5 is another one"), "{failure}");
        assert!(fs::metadata(&device.path).unwrap().file_type().is_block_device());
        let messages = served.detach();
        assert!(messages.contains("all requests fail: namespace 5"), "{messages}");
    }
}

/// A device that has requests in flight goes if it must, and they fail.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_device_is_detached_under_load() {
    let device = Attached::new(&["--ns", "1"]);
    let process = device.process();
    let job = ["--rw=randrw", "--bs=4k", "--size=16m", "--time_based", "--runtime=600"];
    let Some(mut fio) = Fio::run(&device.path, &job) else { return };
    let in_flight = format!("/sys/block/ublkb{}/inflight", device.id);
    wait_for("requests are in flight", LIMIT, || {
        fs::read_to_string(&in_flight).expect("an attribute").split_whitespace().any(|n| n != "0")
    });
    // Before, drivers know only of users that have a device for themselves.
    if !fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().starts_with("6.") {
        let refused = device.detach(&[]);
        let message = String::from_utf8_lossy(&refused.stderr);
        assert!(message.contains("in use") && message.lines().count() == 1, "{message}");
        assert!(fio.runs(), "{:?}", fio.output());
    }
    let detached = device.detach(&["--force"]);
    assert!(detached.status.success(), "{detached:?}");
    let output = fio.output();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("rror"), "{output:?}");
    assert!(listed().is_empty() && !device.path.exists());
    let is_gone = || rustix::process::test_kill_process(process).is_err();
    wait_for("the end of the process", LIMIT, is_gone);
}
