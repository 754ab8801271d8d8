//! Asynchronous events (Base 5.1.2): notifications of a controller.

use std::fmt;

use super::{
    super::{NamespaceId, Opcode, Sqe},
    LogPage,
};

/// Result of an Asynchronous Event Request (Base 5.1.2.1): the event, and the log page with its
/// details.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AsyncEvent(pub u64);

/// Asynchronous event type (Base figure 151).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AsyncEventType(pub u8);

/// Decoded event; unknown ones keep their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AsyncEventKind {
    /// Access states of namespaces changed; the ANA log page contains them.
    AnaChange,
    /// The discovery log page changed.
    DiscoveryLogChange,
    /// Error not associated with a command, by its event information (Base figure 152).
    Error(u8),
    /// Firmware activation is starting; the controller may pause command processing (CSTS.PP).
    FirmwareActivationStarting,
    /// SMART / health status, by its event information (Base figure 153).
    Health(u8),
    /// Namespaces were attached, detached or changed; the changed namespace list contains them.
    NamespaceAttributeChanged,
    /// A reservation changed; the reservation notification log page tells how.
    ReservationLogAvailable,
    /// Any other event.
    Other {
        /// Event type.
        event_type: AsyncEventType,
        /// Event information.
        information: u8,
    },
}

/// Set of asynchronous events: supported (OAES) or enabled (Asynchronous Event Configuration), one
/// bit each (Base 5.1.25.1.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AsyncEventMask(pub u32);

impl AsyncEvent {
    /// Event type: bits 2:0.
    #[must_use]
    pub fn event_type(self) -> AsyncEventType {
        AsyncEventType(self.byte(0) & 0b111)
    }

    /// Event information, whose meaning depends on the type: bits 15:8.
    #[must_use]
    pub fn information(self) -> u8 {
        self.byte(1)
    }

    /// Log page with the details, bits 23:16. Reading it re-enables events of this type.
    #[must_use]
    pub fn log_page(self) -> LogPage {
        LogPage(self.byte(2))
    }

    /// Decodes type and information.
    #[must_use]
    pub fn kind(self) -> AsyncEventKind {
        let (event_type, information) = (self.event_type(), self.information());
        match (event_type, information) {
            (AsyncEventType::ERROR, number) => AsyncEventKind::Error(number),
            (AsyncEventType::HEALTH, number) => AsyncEventKind::Health(number),
            (AsyncEventType::NOTICE, 0x00) => AsyncEventKind::NamespaceAttributeChanged,
            (AsyncEventType::NOTICE, 0x01) => AsyncEventKind::FirmwareActivationStarting,
            (AsyncEventType::NOTICE, 0x03) => AsyncEventKind::AnaChange,
            (AsyncEventType::NOTICE, 0xf0) => AsyncEventKind::DiscoveryLogChange,
            (AsyncEventType::IO_COMMAND_SET, 0x00) => AsyncEventKind::ReservationLogAvailable,
            _ => AsyncEventKind::Other { event_type, information },
        }
    }

    /// Asynchronous Event Request. It has no timeout: it completes when an event occurs.
    #[must_use]
    pub fn request() -> Sqe {
        Sqe::new(Opcode::ASYNCHRONOUS_EVENT_REQUEST, NamespaceId(0))
    }

    fn byte(self, index: usize) -> u8 {
        self.0.to_le_bytes()[index]
    }
}

impl AsyncEventType {
    /// Error status.
    pub const ERROR: Self = Self(0);
    /// SMART and health status.
    pub const HEALTH: Self = Self(1);
    /// Notice.
    pub const NOTICE: Self = Self(2);
    /// I/O command set specific.
    pub const IO_COMMAND_SET: Self = Self(6);
    /// Vendor specific.
    pub const VENDOR: Self = Self(7);
}

impl AsyncEventMask {
    /// Namespace attribute notices.
    pub const NAMESPACE_ATTRIBUTE: Self = Self(1 << 8);
    /// Firmware activation notices.
    pub const FIRMWARE_ACTIVATION: Self = Self(1 << 9);
    /// Asymmetric namespace access change notices.
    pub const ANA_CHANGE: Self = Self(1 << 11);
    /// Discovery log page change notices.
    pub const DISCOVERY_LOG_CHANGE: Self = Self(1 << 31);

    /// Returns true if all events of `other` are in the set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for AsyncEventMask {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitAnd for AsyncEventMask {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Display for AsyncEventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::ERROR => "error",
            Self::HEALTH => "health",
            Self::NOTICE => "notice",
            Self::IO_COMMAND_SET => "I/O command set event",
            Self::VENDOR => "vendor specific event",
            Self(number) => return write!(f, "event of type {number}"),
        };
        f.write_str(name)
    }
}

impl fmt::Display for AsyncEventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::AnaChange => "asymmetric namespace access changed",
            Self::DiscoveryLogChange => "discovery log changed",
            Self::Error(0x00) => "error: write to an invalid doorbell register",
            Self::Error(0x01) => "error: invalid doorbell write value",
            Self::Error(0x02) => "error: diagnostic failure",
            Self::Error(0x03) => "error: persistent internal error",
            Self::Error(0x04) => "error: transient internal error",
            Self::Error(0x05) => "error: firmware image load error",
            Self::Error(number) => return write!(f, "error {number:#04x}"),
            Self::FirmwareActivationStarting => "firmware activation starting",
            Self::Health(0x00) => "health: subsystem reliability",
            Self::Health(0x01) => "health: temperature threshold",
            Self::Health(0x02) => "health: spare below threshold",
            Self::Health(number) => return write!(f, "health {number:#04x}"),
            Self::NamespaceAttributeChanged => "namespace attribute changed",
            Self::ReservationLogAvailable => "reservation log page available",
            Self::Other { event_type, information } => {
                return write!(f, "{event_type} {information:#04x}");
            }
        };
        f.write_str(name)
    }
}

impl fmt::Debug for AsyncEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsyncEvent({}, {}, {:#x})", self.kind(), self.log_page(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    #[test]
    fn results_by_their_numbers() {
        let cases = [
            (0x0004_0002, AsyncEventKind::NamespaceAttributeChanged, LogPage::CHANGED_NAMESPACES),
            (0x0003_0102, AsyncEventKind::FirmwareActivationStarting, LogPage::FIRMWARE_SLOTS),
            (0x000c_0302, AsyncEventKind::AnaChange, LogPage::ANA),
            (0x0070_f002, AsyncEventKind::DiscoveryLogChange, LogPage::DISCOVERY),
            (0x0001_0300, AsyncEventKind::Error(3), LogPage::ERROR),
            (0x0002_0101, AsyncEventKind::Health(1), LogPage::HEALTH),
            (
                0x0080_0006,
                AsyncEventKind::ReservationLogAvailable,
                LogPage::RESERVATION_NOTIFICATION,
            ),
        ];
        for (result, event, page) in cases {
            let seen = AsyncEvent(result);
            assert_eq!((seen.kind(), seen.log_page()), (event, page), "{result:#x}");
        }
    }

    #[test]
    fn unknown_events_keep_their_numbers() {
        let seen = AsyncEvent(0xffff_ffff_00c7_2a07);
        let event_type = AsyncEventType::VENDOR;
        assert_eq!(seen.kind(), AsyncEventKind::Other { event_type, information: 0x2a });
        assert_eq!(seen.log_page(), LogPage(0xc7));
        assert_eq!(seen.kind().to_string(), "vendor specific event 0x2a");
        assert_eq!(AsyncEvent(0x0000_1103).kind().to_string(), "event of type 3 0x11");
        assert_eq!(AsyncEvent(0x0000_7700).kind().to_string(), "error 0x77");
    }

    #[test]
    fn events_in_words() {
        for (result, words) in [
            (0x000c_0302, "asymmetric namespace access changed"),
            (0x0070_f002, "discovery log changed"),
            (0x0001_0000, "error: write to an invalid doorbell register"),
            (0x0001_0100, "error: invalid doorbell write value"),
            (0x0001_0200, "error: diagnostic failure"),
            (0x0001_0300, "error: persistent internal error"),
            (0x0001_0400, "error: transient internal error"),
            (0x0001_0500, "error: firmware image load error"),
            (0x0003_0102, "firmware activation starting"),
            (0x0002_0001, "health: subsystem reliability"),
            (0x0002_0101, "health: temperature threshold"),
            (0x0002_0201, "health: spare below threshold"),
            (0x0002_0301, "health 0x03"),
            (0x0080_0006, "reservation log page available"),
        ] {
            assert_eq!(AsyncEvent(result).kind().to_string(), words, "{result:#x}");
        }
        assert_eq!(AsyncEventType::ERROR.to_string(), "error");
        assert_eq!(AsyncEventType::HEALTH.to_string(), "health");
    }

    #[test]
    fn the_request_in_literal_bytes() {
        assert_eq!(AsyncEvent::request().as_bytes()[..4], [0x0c, 0x40, 0, 0]);
    }

    #[test]
    fn masks_hold_one_bit_an_event() {
        let both = AsyncEventMask::ANA_CHANGE | AsyncEventMask::DISCOVERY_LOG_CHANGE;
        assert_eq!(both.0, 0x8000_0800);
        assert!(both.contains(AsyncEventMask::ANA_CHANGE));
        assert!(!both.contains(AsyncEventMask::ANA_CHANGE | AsyncEventMask::FIRMWARE_ACTIVATION));
        assert_eq!(both & AsyncEventMask(0x800), AsyncEventMask::ANA_CHANGE);
    }
}
