//! Fixtures of the tests in the bed: the programs under test, the target, the kernel's initiator.
//!
//! These tests run inside a guest (`./tests/run` starts it). Programs come from `NVMF` and
//! `SOFT_ROCE_PROGRAM`; the target is the one of the file the guest was started with.

pub mod authentication_hook;
pub mod load;
mod log;
pub mod mapped_namespace;
pub mod metrics;
pub mod other_machine;
pub mod process_resources;
pub mod sequence;
pub mod shutdown;

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

pub use log::log_of;
use rdma_host::{ConnectOptions, HostIdentity};
pub use scripted_target::{self as target, authenticator, note};
pub use simulation::random::noise;

/// The subsystem that the target files of these tests offer.
pub const SUBSYSTEM: &str = "nqn.2026-11.org.soft-roce:tests";

/// The address the target listens on.
///
/// # Panics
///
/// Outside the bed.
#[must_use]
pub fn address() -> String {
    std::env::var("SOFT_ROCE_ADDRESS").expect("run by ./tests/run, inside the test bed")
}

/// The name of the guest's RDMA device, the first if it has two.
#[must_use]
pub fn device() -> &'static str {
    match std::env::var("SOFT_ROCE_DEVICE").as_deref() {
        Ok("siw") => "siw0",
        _ => "rxe0",
    }
}

/// The target as a URI, for a subsystem.
#[must_use]
pub fn uri(subsystem: &str) -> String {
    format!("nvmf-rdma://{}/{subsystem}", address())
}

/// Options to connect to [`SUBSYSTEM`].
///
/// # Panics
///
/// Outside the bed.
#[must_use]
pub fn options() -> ConnectOptions {
    let address = format!("{}:4420", address()).parse().expect("an address and a port");
    let host =
        HostIdentity::from_id("6a2c1f4e-0b1d-4c8e-9f53-7d1e2a3b4c5d".parse().expect("a UUID"));
    let mut options = ConnectOptions::new(address, SUBSYSTEM.parse().expect("an NQN"), host);
    // nvmet takes it for the longest pause within an authentication, too.
    options.keep_alive *= deadline_factor();
    options
}

/// The factor by which deadlines are longer in this guest: its processor may be emulated.
#[must_use]
pub fn deadline_factor() -> u32 {
    let told = std::env::var("SOFT_ROCE_DEADLINE_FACTOR").ok();
    told.and_then(|factor| factor.parse().ok()).unwrap_or(1)
}

/// Runs a program to its end, with bytes on standard input.
///
/// # Panics
///
/// When it can't be started.
#[must_use]
pub fn run(command: &mut Command, input: &[u8]) -> Output {
    note(&format!("the end of {command:?}"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    // A program that does not read all of it is no failure of the test.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().expect("the program ends")
}

/// Runs an example of `rdma_host` on the target, with more arguments than its address; returns what
/// it prints.
///
/// # Panics
///
/// When it fails.
#[must_use]
pub fn run_example(name: &str, arguments: &[&str]) -> String {
    let target = format!("{}:4420", address());
    run_example_with(name, &[&[target.as_str()], arguments].concat())
}

/// Runs an example of any package with these arguments; returns what it prints.
///
/// # Panics
///
/// When it fails.
#[must_use]
pub fn run_example_with(name: &str, arguments: &[&str]) -> String {
    let program = std::env::current_exe().expect("the path of this program");
    let folder = program.ancestors().nth(2).expect("target/debug").join("examples");
    let mut command = Command::new(folder.join(name));
    let output = run(command.args(arguments), &[]);
    assert!(output.status.success(), "{name}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Runs `dmsetup`, where no udev is; returns what it prints.
///
/// # Panics
///
/// If it fails.
pub fn dmsetup(arguments: &[&str]) -> String {
    let mut dmsetup = Command::new("dmsetup");
    let output = run(dmsetup.args(["--noudevrules", "--noudevsync"]).args(arguments), &[]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "dmsetup {arguments:?}: {message}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs a program that must succeed, with arguments between spaces.
///
/// # Panics
///
/// When it does not.
pub fn command(program: &str, arguments: &str) {
    let output = run(Command::new(program).args(arguments.split(' ')), &[]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {message}");
}

/// `nvmf`, ready for arguments.
///
/// # Panics
///
/// Outside the bed.
#[must_use]
pub fn nvmf() -> Command {
    Command::new(std::env::var("NVMF").expect("NVMF names the program; run by ./tests/run"))
}

/// Runs `nvmf` and insists that it succeeds; returns its standard output.
///
/// # Panics
///
/// When it does not.
#[must_use]
pub fn nvmf_ok(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let output = run(nvmf().args(arguments), input);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nvmf {arguments:?}: {}: {message}", output.status);
    output.stdout
}

/// Changes the target: `soft-roce target …`.
///
/// # Panics
///
/// When that fails.
pub fn target(arguments: &[&str]) -> String {
    let program = std::env::var("SOFT_ROCE_PROGRAM").expect("run by ./tests/run");
    let output = run(Command::new(program).arg("target").args(arguments), &[]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "soft-roce target {arguments:?}: {message}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Enables reservations on a namespace of [`SUBSYSTEM`]; false if the kernel's target has none.
///
/// # Panics
///
/// When the target refuses.
#[must_use]
pub fn enable_reservations(namespace: u32) -> bool {
    let folder = format!("/sys/kernel/config/nvmet/subsystems/{SUBSYSTEM}/namespaces/{namespace}");
    let folder = Path::new(&folder);
    if !folder.join("resv_enable").exists() {
        return false;
    }
    for (name, value) in [("enable", "0"), ("resv_enable", "1"), ("enable", "1")] {
        fs::write(folder.join(name), value).expect("the target takes it");
    }
    true
}

/// Ends the connections of a subsystem's controllers; the next connect is accepted again.
///
/// A kernel without the target's debugfs, as distributions build it, cannot make a controller fail;
/// there the subsystem leaves its ports for a moment.
///
/// # Panics
///
/// When the target refuses.
pub fn break_connections(subsystem: &str) {
    if std::path::Path::new("/sys/kernel/debug/nvmet").is_dir() {
        target(&["fatal", subsystem]);
        return;
    }
    let nvmet = std::path::Path::new("/sys/kernel/config/nvmet");
    let ports = std::fs::read_dir(nvmet.join("ports")).expect("there is a target");
    for port in ports.map(|entry| entry.expect("the folder can be read").path()) {
        let link = port.join("subsystems").join(subsystem);
        if link.is_symlink() {
            std::fs::remove_file(&link).expect("a subsystem may leave");
            let subsystem = nvmet.join("subsystems").join(subsystem);
            std::os::unix::fs::symlink(subsystem, &link).expect("and come back");
        }
    }
}

/// Number of controllers that a subsystem of the target has.
///
/// # Panics
///
/// When the target can't be asked.
#[must_use]
pub fn controllers(subsystem: &str) -> usize {
    let shown: serde_json::Value =
        serde_json::from_str(&target(&["show", "--json"])).expect("JSON");
    let subsystems = shown["subsystems"].as_array().expect("a list");
    let found = subsystems.iter().find(|one| one["nqn"] == subsystem).expect("the subsystem");
    found["controllers"].as_array().expect("a kernel that tells its controllers").len()
}

/// Waits until `condition` holds.
///
/// # Panics
///
/// When it does not within `limit`, which is longer where the processor is emulated.
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    note(what);
    let limit = limit * deadline_factor();
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The kernel's own initiator, connected; disconnects on drop.
#[derive(Debug)]
pub struct KernelInitiator {
    controller: PathBuf,
}

impl KernelInitiator {
    /// Connects to [`SUBSYSTEM`].
    ///
    /// # Panics
    ///
    /// When the kernel refuses.
    #[must_use]
    pub fn connect() -> Self {
        Self::connect_to(SUBSYSTEM)
    }

    /// Connects to a subsystem.
    ///
    /// # Panics
    ///
    /// When the kernel refuses.
    #[must_use]
    pub fn connect_to(subsystem: &str) -> Self {
        note("a connection of the kernel's initiator");
        let mut device = fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/nvme-fabrics")
            .expect("the kernel has an initiator");
        let options = format!("transport=rdma,traddr={},trsvcid=4420,nqn={subsystem}", address());
        device.write_all(options.as_bytes()).expect("the kernel connects");
        let mut answer = String::new();
        device.read_to_string(&mut answer).expect("the kernel says which controller");
        let instance = answer
            .split(',')
            .find_map(|pair| pair.trim().strip_prefix("instance="))
            .expect("an instance");
        Self { controller: Path::new("/sys/class/nvme").join(format!("nvme{instance}")) }
    }

    /// The block device of a namespace.
    ///
    /// # Panics
    ///
    /// When it does not appear within five seconds.
    #[must_use]
    pub fn device(&self, namespace: u32) -> PathBuf {
        let mut found = None;
        wait_for("the kernel's block device", Duration::from_secs(5), || {
            found = block_device(namespace);
            found.as_ref().is_some_and(|path| path.exists())
        });
        found.expect("just found")
    }
}

impl Drop for KernelInitiator {
    fn drop(&mut self) {
        if let Err(error) = fs::write(self.controller.join("delete_controller"), "1") {
            eprintln!("the kernel does not disconnect: {error}");
        }
    }
}

/// The multipath device with this namespace id; hidden paths have a `c` in their names.
fn block_device(namespace: u32) -> Option<PathBuf> {
    fs::read_dir("/sys/block").ok()?.filter_map(Result::ok).find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let nsid = fs::read_to_string(entry.path().join("nsid")).ok()?;
        let shown = name.starts_with("nvme") && !name[4..].contains('c');
        (shown && nsid.trim() == namespace.to_string()).then(|| Path::new("/dev").join(name))
    })
}
