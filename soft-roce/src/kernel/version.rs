//! Choice of the kernel: a series that is built here, or a kernel program.

use std::{cmp::Reverse, fmt, path::PathBuf, str::FromStr};

use crate::{Error, Result};

/// A kernel series that can be built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Series {
    /// The newest 7.x.
    Seven,
    /// 6.12, the default: the long-term kernel.
    #[default]
    SixTwelve,
}

impl Series {
    /// All series.
    pub const ALL: [Self; 2] = [Self::SixTwelve, Self::Seven];

    /// Name, as `--kernel` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Seven => "7",
            Self::SixTwelve => "6.12",
        }
    }

    /// Name in the cache of a kernel of the nearest release, where the series cannot be had.
    pub(crate) fn replacement(self) -> String {
        format!("{}-replacement", self.name())
    }

    /// The suite that carries its source, for machines whose own suites don't.
    pub(crate) fn suite(self) -> &'static str {
        match self {
            Self::Seven => "trixie-backports",
            Self::SixTwelve => "trixie",
        }
    }

    /// True for a release of this series.
    pub(crate) fn has(self, release: Release) -> bool {
        match self {
            Self::Seven => release.major == 7,
            Self::SixTwelve => release == Release { major: 6, minor: 12 },
        }
    }

    /// The best of these releases: the series' newest, else the nearest to it.
    pub(crate) fn best(self, releases: impl IntoIterator<Item = Release>) -> Option<Release> {
        releases.into_iter().max_by_key(|release| (Reverse(self.distance(*release)), *release))
    }

    /// Number of releases between the series and a release outside it.
    fn distance(self, release: Release) -> u32 {
        let first = match self {
            Self::Seven => Release { major: 7, minor: 0 },
            Self::SixTwelve => Release { major: 6, minor: 12 },
        };
        if self.has(release) { 0 } else { release.ordinal().abs_diff(first.ordinal()) }
    }
}

/// Major and minor number of a kernel that the test bed's configuration is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release {
    major: u32,
    minor: u32,
}

impl Release {
    /// The oldest release that the test bed supports.
    const OLDEST: Self = Self { major: 5, minor: 15 };

    /// The newest major number that the test bed supports.
    const MAJOR_MAX: u32 = 7;

    /// Release of a source package: `linux-source-6.12` in Debian, `linux-source-6.8.0` in Ubuntu.
    pub(crate) fn of_package(name: &str) -> Option<Self> {
        let (major, minor) = name.strip_prefix("linux-source-")?.split_once('.')?;
        let minor = minor.strip_suffix(".0").unwrap_or(minor);
        let release = Self { major: major.parse().ok()?, minor: minor.parse().ok()? };
        (release >= Self::OLDEST && release.major <= Self::MAJOR_MAX).then_some(release)
    }

    /// Position in the row of releases: 6.0 followed 5.19, 7.0 followed 6.19.
    fn ordinal(self) -> u32 {
        self.major * 20 + self.minor
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Series {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.parse()? {
            Kernel::Series(series) => Ok(series),
            Kernel::Program(path) => Err(Error::UnknownKernel(path.display().to_string())),
        }
    }
}

/// Argument of `--kernel`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// A `linux` program that is there already.
    Program(PathBuf),
    /// A series from the cache, built when it is not there.
    Series(Series),
}

impl Default for Kernel {
    fn default() -> Self {
        Self::Series(Series::default())
    }
}

impl FromStr for Kernel {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            // Empty is what an environment variable is when it was meant to be unset.
            "" | "6.12" => Ok(Self::Series(Series::SixTwelve)),
            "7" => Ok(Self::Series(Series::Seven)),
            path if path.contains('/') => Ok(Self::Program(path.into())),
            other => Err(Error::UnknownKernel(other.into())),
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(path) => path.display().fmt(f),
            Self::Series(series) => f.write_str(series.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed() {
        assert_eq!("7".parse::<Kernel>().unwrap(), Kernel::Series(Series::Seven));
        assert_eq!("6.12".parse::<Kernel>().unwrap(), Kernel::default());
        assert_eq!("./linux".parse::<Kernel>().unwrap(), Kernel::Program("./linux".into()));
        let error = "5.10".parse::<Kernel>().unwrap_err().to_string();
        assert!(error.contains("5.10") && error.contains("6.12"), "{error}");
    }

    #[test]
    fn package_names_tell_the_release() {
        let name = |package| Release::of_package(package).map(|release| release.to_string());
        assert_eq!(name("linux-source-6.12").as_deref(), Some("6.12"));
        assert_eq!(name("linux-source-6.8.0").as_deref(), Some("6.8"));
        assert_eq!(name("linux-source-7.10").as_deref(), Some("7.10"));
        assert_eq!(name("linux-source-5.15.0").as_deref(), Some("5.15"));
        for other in [
            "linux-source",
            "linux-source-5.10",
            "linux-source-5.4.0",
            "linux-source-8.0",
            "linux-source-6.x",
            "linux-source-6.12-rt",
            "linux-image-6.12",
        ] {
            assert_eq!(name(other), None, "{other}");
        }
    }

    #[test]
    fn the_nearest_release_is_the_best() {
        let best = |series: Series, names: &[&str]| {
            let releases = names.iter().filter_map(|name| Release::of_package(name));
            series.best(releases).map(|release| release.to_string())
        };
        let debian = ["linux-source-6.1", "linux-source-6.12", "linux-source-7.3"];
        let newer = ["linux-source-7.3", "linux-source-7.10", "linux-source-6.12"];
        let noble = ["linux-source-6.8.0"];
        let jammy = ["linux-source-5.15.0", "linux-source-6.5.0", "linux-source-6.2.0"];
        let both_sides = ["linux-source-6.11.0", "linux-source-6.13.0"];
        assert_eq!(best(Series::SixTwelve, &debian).as_deref(), Some("6.12"));
        assert_eq!(best(Series::Seven, &newer).as_deref(), Some("7.10"));
        assert_eq!(best(Series::SixTwelve, &noble).as_deref(), Some("6.8"));
        assert_eq!(best(Series::SixTwelve, &jammy).as_deref(), Some("6.5"));
        assert_eq!(best(Series::SixTwelve, &both_sides).as_deref(), Some("6.13"));
        assert_eq!(
            best(Series::SixTwelve, &["linux-source-7.0", "linux-source-6.5.0"]).as_deref(),
            Some("6.5")
        );
        assert_eq!(
            best(Series::Seven, &["linux-source-6.19", "linux-source-6.12"]).as_deref(),
            Some("6.19")
        );
        assert_eq!(best(Series::Seven, &[]), None);
    }
}
