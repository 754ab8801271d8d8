//! Commands of the Zoned Namespace command set (ZNS 3.4).

use zerocopy::little_endian::U32;

use super::{Opcode, Sqe, split};
use crate::wire::{NamespaceId, ZoneAction, ZoneFilter};

/// Select All of Zone Management Send: all zones whose state allows the action.
const SELECT_ALL: u32 = 1 << 8;
/// Partial Report of Zone Management Receive: the number of zones is that of those sent. Without
/// it, Linux 7 refuses a report that has no room for all.
const PARTIAL_REPORT: u32 = 1 << 16;

impl Sqe {
    /// Zone Management Receive: a report of the zones from the block `lba` on, of `bytes` bytes
    /// (ZNS 3.4.2). The number of zones in it is that of those that it has room for.
    ///
    /// # Panics
    ///
    /// If `bytes` is 0 or not a multiple of 4, which the zero-based number of dwords cannot hold.
    #[must_use]
    pub fn zone_report(namespace: NamespaceId, lba: u64, filter: ZoneFilter, bytes: u32) -> Self {
        assert!(bytes > 0 && bytes.is_multiple_of(4), "a report has whole dwords");
        let mut sqe = Self::new(Opcode::ZONE_MANAGEMENT_RECEIVE, namespace).with_zone(lba);
        sqe.cdw12 = U32::new(bytes / 4 - 1);
        sqe.cdw13 = U32::new(u32::from(filter.0) << 8 | PARTIAL_REPORT);
        sqe
    }

    /// Zone Management Send: an action on the zone whose first block is `zone`; on all zones whose
    /// state allows it if that is `None` (ZNS 3.4.3).
    #[must_use]
    pub fn manage_zone(namespace: NamespaceId, action: ZoneAction, zone: Option<u64>) -> Self {
        let sqe = Self::new(Opcode::ZONE_MANAGEMENT_SEND, namespace);
        let mut sqe = sqe.with_zone(zone.unwrap_or(0));
        let select_all = if zone.is_none() { SELECT_ALL } else { 0 };
        sqe.cdw13 = U32::new(u32::from(action.0) | select_all);
        sqe
    }

    /// Zone Append of `blocks` logical blocks to the zone whose first block is `zone` (ZNS 3.4.1).
    /// The result of the response is the first block that was written.
    ///
    /// # Panics
    ///
    /// As for [`read`](Self::read).
    #[must_use]
    pub fn zone_append(namespace: NamespaceId, zone: u64, blocks: u32) -> Self {
        Self::new(Opcode::ZONE_APPEND, namespace).with_blocks(zone, blocks)
    }

    fn with_zone(self, lba: u64) -> Self {
        let [low, high] = split(lba);
        self.with_parameters(low, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    const ZONE: u64 = 0x0102_0304_0506_0708;

    #[test]
    fn commands_of_zones_in_literal_bytes() {
        let reset = Sqe::manage_zone(NamespaceId(3), ZoneAction::RESET, Some(ZONE));
        assert_eq!(reset.as_bytes()[..8], [0x79, 0x40, 0, 0, 3, 0, 0, 0]);
        assert_eq!(reset.as_bytes()[40..48], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(reset.as_bytes()[48..60], [0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        let all = Sqe::manage_zone(NamespaceId(3), ZoneAction::OFFLINE, None);
        assert_eq!(all.as_bytes()[40..56], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 1, 0, 0]);

        let report = Sqe::zone_report(NamespaceId(1), ZONE, ZoneFilter::FULL, 4096);
        assert_eq!(report.as_bytes()[..8], [0x7a, 0x40, 0, 0, 1, 0, 0, 0]);
        assert_eq!(report.as_bytes()[40..48], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(report.as_bytes()[48..56], [0xff, 3, 0, 0, 0, 5, 1, 0]);

        let append = Sqe::zone_append(NamespaceId(1), ZONE, 0x1234);
        assert_eq!((append.as_bytes()[0], append.opcode().sends_data()), (0x7d, true));
        assert_eq!(append.as_bytes()[40..52], [8, 7, 6, 5, 4, 3, 2, 1, 0x33, 0x12, 0, 0]);
    }

    #[test]
    #[should_panic(expected = "whole dwords")]
    fn a_report_without_bytes_is_a_caller_error() {
        let _ = Sqe::zone_report(NamespaceId(1), 0, ZoneFilter::ALL, 0);
    }
}
