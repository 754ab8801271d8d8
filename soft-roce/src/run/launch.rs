//! The last step before the kernel: this process becomes it.

use std::{
    fs::{File, OpenOptions},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};

use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit, setsid},
};

use crate::{
    Error, Result,
    machine::{qemu, spec::MachineSpec, uml},
    run::cpu,
    run::cpu_affinity::CpuAffinity,
    run::spec::{self, LaunchSpec, name},
};

/// Replaces this process by the kernel; returns only when that fails.
///
/// The kernel dies with its parent, is the leader of a session of its own so that it and all its
/// helpers can be killed as one, leaves no core file, and stays on one processor if it is User-Mode
/// Linux, unless it may use all, or was given one.
pub(crate) fn execute(folder: &Path, cpu: Option<usize>) -> Result<std::convert::Infallible> {
    let launch: LaunchSpec = spec::load(folder, name::LAUNCH)?;
    let failed = |action| Error::errno(action, &launch.kernel);
    let session = setsid().map_err(failed("start a session for"))?;
    spec::store_session(folder, session)?;
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("tie to its parent"))?;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(failed("limit the core file of"))?;
    // The threads of QEMU must not wait for each other.
    let cpu = if let MachineSpec::Uml = launch.machine {
        cpu
    } else {
        launch.cpu.and_then(CpuAffinity::one)
    };
    if let Some(cpu) = cpu {
        cpu::pin(cpu).map_err(Error::io("pin to a processor", &launch.kernel))?;
    }
    // Opening the input for writing too means that neither end ever waits for the other.
    let input = open(folder, name::INPUT, true)?;
    let output = open(folder, name::OUTPUT, false)?;
    let log = OpenOptions::new().append(true).open(&launch.log);
    let log = log.map_err(Error::io("write", &launch.log))?;
    let early = log.try_clone().map_err(Error::io("write", &launch.log))?;
    let mut kernel = match &launch.machine {
        MachineSpec::Uml => {
            let mut kernel = Command::new(&launch.kernel);
            kernel.args(uml::arguments(&launch, folder, [&input, &output]));
            kernel
        }
        MachineSpec::Qemu(spec) => qemu::command(&launch, spec, folder)?,
    };
    // The kernel's memory file goes to TMPDIR; the kernel needs nothing else of the environment.
    let folder = launch.memory_folder.iter();
    kernel.env_clear().envs(folder.map(|folder| ("TMPDIR", folder)));
    kernel.env("PATH", "/usr/bin:/bin");
    kernel.current_dir("/").stdin(Stdio::null()).stdout(log).stderr(early);
    let error = kernel.exec();
    drop((input, output));
    Err(Error::io("start", &launch.kernel)(error))
}

/// Opens one of the run's pipes so that the kernel inherits it.
fn open(folder: &Path, name: &str, read: bool) -> Result<OwnedFd> {
    let path = folder.join(name);
    let opened = File::options().read(read).write(true).open(&path);
    let pipe = opened.map_err(Error::io("open", &path))?;
    fcntl_setfd(&pipe, FdFlags::empty()).map_err(Error::errno("hand on", &path))?;
    Ok(pipe.into())
}
