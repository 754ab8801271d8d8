//! Errors, each in one line: what happened, on whose side, and what to do next.

use std::{io, path::PathBuf};

/// The result of everything fallible in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Writing an attribute of the target was refused by the kernel.
    #[error("{object}: the kernel refused {attribute} = {value:?}: {source}{}", hints(.kernel))]
    Attribute {
        /// The subsystem, namespace, host or port, in words.
        object: String,
        /// The attribute's file name.
        attribute: String,
        /// The value that was refused.
        value: String,
        /// The kernel's reason.
        source: io::Error,
        /// Lines that the kernel logged meanwhile.
        kernel: Vec<String>,
    },
    /// The kernel has no such attribute.
    #[error("{object}: this kernel ({release}) has no {attribute}; leave it out, or use another")]
    AttributeMissing {
        /// The subsystem, namespace, host or port, in words.
        object: String,
        /// The attribute's file name.
        attribute: String,
        /// The kernel's release.
        release: String,
    },
    /// The guest ended before it ran the program.
    #[error("the guest did not start: {reason}; its kernel's messages are above")]
    Boot {
        /// The reason as far as it is known.
        reason: String,
    },
    /// The kernel did not compile.
    #[error("building the kernel failed (`{step}`); the whole log is {}", .log.display())]
    Build {
        /// The command that failed.
        step: String,
        /// File with its output.
        log: PathBuf,
        /// The last lines of it.
        tail: Vec<String>,
    },
    /// The kernel's configuration lacks something the bed needs.
    #[error("this kernel source cannot be configured with {}; try another source", .0.join(", "))]
    Configuration(
        /// The options that would not stay on.
        Vec<String>,
    ),
    /// A package cannot be downloaded.
    #[error(
        "cannot download {package}: {reason}; without a network, install that package, or give a \
         source with --source or a kernel with --kernel"
    )]
    Download {
        /// Name and version of the package.
        package: String,
        /// apt's reason.
        reason: String,
    },
    /// A helper program failed.
    #[error("`{command}` failed: {reason}")]
    Helper {
        /// The command line.
        command: String,
        /// Last line of its output, or its status.
        reason: String,
    },
    /// A file operation on this machine failed.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// The operation, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A guest's machine cannot be had here.
    #[error("{name} cannot be used here: {reason}")]
    Machine {
        /// The machine.
        name: &'static str,
        /// The missing feature and the remedy.
        reason: String,
    },
    /// No folder has space for the guest's memory.
    #[error(
        "no space for {mib} MiB of guest memory ({found}); free some, set TMPDIR to a larger \
         folder, or give less with --mem"
    )]
    Memory {
        /// The guest's memory in MiB.
        mib: u64,
        /// Each folder that was tried, and how much is free there.
        found: String,
    },
    /// No folder to keep the kernel in.
    #[error("no folder for the kernel: set XDG_CACHE_HOME or HOME to a folder you may write")]
    NoCache,
    /// The guest's kernel has no such RDMA device.
    #[error(
        "this kernel has no {kind} (CONFIG_RDMA_{}); use one that `soft-roce build` makes, or \
         another --device",
        .kind.to_uppercase()
    )]
    NoDriver {
        /// The driver, as `rdma link add` names it.
        kind: &'static str,
    },
    /// The given kernel program is not there.
    #[error("{} is not a kernel program; give 6.12, 7, or a built `linux`", .0.display())]
    NoKernelProgram(
        /// The path that was given.
        PathBuf,
    ),
    /// No `soft-roce` program that could act as the guest's init.
    #[error("no soft-roce program found; build it, or name it in SOFT_ROCE_PROGRAM")]
    NoProgram,
    /// The package archive has no source for this series.
    #[error("no package with the {series} kernel source: {reason}; give one with --source")]
    NoSource {
        /// The series.
        series: &'static str,
        /// The packages that were tried.
        reason: String,
    },
    /// A file that should hold exported kernels is damaged, or is none.
    #[error("{}: {reason}; nothing was imported", .path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// The fault of the file.
        reason: String,
    },
    /// A change that the kernel needs does not fit its source.
    #[error("this kernel source cannot be given {change}: {reason}; try another source")]
    Patch {
        /// The change.
        change: &'static str,
        /// Output of `patch`.
        reason: String,
    },
    /// A kernel was built, or is there, and does not work on this machine.
    #[error("the kernel {} does not work here: {reason}", .kernel.display())]
    Trial {
        /// The kernel program.
        kernel: PathBuf,
        /// The cause as far as it is known, and what to do.
        reason: String,
    },
    /// No package with a kernel of this series that is ready to boot.
    #[error(
        "no package with a {series} kernel for {architecture}: {reason}; \
         give a vmlinuz with its modules by --kernel"
    )]
    NoStockKernel {
        /// The series.
        series: &'static str,
        /// The processor architecture, in Debian's words.
        architecture: String,
        /// The packages that were tried.
        reason: String,
    },
    /// The disk has no room for a build.
    #[error(
        "a kernel's build takes {needed} MB while it lasts, {} has {free} MB free; free some, or \
         set XDG_CACHE_HOME to a folder with more",
        .folder.display()
    )]
    NoSpace {
        /// The folder of the build.
        folder: PathBuf,
        /// Free space in the folder, in MB.
        free: u64,
        /// Space that a build takes, in MB.
        needed: u64,
    },
    /// A folder cannot become a user space.
    #[error("{} cannot be made a user space: {reason}", .folder.display())]
    Sysroot {
        /// The folder.
        folder: PathBuf,
        /// The reason and the remedy.
        reason: String,
    },
    /// A feature that `native` needs is missing.
    #[error("this kernel cannot be the test bed itself: {}; use `soft-roce run`", .0.join("; "))]
    NotNative(
        /// Each missing thing.
        Vec<String>,
    ),
    /// Packages are missing that this user, or this system, cannot install.
    #[error("missing: {}; {next}", .packages.join(" "))]
    Packages {
        /// The packages' names in Debian.
        packages: Vec<String>,
        /// The remedy.
        next: String,
    },
    /// A path that the kernel's command line cannot carry, or that does not exist.
    #[error("{}: {reason}", .path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// The fault of the path.
        reason: &'static str,
    },
    /// Wrong use of a command or of the library.
    #[error("{0}")]
    Usage(
        /// The fault and the right use.
        String,
    ),
    /// The target file makes no sense.
    #[error("target file {}: {reason}", .path.display())]
    TargetFile {
        /// The file.
        path: PathBuf,
        /// The fault and its place.
        reason: String,
    },
    /// No kernel of that name.
    #[error("no kernel {0:?}; known are 6.12, 7, or the path of a built `linux` program")]
    UnknownKernel(
        /// The name that was given.
        String,
    ),
}

impl Error {
    /// For `map_err` after a file operation.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// As [`Error::io`], for a system call of rustix.
    pub(crate) fn errno(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.into();
        move |errno| Self::Io { action, path, source: errno.into() }
    }
}

fn hints(kernel: &[String]) -> String {
    if kernel.is_empty() { String::new() } else { format!(" (kernel: {})", kernel.join(" / ")) }
}
