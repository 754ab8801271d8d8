//! Data structures of the Zoned Namespace command set (ZNS).

use std::{fmt, mem::offset_of};

use zerocopy::{
    FromBytes, Immutable, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

use super::{Identify, IdentifyError, NamespaceData};

/// Limits of a zoned namespace and its controller (ZNS 4.1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneLimits {
    /// ZSZE: distance between the first blocks of two zones, in logical blocks.
    pub zone_blocks: u64,
    /// MAR: maximum number of active zones, those open or closed; `None` for no limit.
    pub active_zones_max: Option<u32>,
    /// MOR: maximum number of open zones; `None` for no limit.
    pub open_zones_max: Option<u32>,
    /// ZASL: maximum bytes of one Zone Append; `None` for that of any command.
    pub append_bytes_max: Option<u64>,
}

/// Layout of Identify Namespace of the command set (CNS 05h, ZNS figure 48).
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct NamespaceLayout {
    zone_operation: U16,
    optional: U16,
    active_zones: U32,
    open_zones: U32,
    gap_12: [u8; 2804],
    formats: [FormatLayout; 64],
    gap_3840: [u8; 256],
}

/// Layout of an LBA format extension (ZNS figure 49).
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct FormatLayout {
    zone_blocks: U64,
    extension_bytes: u8,
    gap_9: [u8; 7],
}

const _: () = assert!(size_of::<NamespaceLayout>() == Identify::SIZE);
const _: () = assert!(offset_of!(NamespaceLayout, formats) == 2816);

impl ZoneLimits {
    /// Decodes the limits from Identify Namespace, and from Identify Namespace and Identify
    /// Controller of the command set; `page_size_min` is the size of the smallest page
    /// (CAP.MPSMIN).
    ///
    /// # Errors
    ///
    /// When one is not 4,096 bytes long, or a zone has no blocks.
    pub fn parse(
        namespace: &[u8],
        zoned_namespace: &[u8],
        controller: &[u8],
        page_size_min: u64,
    ) -> Result<Self, IdentifyError> {
        let length = |bytes: &[u8]| IdentifyError::Length(bytes.len());
        let common = NamespaceData::ref_from_bytes(namespace).map_err(|_| length(namespace))?;
        let zoned = NamespaceLayout::ref_from_bytes(zoned_namespace)
            .map_err(|_| length(zoned_namespace))?;
        if controller.len() != Identify::SIZE {
            return Err(length(controller));
        }
        let zone_blocks = zoned.formats[common.format_index()].zone_blocks.get();
        if zone_blocks == 0 {
            return Err(IdentifyError::ZoneSize);
        }
        // Zero-based; the largest number stands for no limit.
        let limit = |field: U32| field.get().checked_add(1);
        let zasl = Some(controller[0]).filter(|&pages_log2| pages_log2 != 0);
        let append_bytes_max = zasl
            .and_then(|pages_log2| 1u64.checked_shl(pages_log2.into())?.checked_mul(page_size_min));
        Ok(Self {
            zone_blocks,
            active_zones_max: limit(zoned.active_zones),
            open_zones_max: limit(zoned.open_zones),
            append_bytes_max,
        })
    }
}

/// Zone State (ZS, ZNS figure 37).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ZoneState(pub u8);

impl ZoneState {
    /// ZSE: Empty.
    pub const EMPTY: Self = Self(0x1);
    /// ZSIO: Implicitly Opened.
    pub const IMPLICITLY_OPEN: Self = Self(0x2);
    /// ZSEO: Explicitly Opened.
    pub const EXPLICITLY_OPEN: Self = Self(0x3);
    /// ZSC: Closed.
    pub const CLOSED: Self = Self(0x4);
    /// ZSRO: Read Only.
    pub const READ_ONLY: Self = Self(0xd);
    /// ZSF: Full.
    pub const FULL: Self = Self(0xe);
    /// ZSO: Offline.
    pub const OFFLINE: Self = Self(0xf);

    /// Returns true if the zone has a write pointer.
    #[must_use]
    pub fn has_write_pointer(self) -> bool {
        !matches!(self, Self::READ_ONLY | Self::FULL | Self::OFFLINE)
    }
}

impl fmt::Display for ZoneState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::EMPTY => "empty",
            Self::IMPLICITLY_OPEN => "implicitly open",
            Self::EXPLICITLY_OPEN => "explicitly open",
            Self::CLOSED => "closed",
            Self::READ_ONLY => "read only",
            Self::FULL => "full",
            Self::OFFLINE => "offline",
            Self(other) => return write!(f, "in state {other:#x}"),
        })
    }
}

impl fmt::Debug for ZoneState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ZoneState({self})")
    }
}

/// Zones that a report contains (ZRASF, ZNS figure 34).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneFilter(pub u8);

impl ZoneFilter {
    /// All zones.
    pub const ALL: Self = Self(0);
    /// Zones in the state Empty.
    pub const EMPTY: Self = Self(1);
    /// Zones in the state Implicitly Opened.
    pub const IMPLICITLY_OPEN: Self = Self(2);
    /// Zones in the state Explicitly Opened.
    pub const EXPLICITLY_OPEN: Self = Self(3);
    /// Zones in the state Closed.
    pub const CLOSED: Self = Self(4);
    /// Zones in the state Full.
    pub const FULL: Self = Self(5);
    /// Zones in the state Read Only.
    pub const READ_ONLY: Self = Self(6);
    /// Zones in the state Offline.
    pub const OFFLINE: Self = Self(7);
}

/// Zone Send Action (ZSA, ZNS figure 39).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneAction(pub u8);

impl ZoneAction {
    /// Close: the zone is no longer open; its resources stay active.
    pub const CLOSE: Self = Self(1);
    /// Finish: the zone becomes full, without a write of the rest of it.
    pub const FINISH: Self = Self(2);
    /// Open: the zone stays open until it is closed, or full.
    pub const OPEN: Self = Self(3);
    /// Reset: the zone becomes empty; its data is lost.
    pub const RESET: Self = Self(4);
    /// Offline: a zone that is read only can no longer be read.
    pub const OFFLINE: Self = Self(5);

    /// Name of the command with this action.
    #[must_use]
    pub fn command(self) -> &'static str {
        match self {
            Self::CLOSE => "Zone Management Send (Close)",
            Self::FINISH => "Zone Management Send (Finish)",
            Self::OPEN => "Zone Management Send (Open)",
            Self::RESET => "Zone Management Send (Reset)",
            Self::OFFLINE => "Zone Management Send (Offline)",
            _ => "Zone Management Send",
        }
    }
}

/// Zone, as a report describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    /// ZSLBA: first block.
    pub start: u64,
    /// ZCAP: number of blocks that can be written, from the first on.
    pub capacity: u64,
    /// WP: block that the next write starts at, where the
    /// [state](ZoneState::has_write_pointer) has one.
    pub write_pointer: u64,
    /// ZS: state.
    pub state: ZoneState,
    /// ZT: type; 2 is Sequential Write Required.
    pub kind: u8,
    /// ZA: attributes.
    pub attributes: u8,
}

/// Layout of a zone descriptor (ZNS figure 37).
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ZoneLayout {
    kind: u8,
    state: u8,
    attributes: u8,
    gap_3: [u8; 5],
    capacity: U64,
    start: U64,
    write_pointer: U64,
    gap_32: [u8; 32],
}

const _: () = assert!(size_of::<ZoneLayout>() == Zone::DESCRIPTOR_SIZE);
const _: () = assert!(offset_of!(ZoneLayout, start) == 16);

/// Data on zones that is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ZoneReportError {
    /// The report is shorter than its header.
    #[error("its report of zones has {0} bytes where 64 are due")]
    Length(usize),
    /// The zones are not in the order of their blocks, or start before the first one asked for.
    #[error("its report has the zone at block {zone} after block {after}")]
    Order {
        /// First block of the zone.
        zone: u64,
        /// Least block that the zone might start at.
        after: u64,
    },
    /// The blocks of a Zone Append were written outside of its zone.
    #[error("it appended to block {lba}, which is not of the zone at block {zone}")]
    Appended {
        /// First block that was written.
        lba: u64,
        /// First block of the zone.
        zone: u64,
    },
}

impl Zone {
    /// Size in bytes of the header of a report, and of each descriptor.
    pub const DESCRIPTOR_SIZE: usize = 64;

    /// Decodes a report of the zones from `lba` on, as many as it has room for (ZNS figure 35).
    ///
    /// # Errors
    ///
    /// When it is shorter than its header, or its zones are in no order.
    pub fn parse_report(lba: u64, bytes: &[u8]) -> Result<Vec<Self>, ZoneReportError> {
        let (header, rest) = bytes
            .split_at_checked(Self::DESCRIPTOR_SIZE)
            .ok_or(ZoneReportError::Length(bytes.len()))?;
        let count = u64::from_le_bytes(header[..8].try_into().expect("the header has 64 bytes"));
        let used = usize::try_from(count).unwrap_or(usize::MAX);
        let (mut zones, mut after) = (Vec::new(), lba);
        for descriptor in rest.chunks_exact(Self::DESCRIPTOR_SIZE).take(used) {
            let zone = Self::from(
                ZoneLayout::ref_from_bytes(descriptor).expect("a descriptor has 64 bytes"),
            );
            if zone.start < after {
                return Err(ZoneReportError::Order { zone: zone.start, after });
            }
            after = zone.start.saturating_add(1);
            zones.push(zone);
        }
        Ok(zones)
    }
}

impl From<&ZoneLayout> for Zone {
    fn from(layout: &ZoneLayout) -> Self {
        Self {
            start: layout.start.get(),
            capacity: layout.capacity.get(),
            write_pointer: layout.write_pointer.get(),
            state: ZoneState(layout.state >> 4),
            kind: layout.kind & 0xf,
            attributes: layout.attributes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(zoned: &[u8], zasl: u8) -> Result<ZoneLimits, IdentifyError> {
        let mut common = [0; 4096];
        // The second format, of 4,096 bytes.
        (common[0], common[26], common[134]) = (8, 1, 12);
        let mut controller = [0; 4096];
        controller[0] = zasl;
        ZoneLimits::parse(&common, zoned, &controller, 4096)
    }

    #[test]
    fn limits_by_offset() {
        let mut zoned = [0; 4096];
        assert_eq!(limits(&zoned, 0), Err(IdentifyError::ZoneSize));
        zoned[4..8].copy_from_slice(&[2, 0, 0, 0]);
        zoned[8..12].copy_from_slice(&[0xff; 4]);
        // Of the second format, whose index FLBAS has.
        zoned[2816 + 16 + 1] = 8;
        let expected = ZoneLimits {
            zone_blocks: 2048,
            active_zones_max: Some(3),
            open_zones_max: None,
            append_bytes_max: Some(64 << 10),
        };
        assert_eq!(limits(&zoned, 4), Ok(expected));
        for zasl in [0, 52, 64, 255] {
            let limits = limits(&zoned, zasl).unwrap();
            assert_eq!(limits.append_bytes_max, None, "more than there can be is no limit");
        }
        assert_eq!(limits(&zoned[1..], 0), Err(IdentifyError::Length(4095)));
    }

    #[test]
    fn a_report_in_literal_bytes() {
        let mut bytes = vec![0; 64 * 4];
        bytes[0] = 2;
        for (at, start) in [(64, 0x10), (128, 0x20)] {
            (bytes[at], bytes[at + 1], bytes[at + 2]) = (0xf2, 0xef, 4);
            (bytes[at + 8], bytes[at + 16], bytes[at + 24]) = (0x0c, start, start + 1);
        }
        let zone = |start| Zone {
            start,
            capacity: 0x0c,
            write_pointer: start + 1,
            state: ZoneState::FULL,
            kind: 2,
            attributes: 4,
        };
        let zones = vec![zone(0x10), zone(0x20)];
        assert_eq!(Zone::parse_report(0, &bytes), Ok(zones.clone()));
        assert_eq!(Zone::parse_report(0x10, &bytes), Ok(zones));
        let order = |zone, after| Err(ZoneReportError::Order { zone, after });
        assert_eq!(Zone::parse_report(0x11, &bytes), order(0x10, 0x11));
        bytes[128 + 16] = 0x10;
        assert_eq!(Zone::parse_report(0, &bytes), order(0x10, 0x11));
        bytes[128 + 16] = 0x20;
        (bytes[7], bytes[192 + 16]) = (0xff, 0x30);
        assert_eq!(Zone::parse_report(0, &bytes).unwrap().len(), 3, "as many as there are");
        assert_eq!(Zone::parse_report(0, &bytes[..63]), Err(ZoneReportError::Length(63)));
    }

    #[test]
    fn states_are_named() {
        assert_eq!(ZoneState::IMPLICITLY_OPEN.to_string(), "implicitly open");
        assert_eq!(format!("{:?}", ZoneState(0)), "ZoneState(in state 0x0)");
        assert!(ZoneState::CLOSED.has_write_pointer() && !ZoneState::FULL.has_write_pointer());
        assert_eq!(ZoneAction::RESET.command(), "Zone Management Send (Reset)");
    }
}
