//! The last step before the kernel: this process becomes it.

use std::{
    fs::{File, OpenOptions},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
};

use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit, setsid},
};

use crate::{
    Error, Result,
    run::cpu,
    run::spec::{self, LaunchSpec, name},
};

/// Replaces this process by the kernel; returns only when that fails.
///
/// The kernel dies with its parent, is the leader of a session of its own so that it and all its
/// helpers can be killed as one, leaves no core file, and stays on one processor.
pub(crate) fn execute(folder: &Path, cpu: Option<usize>) -> Result<std::convert::Infallible> {
    let launch: LaunchSpec = spec::load(folder, name::LAUNCH)?;
    let failed = |action| Error::errno(action, &launch.kernel);
    setsid().map_err(failed("start a session for"))?;
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("tie to its parent"))?;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(failed("limit the core file of"))?;
    if let Some(cpu) = cpu {
        cpu::pin(cpu).map_err(Error::io("pin to a processor", &launch.kernel))?;
    }
    // Opening the input for writing too means that neither end ever waits for the other.
    let input = open(folder, name::INPUT, true)?;
    let output = open(folder, name::OUTPUT, false)?;
    let log = OpenOptions::new().append(true).open(&launch.log);
    let log = log.map_err(Error::io("write", &launch.log))?;
    let early = log.try_clone().map_err(Error::io("write", &launch.log))?;
    let mut kernel = Command::new(&launch.kernel);
    kernel.args(arguments(&launch, folder, [&input, &output]));
    // The kernel's memory file goes to TMPDIR; nothing else of our environment is its business.
    kernel.env_clear().env("TMPDIR", &launch.memory_folder).env("PATH", "/usr/bin:/bin");
    kernel.current_dir("/").stdin(Stdio::null()).stdout(log).stderr(early);
    let error = kernel.exec();
    drop((input, output));
    Err(Error::io("start", &launch.kernel)(error))
}

fn arguments(launch: &LaunchSpec, folder: &Path, line: [&OwnedFd; 2]) -> Vec<String> {
    let [input, output] = line.map(AsRawFd::as_raw_fd);
    let place = folder.display();
    let mut arguments = vec![
        format!("mem={}K", launch.memory_bytes >> 10),
        "root=/dev/root".into(),
        "rootfstype=hostfs".into(),
        "rootflags=/".into(),
        "rw".into(),
        format!("uml_dir={place}/uml/"),
        "umid=guest".into(),
        "con=null".into(),
        "con0=null,fd:1".into(),
        format!("con1=fd:{input},fd:{output}"),
        "loglevel=7".into(),
        "oops=panic".into(),
        "null_blk.nr_devices=0".into(),
        // Half the cost of a system call, where kernel and host have it (7.x); ptrace otherwise.
        "seccomp=auto".into(),
        format!("init={place}/{}", name::INIT),
    ];
    arguments.extend_from_slice(&launch.extra);
    arguments.extend(["--".into(), "init".into(), place.to_string()]);
    arguments
}

/// Opens one of the run's pipes so that the kernel inherits it.
fn open(folder: &Path, name: &str, read: bool) -> Result<OwnedFd> {
    let path = folder.join(name);
    let opened = File::options().read(read).write(true).open(&path);
    let pipe = opened.map_err(Error::io("open", &path))?;
    fcntl_setfd(&pipe, FdFlags::empty()).map_err(Error::errno("hand on", &path))?;
    Ok(pipe.into())
}
