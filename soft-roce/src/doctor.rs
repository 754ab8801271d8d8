//! What this machine can do, and why not more.

use std::{
    env, fs,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Resource, getrlimit};

use super::{
    Guest, Input, Kernel, Output, Series, build::Build, cache::Cache, command, cpu, native,
    packages, program, room, run::MEMORY_BYTES, source::Source,
};

/// A machine that is not under heavy load needs a hundredth of it.
const PROBE_DEADLINE: Duration = Duration::from_secs(30);

/// How good a finding is.
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
pub struct Finding {
    /// What it is about.
    pub subject: &'static str,
    /// How good it is.
    pub verdict: Verdict,
    /// What was found, and what to do.
    pub text: String,
}

/// Looks at everything that building, running and native use depend on.
#[must_use]
pub fn examine() -> Vec<Finding> {
    let mut findings = vec![build_packages(), run_packages(), program(), place()];
    findings.extend([Series::SixTwelve, Series::Seven].map(kernel));
    findings.extend(probe());
    findings.extend([
        memory(),
        tracing(),
        processors(),
        own_devices(),
        locked_memory(),
        natively(),
    ]);
    findings
}

impl Finding {
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

fn build_packages() -> Finding {
    let missing = packages::missing(&packages::TO_BUILD);
    packages_finding("packages to build the kernel", &missing)
}

fn run_packages() -> Finding {
    packages_finding("packages to run it", &packages::missing(&packages::TO_RUN))
}

fn packages_finding(subject: &'static str, missing: &[String]) -> Finding {
    if missing.is_empty() {
        return Finding::good(subject, "installed");
    }
    let names = missing.join(" ");
    if rustix::process::geteuid().is_root() && command::exists("apt-get") {
        return Finding::note(subject, format!("{names}: will be installed when needed"));
    }
    let text = format!("run: apt-get install -y --no-install-recommends {names}");
    Finding::bad(subject, text)
}

fn program() -> Finding {
    match program::own() {
        Ok(path) if room::is_covered(&path) => {
            let text = format!("{}: the guest cannot see that folder", path.display());
            Finding::bad("soft-roce itself", text)
        }
        Ok(path) => Finding::good("soft-roce itself", path.display().to_string()),
        Err(error) => Finding::bad("soft-roce itself", error.to_string()),
    }
}

fn place() -> Finding {
    match Cache::open() {
        Ok(cache) => Finding::good("cache", cache.root().display().to_string()),
        Err(error) => Finding::bad("cache", error.to_string()),
    }
}

fn kernel(series: Series) -> Finding {
    let subject = match series {
        Series::Seven => "kernel 7",
        Series::SixTwelve => "kernel 6.12",
    };
    let built = Cache::open().ok().and_then(|cache| Build::new(series).cached(&cache));
    if let Some(linux) = built {
        return Finding::good(subject, format!("built: {}", linux.display()));
    }
    let given = env::var_os(super::build::SOURCE_VARIABLE).filter(|path| !path.is_empty());
    if let Some(Err(error)) = given.map(|path| Source::given(Path::new(&path))) {
        return Finding::bad(subject, error.to_string());
    }
    let name = series.name();
    let text = format!("not built; `soft-roce build --kernel {name}` or the first run does it");
    Finding::note(subject, text)
}

/// Only a guest that boots proves that guests boot.
fn probe() -> Option<Finding> {
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
            Finding::good("booting", text)
        }
        Ok(outcome) => Finding::bad("booting", format!("a guest failed: {:?}", outcome.ending)),
        Err(error) => Finding::bad("booting", error.to_string()),
    })
}

fn memory() -> Finding {
    match room::memory_folder(MEMORY_BYTES) {
        Ok(folder) if folder == Path::new("/dev/shm") => {
            Finding::good("room for guest memory", "/dev/shm")
        }
        Ok(folder) => {
            let text = format!("{}: on a disk, so slower than in /dev/shm", folder.display());
            Finding::note("room for guest memory", text)
        }
        Err(error) => Finding::bad("room for guest memory", error.to_string()),
    }
}

fn tracing() -> Finding {
    let subject = "ptrace";
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    match scope.trim() {
        "3" => {
            Finding::bad(subject, "forbidden by kernel.yama.ptrace_scope=3; kernel 6.12 needs it")
        }
        "2" if !rustix::process::geteuid().is_root() => {
            Finding::bad(subject, "only root may, by kernel.yama.ptrace_scope=2")
        }
        _ => Finding::good(subject, "allowed, as far as the settings tell"),
    }
}

fn processors() -> Finding {
    let count = cpu::allowed().len();
    let text = format!("{count}: as many guests run side by side without slowing each other");
    Finding::good("processors", text)
}

fn own_devices() -> Finding {
    let names = fs::read_dir("/sys/class/infiniband").into_iter().flatten().flatten();
    let names: Vec<_> =
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    if names.is_empty() {
        return Finding::note("RDMA devices of this machine", "none; guests have their own");
    }
    Finding::good("RDMA devices of this machine", names.join(" "))
}

fn locked_memory() -> Finding {
    let subject = "memory that may be locked";
    match getrlimit(Resource::Memlock).current {
        None => Finding::good(subject, "unlimited"),
        Some(bytes) => {
            let text = format!("{} KiB natively; unlimited in guests", bytes >> 10);
            Finding::note(subject, text)
        }
    }
}

fn natively() -> Finding {
    let missing = native::missing();
    if missing.is_empty() {
        return Finding::good("soft-roce native", "possible");
    }
    Finding::note("soft-roce native", format!("not possible: {}", missing.join("; ")))
}
