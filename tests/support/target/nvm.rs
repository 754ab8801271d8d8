//! Commands of the scripted target beside reads and writes, by the specification's offsets.

use std::{ops::Range, sync::PoisonError};

use super::{BLOCKS, ReceivedCommand, controller::ControllerState};

const INVALID_OPCODE: u16 = 0x4001;
const LBA_OUT_OF_RANGE: u16 = 0x4080;
const UNRECOVERED_READ_ERROR: u16 = 0x0281;
const COMPARE_FAILURE: u16 = 0x0285;

impl ControllerState {
    /// Status of an I/O command, by the blocks that it names.
    pub(super) fn nvm_status(&self, seen: ReceivedCommand, data: &[u8]) -> u16 {
        let is_inside = |range: &Range<u64>| range.end <= BLOCKS as u64;
        let readable =
            |range: &Range<u64>| range.clone().all(|lba| !self.unreadable.contains(&lba));
        let named = blocks(seen);
        let of_zones = self.zones.as_ref().map_or(0, |zones| zones.status(seen));
        match seen.sqe[0] {
            _ if of_zones != 0 => of_zones,
            0x79 | 0x7a | 0x7d if self.zones.is_none() => INVALID_OPCODE,
            0x01 | 0x02 | 0x04 | 0x05 | 0x08 | 0x0c if !is_inside(&named) => LBA_OUT_OF_RANGE,
            0x02 | 0x05 | 0x0c if !readable(&named) => UNRECOVERED_READ_ERROR,
            0x01 => self.format.status(seen, data),
            0x02 | 0x0c => self.format.status(seen, &self.read(self.range(seen))),
            0x08 => self.format.status(seen, &[]),
            0x05 => match self.format.status(seen, data) {
                0 if self.read(self.range(seen)) != *data => COMPARE_FAILURE,
                status => status,
            },
            0x19 => {
                let sources = sources(data);
                let count = sources.iter().map(|source| source.end - source.start).sum::<u64>();
                let destination = seen.u64_at(40)..seen.u64_at(40) + count;
                match sources.iter().chain([&destination]).all(is_inside) {
                    false => LBA_OUT_OF_RANGE,
                    true if !sources.iter().all(readable) => UNRECOVERED_READ_ERROR,
                    true => 0,
                }
            }
            _ => 0,
        }
    }

    /// Executes an I/O command other than a write that was not refused; `result` is that of its
    /// response.
    pub(super) fn execute_nvm(&mut self, seen: ReceivedCommand, data: &[u8], result: u64) {
        self.execute_zones(seen);
        match seen.sqe[0] {
            0x04 => self.unreadable.extend(blocks(seen)),
            0x08 => {
                let count = self.range(seen).len() / self.format.size();
                let zeroes = self.format.zeroes(seen, count);
                self.overwrite(blocks(seen).start, &zeroes);
            }
            0x09 => {
                for range in data.chunks_exact(16) {
                    let count = u32::from_le_bytes(range[4..8].try_into().expect("4 bytes"));
                    let lba = u64::from_le_bytes(range[8..].try_into().expect("8 bytes"));
                    self.overwrite(
                        lba,
                        &self.format.medium()[..count as usize * self.format.size()],
                    );
                }
            }
            0x19 => {
                let size = self.format.size();
                let bytes = |lba: u64| usize::try_from(lba).expect("it was checked") * size;
                let copied: Vec<_> = sources(data)
                    .into_iter()
                    .flat_map(|source| self.read(bytes(source.start)..bytes(source.end)))
                    .collect();
                self.overwrite(seen.u64_at(40), &copied);
            }
            0x7d => self.overwrite(result, data),
            _ => {}
        }
    }

    /// Executes the part of a command that changes zones.
    pub(super) fn execute_zones(&mut self, seen: ReceivedCommand) {
        let lost = self.zones.as_mut().map(|zones| zones.execute(seen)).unwrap_or_default();
        for blocks in lost {
            let bytes =
                usize::try_from(blocks.end - blocks.start).expect("a zone") * self.format.size();
            self.overwrite(blocks.start, &vec![0; bytes]);
        }
    }

    /// Changes blocks from `lba` on, which can be read then.
    pub(super) fn overwrite(&mut self, lba: u64, data: &[u8]) {
        let size = self.format.size();
        let start = usize::try_from(lba).unwrap_or(usize::MAX).min(BLOCKS) * size;
        let end = start.saturating_add(data.len()).min(BLOCKS * size);
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        disk[start..end].copy_from_slice(&data[..end - start]);
        drop(disk);
        self.unreadable.retain(|&bad| !(start as u64..end as u64).contains(&(bad * size as u64)));
    }
}

/// Blocks that a command names.
fn blocks(seen: ReceivedCommand) -> Range<u64> {
    let lba = seen.u64_at(40);
    lba..lba.saturating_add(u64::from(seen.u32_at(48) & 0xffff) + 1)
}

/// Source ranges of a Copy, format 0.
fn sources(data: &[u8]) -> Vec<Range<u64>> {
    let range = |entry: &[u8]| {
        let lba = u64::from_le_bytes(entry[8..16].try_into().expect("8 bytes"));
        let blocks = u16::from_le_bytes(entry[16..18].try_into().expect("2 bytes"));
        lba..lba.saturating_add(u64::from(blocks) + 1)
    };
    data.chunks_exact(32).map(range).collect()
}
