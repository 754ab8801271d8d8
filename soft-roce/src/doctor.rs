//! What this machine can do, and why not more.

use std::{
    env, fs,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Resource, getrlimit};

use crate::{
    Guest, Input, Kernel, Output, Series, helper, kernel::build::Build, kernel::cache::Cache,
    kernel::source::Source, native, packages, program, run::MEMORY_BYTES, run::cpu, run::paths,
};

/// A machine that is not under heavy load needs a hundredth of it.
const PROBE_DEADLINE: Duration = Duration::from_secs(30);

/// How good a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Works.
    Good,
    /// Worth knowing; nothing fails for it.
    Note,
    /// Something does not work.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub struct Check {
    /// What it is about.
    pub subject: &'static str,
    /// How good it is.
    pub verdict: Verdict,
    /// What was found, and what to do.
    pub text: String,
}

/// Looks at everything that building, running and native use depend on.
#[must_use]
pub fn examine() -> Vec<Check> {
    let mut checks = vec![build_packages(), run_packages(), program(), place()];
    checks.extend([Series::SixTwelve, Series::Seven].map(kernel));
    checks.extend(probe());
    checks.extend([memory(), tracing(), processors(), own_devices(), locked_memory(), natively()]);
    checks
}

impl Check {
    fn good(subject: &'static str, text: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Good, text: text.into() }
    }

    fn note(subject: &'static str, text: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Note, text: text.into() }
    }

    fn bad(subject: &'static str, text: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Bad, text: text.into() }
    }
}

fn build_packages() -> Check {
    let missing = packages::missing(&packages::TO_BUILD);
    packages_finding("packages to build the kernel", &missing)
}

fn run_packages() -> Check {
    packages_finding("packages to run it", &packages::missing(&packages::TO_RUN))
}

fn packages_finding(subject: &'static str, missing: &[String]) -> Check {
    if missing.is_empty() {
        return Check::good(subject, "installed");
    }
    let names = missing.join(" ");
    if rustix::process::geteuid().is_root() && helper::exists("apt-get") {
        return Check::note(subject, format!("{names}: will be installed when needed"));
    }
    let text = format!("run: apt-get install -y --no-install-recommends {names}");
    Check::bad(subject, text)
}

fn program() -> Check {
    match program::own() {
        Ok(path) if paths::is_covered(&path) => {
            let text = format!("{}: the guest cannot see that folder", path.display());
            Check::bad("soft-roce itself", text)
        }
        Ok(path) => Check::good("soft-roce itself", path.display().to_string()),
        Err(error) => Check::bad("soft-roce itself", error.to_string()),
    }
}

fn place() -> Check {
    match Cache::open() {
        Ok(cache) => Check::good("cache", cache.root().display().to_string()),
        Err(error) => Check::bad("cache", error.to_string()),
    }
}

fn kernel(series: Series) -> Check {
    let subject = match series {
        Series::Seven => "kernel 7",
        Series::SixTwelve => "kernel 6.12",
    };
    let built = Cache::open().ok().and_then(|cache| Build::new(series).cached(&cache));
    if let Some(linux) = built {
        return Check::good(subject, format!("built: {}", linux.display()));
    }
    let given = env::var_os(crate::kernel::build::SOURCE_VARIABLE).filter(|path| !path.is_empty());
    if let Some(Err(error)) = given.map(|path| Source::given(Path::new(&path))) {
        return Check::bad(subject, error.to_string());
    }
    let name = series.name();
    let text = format!("not built; `soft-roce build --kernel {name}` or the first run does it");
    Check::note(subject, text)
}

/// Only a guest that boots proves that guests boot.
fn probe() -> Option<Check> {
    let cache = Cache::open().ok()?;
    let built = |series: &Series| Build::new(*series).cached(&cache).is_some();
    let series = [Series::SixTwelve, Series::Seven].into_iter().find(built)?;
    let guest = Guest::new("true")
        .kernel(Kernel::Series(series))
        .current_dir("/")
        .stdin(Input::Null)
        .stdout(Output::Null)
        .stderr(Output::Null)
        .timeout(PROBE_DEADLINE);
    let started = Instant::now();
    Some(match guest.run() {
        Ok(outcome) if outcome.success() => {
            let text = format!("a guest ran a program in {} ms", started.elapsed().as_millis());
            Check::good("booting", text)
        }
        Ok(outcome) => Check::bad("booting", format!("a guest failed: {:?}", outcome.ending)),
        Err(error) => Check::bad("booting", error.to_string()),
    })
}

fn memory() -> Check {
    match paths::memory_folder(MEMORY_BYTES) {
        Ok(folder) if folder == Path::new("/dev/shm") => {
            Check::good("room for guest memory", "/dev/shm")
        }
        Ok(folder) => {
            let text = format!("{}: on a disk, so slower than in /dev/shm", folder.display());
            Check::note("room for guest memory", text)
        }
        Err(error) => Check::bad("room for guest memory", error.to_string()),
    }
}

fn tracing() -> Check {
    let subject = "ptrace";
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    match scope.trim() {
        "3" => Check::bad(subject, "forbidden by kernel.yama.ptrace_scope=3; kernel 6.12 needs it"),
        "2" if !rustix::process::geteuid().is_root() => {
            Check::bad(subject, "only root may, by kernel.yama.ptrace_scope=2")
        }
        _ => Check::good(subject, "allowed, as far as the settings tell"),
    }
}

fn processors() -> Check {
    let count = cpu::allowed().len();
    let text = format!("{count}: as many guests run side by side without slowing each other");
    Check::good("processors", text)
}

fn own_devices() -> Check {
    let names = fs::read_dir("/sys/class/infiniband").into_iter().flatten().flatten();
    let names: Vec<_> =
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    if names.is_empty() {
        return Check::note("RDMA devices of this machine", "none; guests have their own");
    }
    Check::good("RDMA devices of this machine", names.join(" "))
}

fn locked_memory() -> Check {
    let subject = "memory that may be locked";
    match getrlimit(Resource::Memlock).current {
        None => Check::good(subject, "unlimited"),
        Some(bytes) => {
            let text = format!("{} KiB natively; unlimited in guests", bytes >> 10);
            Check::note(subject, text)
        }
    }
}

fn natively() -> Check {
    let missing = native::missing();
    if missing.is_empty() {
        return Check::good("soft-roce native", "possible");
    }
    Check::note("soft-roce native", format!("not possible: {}", missing.join("; ")))
}
