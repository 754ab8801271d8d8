//! Debian packages: what building and running need, and where the kernel's source comes from.

mod kernel_image;

use std::{fs, path::Path, path::PathBuf, process::Command};

use crate::{Error, Result, Series, helper, kernel::cache::Cache, progress::Step};

pub(crate) use kernel_image::KernelImage;

/// A package, and the program or header whose presence shows that it is installed.
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

/// What building a kernel needs.
pub(crate) const TO_BUILD: [Need; 10] = [
    Need { package: "gcc", probe: Probe::Program("gcc") },
    Need { package: "libc6-dev", probe: Probe::File("/usr/include/stdio.h") },
    Need { package: "make", probe: Probe::Program("make") },
    Need { package: "flex", probe: Probe::Program("flex") },
    Need { package: "bison", probe: Probe::Program("bison") },
    Need { package: "bc", probe: Probe::Program("bc") },
    Need { package: "xz-utils", probe: Probe::Program("xz") },
    Need { package: "libelf-dev", probe: Probe::File("/usr/include/libelf.h") },
    Need { package: "perl", probe: Probe::Program("perl") },
    Need { package: "patch", probe: Probe::Program("patch") },
];

/// What running a guest needs: `ip` and `rdma`.
pub(crate) const TO_RUN: [Need; 1] = [Need { package: "iproute2", probe: Probe::Program("rdma") }];

/// The packages of `needs` that are not installed.
pub(crate) fn missing(needs: &[Need]) -> Vec<String> {
    let absent = |need: &&Need| match need.probe {
        Probe::Program(program) => !helper::exists(program),
        Probe::File(path) => !Path::new(path).exists(),
    };
    needs.iter().filter(absent).map(|need| need.package.to_owned()).collect()
}

/// Installs what is missing when we are root, else says how.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let packages = missing(needs);
    if packages.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() || !helper::exists("apt-get") {
        return Err(Error::Packages(packages));
    }
    let _step = Step::new(format!("installing {}", packages.join(" ")));
    if install(&packages).is_err() {
        // A fresh machine has no package lists yet.
        helper::check(Command::new("apt-get").args(["update", "-q"]))?;
        install(&packages)?;
    }
    Ok(())
}

/// A source package that can be had, and how to ask for it.
pub(crate) struct SourcePackage {
    pub(crate) name: String,
    pub(crate) version: String,
    size: u64,
    apt: Apt,
}

impl SourcePackage {
    /// Finds the newest source of a series: in the machine's own suites, else in the suite that
    /// is known to have it, read through a package state of our own.
    pub(crate) fn find(series: Series, cache: &Cache) -> Result<Self> {
        let none = |reason: &str| Error::NoSource { series: series.name(), reason: reason.into() };
        if !helper::exists("apt-get") {
            return Err(none("this machine has no apt-get"));
        }
        if let Some(found) = Apt::host().newest(series)? {
            return Ok(found);
        }
        let mirror = mirror().ok_or_else(|| none("apt is not set up for a Debian mirror"))?;
        let _step = Step::new(format!("reading the package list of {}", series.suite()));
        let apt = Apt::private(cache, &mirror, series.suite())?;
        apt.newest(series)?.ok_or_else(|| none(&format!("{} does not have it", series.suite())))
    }

    /// Downloads into `folder` and returns the file.
    pub(crate) fn download(&self, folder: &Path) -> Result<PathBuf> {
        let _step = Step::new(format!(
            "downloading {} {} ({} MB)",
            self.name,
            self.version,
            self.size / 1_000_000
        ));
        let wanted = format!("{}={}", self.name, self.version);
        let mut get = self.apt.command("apt-get");
        helper::check(get.args(["-q", "download", &wanted]).current_dir(folder))?;
        let files = fs::read_dir(folder).map_err(Error::io("read", folder))?;
        let is_package = |path: &PathBuf| path.extension().is_some_and(|end| end == "deb");
        let mut paths = files.flatten().map(|entry| entry.path());
        paths.find(is_package).ok_or_else(|| Error::Helper {
            command: helper::words(&get),
            reason: "it left no package".into(),
        })
    }
}

/// How apt is called: with the machine's own state, or with one of ours.
#[derive(Clone, Default)]
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn host() -> Self {
        Self::default()
    }

    /// A state with one suite, in the cache; the machine's configuration stays as it is.
    fn private(cache: &Cache, mirror: &str, suite: &str) -> Result<Self> {
        let root = cache.root().join("apt").join(suite);
        for folder in ["lists/partial", "cache/archives/partial"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        }
        let list = root.join("sources.list");
        let line = format!("deb {}{mirror} {suite} main\n", signed_by());
        fs::write(&list, line).map_err(Error::io("write", &list))?;
        let apt = Self { options: private_options(&root) };
        helper::check(apt.command("apt-get").args(["-q", "update"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).env("LC_ALL", "C");
        command
    }

    fn newest(&self, series: Series) -> Result<Option<SourcePackage>> {
        let mut ask = self.command("apt-cache");
        let names = helper::output(ask.args(["pkgnames", "linux-source-"]))?;
        let Some(name) = newest_name(series, &names) else { return Ok(None) };
        let mut ask = self.command("apt-cache");
        let record = helper::output(ask.args(["show", "--no-all-versions", name]))?;
        let version = field(&record, "Version").unwrap_or_default().to_owned();
        let size = field(&record, "Size").and_then(|size| size.parse().ok()).unwrap_or(0);
        Ok(Some(SourcePackage { name: name.to_owned(), version, size, apt: self.clone() }))
    }
}

fn private_options(root: &Path) -> Vec<String> {
    let root = root.display();
    [
        format!("Dir::Etc::sourcelist={root}/sources.list"),
        "Dir::Etc::sourceparts=-".into(),
        format!("Dir::State::lists={root}/lists"),
        format!("Dir::Cache={root}/cache"),
        // Root's downloads otherwise run as a user who may not write to root's cache folder.
        "APT::Sandbox::User=root".into(),
    ]
    .map(|option| format!("-o{option}"))
    .into()
}

fn install(packages: &[String]) -> Result<()> {
    let mut install = Command::new("apt-get");
    install.args(["install", "-q", "-y", "--no-install-recommends"]).args(packages);
    helper::check(install.env("DEBIAN_FRONTEND", "noninteractive"))
}

/// The Debian mirror that this machine uses, as its own apt tells it.
fn mirror() -> Option<String> {
    let mut ask = Command::new("apt-get");
    ask.args(["indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(SITE)"]);
    mirror_in(&helper::output(&mut ask).ok()?)
}

fn mirror_in(targets: &str) -> Option<String> {
    // Before the first `apt-get update` origin and label are not known; the path then decides.
    let known = |line: &str| line.strip_prefix("Debian|Debian|").map(str::to_owned);
    let guessed = |line: &str| {
        let site = line.rsplit('|').next()?.trim_end_matches('/');
        site.ends_with("/debian").then(|| site.to_owned())
    };
    targets.lines().find_map(known).or_else(|| targets.lines().find_map(guessed))
}

fn signed_by() -> String {
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    if Path::new(keyring).exists() { format!("[signed-by={keyring}] ") } else { String::new() }
}

fn newest_name(series: Series, names: &str) -> Option<&str> {
    let ours = names.lines().filter(|name| series.is_source_package(name));
    ours.max_by_key(|name| series.package_minor(name))
}

fn field<'a>(record: &'a str, name: &str) -> Option<&'a str> {
    record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_name_is_chosen_by_number() {
        let names = "linux-source-7.3\nlinux-source-6.12\nlinux-source-7.10\nlinux-source-7.x\n";
        assert_eq!(newest_name(Series::Seven, names), Some("linux-source-7.10"));
        assert_eq!(newest_name(Series::SixTwelve, names), Some("linux-source-6.12"));
        assert_eq!(newest_name(Series::Seven, "linux-source-6.1\n"), None);
    }

    #[test]
    fn the_mirror_is_debians_main_archive() {
        let known = "Other|Other|http://a.test/debian\nDebian|Debian-Security|http://m.test/sec\n\
                     Debian|Debian|http://m.test/deb\n";
        assert_eq!(mirror_in(known).as_deref(), Some("http://m.test/deb"));
        let fresh = "||http://m.test/debian-security\n||http://m.test/debian/\n";
        assert_eq!(mirror_in(fresh).as_deref(), Some("http://m.test/debian"));
        assert_eq!(mirror_in("||http://m.test/other\n"), None);
    }

    #[test]
    fn fields_are_read() {
        let record = "Package: x\nVersion: 6.12.1-1~deb12u1\nSize: 153476148\n";
        assert_eq!(field(record, "Version"), Some("6.12.1-1~deb12u1"));
        assert_eq!(field(record, "Origin"), None);
    }
}
