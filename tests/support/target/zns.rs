//! Zones of the scripted target's namespace, by the specification's offsets.

use std::ops::Range;

use super::{BLOCKS, ReceivedCommand};

/// Blocks from the first of one zone to that of the next.
pub const ZONE_BLOCKS: u64 = 128;
/// Blocks of a zone that can be written.
pub const ZONE_CAPACITY: u64 = 96;
/// Zones that may be open at once.
pub const OPEN_ZONES: u32 = 2;
/// Zones that may be open or closed at once.
pub const ACTIVE_ZONES: u32 = 3;
/// Blocks of one Zone Append: 32 KiB.
pub const APPEND_BLOCKS: u64 = 64;

/// ZASL: the same as a power of two of 4 KiB.
const APPEND_PAGES_LOG2: u8 = 3;

const INVALID_FIELD: u16 = 0x4002;
const LBA_OUT_OF_RANGE: u16 = 0x4080;
const BOUNDARY_ERROR: u16 = 0x41b8;
const FULL: u16 = 0x41b9;
const READ_ONLY: u16 = 0x41ba;
const INVALID_WRITE: u16 = 0x41bc;
const TOO_MANY_ACTIVE: u16 = 0x41bd;
const TOO_MANY_OPEN: u16 = 0x41be;
const INVALID_TRANSITION: u16 = 0x41bf;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Empty = 0x1,
    ImplicitlyOpen = 0x2,
    ExplicitlyOpen = 0x3,
    Closed = 0x4,
    ReadOnly = 0xd,
    Full = 0xe,
    Offline = 0xf,
}

#[derive(Clone, Copy)]
struct Zone {
    state: State,
    /// Blocks that are written.
    written: u64,
}

/// Zones of the namespace.
pub(super) struct Zones(Vec<Zone>);

impl Zones {
    pub(super) fn new() -> Self {
        let count = BLOCKS as u64 / ZONE_BLOCKS;
        Self((0..count).map(|_| Zone { state: State::Empty, written: 0 }).collect())
    }

    /// Makes a zone read only, as a medium that wears out does.
    pub(super) fn wear_out(&mut self, index: usize) {
        self.0[index].state = State::ReadOnly;
    }

    /// Status of a command, before it is executed; 0 for commands that zones have no say in.
    pub(super) fn status(&self, seen: ReceivedCommand) -> u16 {
        let lba = seen.u64_at(40);
        let is_outside = lba >= BLOCKS as u64;
        match seen.sqe[0] {
            0x01 | 0x08 | 0x79 | 0x7a | 0x7d if is_outside => LBA_OUT_OF_RANGE,
            0x7d if !lba.is_multiple_of(ZONE_BLOCKS) => INVALID_FIELD,
            0x7d if blocks(seen) > APPEND_BLOCKS => INVALID_FIELD,
            0x7d => self.write_status(index(lba), None, blocks(seen)),
            0x01 | 0x08 => self.write_status(index(lba), Some(lba % ZONE_BLOCKS), blocks(seen)),
            0x79 if seen.u32_at(52) & 0x100 != 0 => 0,
            0x79 if !lba.is_multiple_of(ZONE_BLOCKS) => INVALID_FIELD,
            0x79 => self.transition(index(lba), seen.sqe[52]).err().unwrap_or(0),
            0x7a if seen.sqe[52] != 0 => INVALID_FIELD,
            _ => 0,
        }
    }

    /// Status of a write of `blocks` blocks at an offset in a zone; without one, of an append.
    fn write_status(&self, index: usize, at: Option<u64>, blocks: u64) -> u16 {
        let zone = self.0[index];
        match zone.state {
            State::Full => return FULL,
            State::ReadOnly | State::Offline => return READ_ONLY,
            _ => {}
        }
        if at.is_some_and(|at| at != zone.written) {
            INVALID_WRITE
        } else if zone.written + blocks > ZONE_CAPACITY {
            BOUNDARY_ERROR
        } else if is_open(zone.state) {
            0
        } else {
            self.room_for(zone.state)
        }
    }

    /// Status of the open of a zone in this state, by the limits.
    fn room_for(&self, state: State) -> u16 {
        let count = |is: fn(State) -> bool| self.0.iter().filter(|zone| is(zone.state)).count();
        let is_active = |state| is_open(state) || state == State::Closed;
        if state == State::Empty && count(is_active) >= ACTIVE_ZONES as usize {
            TOO_MANY_ACTIVE
        } else if count(is_open) >= OPEN_ZONES as usize {
            TOO_MANY_OPEN
        } else {
            0
        }
    }

    /// State of a zone after an action, or the status that refuses it.
    fn transition(&self, index: usize, action: u8) -> Result<State, u16> {
        use State::{Closed, Empty, ExplicitlyOpen, Full, ImplicitlyOpen, Offline, ReadOnly};
        let state = self.0[index].state;
        match (action, state) {
            (1, ImplicitlyOpen | ExplicitlyOpen) if self.0[index].written == 0 => Ok(Empty),
            (1, ImplicitlyOpen | ExplicitlyOpen | Closed) => Ok(Closed),
            (2, Empty | ImplicitlyOpen | ExplicitlyOpen | Closed | Full) => Ok(Full),
            (3, ImplicitlyOpen | ExplicitlyOpen) => Ok(ExplicitlyOpen),
            (3, Empty | Closed) => match self.room_for(state) {
                0 => Ok(ExplicitlyOpen),
                status => Err(status),
            },
            (4, Empty | ImplicitlyOpen | ExplicitlyOpen | Closed | Full) => Ok(Empty),
            (5, ReadOnly | Offline) => Ok(Offline),
            _ => Err(INVALID_TRANSITION),
        }
    }

    /// First block that an append to this zone is written to.
    pub(super) fn appended_at(&self, seen: ReceivedCommand) -> u64 {
        let zone = seen.u64_at(40);
        zone + self.0.get(index(zone)).map_or(0, |zone| zone.written)
    }

    /// Executes a command that was not refused; returns the blocks whose data is lost.
    pub(super) fn execute(&mut self, seen: ReceivedCommand) -> Vec<Range<u64>> {
        let lba = seen.u64_at(40);
        match seen.sqe[0] {
            0x01 | 0x08 | 0x7d => {
                let zone = &mut self.0[index(lba)];
                zone.written += blocks(seen);
                zone.state = match zone.state {
                    _ if zone.written == ZONE_CAPACITY => State::Full,
                    State::ExplicitlyOpen => State::ExplicitlyOpen,
                    _ => State::ImplicitlyOpen,
                };
                Vec::new()
            }
            0x79 if seen.u32_at(52) & 0x100 != 0 => {
                // Those whose state would stay as it is, or that are empty, are not selected.
                let action = seen.sqe[52];
                let changes = |index: &usize| match (action, self.0[*index].state) {
                    (2 | 3, State::Empty) => false,
                    _ => self.transition(*index, action).is_ok(),
                };
                let selected: Vec<_> = (0..self.0.len()).filter(changes).collect();
                selected.into_iter().flat_map(|index| self.change(index, action)).collect()
            }
            0x79 => self.change(index(lba), seen.sqe[52]).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn change(&mut self, index: usize, action: u8) -> Option<Range<u64>> {
        let state = self.transition(index, action).ok()?;
        self.0[index].state = state;
        if state != State::Empty {
            return None;
        }
        self.0[index].written = 0;
        let start = index as u64 * ZONE_BLOCKS;
        Some(start..start + ZONE_BLOCKS)
    }

    /// Data of Zone Management Receive: the report.
    pub(super) fn report(&self, seen: ReceivedCommand) -> Vec<u8> {
        let filter = [None, Some(0x1), Some(0x2), Some(0x3), Some(0x4), Some(0xe), Some(0xd)];
        let filter = filter.get(usize::from(seen.sqe[53])).copied().unwrap_or(Some(0xf));
        let length = (seen.u32_at(48) as usize + 1) * 4;
        let room = (length / 64).saturating_sub(1);
        let from = index(seen.u64_at(40));
        let selected = (0..self.0.len()).skip(from);
        let selected: Vec<_> = selected
            .filter(|&index| filter.is_none_or(|state| self.0[index].state as u8 == state))
            .collect();
        let is_partial = seen.sqe[54] & 1 != 0;
        let count = if is_partial { selected.len().min(room) } else { selected.len() };
        let mut report = vec![0; 64];
        report[..8].copy_from_slice(&(count as u64).to_le_bytes());
        for index in selected.into_iter().take(room) {
            let (zone, start) = (self.0[index], index as u64 * ZONE_BLOCKS);
            let mut descriptor = [0; 64];
            (descriptor[0], descriptor[1]) = (2, (zone.state as u8) << 4);
            descriptor[8..16].copy_from_slice(&ZONE_CAPACITY.to_le_bytes());
            descriptor[16..24].copy_from_slice(&start.to_le_bytes());
            descriptor[24..32].copy_from_slice(&(start + zone.written).to_le_bytes());
            report.extend(descriptor);
        }
        report.truncate(length);
        report
    }
}

/// Data structure of Identify for the command set, by CNS.
pub(super) fn identify(structure: u8) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    match structure {
        // Namespace Identification Descriptors: CSI.
        0x03 => bytes[..5].copy_from_slice(&[4, 1, 0, 0, 2]),
        0x05 => {
            bytes[4..8].copy_from_slice(&(ACTIVE_ZONES - 1).to_le_bytes());
            bytes[8..12].copy_from_slice(&(OPEN_ZONES - 1).to_le_bytes());
            bytes[2816..2824].copy_from_slice(&ZONE_BLOCKS.to_le_bytes());
        }
        _ => bytes[0] = APPEND_PAGES_LOG2,
    }
    bytes
}

fn is_open(state: State) -> bool {
    matches!(state, State::ImplicitlyOpen | State::ExplicitlyOpen)
}

fn index(lba: u64) -> usize {
    usize::try_from(lba / ZONE_BLOCKS).unwrap_or(usize::MAX)
}

fn blocks(seen: ReceivedCommand) -> u64 {
    u64::from(seen.u32_at(48) & 0xffff) + 1
}
