//! Finite-field Diffie-Hellman over the groups of RFC 7919, all with generator 2.
//!
//! An exponentiation takes milliseconds, see [`PrivateKey`]; keep it off threads that serve I/O.

use crypto_bigint::{
    BoxedUint, Odd, Resize,
    modular::{BoxedMontyForm, BoxedMontyParams},
};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::GroupId;

mod primes;

/// Random bytes to pass for a private exponent; each group uses as many of them as it needs.
pub const EXPONENT_LENGTH_MAX: usize = 52;

/// Reason for refusing a public value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublicValueError {
    /// The value is not as long as the group's modulus.
    #[error("the public value has {actual} bytes, not the {expected} of the group's modulus")]
    Length {
        /// The length of the group's modulus.
        expected: usize,
        /// The length of the value given.
        actual: usize,
    },

    /// The value is 0, 1, p−1 or more, which would make the shared secret known to everyone.
    #[error("the public value is not between 2 and p-2")]
    Range,
}

/// A private exponent of one group, for one exchange.
///
/// [`PrivateKey::public_value`] and [`PrivateKey::shared_secret`] are plain functions that block
/// for one exponentiation each: on an AMD EPYC 0.4 ms for ffdhe2048 and 11 ms for ffdhe8192.
/// Their time depends on the group only. The exponent is wiped on drop and cannot be printed.
///
/// ```
/// use auth::{GroupId, PrivateKey};
///
/// // The bytes must be random: these are not.
/// let ours = PrivateKey::from_random(GroupId::FFDHE_2048, &[1; 52]).unwrap();
/// let theirs = PrivateKey::from_random(GroupId::FFDHE_2048, &[2; 52]).unwrap();
/// let shared = ours.shared_secret(&theirs.public_value())?;
/// assert_eq!(shared.as_bytes(), theirs.shared_secret(&ours.public_value())?.as_bytes());
/// # Ok::<(), auth::PublicValueError>(())
/// ```
pub struct PrivateKey {
    params: BoxedMontyParams,
    exponent: Zeroizing<BoxedUint>,
}

impl PrivateKey {
    /// Creates a private exponent from the first bytes of `random`, as many as the group needs,
    /// big-endian, with the highest bit set so that all exponents have the same length.
    ///
    /// Returns `None` if `group` is null or not implemented.
    pub fn from_random(group: GroupId, random: &[u8; EXPONENT_LENGTH_MAX]) -> Option<Self> {
        let (modulus, exponent_length) = parameters(group)?;
        let bits = bits(exponent_length);
        let mut bytes = Zeroizing::new([0; EXPONENT_LENGTH_MAX]);
        let bytes = &mut bytes[..exponent_length];
        bytes.copy_from_slice(&random[..exponent_length]);
        bytes[0] |= 0x80;
        let exponent = Zeroizing::new(BoxedUint::from_be_slice_truncated(bytes, bits));
        Some(Self { params: montgomery(modulus), exponent })
    }

    /// The value to send: 2 to the power of the exponent, as long as the modulus.
    pub fn public_value(&self) -> Box<[u8]> {
        let two = BoxedUint::from(2_u64).resize(self.params.bits_precision());
        self.power(two).retrieve().to_be_bytes()
    }

    /// Computes the shared secret: the peer's public value raised to the private exponent.
    ///
    /// # Errors
    ///
    /// [`PublicValueError`] if `public_value` does not have the length of the modulus or is not in
    /// 2..=p−2.
    pub fn shared_secret(&self, public_value: &[u8]) -> Result<SharedSecret, PublicValueError> {
        let precision = self.params.bits_precision();
        let expected = precision as usize / 8;
        if public_value.len() != expected {
            return Err(PublicValueError::Length { expected, actual: public_value.len() });
        }
        let value = BoxedUint::from_be_slice_truncated(public_value, precision);
        let one = BoxedUint::one_with_precision(precision);
        let last = self.params.modulus().as_ref().wrapping_sub(&one);
        if value <= one || value >= last {
            return Err(PublicValueError::Range);
        }
        let secret = Zeroizing::new(self.power(value).retrieve());
        Ok(SharedSecret { bytes: Zeroizing::new(secret.to_be_bytes()) })
    }

    fn power(&self, base: BoxedUint) -> Zeroizing<BoxedMontyForm> {
        Zeroizing::new(BoxedMontyForm::new(base, &self.params).pow(&self.exponent))
    }
}

impl ZeroizeOnDrop for PrivateKey {}

/// A shared secret, big-endian, as long as the group's modulus, leading zeros included.
///
/// Wiped on drop, and never printed.
pub struct SharedSecret {
    bytes: Zeroizing<Box<[u8]>>,
}

impl SharedSecret {
    /// The bytes, to compute an augmented challenge with and for nothing else.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl ZeroizeOnDrop for SharedSecret {}

/// A group's modulus, and the length of its exponents in bytes: at least those of RFC 7919,
/// section 5.2 (225, 275, 325, 375 and 400 bits), in whole four bytes.
const fn parameters(group: GroupId) -> Option<(&'static str, usize)> {
    match group {
        GroupId::FFDHE_2048 => Some((primes::FFDHE_2048, 32)),
        GroupId::FFDHE_3072 => Some((primes::FFDHE_3072, 36)),
        GroupId::FFDHE_4096 => Some((primes::FFDHE_4096, 44)),
        GroupId::FFDHE_6144 => Some((primes::FFDHE_6144, 48)),
        GroupId::FFDHE_8192 => Some((primes::FFDHE_8192, EXPONENT_LENGTH_MAX)),
        _ => None,
    }
}

/// Precomputes the Montgomery parameters of a modulus. The modulus is public, so this may take
/// variable time.
fn montgomery(modulus: &str) -> BoxedMontyParams {
    let modulus = BoxedUint::from_be_hex(modulus, bits(modulus.len() / 2));
    let odd = modulus.into_option().and_then(|modulus| Odd::new(modulus).into_option());
    BoxedMontyParams::new_vartime(odd.expect("a prime of RFC 7919 is odd and hexadecimal"))
}

fn bits(bytes: usize) -> u32 {
    u32::try_from(bytes * 8).expect("no number here is longer than 1024 bytes")
}

#[cfg(test)]
mod tests;
