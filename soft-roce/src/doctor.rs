//! Checks of this machine: the features that it has, and the reasons why it lacks others.

use std::{env, fs, path::Path};

use rustix::process::{Resource, getrlimit};

use crate::{
    Kernel, Series, helper,
    kernel::{KernelInfo, build, cache::Cache},
    machine, native,
    packages::{self, SourcePackage},
    program,
    run::{MEMORY_BYTES, cpu, memory, paths, trial},
};

pub use crate::check::{Check, CheckVerdict};

/// Looks at everything that building, running and native use depend on, and boots each kernel in
/// the cache; changes nothing on this machine.
#[must_use]
pub fn examine() -> Vec<Check> {
    let kernels = kernels();
    let boots = kernels.iter().any(|check| check.verdict == CheckVerdict::Good);
    let mut checks = vec![build_packages(boots), run_packages(), program(), cache()];
    checks.extend(kernels);
    checks.push(machine::qemu::check());
    checks.extend([memory(), tracing(), processors(), own_devices(), locked_memory(), natively()]);
    checks
}

/// Compilers and the like are missed only where there is no kernel that boots.
fn build_packages(boots: bool) -> Check {
    let check =
        packages_check("packages to build a kernel", &packages::missing(&packages::to_build()));
    if boots && check.verdict == CheckVerdict::Bad {
        return Check::note(&check.subject, format!("not needed now; {}", check.text));
    }
    check
}

fn run_packages() -> Check {
    packages_check("packages to run a guest", &packages::missing(&packages::TO_RUN))
}

fn packages_check(subject: &str, missing: &[String]) -> Check {
    if missing.is_empty() {
        return Check::good(subject, "installed");
    }
    let names = missing.join(" ");
    if rustix::process::geteuid().is_root() && helper::exists("apt-get") {
        return Check::note(subject, format!("{names}: will be installed when needed"));
    }
    Check::bad(subject, format!("missing: {names}; {}", packages::how_to_install(missing)))
}

fn program() -> Check {
    let subject = "soft-roce itself";
    match program::own() {
        Ok(path) if paths::is_covered(&path) => {
            Check::bad(subject, format!("{}: the guest cannot see that folder", path.display()))
        }
        Ok(path) => Check::good(subject, path.display().to_string()),
        Err(error) => Check::bad(subject, error.to_string()),
    }
}

fn cache() -> Check {
    match Cache::open() {
        Ok(cache) => Check::good("cache", cache.root().display().to_string()),
        Err(error) => Check::bad("cache", error.to_string()),
    }
}

/// The kernels that `--kernel` finds: both series, those built from other sources, and the one
/// that the environment names.
fn kernels() -> Vec<Check> {
    let mut checks = Vec::new();
    let found = Cache::open().map(|cache| cache.kernels()).unwrap_or_default();
    for series in Series::ALL {
        let names = [series.name().to_owned(), series.replacement()];
        if !found.iter().any(|(name, _)| names.contains(name)) {
            checks.push(not_built(series));
        }
    }
    for (name, linux) in found {
        let subject = format!("kernel {name}");
        checks.push(match linux {
            Some(linux) => boot(&subject, &linux),
            None => Check::note(
                &subject,
                "built by another soft-roce; the next `soft-roce build` or run builds it again",
            ),
        });
    }
    if let Some(Ok(Kernel::Program(linux))) = env::var("SOFT_ROCE_KERNEL").ok().map(|v| v.parse()) {
        checks.push(boot("kernel of SOFT_ROCE_KERNEL", &linux));
    }
    checks
}

/// Only a guest that boots proves that guests boot.
fn boot(subject: &str, linux: &Path) -> Check {
    match trial::duration(linux) {
        Ok(duration) => {
            let info = linux.parent().map(|entry| entry.join("kernel.json"));
            let info = info.and_then(|path| KernelInfo::load(&path).ok());
            let limits = info.map(|info| info.limits()).unwrap_or_default();
            let parts = [
                format!("boots in {:.1} s, its target answers over rxe", duration.as_secs_f64()),
                linux.display().to_string(),
            ];
            let parts: Vec<_> = parts.into_iter().chain(limits).collect();
            Check::good(subject, parts.join("; "))
        }
        Err(error) => Check::bad(subject, error.to_string()),
    }
}

fn not_built(series: Series) -> Check {
    let name = series.name();
    let subject = format!("kernel {name}");
    if let Some(path) = env::var_os(build::SOURCE_VARIABLE).filter(|path| !path.is_empty())
        && !Path::new(&path).exists()
    {
        let text = format!("{}: no such source ({})", path.display(), build::SOURCE_VARIABLE);
        return Check::bad(&subject, text);
    }
    match SourcePackage::prospect(series) {
        Ok(words) => {
            let text = "not built; the first run or this does it";
            Check::note(&subject, format!("{text}: soft-roce build --kernel {name} (from {words})"))
        }
        Err(error) => Check::bad(&subject, error.to_string()),
    }
}

fn memory() -> Check {
    match memory::find(MEMORY_BYTES) {
        Some((folder, true)) => Check::good("room for guest memory", folder.display().to_string()),
        Some((folder, false)) => {
            let text = format!("{}: on a disk, so slower than in /dev/shm", folder.display());
            Check::note("room for guest memory", text)
        }
        None => {
            let text = "no folder has 1 GiB free; set TMPDIR to one, or give less with --mem";
            Check::bad("room for guest memory", text)
        }
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
