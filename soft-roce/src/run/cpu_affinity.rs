//! Processors that a guest may use.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Processors of this machine that the processes of a guest may run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuAffinity {
    /// One processor, by its number.
    One(usize),
    /// Every processor that the caller may use. The kernel and a program in it are two processes,
    /// so that a system call on 7.x, where no ptrace takes part, may go from one processor to the
    /// other and back; nothing else uses these processors meanwhile if it is to be faster.
    All,
}

impl CpuAffinity {
    pub(crate) fn one(self) -> Option<usize> {
        match self {
            Self::One(cpu) => Some(cpu),
            Self::All => None,
        }
    }
}

impl FromStr for CpuAffinity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            number => number
                .parse()
                .map(Self::One)
                .map_err(|_| format!("{number:?} is not a processor's number, nor `all`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_a_number_or_all() {
        assert_eq!("3".parse(), Ok(CpuAffinity::One(3)));
        assert_eq!("all".parse(), Ok(CpuAffinity::All));
        for text in ["any", "-1", "", "1,2"] {
            let error = text.parse::<CpuAffinity>().unwrap_err();
            assert!(error.contains("nor `all`"), "{error}");
        }
    }
}
