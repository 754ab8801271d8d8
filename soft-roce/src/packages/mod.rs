//! Packages: what building and running need, and where the kernel's source comes from.

mod apt;
mod kernel_image;
mod kernel_source;
mod sysroot;

use std::path::Path;

use crate::{Error, Result, helper, progress::Step};

use apt::Apt;
pub(crate) use kernel_image::KernelImage;
pub(crate) use kernel_source::{Lists, SourcePackage};
pub use sysroot::make_sysroot;

/// A package of Debian and Ubuntu, and the program or header whose presence shows that it is
/// installed, or that a system of another kind has the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    pub(crate) package: &'static str,
    probe: Probe,
}

#[derive(Clone, Copy, Debug)]
enum Probe {
    Program(&'static str),
    File(&'static str),
}

/// Needs of building a kernel, except for unpacking its source.
const TO_COMPILE: [Need; 9] = [
    Need { package: "gcc", probe: Probe::Program("gcc") },
    Need { package: "libc6-dev", probe: Probe::File("/usr/include/stdio.h") },
    Need { package: "make", probe: Probe::Program("make") },
    Need { package: "flex", probe: Probe::Program("flex") },
    Need { package: "bison", probe: Probe::Program("bison") },
    Need { package: "bc", probe: Probe::Program("bc") },
    Need { package: "libelf-dev", probe: Probe::File("/usr/include/libelf.h") },
    Need { package: "perl", probe: Probe::Program("perl") },
    Need { package: "patch", probe: Probe::Program("patch") },
];

/// Needs of running a guest: `ip` and `rdma`.
pub(crate) const TO_RUN: [Need; 1] = [Need { package: "iproute2", probe: Probe::Program("rdma") }];

/// Needs of building a kernel from the source package of this system.
pub(crate) fn to_build() -> Vec<Need> {
    let ubuntu = Path::new("/etc/dpkg/origins/ubuntu").exists();
    let tarball = if ubuntu { "linux.tar.bz2" } else { "linux.tar.xz" };
    TO_COMPILE.into_iter().chain(to_unpack(Path::new(tarball))).collect()
}

/// The program that `tar` needs for a tarball of this name.
pub(crate) fn to_unpack(tarball: &Path) -> Option<Need> {
    let (package, program) = match tarball.extension()?.to_str()? {
        "xz" => ("xz-utils", "xz"),
        "bz2" => ("bzip2", "bzip2"),
        "zst" => ("zstd", "zstd"),
        "gz" | "tgz" => ("gzip", "gzip"),
        _ => return None,
    };
    Some(Need { package, probe: Probe::Program(program) })
}

/// The packages of `needs` that are not installed.
pub(crate) fn missing(needs: &[Need]) -> Vec<String> {
    let absent = |need: &&Need| match need.probe {
        Probe::Program(program) => !helper::exists(program),
        Probe::File(path) => !Path::new(path).exists(),
    };
    needs.iter().filter(absent).map(|need| need.package.to_owned()).collect()
}

/// The command that installs packages, or what else to do where there is no apt.
pub(crate) fn how_to_install(packages: &[String]) -> String {
    let names = packages.join(" ");
    if helper::exists("apt-get") {
        return format!("as root run: apt-get install -y --no-install-recommends {names}");
    }
    "install what this system has for these packages of Debian".into()
}

/// Installs what is missing when we are root, else says how.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let packages = missing(needs);
    if packages.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() || !helper::exists("apt-get") {
        return Err(Error::Packages { next: how_to_install(&packages), packages });
    }
    let _step = Step::new(format!("installing {}", packages.join(" ")));
    let apt = Apt::host();
    install(|| apt.install(&packages), || apt.update())
}

/// Installs, after an update where it fails without: a fresh machine has no package lists yet, and
/// the packages of an old list are gone. A list that cannot be read matters only if the packages
/// then cannot be had.
fn install(install: impl Fn() -> Result<()>, update: impl FnOnce() -> Result<()>) -> Result<()> {
    if install().is_ok() {
        return Ok(());
    }
    let updated = update();
    install().map_err(|error| match (error, updated) {
        (Error::Helper { command, reason }, Err(update)) => {
            Error::Helper { command, reason: format!("{reason} (before that, {update})") }
        }
        (error, _) => error,
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn failure(command: &str, reason: &str) -> Error {
        Error::Helper { command: command.into(), reason: reason.into() }
    }

    #[test]
    fn a_broken_list_of_others_does_not_matter() {
        let updated = Cell::new(false);
        let second_time = || if updated.get() { Ok(()) } else { Err(failure("install", "no gcc")) };
        let broken = || {
            updated.set(true);
            Err(failure("update", "list of others"))
        };
        install(second_time, broken).unwrap();
    }

    #[test]
    fn both_failures_are_told() {
        let broken = || Err(failure("apt-get update", "no network"));
        let error = install(|| Err(failure("apt-get install", "no gcc")), broken).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no gcc") && text.contains("no network"), "{text}");
    }

    #[test]
    fn a_tarballs_name_tells_what_unpacks_it() {
        let package = |name| to_unpack(Path::new(name)).map(|need| need.package);
        assert_eq!(package("linux-source-6.12.tar.xz"), Some("xz-utils"));
        assert_eq!(package("linux-source-6.8.0.tar.bz2"), Some("bzip2"));
        assert_eq!(package("linux-6.6.tar.zst"), Some("zstd"));
        assert_eq!(package("linux.tar"), None);
    }
}
