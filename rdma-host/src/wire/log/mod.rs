//! Log pages (Base 5.1.12): the Get Log Page command, and the pages supported here.

mod ana;
mod async_event;
mod changed_namespaces;
mod cross_controller_reset;
mod discovery;
mod effects;
mod endurance_group;
mod error_log;
mod firmware;
mod health;
mod reservation_notification;
mod supported;

pub use ana::{AnaGroup, AnaLog, AnaState};
pub use async_event::{AsyncEvent, AsyncEventKind, AsyncEventMask, AsyncEventType};
pub use changed_namespaces::ChangedNamespaceList;
pub use cross_controller_reset::{
    CrossControllerResetEntry, CrossControllerResetLog, CrossControllerResetStatus,
    is_immediate_reset,
};
pub use discovery::{
    AddressFamily, DiscoveryEntry, DiscoveryEntryError, DiscoveryEntryFlags, DiscoveryHeader,
    RdmaProvider, RdmaService, SecurityType, SubsystemType, TransportRequirements,
    TransportSpecific, TransportType,
};
pub use effects::{CommandEffects, EffectsLog};
pub use endurance_group::{EnduranceGroupLog, RotationalMediaLog};
pub use error_log::ErrorLogEntry;
pub use firmware::FirmwareSlotLog;
pub use health::HealthLog;
pub use reservation_notification::{ReservationNotification, ReservationNotificationKind};
pub use supported::{FeatureEffectsLog, SupportedLogPages};

use std::fmt;

use super::{NamespaceId, Opcode, Sqe, is_unprintable};

/// Log page identifier (LID, Base figure 202).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogPage(pub u8);

impl LogPage {
    /// Supported log pages: 1,024 bytes.
    pub const SUPPORTED: Self = Self(0x00);
    /// Error information: 64 bytes per entry.
    pub const ERROR: Self = Self(0x01);
    /// SMART and health information: 512 bytes.
    pub const HEALTH: Self = Self(0x02);
    /// Firmware slots: 512 bytes.
    pub const FIRMWARE_SLOTS: Self = Self(0x03);
    /// Changed namespace list: namespaces changed since the page was last read, 4,096 bytes.
    pub const CHANGED_NAMESPACES: Self = Self(0x04);
    /// Commands supported and effects: 4,096 bytes.
    pub const EFFECTS: Self = Self(0x05);
    /// Endurance group information: 512 bytes, of the group that LSI names.
    pub const ENDURANCE_GROUP: Self = Self(0x09);
    /// Asymmetric namespace access: variable size.
    pub const ANA: Self = Self(0x0c);
    /// Feature identifiers supported and effects: 1,024 bytes.
    pub const FEATURES: Self = Self(0x12);
    /// Rotational media information: 512 bytes, of the endurance group that LSI names.
    pub const ROTATIONAL_MEDIA: Self = Self(0x16);
    /// Cross-Controller Reset: variable size, at most 4,096 bytes.
    pub const CROSS_CONTROLLER_RESET: Self = Self(0x1e);
    /// Discovery: variable size.
    pub const DISCOVERY: Self = Self(0x70);
    /// Reservation notification: 64 bytes. Reading it takes the oldest notification.
    pub const RESERVATION_NOTIFICATION: Self = Self(0x80);
}

impl fmt::Display for LogPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::SUPPORTED => "supported log pages",
            Self::ERROR => "error information",
            Self::HEALTH => "health information",
            Self::FIRMWARE_SLOTS => "firmware slots",
            Self::CHANGED_NAMESPACES => "changed namespaces",
            Self::EFFECTS => "commands supported and effects",
            Self::ENDURANCE_GROUP => "endurance group information",
            Self::FEATURES => "features supported and effects",
            Self::ROTATIONAL_MEDIA => "rotational media information",
            Self::RESERVATION_NOTIFICATION => "reservation notification",
            Self::CROSS_CONTROLLER_RESET => "cross-controller reset",
            Self::ANA => "asymmetric namespace access",
            Self::DISCOVERY => "discovery",
            Self(number) => return write!(f, "log page {number:#04x}"),
        };
        f.write_str(name)
    }
}

impl fmt::Debug for LogPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogPage({self})")
    }
}

/// Get Log Page command (Base 5.1.12) for a part of a log page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetLogPage {
    /// Log page.
    pub page: LogPage,
    /// Offset of the first byte; a multiple of 4.
    pub offset: u64,
    /// Number of bytes; a multiple of 4, at least 4.
    pub bytes: u32,
    /// Log specific parameter (LSP), 7 bits; its meaning depends on the page.
    pub specific_field: u8,
    /// Log specific identifier (LSI); its meaning depends on the page.
    pub specific_identifier: u16,
    /// Retain asynchronous event (RAE): reading does not clear the event of the page, so that no
    /// event is sent while the page is only partly read.
    pub retain_event: bool,
    /// CSI: command set that the page is of, where the page has one for each.
    pub command_set: u8,
}

impl GetLogPage {
    /// Reads the first `bytes` bytes of a page and clears its event.
    #[must_use]
    pub fn new(page: LogPage, bytes: u32) -> Self {
        Self {
            page,
            offset: 0,
            bytes,
            specific_field: 0,
            specific_identifier: 0,
            retain_event: false,
            command_set: 0,
        }
    }

    /// Encodes the command, with the broadcast namespace id.
    ///
    /// # Panics
    ///
    /// If the offset or the number of bytes is not a multiple of 4, or `bytes` is 0, which the
    /// zero-based count of dwords cannot hold.
    #[must_use]
    pub fn to_sqe(self) -> Sqe {
        assert!(self.bytes >= 4 && self.bytes.is_multiple_of(4), "whole dwords are read");
        assert!(self.offset.is_multiple_of(4), "pages are read from a dword on");
        let dwords = self.bytes / 4 - 1;
        let (low, high) = (dwords & 0xffff, dwords >> 16);
        let cdw10 = u32::from(self.page.0)
            | u32::from(self.specific_field & 0x7f) << 8
            | u32::from(self.retain_event) << 15
            | low << 16;
        let cdw11 = high | u32::from(self.specific_identifier) << 16;
        Sqe::new(Opcode::GET_LOG_PAGE, NamespaceId(0xffff_ffff))
            .with_parameters(cdw10, cdw11)
            .with_log_offset(self.offset, self.command_set)
    }
}

/// Error of a malformed log page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The id of an ANA group is 0 or a duplicate.
    #[error("its ANA log page has a group {group} that is {what}")]
    AnaGroup {
        /// ANA group id.
        group: u32,
        /// Description of the error.
        what: &'static str,
    },
    /// The data of a Reservation Report is shorter than its header.
    #[error("its reservation report has {bytes} bytes where at least {least} are due")]
    ReservationReport {
        /// Actual length in bytes.
        bytes: usize,
        /// Required length in bytes.
        least: usize,
    },
    /// The page is shorter than its contents require.
    #[error("its {page} log page has {bytes} bytes where at least {least} are due")]
    Length {
        /// Log page.
        page: LogPage,
        /// Actual length in bytes.
        bytes: usize,
        /// Required length in bytes.
        least: usize,
    },
}

/// Decodes a UTF-8 field up to the first NUL, without trailing spaces. Invalid and unprintable
/// characters are replaced.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    let text = String::from_utf8_lossy(&field[..end]);
    let shown: String = text.chars().map(|c| if is_unprintable(c) { '?' } else { c }).collect();
    shown.trim_end_matches(' ').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    #[test]
    fn a_command_in_literal_bytes() {
        let command = GetLogPage {
            page: LogPage::DISCOVERY,
            offset: 0x0000_0001_0000_0400,
            bytes: 0x0005_0000,
            specific_field: 0x02,
            specific_identifier: 0x1234,
            retain_event: true,
            command_set: 2,
        };
        let sqe = command.to_sqe();
        assert_eq!(sqe.as_bytes()[..8], [0x02, 0x40, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        #[rustfmt::skip]
        let expected = [
            0x70, 0x82, 0xff, 0x3f, // page, LSP and RAE, low half of the dwords
            0x01, 0x00, 0x34, 0x12, // high half, LSI
            0x00, 0x04, 0, 0, 0x01, 0, 0, 0,
            0, 0, 0, 2, 0, 0, 0, 0, // CSI
        ];
        assert_eq!(sqe.as_bytes()[40..], expected);
        let least = GetLogPage::new(LogPage::ERROR, 4).to_sqe();
        assert_eq!(least.as_bytes()[40..48], [1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    #[should_panic(expected = "whole dwords")]
    fn odd_lengths_are_a_caller_error() {
        let _ = GetLogPage::new(LogPage::DISCOVERY, 18).to_sqe();
    }

    #[test]
    fn pages_have_names_or_numbers() {
        assert_eq!(LogPage::DISCOVERY.to_string(), "discovery");
        assert_eq!(LogPage(0xc7).to_string(), "log page 0xc7");
    }

    #[test]
    fn text_ends_at_nul_or_the_end_of_the_field() {
        assert_eq!(text(b"4420   \0\0junk"), "4420");
        assert_eq!(text(b"no NUL at all"), "no NUL at all");
        assert_eq!(text(b"\x1b[2Jnqn\r\n"), "?[2Jnqn??");
        assert_eq!(text("nqn.a\u{202e}b\u{200b}".as_bytes()), "nqn.a?b?");
        assert_eq!(text("nqn.ü".as_bytes()), "nqn.ü");
        assert_eq!(text(&[0xff, 0xfe]), "\u{fffd}\u{fffd}");
        assert_eq!(text(&[0; 8]), "");
    }
}
