//! Origin of a kernel's source: an installed package, or one of an archive.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    slice,
};

use crate::{
    Error, Result, Series, helper,
    kernel::{Release, cache::Cache},
    packages::apt::{self, Apt, MIRROR_VARIABLE, field},
    progress::{Step, say},
};

/// Reason of a machine that has no archive of packages to ask.
const NO_APT: &str = "this machine has no apt-get";

/// Prospect of a machine whose package lists were never read.
const LISTS_FIRST: &str = "the package lists, which are read first";

/// A source package that can be had, and where.
#[derive(Debug)]
pub(crate) struct SourcePackage {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Size of the package's file, in bytes; 0 for an installed one.
    pub(crate) size: u64,
    pub(crate) release: Release,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    Installed(PathBuf),
    Archive(Apt),
}

/// The package lists to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lists {
    /// The machine's own, read by its last `apt-get update`; ours where it has none.
    Machine,
    /// Ours, read now: a mirror drops the packages that an older list names.
    Fresh,
}

impl SourcePackage {
    /// Finds the newest source of a series, else the nearest release of those that can be had.
    ///
    /// A package that is installed needs no network. Then come the machine's own suites, and the
    /// suite of Debian that is known to have the series, read through a package state of ours.
    pub(crate) fn find(series: Series, cache: &Cache, lists: Lists) -> Result<Self> {
        let mut known = installed();
        if let Some(package) = exact(series, &mut known) {
            return Ok(package);
        }
        let found = helper::exists("apt-get").then(|| archive(series, cache, lists, &mut known));
        let reason = match found.transpose()? {
            Some(Found::Exact(package)) => return package.resolve(),
            Some(Found::Other(reason)) => reason,
            None => NO_APT.into(),
        };
        let Some(package) = nearest(series, &mut known) else {
            return Err(Error::NoSource { series: series.name(), reason });
        };
        let (wanted, release, name) = (series.name(), package.release, &package.name);
        say(&format!(
            "no source of kernel {wanted}: {reason}; {release} ({name}) replaces it, until \
             `soft-roce build --refresh` finds one"
        ));
        package.resolve()
    }

    /// Says in words how [`SourcePackage::find`] would get the source, as far as the files of this
    /// machine tell; changes nothing and asks no mirror.
    pub(crate) fn prospect(series: Series) -> Result<String> {
        let has_apt = helper::exists("apt-get");
        let mut known = installed();
        if has_apt {
            known.extend(offered(&Apt::host())?);
        }
        if let Some(package) = exact(series, &mut known) {
            return Ok(package.resolve()?.words());
        }
        if has_apt && apt::mirror(None).is_some() {
            let suite = series.suite();
            return Ok(format!("{suite} of the Debian mirror, if that can be reached"));
        }
        let Some(package) = nearest(series, &mut known) else {
            let none = Error::NoSource { series: series.name(), reason: NO_APT.into() };
            return if has_apt { Ok(LISTS_FIRST.into()) } else { Err(none) };
        };
        let package = package.resolve()?;
        Ok(format!("{}; it replaces {}", package.words(), series.name()))
    }

    /// True for a release outside the series.
    pub(crate) fn replaces(&self, series: Series) -> bool {
        !series.has(self.release)
    }

    /// Leaves the tarball with the source in `folder`, or finds it where it is installed.
    pub(crate) fn tarball(&self, folder: &Path) -> Result<PathBuf> {
        let apt = match &self.origin {
            Origin::Installed(tarball) => return Ok(tarball.clone()),
            Origin::Archive(apt) => apt,
        };
        let Self { name, version, size, .. } = self;
        let size = size / 1_000_000;
        let step = Step::new(format!("downloading {name} {version} ({size} MB)"));
        let files = apt.download(slice::from_ref(name), version, folder)?;
        drop(step);
        for file in &files {
            helper::check(Command::new("dpkg-deb").arg("-x").arg(file).arg(folder))?;
            fs::remove_file(file).map_err(Error::io("remove", file))?;
        }
        let reason = "apt left no package with the kernel's source";
        tarball_below(folder, name).ok_or(Error::Path { path: folder.into(), reason })
    }

    /// Fills in what only the package's record tells.
    fn resolve(mut self) -> Result<Self> {
        if let Origin::Archive(apt) = &self.origin {
            let record = apt.record(&self.name)?;
            self.version = field(&record, "Version").unwrap_or_default().into();
            self.size = field(&record, "Size").and_then(|size| size.parse().ok()).unwrap_or(0);
        }
        Ok(self)
    }

    fn words(&self) -> String {
        let Self { name, version, size, .. } = self;
        match self.origin {
            Origin::Installed(_) => format!("{name} {version}, which is installed"),
            Origin::Archive(_) => {
                format!("{name} {version}, a download of {} MB", size / 1_000_000)
            }
        }
    }
}

/// The packages that are installed and still have their tarball.
fn installed() -> Vec<SourcePackage> {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${db:Status-Status} ${Package} ${Version}\n", "linux-source-*"]);
    let listed = helper::output(&mut query).unwrap_or_default();
    listed.lines().filter_map(|line| installed_in(Path::new("/"), line)).collect()
}

fn installed_in(root: &Path, line: &str) -> Option<SourcePackage> {
    let (name, version) = line.strip_prefix("installed ")?.split_once(' ')?;
    let release = Release::of_package(name)?;
    let origin = Origin::Installed(tarball_below(root, name)?);
    Some(SourcePackage { name: name.into(), version: version.into(), size: 0, release, origin })
}

/// Debian puts the tarball in `usr/src`, Ubuntu in a folder there.
fn tarball_below(root: &Path, name: &str) -> Option<PathBuf> {
    let folder = root.join("usr/src");
    let places = [folder.clone(), folder.join(name)];
    let ends = ["xz", "bz2", "gz", "zst"];
    let mut files = places
        .iter()
        .flat_map(|place| ends.iter().map(move |end| place.join(format!("{name}.tar.{end}"))));
    files.find(|file| file.is_file())
}

/// Result of a search in the archives.
enum Found {
    Exact(SourcePackage),
    /// Nothing of the series; the reason.
    Other(String),
}

/// Looks for the series in the machine's suites, then in Debian's; adds all else to `known`.
fn archive(
    series: Series,
    cache: &Cache,
    lists: Lists,
    known: &mut Vec<SourcePackage>,
) -> Result<Found> {
    let unread = match machine(cache, lists) {
        Ok(found) => {
            known.extend(found);
            None
        }
        Err(error) => Some(format!("no package list can be read ({})", apt::reason(error))),
    };
    if let Some(package) = exact(series, known) {
        return Ok(Found::Exact(package));
    }
    let Some(mirror) = apt::mirror(Some(cache)) else {
        let none =
            || format!("apt has none and uses no Debian mirror; {MIRROR_VARIABLE} names one");
        return Ok(Found::Other(unread.unwrap_or_else(none)));
    };
    let suite = series.suite();
    let _step = Step::new(format!("reading the package list of {suite}"));
    let apt = Apt::suite(cache, &mirror, suite, None)?;
    let updated = apt.update();
    let found = exact(series, &mut offered(&apt)?);
    Ok(found.map_or_else(|| Found::Other(apt::lacks(suite, updated)), Found::Exact))
}

/// The packages of the machine's suites, by its own lists or by ours.
fn machine(cache: &Cache, lists: Lists) -> Result<Vec<SourcePackage>> {
    if lists == Lists::Machine {
        let found = offered(&Apt::host())?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let _step = Step::new("reading the package lists".into());
    let apt = Apt::own_lists(cache)?;
    // One broken list of several is no reason to do without the others.
    let updated = apt.update();
    let found = offered(&apt)?;
    if found.is_empty() { updated.map(|()| found) } else { Ok(found) }
}

/// The source packages that one apt state offers; versions come later.
fn offered(apt: &Apt) -> Result<Vec<SourcePackage>> {
    let found = apt.names("linux-source-[0-9]")?.into_iter().filter_map(|name| {
        let (release, origin) = (Release::of_package(&name)?, Origin::Archive(apt.clone()));
        Some(SourcePackage { name, version: String::new(), size: 0, release, origin })
    });
    Ok(found.collect())
}

/// Takes the newest package of the series out of `known`.
fn exact(series: Series, known: &mut Vec<SourcePackage>) -> Option<SourcePackage> {
    let has = known.iter().any(|package| !package.replaces(series));
    has.then(|| nearest(series, known)).flatten()
}

/// Takes the package out of `known` whose release is nearest to the series.
fn nearest(series: Series, known: &mut Vec<SourcePackage>) -> Option<SourcePackage> {
    let release = series.best(known.iter().map(|package| package.release))?;
    let position = known.iter().position(|package| package.release == release)?;
    Some(known.remove(position))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root_with(file: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "").unwrap();
        root
    }

    #[test]
    fn an_installed_package_is_a_source() {
        let debian = root_with("usr/src/linux-source-6.12.tar.xz");
        let line = "installed linux-source-6.12 6.12.117-1";
        let package = installed_in(debian.path(), line).unwrap();
        assert!(!package.replaces(Series::SixTwelve) && package.replaces(Series::Seven));
        assert_eq!(package.version, "6.12.117-1");
        let tarball = package.tarball(Path::new("/nonexistent")).unwrap();
        assert_eq!(tarball, debian.path().join("usr/src/linux-source-6.12.tar.xz"));

        let ubuntu = root_with("usr/src/linux-source-6.8.0/linux-source-6.8.0.tar.bz2");
        let line = "installed linux-source-6.8.0 6.8.0-31.31";
        assert!(installed_in(ubuntu.path(), line).unwrap().replaces(Series::SixTwelve));
    }

    #[test]
    fn what_is_not_installed_is_no_source() {
        let root = root_with("usr/src/linux-source-6.12.tar.xz");
        for line in [
            "config-files linux-source-6.12 6.12.117-1",
            "not-installed linux-source-6.12 ",
            "installed linux-source-6.1 6.1.1-1",
            "installed linux-source 6.12.117-1",
        ] {
            assert!(installed_in(root.path(), line).is_none(), "{line}");
        }
    }
}
