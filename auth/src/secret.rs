//! Secrets: the DHHC-1 text form, and the key derived from a secret for a name.

use base64ct::{Base64, Encoding};
use subtle::ConstantTimeEq;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::{HashId, SecretError, hash::Algorithm};

/// Secret shared by a host and a controller.
///
/// The hash id in its text form selects how the secret is transformed to a [`Key`]; it restricts
/// neither the hash of the responses nor the secret's length. The bytes are wiped on drop and
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
    /// Parses the text form `DHHC-1:hh:<base64 of secret and CRC-32>:`.
    ///
    /// Strict: a missing last colon, a line break or a space is an error, so that each secret has
    /// exactly one text. Decoded bytes are wiped, also on error; wiping `text` is the caller's
    /// task.
    ///
    /// # Errors
    ///
    /// [`SecretError`] of the first part that is wrong, from left to right; the checksum comes
    /// last.
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

    /// Creates a secret from random `bytes`, which the caller supplies and wipes.
    ///
    /// `hash` selects the transformation to a key; [`HashId::NONE`] uses the secret unchanged.
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

    /// Hash that transforms this secret to a key; [`HashId::NONE`] if it is used unchanged.
    pub fn hash(&self) -> HashId {
        self.transform.map_or(HashId::NONE, Algorithm::id)
    }

    /// Encodes the text form, to be stored where only its owner can read it.
    ///
    /// This makes a secret readable. The returned text is wiped when dropped; copies of it are not.
    pub fn encode(&self) -> Zeroizing<String> {
        // Allocated in full size: a vector or string that grows leaves a copy of its contents in
        // freed memory.
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

    /// Derives the key for `nqn`: the host's NQN for the host's secret, the subsystem's for the
    /// controller's.
    pub fn transform(&self, nqn: &str) -> Key {
        let bytes = match self.transform {
            None => self.bytes.clone(),
            Some(algorithm) => algorithm.hmac(&self.bytes, &[nqn.as_bytes(), TRANSFORM_LABEL]),
        };
        Key { bytes }
    }

    /// Returns true if both secrets have the same bytes, whatever their hashes; constant time.
    ///
    /// Host and controller must not have the same secret: a peer that can verify one side's
    /// response could then compute the other's.
    #[must_use]
    pub fn has_same_bytes(&self, other: &Self) -> bool {
        self.bytes.ct_eq(&other.bytes).into()
    }
}

impl ZeroizeOnDrop for Secret {}

/// Key of the responses: a [`Secret`] transformed for one name.
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
    // The digits are checked one by one because `from_str_radix` accepts a sign.
    if field.len() != 2 || !field.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(SecretError::HashField);
    }
    let value = u8::from_str_radix(field, 16).map_err(|_| SecretError::HashField)?;
    match HashId(value) {
        id if id == HashId::NONE || id.algorithm().is_some() => Ok(id),
        unknown => Err(SecretError::HashUnsupported(unknown)),
    }
}

/// CRC-32 of IEEE 802.3, computed bit by bit: a lookup table would leak secret bytes through the
/// cache, and faster code leaves copies of them on the stack.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |checksum, &byte| {
        (0..8).fold(checksum ^ u32::from(byte), |rest, _| {
            (rest >> 1) ^ (POLYNOMIAL & (rest & 1).wrapping_neg())
        })
    })
}

const PREFIX: &str = "DHHC-1:";
/// CRC-32 polynomial, bit-reversed.
const POLYNOMIAL: u32 = 0xedb8_8320;
const TRANSFORM_LABEL: &[u8] = b"NVMe-over-Fabrics";
const CHECKSUM_LENGTH: usize = 4;
/// Length in Base64 characters of a 64-byte secret and its checksum.
const BASE64_LENGTH_MAX: usize = (64 + CHECKSUM_LENGTH).div_ceil(3) * 4;
/// Length in bytes that [`BASE64_LENGTH_MAX`] characters decode to at most.
const DECODED_LENGTH_MAX: usize = 69;
/// Length in characters of the text form of a 64-byte secret: prefix, two digits, two colons.
const TEXT_LENGTH_MAX: usize = PREFIX.len() + 2 + 1 + BASE64_LENGTH_MAX + 1;

#[cfg(test)]
mod tests;
