//! Packages with a kernel that is ready to boot, and their modules.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Error, Result, Series, helper,
    kernel::cache::Cache,
    packages::apt::{self, Apt, field},
    progress::Step,
};

/// Beginnings of the names of the packages that a kernel's package may be split into.
const PARTS: [&str; 3] = ["linux-base-", "linux-binary-", "linux-modules-"];

/// A stock kernel that can be had: all its packages.
pub(crate) struct KernelImage {
    /// Version of the package.
    pub(crate) version: String,
    names: Vec<String>,
    size: u64,
    apt: Apt,
}

impl KernelImage {
    /// Finds the newest kernel of a series for an architecture, as Debian names it: in the
    /// machine's own suites, else in the suite that is known to have it.
    pub(crate) fn find(series: Series, architecture: &str, cache: &Cache) -> Result<Self> {
        let none = |reason: &str| Error::NoStockKernel {
            series: series.name(),
            architecture: architecture.into(),
            reason: reason.into(),
        };
        if !helper::exists("apt-get") || !helper::exists("dpkg-deb") {
            return Err(none("this machine has no apt-get and dpkg-deb"));
        }
        if own_architecture().as_deref() == Some(architecture)
            && let Some(found) = Self::newest(Apt::host(), series, architecture)?
        {
            return Ok(found);
        }
        let mirror = apt::mirror(Some(cache))
            .ok_or_else(|| none("apt is not set up for a Debian mirror"))?;
        let suite = series.suite();
        let _step = Step::new(format!("reading the package list of {suite} for {architecture}"));
        let apt = Apt::suite(cache, &mirror, suite, Some(architecture))?;
        let updated = apt.update();
        let found = Self::newest(apt, series, architecture)?;
        found.ok_or_else(|| none(&apt::lacks(suite, updated)))
    }

    /// Downloads into `folder` and returns the files.
    pub(crate) fn download(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let name = self.names.first().map_or("", String::as_str);
        let megabytes = self.size / 1_000_000;
        let _step = Step::new(format!("downloading {name} {} ({megabytes} MB)", self.version));
        self.apt.download(&self.names, &self.version, folder)
    }

    fn newest(apt: Apt, series: Series, architecture: &str) -> Result<Option<Self>> {
        let names = apt.names("linux-image-[0-9]")?;
        let Some(name) = newest_name(series, architecture, &names) else { return Ok(None) };
        let mut image = Self { version: String::new(), names: vec![], size: 0, apt };
        let depends = image.add(name)?;
        for part in parts(&depends) {
            image.add(part)?;
        }
        Ok(Some(image))
    }

    /// Adds a package; returns what it depends on.
    fn add(&mut self, name: &str) -> Result<String> {
        let record = self.apt.record(name)?;
        let text = |key| field(&record, key).unwrap_or_default().to_owned();
        if self.names.is_empty() {
            self.version = text("Version");
        }
        self.size += text("Size").parse().unwrap_or(0);
        self.names.push(name.into());
        Ok(text("Depends"))
    }
}

fn own_architecture() -> Option<String> {
    let printed = helper::output(Command::new("dpkg").arg("--print-architecture")).ok()?;
    Some(printed.trim().into())
}

/// The name with the highest version of the series: no variant for clouds or real time, none with
/// debug information or without a signature.
fn newest_name<'a>(series: Series, architecture: &str, names: &'a [String]) -> Option<&'a str> {
    let version = |name: &str| -> Option<Vec<u32>> {
        let release = name.strip_prefix("linux-image-")?.strip_suffix(architecture)?;
        let release = release.strip_suffix('-')?;
        let (numbers, rest) = release.split_once(['+', '-']).unwrap_or((release, ""));
        // What follows is an ABI number or the distribution's own, never a word.
        if rest.split('-').any(|part| part == "cloud" || part == "rt") {
            return None;
        }
        let of_series =
            numbers.strip_prefix(series.name()).is_some_and(|rest| rest.starts_with('.'));
        of_series.then(|| numbers.split('.').map_while(|number| number.parse().ok()).collect())
    };
    let names = names.iter().map(String::as_str);
    names.filter(|name| version(name).is_some()).max_by_key(|name| version(name))
}

fn parts(depends: &str) -> Vec<&str> {
    let names = depends.split(',').filter_map(|one| one.split_whitespace().next());
    names.filter(|name| PARTS.iter().any(|start| name.starts_with(start))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_plain_kernel_of_the_series_is_chosen() {
        let names = "linux-image-6.12.9+deb13-amd64\nlinux-image-6.12.107+deb13-amd64\n\
                     linux-image-6.12.117+deb13-cloud-amd64\nlinux-image-6.12.117+deb13-rt-amd64\n\
                     linux-image-6.12.117+deb13-amd64-dbg\nlinux-image-6.1.0-56-amd64\n\
                     linux-image-7.3.4+deb13-amd64\nlinux-image-7.10.1+deb13-amd64\n\
                     linux-image-amd64\nlinux-image-6.12.117+deb13-arm64\n";
        let names: Vec<_> = names.lines().map(str::to_owned).collect();
        let newest = |series, architecture| newest_name(series, architecture, &names);
        let expected = Some("linux-image-6.12.107+deb13-amd64");
        assert_eq!(newest(Series::SixTwelve, "amd64"), expected);
        assert_eq!(newest(Series::Seven, "amd64"), Some("linux-image-7.10.1+deb13-amd64"));
        assert_eq!(newest(Series::SixTwelve, "arm64"), Some("linux-image-6.12.117+deb13-arm64"));
        assert_eq!(newest(Series::Seven, "arm64"), None);
    }

    #[test]
    fn a_kernel_may_be_split() {
        let depends = "dracut | initramfs-tools (>= 0.120), linux-base-7.3.4 (= 1), \
                       linux-binary-7.3.4 (= 1), linux-modules-7.3.4 (= 1)";
        let expected = ["linux-base-7.3.4", "linux-binary-7.3.4", "linux-modules-7.3.4"];
        assert_eq!(parts(depends), expected);
    }
}
