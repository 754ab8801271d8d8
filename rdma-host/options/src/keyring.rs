//! Secrets in the kernel's keyrings.

use std::fmt;

use linux_keyutils::{Key, KeyError, KeyRing, KeyRingIdentifier, KeySerialId};
use zeroize::Zeroizing;

use crate::secret_text;

/// Serial number of a key, or description of a key of the type "user".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyName {
    /// Description.
    Description(String),
    /// Serial number.
    Serial(i32),
}

/// Error of a system call that the kernel lacks, or a container forbids.
const ENOSYS: i32 = 38;

/// Keyrings in which a description is looked for, in this order.
const KEYRINGS: [KeyRingIdentifier; 3] =
    [KeyRingIdentifier::Session, KeyRingIdentifier::UserSession, KeyRingIdentifier::User];

impl std::str::FromStr for KeyName {
    type Err = String;

    /// A positive number is a serial number.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<i32>() {
            Ok(serial) if serial > 0 => Ok(Self::Serial(serial)),
            _ if text.is_empty() || text.contains('\0') => {
                Err("a key has a serial number or a description".to_owned())
            }
            _ => Ok(Self::Description(text.to_owned())),
        }
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A secret that was given in the place of a description.
            Self::Description(text) if secret_text::may_be_secret(text) => {
                f.write_str("the key of the given description, which may be a secret")
            }
            Self::Description(text) => write!(f, "the key \"{}\"", text.escape_debug()),
            Self::Serial(serial) => write!(f, "the key {serial}"),
        }
    }
}

impl KeyName {
    /// Reads the payload of the key, of `max` bytes at most.
    pub fn read(&self, max: usize) -> Result<Zeroizing<String>, String> {
        let key = self.find().map_err(|error| format!("{self}: {}", describe(&error)))?;
        let mut bytes = Zeroizing::new(vec![0; max]);
        let length = key
            .read(&mut *bytes)
            .map_err(|error| format!("cannot read {self}: {}", describe(&error)))?;
        if length > max {
            return Err(format!("{self} has {length} bytes; no secret has so many"));
        }
        match std::str::from_utf8(&bytes[..length]) {
            Ok(text) => Ok(Zeroizing::new(text.to_owned())),
            Err(_) => Err(format!("{self} is no text; add the secret in its DHHC-1 form")),
        }
    }

    fn find(&self) -> Result<Key, KeyError> {
        let description = match self {
            Self::Description(description) => description,
            Self::Serial(serial) => return Ok(Key::from_id(KeySerialId::new(*serial))),
        };
        let mut found = Err(KeyError::KeyDoesNotExist);
        for keyring in KEYRINGS {
            let searched =
                KeyRing::from_special_id(keyring, false).and_then(|ring| ring.search(description));
            match searched {
                Ok(key) => return Ok(key),
                Err(KeyError::KeyDoesNotExist | KeyError::MissingFileOrDirectory) => {}
                Err(error) => found = Err(error),
            }
        }
        found
    }
}

/// Error in words, with the remedy.
fn describe(error: &KeyError) -> String {
    match error {
        KeyError::AccessDenied | KeyError::PermissionDenied => {
            "this user may not read it; see keyctl describe and keyctl setperm".to_owned()
        }
        KeyError::KeyDoesNotExist | KeyError::MissingFileOrDirectory => {
            "there is none of the type \"user\"; add one with keyctl padd user NAME @u".to_owned()
        }
        KeyError::KeyExpired => "it has expired; add it again".to_owned(),
        KeyError::KeyRevoked => "it was revoked; add it again".to_owned(),
        KeyError::OperationNotSupported => {
            "its type cannot be read (as \"logon\"); add it as the type \"user\"".to_owned()
        }
        KeyError::Unknown(ENOSYS) => {
            "this kernel has no keyrings, or they are forbidden here; use a file".to_owned()
        }
        other => format!("{other:?}; see keyctl show"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_serials_or_descriptions() {
        assert_eq!("12".parse(), Ok(KeyName::Serial(12)));
        for text in ["-4", "0", "nvme:host", "12a", "99999999999"] {
            assert_eq!(text.parse(), Ok(KeyName::Description(text.to_owned())));
        }
        assert!("".parse::<KeyName>().is_err() && "a\0b".parse::<KeyName>().is_err());
    }

    #[test]
    fn errors_name_the_key_and_the_remedy() {
        for error in [
            KeyError::AccessDenied,
            KeyError::KeyDoesNotExist,
            KeyError::KeyExpired,
            KeyError::KeyRevoked,
            KeyError::OperationNotSupported,
            KeyError::Unknown(38),
        ] {
            let words = describe(&error);
            assert!(!words.contains('\n') && words.contains("; ") && words.len() < 90, "{words}");
        }
        assert_eq!(KeyName::Serial(7).to_string(), "the key 7");
        assert!(describe(&KeyError::Unknown(ENOSYS)).contains("no keyrings"));
        let secret = KeyName::Description("DHHC-1:00:c2VjcmV0:".to_owned());
        assert!(!secret.to_string().contains("DHHC"), "{secret}");
    }
}
