//! What a guest and its reaper are told, as files in the run's private folder.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::device::Device;
use crate::{Error, Result, artifacts::Artifacts, machine::MachineSpec};

/// What the guest's init is to do.
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
    /// Standard output and error are one and the same: keep their order exact.
    pub(crate) error_joins_output: bool,
    /// An interactive session: one terminal for all three.
    pub(crate) interactive: bool,
    /// Rows and columns of the user's terminal.
    pub(crate) window: Option<(u16, u16)>,
    pub(crate) umask: u32,
    /// By how much deadlines are longer than on a machine of ordinary speed.
    pub(crate) deadline_factor: u32,
    /// What to keep of a run that fails.
    pub(crate) artifacts: Option<Artifacts>,
}

/// What a standard stream of the program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StdioSpec {
    Null,
    Pipe,
    Terminal,
}

/// What the reaper is to start.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LaunchSpec {
    pub(crate) kernel: PathBuf,
    pub(crate) machine: MachineSpec,
    pub(crate) memory_bytes: u64,
    pub(crate) memory_folder: PathBuf,
    pub(crate) cpu: Option<usize>,
    pub(crate) cpu_locks: Option<PathBuf>,
    pub(crate) log: PathBuf,
    /// The user's terminal, when it is about to be made raw.
    pub(crate) terminal: Option<PathBuf>,
    pub(crate) extra: Vec<String>,
}

/// How a guest ended, in its own words.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum GuestStatus {
    /// The program exited.
    Exited(i32),
    /// The program was killed by this signal.
    Killed(i32),
    /// The program could not be started, with the status a shell would give.
    NotStarted { status: i32, reason: String },
    /// The bed could not be set up.
    NotSetUp(String),
}

/// The names in the run's folder.
pub(crate) mod name {
    pub(crate) const GUEST: &str = "guest.json";
    pub(crate) const LAUNCH: &str = "launch.json";
    pub(crate) const INPUT: &str = "in";
    pub(crate) const OUTPUT: &str = "out";
    pub(crate) const INIT: &str = "init";
    pub(crate) const KERNEL_LOG: &str = "kernel.log";

    /// The file with that piece of bulky input.
    pub(crate) fn input_file(number: u64) -> String {
        format!("in.{number}")
    }
}

pub(crate) fn store(folder: &Path, name: &str, value: &impl Serialize) -> Result<()> {
    let path = folder.join(name);
    let text = serde_json::to_vec(value).expect("these types always have a JSON form");
    fs::write(&path, text).map_err(Error::io("write", &path))
}

pub(crate) fn load<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T> {
    let path = folder.join(name);
    let text = fs::read(&path).map_err(Error::io("read", &path))?;
    serde_json::from_slice(&text).map_err(|error| Error::io("understand", path)(error.into()))
}
