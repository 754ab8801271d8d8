//! Private data of RDMA CM messages for NVMe queues (RDMA 3.3).

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian::U16};

use super::{ControllerId, QueueId};

/// Private data of the host's connection request (RDMA figure 5): 32 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CmRequestData {
    record_format: U16,
    queue_id: U16,
    receive_size: U16,
    send_size: U16,
    controller_id: U16,
    reserved: [u8; 22],
}

const _: () = assert!(size_of::<CmRequestData>() == 32);

/// Layout of the controller's acceptance (RDMA figure 6): 32 bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct AcceptLayout {
    record_format: U16,
    receive_size: U16,
    reserved: [u8; 28],
}

const _: () = assert!(size_of::<AcceptLayout>() == 32);

/// Layout of the controller's rejection (RDMA figure 7): 4 bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RejectLayout {
    record_format: U16,
    status: U16,
}

const _: () = assert!(size_of::<RejectLayout>() == 4);

/// Error of private data that has an unknown format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateDataError {
    /// The private data is too short.
    #[error("its connection reply has {got} bytes of private data where {needed} are due")]
    Short {
        /// Length in bytes.
        got: usize,
        /// Length of the format in bytes.
        needed: usize,
    },
    /// The record format is unknown: a later version, or not an NVMe target.
    #[error("its connection reply has record format {0:#06x}; only 0 is known")]
    Format(u16),
}

impl CmRequestData {
    /// Private data for a queue of `entries` entries. The controller id is used on I/O queues only.
    #[must_use]
    pub fn new(queue: QueueId, entries: u16, controller: ControllerId) -> Self {
        Self {
            record_format: U16::ZERO,
            queue_id: U16::new(queue.0),
            receive_size: U16::new(entries),
            send_size: U16::new(entries.saturating_sub(1)),
            controller_id: U16::new(if queue.is_admin() { 0 } else { controller.0 }),
            reserved: [0; 22],
        }
    }
}

/// Decoded private data of the controller's acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CmAcceptData {
    /// CRQSIZE: number of command capsules that the controller can receive at once.
    pub receive_size: u16,
}

impl CmAcceptData {
    /// Decodes the private data; the CM may have padded it.
    ///
    /// # Errors
    ///
    /// When it is shorter than its format, or the record format is unknown.
    pub fn parse(bytes: &[u8]) -> Result<Self, PrivateDataError> {
        let (reply, _) = AcceptLayout::read_from_prefix(bytes).map_err(|_| {
            PrivateDataError::Short { got: bytes.len(), needed: size_of::<AcceptLayout>() }
        })?;
        match reply.record_format.get() {
            0 => Ok(Self { receive_size: reply.receive_size.get() }),
            format => Err(PrivateDataError::Format(format)),
        }
    }
}

/// NVMe reject status of a queue connection (RDMA figure 8).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RejectCode(pub u16);

impl RejectCode {
    /// The private data's length is wrong.
    pub const INVALID_LENGTH: Self = Self(1);
    /// The record format is unknown.
    pub const INVALID_RECORD_FORMAT: Self = Self(2);
    /// The queue id is out of range or in use.
    pub const INVALID_QUEUE_ID: Self = Self(3);
    /// HSQSIZE is not acceptable.
    pub const INVALID_SEND_SIZE: Self = Self(4);
    /// HRQSIZE is not acceptable.
    pub const INVALID_RECEIVE_SIZE: Self = Self(5);
    /// The controller has no resources left for a queue.
    pub const NO_RESOURCES: Self = Self(6);
    /// The RDMA READ depth offered by the host is not acceptable.
    pub const INVALID_RESPONDER_RESOURCES: Self = Self(7);
    /// The RDMA READ depth requested by the host is not acceptable.
    pub const INVALID_INITIATOR_DEPTH: Self = Self(8);
    /// The controller id is unknown.
    pub const INVALID_CONTROLLER_ID: Self = Self(9);
}

impl fmt::Display for RejectCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match *self {
            Self::INVALID_LENGTH => "invalid length of our private data",
            Self::INVALID_RECORD_FORMAT => "invalid record format",
            Self::INVALID_QUEUE_ID => "invalid queue id",
            Self::INVALID_SEND_SIZE => "invalid submission queue size (HSQSIZE)",
            Self::INVALID_RECEIVE_SIZE => "invalid receive queue size (HRQSIZE)",
            Self::NO_RESOURCES => "the controller has no resources left",
            Self::INVALID_RESPONDER_RESOURCES => "invalid RDMA READ depth offered (IRD)",
            Self::INVALID_INITIATOR_DEPTH => "invalid RDMA READ depth asked (ORD)",
            Self::INVALID_CONTROLLER_ID => "invalid controller id",
            Self(code) => return write!(f, "unknown NVMe reject code {code:#06x}"),
        };
        f.write_str(text)
    }
}

impl fmt::Debug for RejectCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RejectCode({}: {self})", self.0)
    }
}

/// Rejected connection: the CM's reason, and the NVMe reject status if the controller rejected it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CmReject {
    /// Reject reason of the CM (InfiniBand 12.6.7.2): 8 invalid service, 10 stale connection, 28
    /// rejected by the consumer.
    pub reason: i32,
    /// NVMe reject status, if the reason is 28 and the target sent one; none has the value 0, with
    /// which the CM pads.
    pub code: Option<RejectCode>,
}

impl CmReject {
    /// Invalid service id: nothing listens on the port.
    pub const INVALID_SERVICE: i32 = 8;
    /// Stale connection: the target still has an older connection of this host.
    pub const STALE_CONNECTION: i32 = 10;
    /// Rejected by the consumer, which is the NVMe target.
    pub const CONSUMER: i32 = 28;

    /// Combines the CM's reason with the private data of the rejection.
    #[must_use]
    pub fn parse(reason: i32, private_data: &[u8]) -> Self {
        let code = match RejectLayout::read_from_prefix(private_data) {
            Ok((refusal, _)) if reason == Self::CONSUMER && refusal.record_format.get() == 0 => {
                Some(RejectCode(refusal.status.get())).filter(|code| code.0 != 0)
            }
            _ => None,
        };
        Self { reason, code }
    }

    /// Returns true if the target rejected a parameter of the request, so that the same request
    /// would be rejected again. A controller without resources or with an unknown id is not such a
    /// case: the next connect creates another controller.
    #[must_use]
    pub fn is_invalid_parameter(&self) -> bool {
        self.code.is_some_and(|code| {
            code != RejectCode::NO_RESOURCES && code != RejectCode::INVALID_CONTROLLER_ID
        })
    }
}

impl fmt::Display for CmReject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.reason, self.code) {
            (_, Some(code)) => write!(f, "the target refused the queue: {code}"),
            (Self::INVALID_SERVICE, _) => f.write_str(
                "nothing listens for NVMe on that port; check the port and that the target is up",
            ),
            (Self::STALE_CONNECTION, _) => f.write_str(
                "the target still holds an older connection of ours; try again in some seconds",
            ),
            (Self::CONSUMER, None) => write!(
                f,
                "nothing listens for NVMe at this address (rejected by the connection manager, \
                 reason {}); check the address and the port",
                self.reason
            ),
            (reason, _) => write!(f, "the connection was rejected (CM reason {reason})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_in_literal_bytes() {
        let request = CmRequestData::new(QueueId(2), 128, ControllerId(0x0102));
        let mut expected = [0; 32];
        expected[..10].copy_from_slice(&[0, 0, 2, 0, 128, 0, 127, 0, 2, 1]);
        assert_eq!(request.as_bytes(), expected);
        let admin = CmRequestData::new(QueueId::ADMIN, 32, ControllerId::DYNAMIC);
        assert_eq!(admin.as_bytes()[..10], [0, 0, 0, 0, 32, 0, 31, 0, 0, 0]);
    }

    #[test]
    fn accept_is_parsed_or_gives_an_error() {
        let mut bytes = [0; 40];
        bytes[2] = 128;
        assert_eq!(CmAcceptData::parse(&bytes), Ok(CmAcceptData { receive_size: 128 }));
        assert_eq!(
            CmAcceptData::parse(&bytes[..31]),
            Err(PrivateDataError::Short { got: 31, needed: 32 })
        );
        bytes[0] = 7;
        assert_eq!(CmAcceptData::parse(&bytes), Err(PrivateDataError::Format(7)));
    }

    #[test]
    fn every_reject_code_has_words() {
        for code in 1..=9u16 {
            let bytes = [0, 0, code.to_le_bytes()[0], 0];
            let reject = CmReject::parse(28, &bytes);
            assert_eq!(reject.code, Some(RejectCode(code)));
            assert!(!reject.to_string().contains("unknown"), "{reject}");
        }
        assert!(CmReject::parse(28, &[0, 0, 77, 0]).to_string().contains("0x004d"));
    }

    #[test]
    fn private_data_counts_only_in_a_consumer_reject() {
        assert_eq!(CmReject::parse(8, &[0, 0, 3, 0]).code, None);
        assert_eq!(CmReject::parse(28, &[0, 0, 3]).code, None);
        assert_eq!(CmReject::parse(28, &[1, 0, 3, 0]).code, None);
        // The CM's own rejection, where only another address of the port is listened on.
        for private_data in [&[0; 148][..], &[]] {
            let reject = CmReject::parse(28, private_data);
            assert_eq!(reject.code, None);
            let expected = "at this address (rejected by the connection manager, reason 28)";
            assert!(reject.to_string().contains(expected), "{reject}");
            assert!(!reject.is_invalid_parameter());
        }
    }
}
