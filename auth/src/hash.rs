//! Hash functions: the registry of their ids, and the three implementations.

use std::fmt;

use hmac::{
    Hmac, KeyInit,
    digest::{FixedOutput, Output, Update},
};
use sha2::{Digest, Sha256, Sha384, Sha512};
use zeroize::{Zeroize, Zeroizing};

/// The id of a hash function, as DH-HMAC-CHAP messages and secrets carry it.
///
/// Holds any value, so that an unknown one received can be reported. NVMe Base Specification 2.2,
/// section 8.3.4.
///
/// ```
/// use auth::HashId;
///
/// assert_eq!(HashId::SHA_384.digest_length(), Some(48));
/// assert_eq!(HashId::SHA_384.to_string(), "hmac(sha384)");
/// assert_eq!(HashId(9).digest_length(), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashId(pub u8);

impl HashId {
    /// No hash: the secret is used as the key. Not valid for responses.
    pub const NONE: Self = Self(0x00);
    /// SHA-256.
    pub const SHA_256: Self = Self(0x01);
    /// SHA-384.
    pub const SHA_384: Self = Self(0x02);
    /// SHA-512.
    pub const SHA_512: Self = Self(0x03);

    /// The length in bytes of this hash's digest, of its responses and of its challenges.
    ///
    /// `None` for [`HashId::NONE`] and for ids that are not implemented.
    pub const fn digest_length(self) -> Option<usize> {
        match self.algorithm() {
            Some(algorithm) => Some(algorithm.digest_length()),
            None => None,
        }
    }

    /// Name of this hash in Linux, such as `hmac(sha256)`; `None` if the id is unknown.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::NONE => Some("none"),
            Self::SHA_256 => Some("hmac(sha256)"),
            Self::SHA_384 => Some("hmac(sha384)"),
            Self::SHA_512 => Some("hmac(sha512)"),
            _ => None,
        }
    }

    pub(crate) const fn algorithm(self) -> Option<Algorithm> {
        match self {
            Self::SHA_256 => Some(Algorithm::Sha256),
            Self::SHA_384 => Some(Algorithm::Sha384),
            Self::SHA_512 => Some(Algorithm::Sha512),
            _ => None,
        }
    }
}

impl fmt::Debug for HashId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "HashId({name})"),
            None => write!(f, "HashId({:#04x})", self.0),
        }
    }
}

impl fmt::Display for HashId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "hash {:#04x}", self.0),
        }
    }
}

/// Implemented hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    pub(crate) const fn id(self) -> HashId {
        match self {
            Self::Sha256 => HashId::SHA_256,
            Self::Sha384 => HashId::SHA_384,
            Self::Sha512 => HashId::SHA_512,
        }
    }

    pub(crate) const fn digest_length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Computes the HMAC of the concatenated `parts` with `key`.
    pub(crate) fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Box<[u8]>> {
        match self {
            Self::Sha256 => hmac::<Hmac<Sha256>>(key, parts),
            Self::Sha384 => hmac::<Hmac<Sha384>>(key, parts),
            Self::Sha512 => hmac::<Hmac<Sha512>>(key, parts),
        }
    }

    /// Computes the digest of `data`, without a key.
    pub(crate) fn digest(self, data: &[u8]) -> Zeroizing<Box<[u8]>> {
        match self {
            Self::Sha256 => to_heap::<Sha256>(Sha256::new_with_prefix(data)),
            Self::Sha384 => to_heap::<Sha384>(Sha384::new_with_prefix(data)),
            Self::Sha512 => to_heap::<Sha512>(Sha512::new_with_prefix(data)),
        }
    }
}

fn hmac<M: KeyInit + Update + FixedOutput>(key: &[u8], parts: &[&[u8]]) -> Zeroizing<Box<[u8]>> {
    let mut mac = M::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    to_heap(mac)
}

/// Finishes a calculation and moves its result to a heap buffer that is wiped on drop.
fn to_heap<F: FixedOutput>(calculation: F) -> Zeroizing<Box<[u8]>> {
    let mut output = Output::<F>::default();
    calculation.finalize_into(&mut output);
    let bytes = Zeroizing::new(Box::from(output.as_slice()));
    output.as_mut_slice().zeroize();
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_matches_the_specification() {
        let registry = [
            (0, HashId::NONE, "none", None),
            (1, HashId::SHA_256, "hmac(sha256)", Some(32)),
            (2, HashId::SHA_384, "hmac(sha384)", Some(48)),
            (3, HashId::SHA_512, "hmac(sha512)", Some(64)),
        ];
        for (value, id, name, digest_length) in registry {
            assert_eq!(id, HashId(value));
            assert_eq!(id.name(), Some(name));
            assert_eq!(id.to_string(), name);
            assert_eq!(id.digest_length(), digest_length);
        }
    }

    #[test]
    fn unknown_ids_are_kept_and_shown_in_hexadecimal() {
        for value in 4..=u8::MAX {
            let id = HashId(value);
            assert_eq!(id.0, value);
            assert_eq!((id.name(), id.digest_length()), (None, None));
        }
        assert_eq!(HashId(9).to_string(), "hash 0x09");
        assert_eq!(format!("{:?}", HashId(9)), "HashId(0x09)");
        assert_eq!(format!("{:?}", HashId::SHA_512), "HashId(hmac(sha512))");
    }

    #[test]
    fn results_have_the_length_the_registry_says() {
        for id in [HashId::SHA_256, HashId::SHA_384, HashId::SHA_512] {
            let algorithm = id.algorithm().unwrap();
            assert_eq!(algorithm.id(), id);
            assert_eq!(Some(algorithm.hmac(&[], &[]).len()), id.digest_length());
            assert_eq!(Some(algorithm.digest(&[]).len()), id.digest_length());
        }
    }
}
