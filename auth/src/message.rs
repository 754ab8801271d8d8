//! Encoding and decoding of the messages of host and controller.
//!
//! All numbers are little-endian, except public values, which are big-endian. Reserved bytes are
//! sent as zero and ignored on receipt. A payload may be longer than its message, because targets
//! fill the whole buffer of an Authentication Receive; the bytes after the message must be zero.
//! NVMe Base Specification 2.2, section 8.3.4.5.

use std::fmt;

use crate::{GroupId, HashId, SecureChannel, TransactionId};

/// Buffer size of an Authentication Receive in bytes, as in Linux. No message is longer.
pub const RECEIVE_LENGTH: usize = 4096;

/// Length in bytes of the longest message that a host sends: a Reply with SHA-512 and ffdhe8192.
pub const SEND_LENGTH_MAX: usize = 16 + 2 * 64 + 1024;

/// The length in bytes of a Negotiate with one protocol descriptor.
pub const NEGOTIATE_LENGTH: usize = 72;

/// The length in bytes of Failure1 and Failure2.
pub const FAILURE_LENGTH: usize = 8;

/// Message identifier: AUTH_TYPE in the high byte, AUTH_ID in the low byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId(pub u16);

impl MessageId {
    /// Negotiate: hashes and groups that the host offers.
    pub const NEGOTIATE: Self = Self(0x0000);
    /// Challenge: the controller's choice, challenge and public value.
    pub const CHALLENGE: Self = Self(0x0101);
    /// Reply: the host's response, challenge and public value.
    pub const REPLY: Self = Self(0x0102);
    /// Success1: the controller has accepted the host, and sends its response if it was challenged.
    pub const SUCCESS1: Self = Self(0x0103);
    /// Success2: the host has accepted the controller.
    pub const SUCCESS2: Self = Self(0x0104);
    /// Failure2: the host ends the exchange.
    pub const FAILURE2: Self = Self(0x00f0);
    /// Failure1: the controller ends the exchange.
    pub const FAILURE1: Self = Self(0x00f1);

    /// Name of this message in the specification, without `AUTH_` or `DH-HMAC-CHAP_`.
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

/// Reason code explanation of Failure1 and Failure2.
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
    /// A message was received out of order.
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

/// Error of bytes that are not the expected message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The payload ends before the message does.
    #[error("the payload has {actual} bytes where the message has {needed}")]
    Short {
        /// Length of the message in bytes, according to the fields read.
        needed: usize,
        /// The length of the payload.
        actual: usize,
    },

    /// A byte after the message is not zero.
    #[error("byte {offset}, behind the end of the message, is not zero")]
    Trailing {
        /// Offset of the first such byte in the payload.
        offset: usize,
    },

    /// The message has another id.
    #[error("the message is {0}")]
    Id(MessageId),

    /// A Negotiate has other than one descriptor of DH-HMAC-CHAP with lists of up to 30.
    #[error("the protocol descriptors are not one of DH-HMAC-CHAP")]
    Descriptors,

    /// A field that is 0 or 1 has another value.
    #[error("a field for yes or no has the value {0:#04x}")]
    Flag(u8),
}

/// Common header of all messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Message identifier.
    pub id: MessageId,
    /// Exchange that the message belongs to.
    pub transaction_id: TransactionId,
}

impl Header {
    /// Decodes the header of any message; the rest is ignored.
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

/// Message of the host: hashes and groups that it offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiate {
    /// Transaction identifier (T_ID).
    pub transaction_id: TransactionId,
    /// Secure channel concatenation (SC_C).
    pub secure_channel: SecureChannel,
    /// Hashes, at most 30.
    pub hashes: Vec<HashId>,
    /// Groups, at most 30.
    pub groups: Vec<GroupId>,
}

impl Negotiate {
    /// Encodes the message: 72 bytes. Only the first 30 ids of each list are sent.
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

    /// Decodes the message.
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

/// Message of the controller: its choice, challenge and public value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge<'a> {
    /// Transaction identifier (T_ID).
    pub transaction_id: TransactionId,
    /// The hash chosen.
    pub hash: HashId,
    /// The group chosen.
    pub group: GroupId,
    /// Sequence number of the challenge (S1).
    pub sequence_number: u32,
    /// Challenge value (C1) of HL bytes.
    pub challenge: &'a [u8],
    /// Public value of the controller, DHVLEN bytes; empty for the null group.
    pub public_value: &'a [u8],
}

impl<'a> Challenge<'a> {
    /// Encodes the message. The challenge must have at most 255 bytes, the public value at most
    /// 65,535.
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

    /// Decodes the message. Lengths are not compared with hash and group.
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

/// Message of the host: its response, challenge and public value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Transaction identifier (T_ID).
    pub transaction_id: TransactionId,
    /// Sequence number of the host's challenge (S2).
    pub sequence_number: u32,
    /// Response value (R1) of HL bytes.
    pub response: &'a [u8],
    /// Challenge value (C2), as long as the response, if the controller must authenticate itself.
    /// The field is sent in any case, as zeros if there is no challenge.
    pub challenge: Option<&'a [u8]>,
    /// Public value of the host, DHVLEN bytes; empty for the null group.
    pub public_value: &'a [u8],
}

impl<'a> Reply<'a> {
    /// Encodes the message. The response must have at most 255 bytes, the public value at most
    /// 65,535.
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

    /// Decodes the message. Lengths are not compared with hash and group.
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

/// Message of the controller: the host is accepted, with the controller's response if it was
/// challenged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Success1<'a> {
    /// Transaction identifier (T_ID).
    pub transaction_id: TransactionId,
    /// Hash length (HL), present even without a response.
    pub hash_length: u8,
    /// Response value (R2) of `hash_length` bytes; `None` if RVALID is zero.
    pub response: Option<&'a [u8]>,
}

impl<'a> Success1<'a> {
    /// Encodes the message.
    pub fn encode(&self) -> Vec<u8> {
        let id = MessageId::SUCCESS1;
        let response = self.response.unwrap_or_default();
        let mut bytes = Header { id, transaction_id: self.transaction_id }.encode();
        let rvalid = u8::from(self.response.is_some());
        bytes.extend_from_slice(&[self.hash_length, 0, rvalid, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(response);
        bytes
    }

    /// Decodes the message. The length is not compared with the hash.
    ///
    /// # Errors
    ///
    /// [`MessageError`] if the bytes are not a Success1.
    pub fn decode(payload: &'a [u8]) -> Result<Self, MessageError> {
        let (transaction_id, mut cursor) = read_header(payload, MessageId::SUCCESS1)?;
        let [hash_length, _, rvalid, ..]: [u8; 10] = cursor.array()?;
        let has_response = flag(rvalid)?;
        let response =
            if has_response { Some(cursor.take(usize::from(hash_length))?) } else { None };
        cursor.end()?;
        Ok(Self { transaction_id, hash_length, response })
    }
}

/// Message of the host: the controller is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Success2 {
    /// Transaction identifier (T_ID).
    pub transaction_id: TransactionId,
}

impl Success2 {
    /// Encodes the message: 16 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let id = MessageId::SUCCESS2;
        let mut bytes = Header { id, transaction_id: self.transaction_id }.encode();
        bytes.extend_from_slice(&[0; 10]);
        bytes
    }

    /// Decodes the message.
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

/// Message that ends the exchange: Failure1 of the controller, Failure2 of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureMessage {
    /// [`MessageId::FAILURE1`] or [`MessageId::FAILURE2`].
    pub id: MessageId,
    /// Transaction identifier (T_ID).
    pub transaction_id: TransactionId,
    /// Reason code explanation.
    pub explanation: Explanation,
}

impl FailureMessage {
    /// Encodes the message: 8 bytes, with the only reason code defined, "authentication failure".
    pub fn encode(&self) -> Vec<u8> {
        let Self { id, transaction_id, explanation } = *self;
        let mut bytes = Header { id, transaction_id }.encode();
        bytes.extend_from_slice(&[AUTHENTICATION_FAILURE, explanation.0]);
        bytes
    }

    /// Decodes either message. The reason code and the bytes after the message are ignored: the
    /// exchange fails whatever they are.
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

/// Decodes the header of the expected message and returns a cursor at its body.
fn read_header(payload: &[u8], id: MessageId) -> Result<(TransactionId, Cursor<'_>), MessageError> {
    let mut cursor = Cursor::new(payload);
    let header = cursor.header()?;
    if header.id != id {
        return Err(MessageError::Id(header.id));
    }
    Ok((header.transaction_id, cursor))
}

/// Sequential reader of a payload with bounds checks.
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

/// Encodes a list of ids for a Negotiate: the fixed-size field and the number of ids in it.
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

/// Size in ids of each list of a protocol descriptor.
const ID_COUNT_MAX: usize = 30;
/// Number of authentication protocol descriptors (NAPD).
const ONE_DESCRIPTOR: u8 = 1;
/// Authentication protocol identifier (AUTHID).
const DH_HMAC_CHAP: u8 = 0x01;
/// Reason code of all Failure1 and Failure2 messages.
const AUTHENTICATION_FAILURE: u8 = 0x01;

#[cfg(test)]
mod tests;
