//! A run: the guest's description, its start, its supervision, and the removal of its files.

pub(crate) mod cause;
pub(crate) mod cpu;
mod cpu_affinity;
pub(crate) mod device;
pub(crate) mod dir;
pub mod kernel_log;
pub(crate) mod launch;
pub(crate) mod memory;
pub(crate) mod mux;
pub(crate) mod outcome;
pub(crate) mod paths;
pub(crate) mod process;
pub(crate) mod reaper;
pub(crate) mod spec;
pub(crate) mod stdio;
pub(crate) mod supervise;
pub(crate) mod terminal;
pub mod trial;

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use regex_lite::Regex;

use crate::{
    Error, Kernel, Result,
    artifacts::Artifacts,
    init::cpuinfo,
    kernel::cache::Cache,
    machine::{self, Machine, Prepared, spec::MachineSpec, sysroot::Sysroot, uml},
    packages, program,
    target::Target,
};
use dir::RunDir;
use spec::{GuestSpec, LaunchSpec, StdioSpec, name};

pub use cpu_affinity::CpuAffinity;
pub use device::{ADDRESS, ADDRESS_V6, Device, SECOND_ADDRESS, SECOND_ADDRESS_V6};
pub use memory::MEMORY_BYTES_MIN;
pub use outcome::{Outcome, RunStatus};
pub use stdio::{Input, Output};

/// Default of a guest's memory: enough for a target of a few hundred MiB.
pub const MEMORY_BYTES: u64 = 1 << 30;

/// Description of a run: a program, and the guest that executes it.
#[derive(Clone, Debug)]
pub struct Guest {
    program: Vec<OsString>,
    kernel: Kernel,
    machine: Machine,
    cpus: Option<usize>,
    sysroot: Option<PathBuf>,
    pub(crate) deadline_factor: u32,
    device: Device,
    target: Option<PathBuf>,
    pub(crate) timeout: Option<Duration>,
    memory_bytes: u64,
    cpu: Option<CpuAffinity>,
    pub(crate) deny: Vec<Regex>,
    pub(crate) allow: Vec<Regex>,
    log: Option<PathBuf>,
    artifacts: Option<PathBuf>,
    pub(crate) interactive: bool,
    folder: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    pub(crate) input: Input,
    pub(crate) output: Output,
    pub(crate) error: Output,
    extra: Vec<String>,
    may_install: bool,
}

impl Guest {
    /// Describes a guest that runs this program and ends with it.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: vec![program.into()],
            kernel: Kernel::default(),
            machine: Machine::default(),
            cpus: None,
            sysroot: None,
            deadline_factor: 1,
            device: Device::default(),
            target: None,
            timeout: None,
            memory_bytes: MEMORY_BYTES,
            cpu: None,
            deny: Vec::new(),
            allow: Vec::new(),
            log: None,
            artifacts: None,
            interactive: false,
            folder: None,
            environment: Vec::new(),
            input: Input::default(),
            output: Output::default(),
            error: Output::default(),
            extra: Vec::new(),
            may_install: true,
        }
    }

    /// Adds arguments to the program's.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.program.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets the kernel; 6.12 by default.
    #[must_use]
    pub fn kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = kernel;
        self
    }

    /// The RDMA device or devices; rxe by default.
    #[must_use]
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// The machine; by default User-Mode Linux, and QEMU where that cannot run.
    #[must_use]
    pub fn machine(mut self, machine: Machine) -> Self {
        self.machine = machine;
        self
    }

    /// Sets the number of processors; 1 by default. User-Mode Linux has no more.
    #[must_use]
    pub fn cpus(mut self, cpus: usize) -> Self {
        self.cpus = Some(cpus.max(1));
        self
    }

    /// The user space, instead of the host's: a folder with `usr` and what belongs to it, and
    /// `soft-roce` for its processor as `usr/bin/soft-roce`. The guest has that processor, which is
    /// emulated where it is not the host's; the machine is QEMU then.
    #[must_use]
    pub fn sysroot(mut self, folder: impl Into<PathBuf>) -> Self {
        self.sysroot = Some(folder.into());
        self
    }

    /// Sets up the target of this file before the program starts.
    #[must_use]
    pub fn target(mut self, file: impl Into<PathBuf>) -> Self {
        self.target = Some(file.into());
        self
    }

    /// Kills the guest after this time.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the guest's memory; [`MEMORY_BYTES`] by default, at least [`MEMORY_BYTES_MIN`].
    #[must_use]
    pub fn memory_bytes(mut self, bytes: u64) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// Sets the processors to run on. By default User-Mode Linux has the one with the fewest
    /// guests, and QEMU all.
    #[must_use]
    pub fn cpu(mut self, cpu: CpuAffinity) -> Self {
        self.cpu = Some(cpu);
        self
    }

    /// Makes a run fail when a kernel message matches.
    #[must_use]
    pub fn deny(mut self, regex: Regex) -> Self {
        self.deny.push(regex);
        self
    }

    /// Ignores kernel warnings that match, for known faults of the kernel.
    #[must_use]
    pub fn allow(mut self, regex: Regex) -> Self {
        self.allow.push(regex);
        self
    }

    /// Keeps the kernel's log in this file; a new file is readable by its owner only.
    #[must_use]
    pub fn log(mut self, file: impl Into<PathBuf>) -> Self {
        self.log = Some(file.into());
        self
    }

    /// Keeps the kernel's log and the state of RDMA of a run that fails, in a folder of its own in
    /// this one.
    #[must_use]
    pub fn artifacts(mut self, folder: impl Into<PathBuf>) -> Self {
        self.artifacts = Some(folder.into());
        self
    }

    /// Gives the program a terminal of its own, connected to this process's.
    #[must_use]
    pub fn interactive(mut self) -> Self {
        self.interactive = true;
        self
    }

    /// Sets the working directory; the caller's by default.
    #[must_use]
    pub fn current_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Adds an environment variable to the caller's.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Sets the source of standard input.
    #[must_use]
    pub fn stdin(mut self, input: Input) -> Self {
        self.input = input;
        self
    }

    /// Sets the destination of standard output.
    #[must_use]
    pub fn stdout(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    /// Sets the destination of standard error.
    #[must_use]
    pub fn stderr(mut self, output: Output) -> Self {
        self.error = output;
        self
    }

    /// Adds words to the kernel's command line.
    #[must_use]
    pub fn kernel_args(mut self, words: impl IntoIterator<Item = String>) -> Self {
        self.extra.extend(words);
        self
    }

    /// Installs no package that is missing, so that a run changes nothing on this machine.
    #[must_use]
    pub(crate) fn installing_nothing(mut self) -> Self {
        self.may_install = false;
        self
    }

    /// Boots the guest, runs the program to its end, and powers off; builds the kernel first when
    /// it is not in the cache.
    ///
    /// However this process ends meanwhile, the guest's processes are killed and its files removed.
    ///
    /// # Errors
    ///
    /// When no guest could be started: no kernel, an invalid target file, no memory. The result of
    /// a guest that was started is in the [`Outcome`].
    pub fn run(self) -> Result<Outcome> {
        if is_guest() {
            let text = "this is a guest already, which cannot start another";
            return Err(Error::Usage(text.into()));
        }
        if let Some(file) = &self.target {
            Target::load(file)?;
        }
        self.check()?;
        if self.may_install {
            packages::ensure(&packages::TO_RUN)?;
        }
        let program = program::own()?;
        match (self.machine, &self.sysroot) {
            (Machine::Uml, Some(_)) => {
                Err(Error::Usage("--sysroot needs QEMU: give --machine qemu".into()))
            }
            (Machine::Uml, None) => self.run_on_uml(&program),
            (Machine::Auto, None) => self.run_where_possible(&program),
            (Machine::Qemu | Machine::Auto, _) => self.run_on_qemu(&program),
        }
    }

    fn run_on_qemu(self, program: &Path) -> Result<Outcome> {
        let sysroot = self.sysroot.as_deref().map(Sysroot::open).transpose()?;
        let prepared = machine::prepare_qemu(&self.kernel, self.cpus, sysroot.as_ref())?;
        self.run_on(prepared, program)
    }

    /// Runs on User-Mode Linux, or on QEMU where the host forbids what that needs.
    fn run_where_possible(mut self, program: &Path) -> Result<Outcome> {
        let refusal = match self.clone().run_on_uml(program) {
            Err(Error::Machine { name: uml::NAME, reason }) => reason,
            done => {
                let outcome = done?;
                match uml::refused_by_host(&outcome) {
                    Some(reason) => reason,
                    None => return Ok(outcome),
                }
            }
        };
        if uml::is_program(&self.kernel) {
            // It boots nowhere else.
            self.kernel = Kernel::default();
        }
        let prepared = machine::prepare_qemu(&self.kernel, self.cpus, None).map_err(|error| {
            Error::Machine { name: uml::NAME, reason: format!("{refusal}; {error}") }
        })?;
        stdio::warn(&format!("{} cannot be used here: {refusal}; QEMU is used", uml::NAME));
        self.run_on(prepared, program)
    }

    fn run_on_uml(self, program: &Path) -> Result<Outcome> {
        let prepared = machine::prepare_uml(&self.kernel, self.cpus, &trial::run)?;
        self.run_on(prepared, program)
    }

    fn run_on(mut self, prepared: Prepared, program: &Path) -> Result<Outcome> {
        let Prepared { kernel, machine, note } = prepared;
        note.iter().for_each(|note| stdio::warn(note));
        self.deadline_factor = machine.deadline_factor();
        for base in memory::bases().iter().chain(&paths::private_base()) {
            dir::remove_dead(base);
        }
        let init = machine.init();
        let folder = RunDir::create(init.as_deref().unwrap_or(program))?;
        let artifacts = self.plan_artifacts(&folder)?;
        let guest = self.guest_spec(&machine)?;
        let memory = memory::reserve_for(&machine, self.memory_bytes, folder.path())?;
        let log = self.create_log(&folder)?;
        let launch = LaunchSpec {
            kernel,
            memory_bytes: self.memory_bytes,
            memory_folder: memory.as_ref().map(|memory| memory.path().to_owned()),
            machine,
            cpu: self.cpu,
            cpu_locks: Cache::open().ok().map(|cache| cache.root().join("cpus")),
            log: log.clone(),
            terminal: terminal::of_input().filter(|_| self.interactive),
            extra: self.extra.clone(),
        };
        spec::store(folder.path(), name::LAUNCH, &launch)?;
        let guest = GuestSpec { artifacts: artifacts.clone(), ..guest };
        spec::store(folder.path(), name::GUEST, &guest)?;
        let outcome = supervise::run(self, program, folder, &log)?;
        match artifacts.as_ref().map(|artifacts| artifacts.conclude(&outcome)) {
            Some(Ok(Some(kept))) => stdio::warn(&format!("artifacts: {}", kept.display())),
            Some(Err(error)) => stdio::warn(&format!("artifacts: {error}")),
            None | Some(Ok(None)) => {}
        }
        Ok(outcome)
    }

    fn plan_artifacts(&self, folder: &RunDir) -> Result<Option<Artifacts>> {
        let program = Path::new(&self.program[0]);
        let plan = |base: &PathBuf| {
            let planned = Artifacts::plan(base, program, folder.path())?;
            Ok(planned.deadlines(self.timeout, self.deadline_factor))
        };
        self.artifacts.as_ref().map(plan).transpose()
    }

    /// Refuses what no guest can be made of.
    fn check(&self) -> Result<()> {
        let least = MEMORY_BYTES_MIN >> 20;
        if self.memory_bytes < MEMORY_BYTES_MIN {
            let text = format!("--mem: a guest needs at least {least} MiB; the default is 1 GiB");
            return Err(Error::Usage(text));
        }
        let allowed = cpu::allowed();
        let given = self.cpu.and_then(CpuAffinity::one);
        if let Some(cpu) = given.filter(|cpu| !allowed.contains(cpu)) {
            let names: Vec<_> = allowed.iter().map(usize::to_string).collect();
            let names = names.join(", ");
            let text = format!("--cpu: this process may not use processor {cpu}; it has {names}");
            return Err(Error::Usage(text));
        }
        Ok(())
    }

    /// Creates the file for the kernel's log.
    fn create_log(&self, folder: &RunDir) -> Result<PathBuf> {
        let log = match &self.log {
            Some(file) => std::path::absolute(file).map_err(Error::io("find", file))?,
            None => folder.path().join(name::KERNEL_LOG),
        };
        let mut options = fs::File::options();
        let options = options.create(true).truncate(true).write(true).mode(spec::FILE_MODE);
        options.open(&log).map_err(Error::io("write", &log))?;
        Ok(log)
    }

    fn guest_spec(&self, machine: &MachineSpec) -> Result<GuestSpec> {
        let here = || std::env::current_dir().map_err(Error::io("find", "."));
        let folder = match &self.folder {
            Some(folder) => folder.canonicalize().map_err(Error::io("enter", folder))?,
            None => here()?,
        };
        if machine.covers(&folder) {
            let reason = "the guest has its own file system there; run from another folder";
            return Err(Error::Path { path: folder, reason });
        }
        let absolute = |path: &PathBuf| path.canonicalize().map_err(Error::io("read", path));
        let inherits = |output: Output| output == Output::Inherit;
        Ok(GuestSpec {
            program: self.program.clone(),
            folder,
            environment: caller()
                .chain(std::env::vars_os())
                .chain(self.environment.clone())
                .collect(),
            deadline_factor: self.deadline_factor,
            device: self.device,
            target: self.target.as_ref().map(absolute).transpose()?,
            input: if self.interactive { StdioSpec::Terminal } else { self.input.spec() },
            output: self.output.spec(io::stdout()),
            error: self.error.spec(io::stderr()),
            error_joins_output: inherits(self.output)
                && inherits(self.error)
                && stdio::output_is_error(),
            interactive: self.interactive,
            window: stdio::window(),
            umask: umask(),
            artifacts: None,
            counter_mhz: fs::read_to_string("/proc/cpuinfo")
                .ok()
                .and_then(|text| cpuinfo::counter_mhz(&text)),
        })
    }
}

/// Tells if this process runs in a guest.
#[must_use]
pub fn is_guest() -> bool {
    Path::new(spec::GUEST_MARKER).exists()
}

/// File mode creation mask, read without setting it: other threads may be creating files.
fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o022)
}

/// Variable by which programs in the guest know the user for whom they are root, as sudo sets it:
/// files that they make belong to that user.
fn caller() -> impl Iterator<Item = (OsString, OsString)> {
    let user = rustix::process::getuid();
    let variable = ("SUDO_UID".into(), user.as_raw().to_string().into());
    Some(variable).filter(|_| !user.is_root()).into_iter()
}
