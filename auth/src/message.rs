//! The messages' bytes, both ways: what a host sends and what a controller sends.
//!
//! All numbers are little-endian but public values, which are big-endian. Reserved bytes are sent
//! as zero and ignored when received. A payload may be longer than its message, because targets
//! fill the whole buffer of an Authentication Receive; what follows the message must be zero.
//! NVMe Base Specification 2.2, section 8.3.4.5.

use std::fmt;

use crate::{GroupId, HashId, SecureChannel, TransactionId};

/// The buffer an Authentication Receive offers, in bytes: what Linux offers. No message is longer.
pub const RECEIVE_LENGTH: usize = 4096;

/// The longest message a host sends, in bytes: a Reply with SHA-512 and ffdhe8192.
pub const SEND_LENGTH_MAX: usize = 16 + 2 * 64 + 1024;

/// The length in bytes of a Negotiate with one protocol descriptor.
pub const NEGOTIATE_LENGTH: usize = 72;

/// The length in bytes of Failure1 and Failure2.
pub const FAILURE_LENGTH: usize = 8;

/// What a message is: its type in the high byte, its id in the low.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId(pub u16);

impl MessageId {
    /// What the host offers.
    pub const NEGOTIATE: Self = Self(0x0000);
    /// The controller's choice, its challenge and public value.
    pub const CHALLENGE: Self = Self(0x0101);
    /// The host's response, and its own challenge and public value.
    pub const REPLY: Self = Self(0x0102);
    /// The controller has accepted the host, and responds if it was challenged.
    pub const SUCCESS1: Self = Self(0x0103);
    /// The host has accepted the controller.
    pub const SUCCESS2: Self = Self(0x0104);
    /// The host gives up.
    pub const FAILURE2: Self = Self(0x00f0);
    /// The controller gives up.
    pub const FAILURE1: Self = Self(0x00f1);

    /// The name the specification gives this message, without `AUTH_` or `DH-HMAC-CHAP_`.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::NEGOTIATE => Some("Negotiate"),
            Self::CHALLENGE => Some("Challenge"),
            Self::REPLY => Some("Reply"),
            Self::SUCCESS1 => Some("Success1"),
            Self::SUCCESS2 => Some("Success2"),
            Self::FAILURE2 => Some("Failure2"),
            Self::FAILURE1 => Some("Failure1"),
            _ => None,
        }
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "message {:#06x}", self.0),
        }
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

/// Why an exchange was given up, as Failure1 and Failure2 say it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Explanation(pub u8);

impl Explanation {
    /// A response was wrong, or a secret is missing.
    pub const AUTHENTICATION_FAILED: Self = Self(0x01);
    /// No authentication protocol in common.
    pub const PROTOCOL_NOT_USABLE: Self = Self(0x02);
    /// The sides disagree about a secure channel.
    pub const SECURE_CHANNEL_MISMATCH: Self = Self(0x03);
    /// No hash in common.
    pub const HASH_NOT_USABLE: Self = Self(0x04);
    /// No group in common.
    pub const GROUP_NOT_USABLE: Self = Self(0x05);
    /// A message's contents were wrong.
    pub const INCORRECT_PAYLOAD: Self = Self(0x06);
    /// A message came out of order.
    pub const INCORRECT_MESSAGE: Self = Self(0x07);
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::AUTHENTICATION_FAILED => "authentication failed",
            Self::PROTOCOL_NOT_USABLE => "authentication protocol not usable",
            Self::SECURE_CHANNEL_MISMATCH => "secure channel concatenation mismatch",
            Self::HASH_NOT_USABLE => "hash function not usable",
            Self::GROUP_NOT_USABLE => "DH group not usable",
            Self::INCORRECT_PAYLOAD => "incorrect payload",
            Self::INCORRECT_MESSAGE => "incorrect protocol message",
            Self(other) => return write!(f, "explanation {other:#04x}"),
        })
    }
}

impl fmt::Debug for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Explanation({self})")
    }
}

/// Why bytes are not the message they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The payload ends before the message does.
    #[error("the payload has {actual} bytes where the message has {needed}")]
    Short {
        /// The length the message has, by what of it was read.
        needed: usize,
        /// The length of the payload.
        actual: usize,
    },

    /// Something other than zero follows the message.
    #[error("byte {offset}, behind the end of the message, is not zero")]
    Trailing {
        /// The place of the first such byte in the payload.
        offset: usize,
    },

    /// The message is another one.
    #[error("the message is {0}")]
    Id(MessageId),

    /// A Negotiate has other than one descriptor of DH-HMAC-CHAP with lists of up to 30.
    #[error("the protocol descriptors are not one of DH-HMAC-CHAP")]
    Descriptors,

    /// A field that is 0 or 1 has another value.
    #[error("a field for yes or no has the value {0:#04x}")]
    Flag(u8),
}

/// What every message begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the message is.
    pub id: MessageId,
    /// The exchange it belongs to.
    pub transaction_id: TransactionId,
}

impl Header {
    /// Reads the header of any message; what follows it is not looked at.
    ///
    /// # Errors
    ///
    /// [`MessageError::Short`] if there are less than six bytes.
    pub fn decode(payload: &[u8]) -> Result<Self, MessageError> {
        Cursor::new(payload).header()
    }

    fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.id.0.to_be_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&self.transaction_id.0.to_le_bytes());
        bytes
    }
}

/// Host to controller: the hashes and groups the host would use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiate {
    /// T_ID.
    pub transaction_id: TransactionId,
    /// SC_C.
    pub secure_channel: SecureChannel,
    /// At most 30 hashes.
    pub hashes: Vec<HashId>,
    /// At most 30 groups.
    pub groups: Vec<GroupId>,
}

impl Negotiate {
    /// Writes the message: 72 bytes. Of longer lists, the first 30 ids are sent.
    pub fn encode(&self) -> Vec<u8> {
        let id = MessageId::NEGOTIATE;
        let mut bytes = Header { id, transaction_id: self.transaction_id }.encode();
        let (hashes, halen) = id_list(self.hashes.iter().map(|hash| hash.0));
        let (groups, dhlen) = id_list(self.groups.iter().map(|group| group.0));
        bytes.extend_from_slice(&[self.secure_channel.0, ONE_DESCRIPTOR]);
        bytes.extend_from_slice(&[DH_HMAC_CHAP, 0, halen, dhlen]);
        bytes.extend_from_slice(&hashes);
        bytes.extend_from_slice(&groups);
        bytes
    }

    /// Reads the message.
    ///
    /// # Errors
    ///
    /// [`MessageError`] if the bytes are not a Negotiate with one descriptor of DH-HMAC-CHAP.
    pub fn decode(payload: &[u8]) -> Result<Self, MessageError> {
        let (transaction_id, mut cursor) = read_header(payload, MessageId::NEGOTIATE)?;
        let [secure_channel, descriptors] = cursor.array()?;
        let [protocol, _, halen, dhlen] = cursor.array()?;
        let hashes: [u8; ID_COUNT_MAX] = cursor.array()?;
        let groups: [u8; ID_COUNT_MAX] = cursor.array()?;
        cursor.end()?;
        let lists = hashes.get(..usize::from(halen)).zip(groups.get(..usize::from(dhlen)));
        let (true, true, Some((hashes, groups))) =
            (descriptors == ONE_DESCRIPTOR, protocol == DH_HMAC_CHAP, lists)
        else {
            return Err(MessageError::Descriptors);
        };
        Ok(Self {
            transaction_id,
            secure_channel: SecureChannel(secure_channel),
            hashes: hashes.iter().copied().map(HashId).collect(),
            groups: groups.iter().copied().map(GroupId).collect(),
        })
    }
}

/// Controller to host: its choice, its challenge and its public value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge<'a> {
    /// T_ID.
    pub transaction_id: TransactionId,
    /// The hash chosen.
    pub hash: HashId,
    /// The group chosen.
    pub group: GroupId,
    /// S1.
    pub sequence_number: u32,
    /// C1; its length is HL.
    pub challenge: &'a [u8],
    /// The controller's public value, empty for the null group; its length is DHVLEN.
    pub public_value: &'a [u8],
}

impl<'a> Challenge<'a> {
    /// Writes the message. Its challenge must have at most 255 bytes, its value at most 65,535.
    pub fn encode(&self) -> Vec<u8> {
        let id = MessageId::CHALLENGE;
        let mut bytes = Header { id, transaction_id: self.transaction_id }.encode();
        bytes.extend_from_slice(&[length8(self.challenge), 0, self.hash.0, self.group.0]);
        bytes.extend_from_slice(&length16(self.public_value).to_le_bytes());
        bytes.extend_from_slice(&self.sequence_number.to_le_bytes());
        bytes.extend_from_slice(self.challenge);
        bytes.extend_from_slice(self.public_value);
        bytes
    }

    /// Reads the message. Whether lengths suit hash and group is not looked at.
    ///
    /// # Errors
    ///
    /// [`MessageError`] if the bytes are not a Challenge.
    pub fn decode(payload: &'a [u8]) -> Result<Self, MessageError> {
        let (transaction_id, mut cursor) = read_header(payload, MessageId::CHALLENGE)?;
        let [hl, _, hash, group] = cursor.array()?;
        let dhvlen = u16::from_le_bytes(cursor.array()?);
        let sequence_number = u32::from_le_bytes(cursor.array()?);
        let challenge = cursor.take(usize::from(hl))?;
        let public_value = cursor.take(usize::from(dhvlen))?;
        cursor.end()?;
        let (hash, group) = (HashId(hash), GroupId(group));
        Ok(Self { transaction_id, hash, group, sequence_number, challenge, public_value })
    }
}

/// Host to controller: its response, its own challenge and its public value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// T_ID.
    pub transaction_id: TransactionId,
    /// S2.
    pub sequence_number: u32,
    /// R1; its length is HL.
    pub response: &'a [u8],
    /// C2, as long as the response, if the host wants the controller to prove itself. The bytes
    /// are there in any case, zero if not.
    pub challenge: Option<&'a [u8]>,
    /// The host's public value, empty for the null group; its length is DHVLEN.
    pub public_value: &'a [u8],
}

impl<'a> Reply<'a> {
    /// Writes the message. Its response must have at most 255 bytes, its value at most 65,535.
    pub fn encode(&self) -> Vec<u8> {
        let id = MessageId::REPLY;
        let mut bytes = Header { id, transaction_id: self.transaction_id }.encode();
        let cvalid = u8::from(self.challenge.is_some());
        bytes.extend_from_slice(&[length8(self.response), 0, cvalid, 0]);
        bytes.extend_from_slice(&length16(self.public_value).to_le_bytes());
        bytes.extend_from_slice(&self.sequence_number.to_le_bytes());
        bytes.extend_from_slice(self.response);
        bytes.extend_from_slice(self.challenge.unwrap_or(&vec![0; self.response.len()]));
        bytes.extend_from_slice(self.public_value);
        bytes
    }

    /// Reads the message. Whether lengths suit hash and group is not looked at.
    ///
    /// # Errors
    ///
    /// [`MessageError`] if the bytes are not a Reply.
    pub fn decode(payload: &'a [u8]) -> Result<Self, MessageError> {
        let (transaction_id, mut cursor) = read_header(payload, MessageId::REPLY)?;
        let [hl, _, cvalid, _] = cursor.array()?;
        let dhvlen = u16::from_le_bytes(cursor.array()?);
        let sequence_number = u32::from_le_bytes(cursor.array()?);
        let response = cursor.take(usize::from(hl))?;
        let challenge = cursor.take(usize::from(hl))?;
        let public_value = cursor.take(usize::from(dhvlen))?;
        cursor.end()?;
        let challenge = flag(cvalid)?.then_some(challenge);
        Ok(Self { transaction_id, sequence_number, response, challenge, public_value })
    }
}

/// Controller to host: the host is accepted, and the controller's response if it was challenged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Success1<'a> {
    /// T_ID.
    pub transaction_id: TransactionId,
    /// HL, which is there even without a response.
    pub hash_length: u8,
    /// R2, `hash_length` bytes long; `None` if RVALID is zero.
    pub response: Option<&'a [u8]>,
}

impl<'a> Success1<'a> {
    /// Writes the message.
    pub fn encode(&self) -> Vec<u8> {
        let id = MessageId::SUCCESS1;
        let response = self.response.unwrap_or_default();
        let mut bytes = Header { id, transaction_id: self.transaction_id }.encode();
        let rvalid = u8::from(self.response.is_some());
        bytes.extend_from_slice(&[self.hash_length, 0, rvalid, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(response);
        bytes
    }

    /// Reads the message. Whether the length suits the hash is not looked at.
    ///
    /// # Errors
    ///
    /// [`MessageError`] if the bytes are not a Success1.
    pub fn decode(payload: &'a [u8]) -> Result<Self, MessageError> {
        let (transaction_id, mut cursor) = read_header(payload, MessageId::SUCCESS1)?;
        let [hash_length, _, rvalid, ..]: [u8; 10] = cursor.array()?;
        let response = match flag(rvalid)? {
            true => Some(cursor.take(usize::from(hash_length))?),
            false => None,
        };
        cursor.end()?;
        Ok(Self { transaction_id, hash_length, response })
    }
}

/// Host to controller: the controller is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Success2 {
    /// T_ID.
    pub transaction_id: TransactionId,
}

impl Success2 {
    /// Writes the message: 16 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let id = MessageId::SUCCESS2;
        let mut bytes = Header { id, transaction_id: self.transaction_id }.encode();
        bytes.extend_from_slice(&[0; 10]);
        bytes
    }

    /// Reads the message.
    ///
    /// # Errors
    ///
    /// [`MessageError`] if the bytes are not a Success2.
    pub fn decode(payload: &[u8]) -> Result<Self, MessageError> {
        let (transaction_id, mut cursor) = read_header(payload, MessageId::SUCCESS2)?;
        cursor.take(10)?;
        cursor.end()?;
        Ok(Self { transaction_id })
    }
}

/// Either side gives up: Failure1 from the controller, Failure2 from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureMessage {
    /// [`MessageId::FAILURE1`] or [`MessageId::FAILURE2`].
    pub id: MessageId,
    /// T_ID.
    pub transaction_id: TransactionId,
    /// Why.
    pub explanation: Explanation,
}

impl FailureMessage {
    /// Writes the message: 8 bytes, with the only reason there is, "authentication failure".
    pub fn encode(&self) -> Vec<u8> {
        let Self { id, transaction_id, explanation } = *self;
        let mut bytes = Header { id, transaction_id }.encode();
        bytes.extend_from_slice(&[AUTHENTICATION_FAILURE, explanation.0]);
        bytes
    }

    /// Reads either message. The reason, and what follows the message, are not looked at: it fails
    /// the exchange whatever they are.
    ///
    /// # Errors
    ///
    /// [`MessageError`] if the bytes are neither Failure1 nor Failure2.
    pub fn decode(payload: &[u8]) -> Result<Self, MessageError> {
        let mut cursor = Cursor::new(payload);
        let Header { id, transaction_id } = cursor.header()?;
        if id != MessageId::FAILURE1 && id != MessageId::FAILURE2 {
            return Err(MessageError::Id(id));
        }
        let [_, explanation] = cursor.array()?;
        Ok(Self { id, transaction_id, explanation: Explanation(explanation) })
    }
}

/// Reads the header of the message that must come, and goes on behind it.
fn read_header(payload: &[u8], id: MessageId) -> Result<(TransactionId, Cursor<'_>), MessageError> {
    let mut cursor = Cursor::new(payload);
    let header = cursor.header()?;
    if header.id != id {
        return Err(MessageError::Id(header.id));
    }
    Ok((header.transaction_id, cursor))
}

/// Reads from front to back and never past the end.
struct Cursor<'a> {
    payload: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    fn new(payload: &'a [u8]) -> Self {
        Self { payload, offset: 0 }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], MessageError> {
        let needed = self.offset + length;
        let actual = self.payload.len();
        let bytes =
            self.payload.get(self.offset..needed).ok_or(MessageError::Short { needed, actual })?;
        self.offset = needed;
        Ok(bytes)
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], MessageError> {
        let mut array = [0; LENGTH];
        array.copy_from_slice(self.take(LENGTH)?);
        Ok(array)
    }

    fn header(&mut self) -> Result<Header, MessageError> {
        let id = MessageId(u16::from_be_bytes(self.array()?));
        self.take(2)?;
        let transaction_id = TransactionId(u16::from_le_bytes(self.array()?));
        Ok(Header { id, transaction_id })
    }

    fn end(self) -> Result<(), MessageError> {
        let rest = &self.payload[self.offset..];
        match rest.iter().position(|&byte| byte != 0) {
            None => Ok(()),
            Some(position) => Err(MessageError::Trailing { offset: self.offset + position }),
        }
    }
}

fn flag(byte: u8) -> Result<bool, MessageError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(MessageError::Flag(other)),
    }
}

/// A list of ids as a Negotiate has it, and how many of its bytes count.
fn id_list(ids: impl Iterator<Item = u8>) -> ([u8; ID_COUNT_MAX], u8) {
    let mut list = [0; ID_COUNT_MAX];
    let mut count = 0;
    for (slot, id) in list.iter_mut().zip(ids) {
        *slot = id;
        count += 1;
    }
    (list, count)
}

fn length8(bytes: &[u8]) -> u8 {
    u8::try_from(bytes.len()).expect("digests have at most 64 bytes")
}

fn length16(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).expect("public values have at most 1024 bytes")
}

/// Room for ids in either list of a protocol descriptor.
const ID_COUNT_MAX: usize = 30;
/// NAPD.
const ONE_DESCRIPTOR: u8 = 1;
/// AUTHID.
const DH_HMAC_CHAP: u8 = 0x01;
/// The reason code of every Failure1 and Failure2.
const AUTHENTICATION_FAILURE: u8 = 0x01;

#[cfg(test)]
mod tests;
