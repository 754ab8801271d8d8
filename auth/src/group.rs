//! Diffie-Hellman groups: the registry of their ids and the length of their values.

use std::fmt;

/// The id of a key exchange group, as DH-HMAC-CHAP messages carry it.
///
/// Holds any value, so that an unknown one received can be reported. NVMe Base Specification 2.2,
/// section 8.3.4; the ids from 0x10 up are those of TP4201, which have a name here so that an error
/// can print it.
///
/// ```
/// use auth::GroupId;
///
/// assert_eq!(GroupId::FFDHE_2048.value_length(), Some(256));
/// assert_eq!(GroupId::ML_KEM_768.to_string(), "ML-KEM-768");
/// assert_eq!(GroupId::ML_KEM_768.value_length(), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u8);

impl GroupId {
    /// No key exchange: challenges are used unchanged.
    pub const NULL: Self = Self(0x00);
    /// The 2048-bit group of RFC 7919.
    pub const FFDHE_2048: Self = Self(0x01);
    /// The 3072-bit group of RFC 7919.
    pub const FFDHE_3072: Self = Self(0x02);
    /// The 4096-bit group of RFC 7919.
    pub const FFDHE_4096: Self = Self(0x03);
    /// The 6144-bit group of RFC 7919.
    pub const FFDHE_6144: Self = Self(0x04);
    /// The 8192-bit group of RFC 7919.
    pub const FFDHE_8192: Self = Self(0x05);
    /// The elliptic curve secp256r1. Not implemented.
    pub const SECP256R1: Self = Self(0x10);
    /// The elliptic curve secp384r1. Not implemented.
    pub const SECP384R1: Self = Self(0x11);
    /// The key encapsulation ML-KEM-768. Not implemented.
    pub const ML_KEM_768: Self = Self(0x20);
    /// The key encapsulation ML-KEM-1024. Not implemented.
    pub const ML_KEM_1024: Self = Self(0x21);
    /// The hybrid of secp256r1 and ML-KEM-768. Not implemented.
    pub const SECP256R1_ML_KEM_768: Self = Self(0x30);
    /// The hybrid of secp384r1 and ML-KEM-1024. Not implemented.
    pub const SECP384R1_ML_KEM_1024: Self = Self(0x31);

    /// The length in bytes of this group's public values and shared secret.
    ///
    /// Zero for [`GroupId::NULL`], the length of the modulus for the FFDHE groups, and `None` for
    /// ids that are not implemented.
    pub const fn value_length(self) -> Option<usize> {
        match self {
            Self::NULL => Some(0),
            Self::FFDHE_2048 => Some(256),
            Self::FFDHE_3072 => Some(384),
            Self::FFDHE_4096 => Some(512),
            Self::FFDHE_6144 => Some(768),
            Self::FFDHE_8192 => Some(1024),
            _ => None,
        }
    }

    /// Name of this group, in the spelling of Linux where Linux has it; `None` if unknown.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::NULL => Some("null"),
            Self::FFDHE_2048 => Some("ffdhe2048"),
            Self::FFDHE_3072 => Some("ffdhe3072"),
            Self::FFDHE_4096 => Some("ffdhe4096"),
            Self::FFDHE_6144 => Some("ffdhe6144"),
            Self::FFDHE_8192 => Some("ffdhe8192"),
            Self::SECP256R1 => Some("secp256r1"),
            Self::SECP384R1 => Some("secp384r1"),
            Self::ML_KEM_768 => Some("ML-KEM-768"),
            Self::ML_KEM_1024 => Some("ML-KEM-1024"),
            Self::SECP256R1_ML_KEM_768 => Some("secp256r1 with ML-KEM-768"),
            Self::SECP384R1_ML_KEM_1024 => Some("secp384r1 with ML-KEM-1024"),
            _ => None,
        }
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "GroupId({name})"),
            None => write!(f, "GroupId({:#04x})", self.0),
        }
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "group {:#04x}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_matches_the_specification() {
        let registry = [
            (0x00, GroupId::NULL, "null", Some(0)),
            (0x01, GroupId::FFDHE_2048, "ffdhe2048", Some(256)),
            (0x02, GroupId::FFDHE_3072, "ffdhe3072", Some(384)),
            (0x03, GroupId::FFDHE_4096, "ffdhe4096", Some(512)),
            (0x04, GroupId::FFDHE_6144, "ffdhe6144", Some(768)),
            (0x05, GroupId::FFDHE_8192, "ffdhe8192", Some(1024)),
            (0x10, GroupId::SECP256R1, "secp256r1", None),
            (0x11, GroupId::SECP384R1, "secp384r1", None),
            (0x20, GroupId::ML_KEM_768, "ML-KEM-768", None),
            (0x21, GroupId::ML_KEM_1024, "ML-KEM-1024", None),
            (0x30, GroupId::SECP256R1_ML_KEM_768, "secp256r1 with ML-KEM-768", None),
            (0x31, GroupId::SECP384R1_ML_KEM_1024, "secp384r1 with ML-KEM-1024", None),
        ];
        for (value, id, name, value_length) in registry {
            assert_eq!(id, GroupId(value));
            assert_eq!(id.to_string(), name);
            assert_eq!(id.value_length(), value_length);
        }
        let named = (0..=u8::MAX).filter(|&value| GroupId(value).name().is_some()).count();
        assert_eq!(named, registry.len());
    }

    #[test]
    fn unknown_ids_are_kept_and_shown_in_hexadecimal() {
        assert_eq!(GroupId(0x99).0, 0x99);
        assert_eq!(GroupId(0x99).to_string(), "group 0x99");
        assert_eq!(format!("{:?}", GroupId(0x06)), "GroupId(0x06)");
        assert_eq!(format!("{:?}", GroupId::NULL), "GroupId(null)");
    }
}
