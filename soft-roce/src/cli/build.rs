//! `soft-roce build`, `export` and `import`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use soft_roce::{
    Error, Kernel, Machine, Result, Series,
    kernel::{self, archive, cache::Cache},
    machine::{check_uml, qemu},
    run::trial,
};

use super::{non_empty, path_or_empty, print, print_message};

/// Build the kernel, once; later runs find it in the cache
///
/// With --machine qemu nothing is built: a stock kernel is downloaded and made ready.
///
/// The kernel is kept in $XDG_CACHE_HOME/soft-roce (by default ~/.cache/soft-roce). Building takes
/// about five minutes on two processors, and 2.4 GB of that folder while it lasts. An interrupted
/// build is resumed by the next. A kernel that was built is tried before it is used: it must boot
/// here, and its target must answer over rxe.
///
/// Its source is a package of Debian or Ubuntu: an installed one, which needs no network, or one
/// of the suites that apt reads, or one of the suite of Debian that has the series, from the Debian
/// mirror that apt uses or that SOFT_ROCE_DEBIAN_MIRROR names. Where the series cannot be had, the
/// nearest release of 5.15 to 7.x replaces it, which is told.
#[derive(Args)]
pub(crate) struct Build {
    /// Kernel: 6.12 or 7 (the newest 7.x)
    #[arg(long, env = "SOFT_ROCE_KERNEL", default_value = "6.12")]
    kernel: Kernel,
    /// Machine that it is for: uml, qemu, or auto: uml, and qemu where that cannot run
    #[arg(long, env = soft_roce::MACHINE_VARIABLE, default_value = "auto")]
    machine: Machine,
    /// Build from this kernel source tree or tarball (5.15 to 7.x) instead of a package
    #[arg(long, value_name = "PATH", env = kernel::build::SOURCE_VARIABLE)]
    #[arg(value_parser = path_or_empty())]
    source: Option<PathBuf>,
    /// Look for a newer source, or that of a series that was replaced, although a kernel is there
    #[arg(long)]
    refresh: bool,
    /// Number of compilers that run at once [default: one per processor]
    #[arg(long, short)]
    jobs: Option<usize>,
    /// Build nothing: print the key that the kernel would have in the cache
    #[arg(long)]
    print_key: bool,
}

impl Build {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let Kernel::Series(series) = self.kernel else {
            return Err(Error::UnknownKernel(self.kernel.to_string()));
        };
        let mut build = kernel::build::Build::new(series);
        if let Some(path) = non_empty(self.source) {
            build = build.source(path);
        }
        if self.refresh {
            build = build.refresh();
        }
        if let Some(jobs) = self.jobs {
            build = build.jobs(jobs);
        }
        let cache = Cache::open()?;
        if self.print_key {
            return Ok(print(&build.key(&cache)?));
        }
        let linux = match self.machine {
            Machine::Qemu => qemu::stock_kernel(series, &cache)?,
            Machine::Uml => build.build(&cache, &trial::run)?,
            Machine::Auto => match check_uml().and_then(|()| build.build(&cache, &trial::run)) {
                // What this machine forbids, it forbids for every kernel of that kind.
                Err(error @ Error::Machine { .. }) => {
                    print_message(format_args!(
                        "soft-roce: {error}; a stock kernel for QEMU is taken"
                    ));
                    qemu::stock_kernel(series, &cache)?
                }
                built => built?,
            },
        };
        Ok(print(&linux.display().to_string()))
    }
}

/// Write built kernels into one file, for machines that are to build nothing
///
/// The file holds the kernels, their checksums, and what they were made of. `soft-roce import`
/// takes it.
#[derive(Args)]
pub(crate) struct Export {
    /// The file to write
    file: PathBuf,
    /// Kernel; may be given again [default: all that are built]
    #[arg(long)]
    kernel: Vec<Series>,
}

impl Export {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let names: Vec<_> = self.kernel.iter().map(|series| series.name().to_owned()).collect();
        let names = archive::export(&Cache::open()?, &names, &self.file)?;
        Ok(print(&format!("exported: {}", names.join(" "))))
    }
}

/// Take built kernels from a file that `soft-roce export` wrote
///
/// All of them, or none: each file's checksum must be right, the kernels must be made by this
/// version's recipe, and each must boot here.
#[derive(Args)]
pub(crate) struct Import {
    /// The file to read
    file: PathBuf,
}

impl Import {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let names = archive::import(&Cache::open()?, &self.file, &trial::run)?;
        Ok(print(&format!("imported: {}", names.join(" "))))
    }
}
