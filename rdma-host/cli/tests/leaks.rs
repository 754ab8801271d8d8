//! Secrets stay secret when a command fails: nothing of them is left in the memory of the process,
//! in its log, in its arguments, or in a core dump.
//!
//! The process is caught when it has failed and is about to say so: standard error is a pipe that
//! takes no more, so that it waits in its last `write`.

use std::{
    fs::{self, File},
    io::{PipeReader, Read, Seek, SeekFrom, Write},
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use auth::{HashId, Secret};
use linux_keyutils::{KeyRing, KeyRingIdentifier};
use memchr::memmem;
use rustix::{
    process::{Resource, Rlimit, Signal},
    thread::CapabilitySet,
};

/// Capacity of a pipe, in bytes.
const PIPE: usize = 64 << 10;

/// A secret, and what must not be found.
struct Sample {
    text: String,
    needles: Vec<Vec<u8>>,
}

impl Sample {
    fn new(seed: u8) -> Self {
        let bytes: Vec<u8> =
            (0..32u8).map(|i| i.wrapping_mul(37).wrapping_add(seed) ^ 0xa5).collect();
        let secret = Secret::from_bytes(HashId::SHA_256, &bytes).expect("32 bytes");
        let text = secret.encode().as_str().to_owned();
        let base64 = &text.as_bytes()["DHHC-1:01:".len()..text.len() - 1];
        // Both ends of each form: a piece is a leak, too.
        let ends = |all: &[u8]| [all[..16].to_vec(), all[all.len() - 16..].to_vec()];
        let needles = [ends(&base64[..40]), ends(&bytes[..28])].concat();
        Self { text, needles }
    }

    /// The text, and all the ways in which one is refused.
    fn variants(&self) -> Vec<(&'static str, Vec<u8>)> {
        let text = &self.text;
        let (head, payload) = text.split_at("DHHC-1:01:".len());
        let payload = payload.trim_end_matches(':');
        let flipped = match payload.as_bytes()[20] {
            b'A' => format!("{}B{}", &payload[..20], &payload[21..]),
            _ => format!("{}A{}", &payload[..20], &payload[21..]),
        };
        let texts = [
            ("good", text.clone()),
            ("prefix", text.replace("DHHC-1", "DHHC-2")),
            ("hash field", text.replace(":01:", ":1:")),
            ("hash id", text.replace(":01:", ":09:")),
            ("final colon", format!("{head}{payload}")),
            ("trailing text", format!("{text}x")),
            ("text length", format!("{head}{payload}{}:", "A".repeat(60))),
            ("Base64", format!("{head}{payload}*:")),
            ("length", format!("{head}{}:", &payload[..payload.len() - 4])),
            ("checksum", format!("{head}{flipped}:")),
        ];
        let mut variants: Vec<_> =
            texts.into_iter().map(|(name, text)| (name, text.into_bytes())).collect();
        variants.push(("encoding", [text.as_bytes(), &[0xff]].concat()));
        variants
    }
}

/// One command line that fails, or at least ends, with what it reads.
struct Case {
    name: String,
    arguments: Vec<String>,
    input: Vec<u8>,
}

fn case(name: String, arguments: &[&str], input: &[u8]) -> Case {
    let arguments = arguments.iter().map(ToString::to_string).collect();
    Case { name, arguments, input: input.to_vec() }
}

/// A key of the session's keyring; gone when dropped.
struct Key(linux_keyutils::Key);

impl Key {
    fn add(description: &str, contents: &[u8]) -> Option<Self> {
        let ring = KeyRing::from_special_id(KeyRingIdentifier::User, true).ok()?;
        ring.add_key(description, contents).ok().map(Self)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        let _ = self.0.invalidate();
    }
}

const CLOSED_PORT: &str = "nvmf-rdma://127.0.0.1:1/nqn.2026-11.org.example:none";

/// Every way to fail, before there is a network.
fn cases(folder: &Path, host: &Sample, controller: &Sample, keys: &mut Vec<Key>) -> Vec<Case> {
    let file = |name: &str, contents: &[u8]| {
        let path = folder.join(name.replace(' ', "-"));
        fs::write(&path, contents).expect("the file is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        path.to_str().expect("UTF-8").to_owned()
    };
    let good = file("good host", host.text.as_bytes());
    let other = file("good controller", controller.text.as_bytes());
    let mut cases = Vec::new();
    for (name, contents) in host.variants() {
        let path = file(name, &contents);
        let identify = ["identify", CLOSED_PORT];
        let mut add = |how: &str, arguments: &[&str], input: &[u8]| {
            cases.push(case(format!("{how}: {name}"), arguments, input));
        };
        add("file", &[&identify[..], &["--dhchap-secret-file", &path]].concat(), b"");
        add("descriptor", &[&identify[..], &["--dhchap-secret-fd", "0"]].concat(), &contents);
        add("key check, file", &["key", "check", &path], b"");
        add("key check, input", &["key", "check"], &contents);
        let both = ["--dhchap-secret-file", &good, "--dhchap-ctrl-secret-fd", "0"];
        add("controller", &[&identify[..], &both].concat(), &contents);
        let description = format!("nvmf-leaks-{}-{name}", std::process::id());
        if let Some(key) = Key::add(&description, &contents) {
            keys.push(key);
            let key = ["--dhchap-secret-key", &description];
            add("keyring", &[&identify[..], &key].concat(), b"");
            let both = ["--dhchap-secret-file", &other, "--dhchap-ctrl-secret-key", &description];
            add("controller, keyring", &[&identify[..], &both].concat(), b"");
        }
    }
    let two = ["--dhchap-secret-file", &good, "--dhchap-ctrl-secret-file", &other];
    for command in ["identify", "read", "write", "write-verify", "bench", "discover"] {
        let arguments = [&[command, CLOSED_PORT][..], &two].concat();
        cases.push(case(command.to_owned(), &arguments, b""));
    }
    for more in [
        &["--dhchap-ctrl-secret-file", &good][..],
        &["--dhchap-secret-file", "/nothing"],
        &["--dhchap-secret-file", &good, "--dhchap-ctrl-secret-file", &good],
        &["--dhchap-secret-file", &good, "--dhchap-ctrl-secret-file", "/nothing"],
        &["--dhchap-secret-file", &good, "--dhchap-min-group", "ffdhe1024"],
        &["--dhchap-secret-file", &good, "--nr-io-queues", "0"],
        &["--dhchap-secret-file", &good, "--keep-alive-tmo", "x"],
    ] {
        cases.push(case(
            format!("{more:?}"),
            &[&["identify", CLOSED_PORT][..], more].concat(),
            b"",
        ));
    }
    cases
}

fn nvmf(case: &Case) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nvmf"));
    command.args(&case.arguments).stdin(Stdio::piped());
    command
}

/// A pipe that takes nothing more.
fn full_pipe() -> (PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(&vec![b'.'; PIPE]).expect("there is room");
    (reader, writer)
}

/// Starts a command and waits until it can't say what it has to say. What reads the rest comes
/// with it.
fn caught(case: &Case, folder: &Path) -> (Child, PipeReader) {
    let (reader, writer) = full_pipe();
    let mut command = nvmf(case);
    command.current_dir(folder).stdout(writer.try_clone().expect("a descriptor")).stderr(writer);
    let mut child = command.spawn().expect("nvmf runs");
    drop(command);
    let _ = child.stdin.take().expect("a pipe").write_all(&case.input);
    let begun = Instant::now();
    let waits = format!("/proc/{}/syscall", child.id());
    loop {
        let syscall = fs::read_to_string(&waits).unwrap_or_default();
        // Number 1 is write on x86-64, 64 on AArch64.
        let mut words = syscall.split(' ');
        let (number, stream) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if ["1", "64"].contains(&number) && ["0x1", "0x2"].contains(&stream) {
            return (child, reader);
        }
        assert_eq!(child.try_wait().expect("it is ours"), None, "{}: it said nothing", case.name);
        assert!(begun.elapsed() < Duration::from_secs(30), "{}: {syscall}", case.name);
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Needles that are in the memory of the process, with their places.
fn found(process: u32, needles: &[Vec<u8>]) -> Vec<String> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).expect("maps");
    let mut memory = File::open(format!("/proc/{process}/mem")).expect("memory");
    let (mut all, mut seen) = (Vec::new(), 0);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().expect("a range"), words.next().expect("rights"));
        if !rights.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
            continue;
        }
        let (start, end) = range.split_once('-').expect("a range");
        let [start, end] = [start, end].map(|end| u64::from_str_radix(end, 16).expect("a number"));
        let mut bytes = vec![0; usize::try_from(end - start).expect("64 bits")];
        memory.seek(SeekFrom::Start(start)).expect("an address");
        if memory.read_exact(&mut bytes).is_err() {
            continue; // pages of devices
        }
        seen += bytes.len();
        for (index, needle) in needles.iter().enumerate() {
            if contains(&bytes, needle) {
                all.push(format!("needle {index} in {line}"));
            }
        }
    }
    assert!(seen > 1 << 20, "the memory was read");
    all
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    memmem::find(bytes, needle).is_some()
}

fn allow_core_dumps() {
    let most = rustix::process::getrlimit(Resource::Core).maximum;
    let limit = Rlimit { current: most, maximum: most };
    rustix::process::setrlimit(Resource::Core, limit).expect("up to the maximum");
}

/// Aborts a process; returns its core dump, if the system makes one of it. The dump is empty where
/// the system does not leave it in the working directory.
fn abort(child: &mut Child, folder: &Path) -> Option<Vec<u8>> {
    let process = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(process, Signal::ABORT).expect("it is ours");
    let status = child.wait().expect("it ends");
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()));
    let names = ["core".to_owned(), format!("core.{}", child.id())];
    status.core_dumped().then(|| {
        let found = names.iter().map(|name| folder.join(name)).find(|path| path.exists());
        let Some(path) = found else { return Vec::new() };
        let bytes = fs::read(&path).expect("it is ours");
        fs::remove_file(path).expect("it is ours");
        bytes
    })
}

fn can_look_into_processes(folder: &Path) -> bool {
    let shown = Sample::new(99);
    let arguments = ["identify", CLOSED_PORT, "--dhchap-secret", &shown.text];
    let (mut child, _reader) = caught(&case("control".to_owned(), &arguments, b""), folder);
    let readable = File::open(format!("/proc/{}/mem", child.id())).is_ok();
    // What must be found, is: this one stands in the arguments.
    let control = !readable || !found(child.id(), &shown.needles).is_empty();
    child.kill().and_then(|()| child.wait()).expect("it ends");
    assert!(control, "the scan finds what is there");
    readable
}

#[test]
fn no_failure_leaves_a_secret_anywhere() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root may look into a process that holds secrets");
        return;
    }
    let temporary = tempfile::tempdir().expect("a folder");
    let folder = temporary.path();
    if fs::read_to_string("/proc/self/syscall").is_err() || !can_look_into_processes(folder) {
        println!("SKIPPED: this user may not look into other processes");
        return;
    }
    allow_core_dumps();
    let mut dumps = 0;
    let (host, controller) = (Sample::new(1), Sample::new(2));
    let needles = [&host.needles[..], &controller.needles].concat();
    let mut keys = Vec::new();
    let cases = cases(folder, &host, &controller, &mut keys);
    if keys.is_empty() {
        println!("SKIPPED: no keyring here");
    }
    assert!(cases.len() >= 40, "{}", cases.len());
    for case in &cases {
        let (mut child, reader) = caught(case, folder);
        let leaks = found(child.id(), &needles);
        let arguments = fs::read(format!("/proc/{}/cmdline", child.id())).expect("arguments");
        let core = abort(&mut child, folder);
        drop(reader);
        let dumped = core.as_deref().unwrap_or_default();
        assert!(!needles.iter().any(|needle| contains(dumped, needle)), "{}: core", case.name);
        dumps += usize::from(core.is_some());
        assert!(leaks.is_empty(), "{}: {leaks:#?}", case.name);
        assert!(!needles.iter().any(|needle| contains(&arguments, needle)), "{}", case.name);

        let mut command = nvmf(case);
        command.arg("-vv").env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("nvmf runs");
        let _ = child.stdin.take().expect("a pipe").write_all(&case.input);
        let output = child.wait_with_output().expect("it ends");
        let said = [output.stdout, output.stderr].concat();
        assert!(!needles.iter().any(|needle| contains(&said, needle)), "{}", case.name);
        assert!(!said.is_empty(), "{}: it says why", case.name);
    }
    println!(
        "{} ways to fail, {} secrets in keyrings; {dumps} left a core dump, before they had read a \
         secret",
        cases.len(),
        keys.len()
    );
}

/// Without secrets a process that is aborted leaves a core dump where the system makes them;
/// with secrets it does not.
#[test]
fn a_process_with_secrets_leaves_no_core_dump() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: only root may look into a process that holds secrets");
        return;
    }
    let temporary = tempfile::tempdir().expect("a folder");
    let folder = temporary.path();
    allow_core_dumps();
    let sample = Sample::new(3);
    let path = folder.join("secret");
    fs::write(&path, &sample.text).expect("the file is written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let dump = |arguments: &[&str]| {
        let (mut child, _reader) = caught(&case("abort".to_owned(), arguments, b""), folder);
        abort(&mut child, folder)
    };
    // What a dump has is found there, if it can be read: this name is no secret. Before a usage
    // error no file is read, which might hold secrets: not even one of the system.
    let name = format!("nqn.{}", sample.text.replace('/', "-"));
    let shown = fs::read_to_string("/proc/self/syscall").ok();
    let usage = ["identify", CLOSED_PORT, "-q", &name, "--bogus"];
    let Some(core) = shown.and_then(|_| dump(&usage)) else {
        println!("SKIPPED: this system makes no core dumps");
        return;
    };
    assert!(core.is_empty() || contains(&core, name.as_bytes()));
    let file = path.to_str().expect("UTF-8");
    assert_eq!(dump(&["identify", CLOSED_PORT, "--dhchap-secret-file", file]), None);
    assert_eq!(dump(&["key", "check", file]), None);
    assert_eq!(dump(&["identify", CLOSED_PORT, "--dhchap-secret", &sample.text]), None);
}

/// A process with secrets keeps all of its memory out of the swap space where it may.
#[test]
fn a_process_with_secrets_is_not_swapped_out() {
    let temporary = tempfile::tempdir().expect("a folder");
    let folder = temporary.path();
    let path = folder.join("secret");
    fs::write(&path, Sample::new(4).text).expect("the file is written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let locked = |arguments: &[&str]| {
        let (mut child, _reader) = caught(&case("locked".to_owned(), arguments, b""), folder);
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("status");
        child.kill().and_then(|()| child.wait()).expect("it ends");
        let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    };
    let may = rustix::process::getrlimit(Resource::Memlock).current.is_none()
        || rustix::thread::capabilities(None)
            .is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    if fs::read_to_string("/proc/self/syscall").is_err() || !may {
        println!("SKIPPED: this process may not lock all of its memory");
        return;
    }
    assert_eq!(locked(&["identify", CLOSED_PORT, "--bogus"]), 0, "a usage error reads no file");
    let file = path.to_str().expect("UTF-8");
    assert!(locked(&["identify", CLOSED_PORT, "--dhchap-secret-file", file]) > 1024);
}
