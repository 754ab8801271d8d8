//! Files of a run's folder: the specifications for the reaper and for the guest, and their names.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::process::Pid;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{cpu_affinity::CpuAffinity, device::Device};
use crate::{Error, Result, artifacts::Artifacts, machine::spec::MachineSpec};

/// File in every guest, and nowhere else.
pub(crate) const GUEST_MARKER: &str = "/run/soft-roce/guest";

/// Specification for the guest's init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GuestSpec {
    pub(crate) program: Vec<OsString>,
    pub(crate) folder: PathBuf,
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) device: Device,
    pub(crate) target: Option<PathBuf>,
    pub(crate) input: StdioSpec,
    pub(crate) output: StdioSpec,
    pub(crate) error: StdioSpec,
    /// Standard output and error are the same file, so that their order must be kept.
    pub(crate) error_joins_output: bool,
    /// The program gets a terminal for all three streams.
    pub(crate) interactive: bool,
    /// Rows and columns of the user's terminal.
    pub(crate) window: Option<(u16, u16)>,
    pub(crate) umask: u32,
    /// Frequency of the time-stamp counter in MHz, where the processor has one.
    pub(crate) counter_mhz: Option<f64>,
    /// Factor by which deadlines are longer than on a machine of ordinary speed.
    pub(crate) deadline_factor: u32,
    /// Files to keep of a run that fails.
    pub(crate) artifacts: Option<Artifacts>,
}

/// Kind of a standard stream of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StdioSpec {
    Null,
    Pipe,
    Terminal,
}

/// Specification for the reaper, and for the process that becomes the kernel.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LaunchSpec {
    pub(crate) kernel: PathBuf,
    pub(crate) machine: MachineSpec,
    pub(crate) memory_bytes: u64,
    /// Folder for the guest's memory, where that is a file.
    pub(crate) memory_folder: Option<PathBuf>,
    pub(crate) cpu: Option<CpuAffinity>,
    pub(crate) cpu_locks: Option<PathBuf>,
    pub(crate) log: PathBuf,
    /// The user's terminal, when the supervisor is going to make it raw.
    pub(crate) terminal: Option<PathBuf>,
    pub(crate) extra: Vec<String>,
}

/// Result of a run as the guest's init reports it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum GuestStatus {
    /// The program exited.
    Exited(i32),
    /// The program was killed by this signal.
    Killed(i32),
    /// The program could not be started; the status is a shell's for that.
    NotStarted { status: i32, reason: String },
    /// The bed could not be set up.
    NotSetUp(String),
}

/// Names in a run's folder.
pub(crate) mod name {
    pub(crate) const GUEST: &str = "guest.json";
    pub(crate) const LAUNCH: &str = "launch.json";
    pub(crate) const INPUT: &str = "in";
    pub(crate) const OUTPUT: &str = "out";
    pub(crate) const INIT: &str = "init";
    pub(crate) const KERNEL_LOG: &str = "kernel.log";
    pub(crate) const LOCK: &str = "lock";
    pub(crate) const UML: &str = "uml";
    pub(crate) const SESSION: &str = "session";

    /// Name of the file with that piece of input.
    pub(crate) fn input_file(number: u64) -> String {
        format!("in.{number}")
    }
}

/// Mode of every file of a run: the environment and the arguments of a program are secrets.
pub(crate) const FILE_MODE: u32 = 0o600;

/// Creates a file that only this user can read, whatever the umask.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    File::options().create_new(true).write(true).mode(FILE_MODE).open(path)
}

pub(crate) fn store(folder: &Path, name: &str, value: &impl Serialize) -> Result<()> {
    let path = folder.join(name);
    let text = serde_json::to_vec(value).expect("these types always have a JSON form");
    let written = create_private(&path).and_then(|mut file| file.write_all(&text));
    written.map_err(Error::io("write", &path))
}

pub(crate) fn load<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T> {
    let path = folder.join(name);
    let text = fs::read(&path).map_err(Error::io("read", &path))?;
    serde_json::from_slice(&text).map_err(|error| Error::io("parse", path)(error.into()))
}

/// Records the session of the guest's processes, which is the process id of its kernel.
pub(crate) fn store_session(folder: &Path, session: Pid) -> Result<()> {
    store(folder, name::SESSION, &session.as_raw_nonzero().get())
}

/// Session of the guest's processes; `None` before the kernel's start.
pub(crate) fn load_session(folder: &Path) -> Option<Pid> {
    load(folder, name::SESSION).ok().and_then(Pid::from_raw)
}
