//! Asymmetric namespace access log page (Base 5.1.12.1.13): access state of each namespace group at
//! a controller.

use std::{collections::HashSet, fmt, mem::offset_of};

use zerocopy::{
    FromBytes, Immutable, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

use super::{LogError, LogPage};
use crate::wire::NamespaceId;

/// Decoded ANA log page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnaLog {
    /// Change count of the page.
    pub change_count: u64,
    /// Groups in the controller's order, with distinct ids.
    pub groups: Vec<AnaGroup>,
}

/// ANA group: namespaces that share an access state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnaGroup {
    /// ANAGRPID, from 1.
    pub id: u32,
    /// Change count of the group.
    pub change_count: u64,
    /// Access state of its namespaces at this controller.
    pub state: AnaState,
    /// Namespaces of the group; empty if only groups were requested.
    pub namespaces: Vec<NamespaceId>,
}

/// ANA state (Base 8.1.1.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AnaState(pub u8);

/// Layout of the header.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    change_count: U64,
    groups: U16,
    gap_10: [u8; 6],
}

/// Layout of a group; its namespace ids follow.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Group {
    id: U32,
    namespaces: U32,
    change_count: U64,
    state: u8,
    gap_17: [u8; 15],
}

const _: () = assert!(size_of::<Header>() == 16);
const _: () = assert!(size_of::<Group>() == 32);
const _: () = assert!(offset_of!(Group, state) == 16);

impl AnaLog {
    /// Size of the page in bytes with `groups` groups and `namespaces` namespaces. The maximums are
    /// NANAGRPID and MNAN of Identify Controller.
    #[must_use]
    pub fn size(groups: u32, namespaces: u32) -> u64 {
        let groups = u64::from(groups) * size_of::<Group>() as u64;
        size_of::<Header>() as u64 + groups + u64::from(namespaces) * 4
    }

    /// Decodes the page; bytes after the last group are ignored.
    ///
    /// # Errors
    ///
    /// When the page is shorter than its groups and namespaces require, or the id of a group is 0
    /// or a duplicate.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let due = |least: usize| {
            let page = LogPage::ANA;
            LogError::Length { page, bytes: bytes.len(), least }
        };
        let (header, mut rest) =
            Header::ref_from_prefix(bytes).map_err(|_| due(size_of::<Header>()))?;
        let mut groups = Vec::new();
        let mut seen = HashSet::new();
        for _ in 0..header.groups.get() {
            let at = bytes.len() - rest.len();
            let (group, after) =
                Group::ref_from_prefix(rest).map_err(|_| due(at + size_of::<Group>()))?;
            let count = group.namespaces.get() as usize;
            let (ids, after) = <[U32]>::ref_from_prefix_with_elems(after, count)
                .map_err(|_| due((at + size_of::<Group>()).saturating_add(count * 4)))?;
            let id = group.id.get();
            let wrong = |what| LogError::AnaGroup { group: id, what };
            if id == 0 {
                return Err(wrong("none"));
            }
            if !seen.insert(id) {
                return Err(wrong("given twice"));
            }
            groups.push(AnaGroup {
                id,
                change_count: group.change_count.get(),
                state: AnaState(group.state & 0xf),
                namespaces: ids.iter().map(|id| NamespaceId(id.get())).collect(),
            });
            rest = after;
        }
        Ok(Self { change_count: header.change_count.get(), groups })
    }
}

impl AnaState {
    /// ANA Optimized.
    pub const OPTIMIZED: Self = Self(0x1);
    /// ANA Non-Optimized.
    pub const NON_OPTIMIZED: Self = Self(0x2);
    /// ANA Inaccessible.
    pub const INACCESSIBLE: Self = Self(0x3);
    /// ANA Persistent Loss.
    pub const PERSISTENT_LOSS: Self = Self(0x4);
    /// ANA Change: in transition to another state.
    pub const CHANGE: Self = Self(0xf);

    /// Returns true if I/O commands can be processed through this controller.
    #[must_use]
    pub fn is_usable(self) -> bool {
        self == Self::OPTIMIZED || self == Self::NON_OPTIMIZED
    }
}

impl fmt::Display for AnaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::OPTIMIZED => "optimized",
            Self::NON_OPTIMIZED => "non-optimized",
            Self::INACCESSIBLE => "inaccessible",
            Self::PERSISTENT_LOSS => "persistent-loss",
            Self::CHANGE => "change",
            Self(number) => return write!(f, "reserved state {number:#x}"),
        };
        f.write_str(name)
    }
}

impl fmt::Debug for AnaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnaState({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Page with two groups: 1 is optimized with namespaces 1 and 7, 2 is empty.
    #[rustfmt::skip]
    const PAGE: [u8; 88] = [
        5, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 0, 0, 7, 0, 0, 0,
        2, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0,
        3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];

    #[test]
    fn a_page_in_literal_bytes() {
        let log = AnaLog::parse(&PAGE).unwrap();
        assert_eq!(log.change_count, 5);
        let [one, two] = log.groups.as_slice() else { panic!("two groups") };
        assert_eq!((one.id, one.change_count, one.state), (1, 4, AnaState::OPTIMIZED));
        assert_eq!(one.namespaces, [1, 7].map(NamespaceId));
        assert_eq!((two.id, two.state), (2, AnaState::INACCESSIBLE));
        assert!(two.namespaces.is_empty());
        assert_eq!(AnaLog::size(2, 2), PAGE.len() as u64);
    }

    #[test]
    fn every_shorter_page_is_refused() {
        for length in 0..PAGE.len() {
            let error = AnaLog::parse(&PAGE[..length]).unwrap_err();
            let LogError::Length { bytes, least, .. } = error else { panic!("{error}") };
            assert!(bytes == length && least > length && least <= PAGE.len(), "{error}");
        }
    }

    #[test]
    fn counts_past_the_end_are_refused() {
        for (at, value) in [(8, 0xff), (9, 0xff), (20, 0xff), (23, 0xff)] {
            let mut page = PAGE;
            page[at] = value;
            assert!(matches!(AnaLog::parse(&page), Err(LogError::Length { .. })), "byte {at}");
        }
    }

    #[test]
    fn groups_have_numbers_of_their_own() {
        for (number, what) in [(0, "none"), (1, "given twice")] {
            let mut page = PAGE;
            page[56] = number;
            let error = AnaLog::parse(&page).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        }
    }

    #[test]
    fn unknown_states_are_kept() {
        let mut page = PAGE;
        page[32] = 0x9e;
        let state = AnaLog::parse(&page).unwrap().groups[0].state;
        assert_eq!(state.to_string(), "reserved state 0xe");
        assert!(!state.is_usable() && AnaState::NON_OPTIMIZED.is_usable());
    }
}
