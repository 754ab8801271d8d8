//! Which kernel: a series that we build, or a program that somebody built.

use std::{fmt, path::PathBuf, str::FromStr};

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

    /// Its name, as `--kernel` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Seven => "7",
            Self::SixTwelve => "6.12",
        }
    }

    /// The suite that carries its source, for machines whose own suites don't.
    pub(crate) fn suite(self) -> &'static str {
        match self {
            Self::Seven => "trixie-backports",
            Self::SixTwelve => "trixie",
        }
    }

    /// Whether a package of this name holds this series' source.
    pub(crate) fn is_source_package(self, package: &str) -> bool {
        self.package_minor(package).is_some()
    }

    /// The part of the package's name that grows with newer kernels.
    pub(crate) fn package_minor(self, package: &str) -> Option<u32> {
        match self {
            Self::SixTwelve => (package == "linux-source-6.12").then_some(0),
            Self::Seven => package.strip_prefix("linux-source-7.")?.parse().ok(),
        }
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

/// What `--kernel` names.
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
    fn newest_package_wins() {
        let minor = |name| Series::Seven.package_minor(name);
        assert!(minor("linux-source-7.10") > minor("linux-source-7.3"));
        assert_eq!(minor("linux-source-6.12"), None);
        assert!(Series::SixTwelve.is_source_package("linux-source-6.12"));
        assert!(!Series::SixTwelve.is_source_package("linux-source-6.1"));
    }
}
