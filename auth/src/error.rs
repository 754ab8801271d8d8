//! Errors of secrets and calculations. No error carries bytes of a secret.

use crate::{GroupId, HashId};

/// Error of a text or byte string that is not a DH-HMAC-CHAP secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The text does not begin with `DHHC-1:`.
    #[error("the secret does not begin with `DHHC-1:`; copy the whole text, prefix included")]
    Prefix,

    /// The hash id is not written as two hexadecimal digits and a colon.
    #[error("the hash id is not two hexadecimal digits and a colon; write 00:, 01:, 02: or 03:")]
    HashField,

    /// The hash id is well formed, but names no hash that a secret may use.
    #[error("hash id {:02x} is not one a secret may use; use 00, 01, 02 or 03", .0.0)]
    HashUnsupported(HashId),

    /// The colon that ends the text is missing.
    #[error("the secret does not end with a colon; copy the whole text, last colon included")]
    FinalColon,

    /// Something follows the colon that ends the text.
    #[error("text follows the colon that ends the secret; remove it, line breaks included")]
    TrailingText,

    /// The part between the colons is longer than that of any valid secret.
    #[error("{characters} Base64 characters are more than any secret has; use at most 92")]
    TextLength {
        /// The number of bytes of text found between the colons.
        characters: usize,
    },

    /// The part between the colons is not padded standard Base64.
    #[error("the part between the colons is not padded standard Base64; copy the secret again")]
    Encoding,

    /// The secret has a length the protocol does not allow.
    #[error("the secret has {bytes} bytes; use one of 32, 48 or 64 bytes")]
    Length {
        /// The length of the secret, without its checksum.
        bytes: usize,
    },

    /// The checksum does not belong to the secret.
    #[error("the checksum does not match the secret; a character is wrong, copy the secret again")]
    Checksum,
}

/// Error of an authentication value that cannot be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CalculationError {
    /// The hash is none, or one this crate does not implement.
    #[error("{0} cannot compute a response; negotiate hmac(sha256), hmac(sha384) or hmac(sha512)")]
    HashUnsupported(HashId),

    /// The group is one this crate does not implement.
    #[error("{0} is not implemented; negotiate null or ffdhe2048 to ffdhe8192")]
    GroupUnsupported(GroupId),

    /// The challenge is not as long as the hash's digest.
    #[error("the challenge has {actual} bytes; pass exactly the {expected} of the hash's digest")]
    ChallengeLength {
        /// The digest length of the hash.
        expected: usize,
        /// The length of the challenge given.
        actual: usize,
    },

    /// The shared secret is not as long as the group's modulus; for the null group, not empty.
    #[error("the shared secret has {actual} bytes; pass {expected}, leading zeros included")]
    SharedSecretLength {
        /// The length the group prescribes.
        expected: usize,
        /// The length of the shared secret given.
        actual: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line_with_a_remedy() {
        let secret_errors = [
            SecretError::Prefix,
            SecretError::HashField,
            SecretError::HashUnsupported(HashId(9)),
            SecretError::FinalColon,
            SecretError::TrailingText,
            SecretError::TextLength { characters: 93 },
            SecretError::Encoding,
            SecretError::Length { bytes: 33 },
            SecretError::Checksum,
        ];
        let calculation_errors = [
            CalculationError::HashUnsupported(HashId::NONE),
            CalculationError::GroupUnsupported(GroupId::SECP256R1),
            CalculationError::ChallengeLength { expected: 32, actual: 31 },
            CalculationError::SharedSecretLength { expected: 256, actual: 255 },
        ];
        let messages = secret_errors
            .iter()
            .map(ToString::to_string)
            .chain(calculation_errors.iter().map(ToString::to_string));
        for message in messages {
            assert!(!message.contains('\n') && message.len() <= 100, "{message}");
            assert!(message.contains("; "), "no remedy: {message}");
        }
    }

    #[test]
    fn ids_appear_as_they_are_written() {
        let secret = SecretError::HashUnsupported(HashId(9)).to_string();
        assert_eq!(secret, "hash id 09 is not one a secret may use; use 00, 01, 02 or 03");
        let group = CalculationError::GroupUnsupported(GroupId(0x99)).to_string();
        assert!(group.starts_with("group 0x99 is not implemented"), "{group}");
    }
}
