//! NVMe Qualified Names (Base 4.7).

use std::{fmt, str::FromStr};

use super::is_unprintable;

/// NQN of a host or subsystem: 1 to 223 bytes without blanks and unprintable characters.
///
/// The specification demands the prefix `nqn.`; Linux serves subsystems of any name, so that it is
/// not checked here, but told by [`has_prefix`](Self::has_prefix).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Nqn(String);

/// Error of a string that is not an NQN.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NqnError {
    /// The string contains white space.
    #[error("the NQN holds a blank; check how it was copied")]
    Blank,
    /// The string contains NUL, a control character or another one that is unprintable.
    #[error("the NQN {0:?} holds a control character; check how it was copied")]
    ControlCharacter(String),
    /// The string is empty.
    #[error("the NQN is empty; write a name, as in nqn.2014-08.org.example:disk")]
    Empty,
    /// The string is longer than 223 bytes.
    #[error("the NQN has {0} bytes; 223 is the most the specification allows")]
    TooLong(usize),
}

impl Nqn {
    /// Maximum length in bytes; the field is 256 bytes with a NUL (Base 4.7).
    pub const LENGTH_MAX: usize = 223;

    /// Well-known NQN of discovery subsystems (Base 4.7).
    pub const DISCOVERY: &'static str = "nqn.2014-08.org.nvmexpress.discovery";

    /// Host NQN in the UUID form (Base 4.7) for a host identifier.
    #[must_use]
    pub fn from_host_id(id: uuid::Uuid) -> Self {
        Self(format!("nqn.2014-08.org.nvmexpress:uuid:{id}"))
    }

    /// NQN as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if the NQN begins with `nqn.`, as all do that conform to the specification.
    #[must_use]
    pub fn has_prefix(&self) -> bool {
        self.0.starts_with("nqn.")
    }

    /// NQN as a 256-byte field, padded with NUL.
    #[must_use]
    pub fn to_field(&self) -> [u8; 256] {
        let mut field = [0; 256];
        field[..self.0.len()].copy_from_slice(self.0.as_bytes());
        field
    }
}

impl FromStr for Nqn {
    type Err = NqnError;

    fn from_str(text: &str) -> Result<Self, NqnError> {
        if text.len() > Self::LENGTH_MAX {
            Err(NqnError::TooLong(text.len()))
        } else if text.chars().any(is_unprintable) {
            Err(NqnError::ControlCharacter(text.to_owned()))
        } else if text.contains(char::is_whitespace) {
            Err(NqnError::Blank)
        } else if text.is_empty() {
            Err(NqnError::Empty)
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl fmt::Display for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_223_bytes_and_no_more() {
        let longest = format!("nqn.{}", "a".repeat(219));
        assert_eq!(longest.parse::<Nqn>().unwrap().as_str(), longest);
        assert_eq!(format!("{longest}a").parse::<Nqn>(), Err(NqnError::TooLong(224)));
    }

    #[test]
    fn refuses_invalid_nqns() {
        assert_eq!("".parse::<Nqn>(), Err(NqnError::Empty));
        for blank in ["nqn.x ", " nqn.x", "nqn.x y", "nqn.x\u{a0}", " "] {
            assert_eq!(blank.parse::<Nqn>(), Err(NqnError::Blank), "{blank:?}");
        }
        assert!(matches!("nqn.x\n".parse::<Nqn>(), Err(NqnError::ControlCharacter(_))));
        assert!(matches!("nqn.\0".parse::<Nqn>(), Err(NqnError::ControlCharacter(_))));
        assert!(matches!("nqn.\u{202e}x".parse::<Nqn>(), Err(NqnError::ControlCharacter(_))));
    }

    #[test]
    fn accepts_names_without_the_prefix() {
        for name in ["nvmet-test", "testnqn_1", "x"] {
            assert!(!name.parse::<Nqn>().unwrap().has_prefix(), "{name}");
        }
        assert!("nqn.x".parse::<Nqn>().unwrap().has_prefix());
    }

    #[test]
    fn pads_the_field_with_nul() {
        let field = "nqn.x".parse::<Nqn>().unwrap().to_field();
        assert_eq!(&field[..6], b"nqn.x\0");
        assert!(field[5..].iter().all(|&byte| byte == 0));
    }
}
