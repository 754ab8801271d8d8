//! Commands per second of an open loop, as on the command line.

use std::{fmt, str::FromStr};

use crate::size;

/// Rate of all commands, or of reads and of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rate {
    All(u64),
    Each { read: u64, write: u64 },
}

impl Rate {
    pub(super) fn total(self) -> u64 {
        match self {
            Self::All(rate) => rate,
            Self::Each { read, write } => read.saturating_add(write),
        }
    }

    /// Rates of reads and of writes, if they have their own.
    pub(super) fn each(self) -> Option<[u64; 2]> {
        match self {
            Self::All(_) => None,
            Self::Each { read, write } => Some([read, write]),
        }
    }

    /// Share of reads in percent, if the rates say; there are some of both.
    pub(super) fn read_percent(self) -> Option<u8> {
        let [read, _] = self.each()?;
        let percent = u128::from(read) * 100 / u128::from(self.total());
        Some(u8::try_from(percent).expect("at most 100").clamp(1, 99))
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(',') {
            None => size::rate(text).map(Self::All),
            Some((read, write)) => {
                Ok(Self::Each { read: size::rate(read)?, write: size::rate(write)? })
            }
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(rate) => write!(f, "{rate} a second"),
            Self::Each { read, write } => write!(f, "{read} reads and {write} writes a second"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rate_or_two() {
        let each = Rate::Each { read: 10_000, write: 5000 };
        assert_eq!(("10k".parse(), "10k,5k".parse()), (Ok(Rate::All(10_000)), Ok(each)));
        assert_eq!((each.total(), each.read_percent()), (15_000, Some(66)));
        assert_eq!(Rate::Each { read: 1_000_000, write: 1 }.read_percent(), Some(99));
        assert_eq!(Rate::All(7).read_percent(), None);
        for wrong in ["", "0", "10k,", ",5k", "10k,0", "1,2,3", "x"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }
}
