//! `soft-roce build`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use soft_roce::{Error, Kernel, Result, kernel::cache::Cache};

/// Build the kernel, once; later runs find it in the cache
///
/// The kernel is kept in $XDG_CACHE_HOME/soft-roce (by default ~/.cache/soft-roce). Building takes
/// about five minutes on two processors. An interrupted build is resumed by the next.
#[derive(Args)]
pub(crate) struct Build {
    /// Which kernel: 6.12 or 7 (the newest 7.x)
    #[arg(long, env = "SOFT_ROCE_KERNEL", default_value = "6.12")]
    kernel: Kernel,
    /// Build from this kernel source tree or tarball instead of Debian's package
    #[arg(long, value_name = "PATH", env = soft_roce::kernel::build::SOURCE_VARIABLE)]
    source: Option<PathBuf>,
    /// Look for a newer source although a kernel is there
    #[arg(long)]
    refresh: bool,
    /// How many compilers run at once [default: one per processor]
    #[arg(long, short)]
    jobs: Option<usize>,
}

impl Build {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let Kernel::Series(series) = self.kernel else {
            return Err(Error::UnknownKernel(self.kernel.to_string()));
        };
        let mut build = soft_roce::kernel::build::Build::new(series);
        if let Some(path) = self.source {
            build = build.source(path);
        }
        if self.refresh {
            build = build.refresh();
        }
        if let Some(jobs) = self.jobs {
            build = build.jobs(jobs);
        }
        let linux = build.build(&Cache::open()?)?;
        println!("{}", linux.display());
        Ok(ExitCode::SUCCESS)
    }
}
