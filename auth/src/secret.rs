//! Secrets: the DHHC-1 text form, and the key a secret gives for one name.

use base64ct::{Base64, Encoding};
use subtle::ConstantTimeEq;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::hash::Algorithm;
use crate::{HashId, SecretError};

/// A secret that a host and a controller share.
///
/// The hash id that comes with it says how the secret becomes a [`Key`]; it does not bind the hash
/// the responses are computed with, nor the secret's length. The bytes are wiped on drop and
/// cannot be printed:
///
/// ```compile_fail,E0277
/// fn print(secret: &auth::Secret) {
///     println!("{secret:?}");
/// }
/// ```
pub struct Secret {
    transform: Option<Algorithm>,
    bytes: Zeroizing<Box<[u8]>>,
}

impl Secret {
    /// Reads the text form `DHHC-1:hh:<base64 of secret and CRC-32>:`.
    ///
    /// Nothing is forgiven: a missing last colon, a line break or a space is an error, so that
    /// each secret has one text. What was decoded is wiped, also if it is refused; wiping `text`
    /// is up to the caller.
    ///
    /// # Errors
    ///
    /// The [`SecretError`] of the first part that is wrong, from left to right; the checksum
    /// comes last.
    ///
    /// ```
    /// use auth::{HashId, Secret, SecretError};
    ///
    /// let text = "DHHC-1:00:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:";
    /// let secret = Secret::parse(text)?;
    /// assert_eq!(secret.hash(), HashId::NONE);
    /// assert_eq!(secret.encode().as_str(), text);
    /// # Ok::<(), SecretError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let rest = text.strip_prefix(PREFIX).ok_or(SecretError::Prefix)?;
        let (hash, rest) = rest.split_once(':').ok_or(SecretError::HashField)?;
        let hash = parse_hash(hash)?;
        let (base64, trailing) = rest.split_once(':').ok_or(SecretError::FinalColon)?;
        if !trailing.is_empty() {
            return Err(SecretError::TrailingText);
        }
        if base64.len() > BASE64_LENGTH_MAX {
            return Err(SecretError::TextLength { characters: base64.len() });
        }

        let mut buffer = Zeroizing::new([0; DECODED_LENGTH_MAX]);
        let decoded =
            Base64::decode(base64, buffer.as_mut_slice()).map_err(|_| SecretError::Encoding)?;
        let (bytes, checksum) =
            decoded.split_last_chunk().ok_or(SecretError::Length { bytes: 0 })?;
        let secret = Self::from_bytes(hash, bytes)?;
        if *checksum != crc32(bytes).to_le_bytes() {
            return Err(SecretError::Checksum);
        }
        Ok(secret)
    }

    /// Makes a secret of random `bytes`, which the caller has drawn and wipes.
    ///
    /// `hash` is how the secret is to become a key; [`HashId::NONE`] leaves it as it is.
    ///
    /// # Errors
    ///
    /// [`SecretError::HashUnsupported`] unless `hash` is one of the four constants of [`HashId`],
    /// [`SecretError::Length`] unless there are 32, 48 or 64 bytes.
    pub fn from_bytes(hash: HashId, bytes: &[u8]) -> Result<Self, SecretError> {
        let transform = match hash {
            HashId::NONE => None,
            _ => Some(hash.algorithm().ok_or(SecretError::HashUnsupported(hash))?),
        };
        match bytes.len() {
            32 | 48 | 64 => Ok(Self { transform, bytes: Zeroizing::new(Box::from(bytes)) }),
            length => Err(SecretError::Length { bytes: length }),
        }
    }

    /// The hash that turns this secret into a key, [`HashId::NONE`] if it is used as it is.
    pub fn hash(&self) -> HashId {
        self.transform.map_or(HashId::NONE, Algorithm::id)
    }

    /// Writes the text form, to be stored where only its owner can read it.
    ///
    /// This is where a secret becomes readable. The text is wiped when dropped; what is copied out
    /// of it is not.
    pub fn encode(&self) -> Zeroizing<String> {
        // Sized beforehand: a vector or string that grows leaves its old contents behind.
        let mut payload = Zeroizing::new(Vec::with_capacity(self.bytes.len() + CHECKSUM_LENGTH));
        payload.extend_from_slice(&self.bytes);
        payload.extend_from_slice(&crc32(&self.bytes).to_le_bytes());
        let base64 = Zeroizing::new(Base64::encode_string(&payload));

        let mut text = Zeroizing::new(String::with_capacity(TEXT_LENGTH_MAX));
        text.push_str(PREFIX);
        text.push_str(match self.transform {
            None => "00:",
            Some(Algorithm::Sha256) => "01:",
            Some(Algorithm::Sha384) => "02:",
            Some(Algorithm::Sha512) => "03:",
        });
        text.push_str(&base64);
        text.push(':');
        text
    }

    /// The key this secret gives for `nqn`: the host's name for the host's secret, the subsystem's
    /// for the controller's.
    pub fn transform(&self, nqn: &str) -> Key {
        let bytes = match self.transform {
            None => self.bytes.clone(),
            Some(algorithm) => algorithm.hmac(&self.bytes, &[nqn.as_bytes(), TRANSFORM_LABEL]),
        };
        Key { bytes }
    }

    /// Whether both secrets have the same bytes, whatever their hash, in constant time.
    ///
    /// Host and controller must not share one secret: whoever can check one side's response could
    /// then give the other's.
    #[must_use]
    pub fn has_same_bytes(&self, other: &Self) -> bool {
        self.bytes.ct_eq(&other.bytes).into()
    }
}

impl ZeroizeOnDrop for Secret {}

/// The key responses are computed with: a [`Secret`] transformed for one name.
///
/// Wiped on drop, and never printed.
pub struct Key {
    bytes: Zeroizing<Box<[u8]>>,
}

impl Key {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl ZeroizeOnDrop for Key {}

fn parse_hash(field: &str) -> Result<HashId, SecretError> {
    // The digits are looked at one by one because `from_str_radix` alone accepts a sign.
    if field.len() != 2 || !field.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(SecretError::HashField);
    }
    let value = u8::from_str_radix(field, 16).map_err(|_| SecretError::HashField)?;
    match HashId(value) {
        id if id == HashId::NONE || id.algorithm().is_some() => Ok(id),
        unknown => Err(SecretError::HashUnsupported(unknown)),
    }
}

/// CRC-32 as of IEEE 802.3, bit by bit: tables would tell the cache of secret bytes, and faster
/// code leaves copies of them on the stack.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |checksum, &byte| {
        (0..8).fold(checksum ^ u32::from(byte), |rest, _| {
            (rest >> 1) ^ (POLYNOMIAL & (rest & 1).wrapping_neg())
        })
    })
}

const PREFIX: &str = "DHHC-1:";
/// Of the checksum, lowest power first.
const POLYNOMIAL: u32 = 0xedb8_8320;
const TRANSFORM_LABEL: &[u8] = b"NVMe-over-Fabrics";
const CHECKSUM_LENGTH: usize = 4;
/// Base64 characters of a 64-byte secret and its checksum.
const BASE64_LENGTH_MAX: usize = (64 + CHECKSUM_LENGTH).div_ceil(3) * 4;
/// Bytes that so many characters can stand for.
const DECODED_LENGTH_MAX: usize = 69;
/// Characters of a whole 64-byte secret: the prefix, two digits, two colons.
const TEXT_LENGTH_MAX: usize = PREFIX.len() + 2 + 1 + BASE64_LENGTH_MAX + 1;

#[cfg(test)]
mod tests;
