//! Record of the reads and writes of a run, and the check of what the reads returned.
//!
//! Order is by numbers that the record draws, not by time. A block that is read holds what some
//! write wrote, or zeros. That write was not overwritten before the read began: by a write that
//! began after its end, and that ended, or was read, before. A write whose execution is unknown
//! may land at any time.

use std::{collections::BTreeMap, ops::Range};

use super::target::BLOCK;

/// Outcome of a write, as its caller is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Executed.
    Done,
    /// Not sent.
    NotSent,
    /// Failed after it was sent, or not waited for.
    Unknown,
}

/// Content of a block that it cannot have.
#[derive(Debug, Eq, PartialEq)]
pub struct Mismatch {
    /// Stamp that the block has, if it has one.
    pub stamp: Option<u64>,
    /// Reason.
    pub reason: String,
}

/// The record.
#[derive(Debug, Default)]
pub struct History {
    clock: u64,
    /// Writes by stamp.
    writes: BTreeMap<u64, Write>,
}

#[derive(Debug)]
struct Write {
    blocks: Range<u64>,
    began: u64,
    ended: Option<(u64, Outcome)>,
    /// Ends of the first reads that returned it, by block: its parts are executed one by one.
    read_by: BTreeMap<u64, u64>,
}

impl History {
    /// Begins a write; returns its stamp, which is its content.
    pub fn begin_write(&mut self, blocks: Range<u64>) -> u64 {
        let began = self.tick();
        let write = Write { blocks, began, ended: None, read_by: BTreeMap::new() };
        self.writes.insert(began, write);
        began
    }

    /// Ends a write.
    pub fn end_write(&mut self, stamp: u64, outcome: Outcome) {
        let now = self.tick();
        self.writes.get_mut(&stamp).expect("it was begun").ended = Some((now, outcome));
    }

    /// Begins a read.
    pub fn begin_read(&mut self) -> u64 {
        self.tick()
    }

    /// Ends a read that began at a number, with the content of a block.
    ///
    /// # Errors
    ///
    /// When the block cannot hold that.
    pub fn end_read(&mut self, began: u64, block: u64, content: &[u8]) -> Result<(), Mismatch> {
        let now = self.tick();
        let Some(stamp) = stamp_of(block, content) else {
            let reason = format!("block {block} holds what no write wrote: {content:02x?}");
            return Err(Mismatch { stamp: None, reason });
        };
        let mismatch = |reason| Mismatch { stamp: Some(stamp), reason };
        let ended = match self.writes.get(&stamp) {
            None if stamp == 0 => Some(0),
            Some(write) if write.blocks.contains(&block) => match write.ended {
                Some((_, Outcome::NotSent)) => {
                    let reason = format!("block {block} has write {stamp}, which was not sent");
                    return Err(mismatch(reason));
                }
                Some((at, Outcome::Done)) => Some(at),
                Some((_, Outcome::Unknown)) | None => None,
            },
            _ => {
                let reason = format!("block {block} has stamp {stamp}, which is of no write to it");
                return Err(mismatch(reason));
            }
        };
        let overwriting = self.writes.iter().find(|(_, later)| {
            let is_done = matches!(later.ended, Some((at, Outcome::Done)) if at < began);
            let is_visible = is_done || later.read_by.get(&block).is_some_and(|at| *at < began);
            later.blocks.contains(&block)
                && is_visible
                && ended.is_some_and(|ended| ended < later.began)
        });
        if let Some((later, _)) = overwriting {
            return Err(mismatch(format!(
                "block {block} has write {stamp}, which write {later} had overwritten before the \
                 read began"
            )));
        }
        if let Some(write) = self.writes.get_mut(&stamp) {
            write.read_by.entry(block).or_insert(now);
        }
        Ok(())
    }

    /// Number of writes, and of those whose execution is unknown.
    #[must_use]
    pub fn writes(&self) -> (usize, usize) {
        let unknown = |write: &&Write| matches!(write.ended, Some((_, Outcome::Unknown)));
        (self.writes.len(), self.writes.values().filter(unknown).count())
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

/// Fills blocks from `first` on with a stamp.
pub fn fill(first: u64, stamp: u64, bytes: &mut [u8]) {
    for (block, content) in (first..).zip(bytes.chunks_exact_mut(BLOCK)) {
        content.copy_from_slice(&content_of(block, stamp));
    }
}

/// Content of a block that was written with a stamp: both numbers, and bytes that follow from them.
fn content_of(block: u64, stamp: u64) -> [u8; BLOCK] {
    let mut content = [0; BLOCK];
    if stamp != 0 {
        let [low, high, ..] = (stamp.wrapping_mul(251) ^ block).to_le_bytes();
        content.fill(low ^ high | 1);
        content[..8].copy_from_slice(&stamp.to_le_bytes());
        content[8..16].copy_from_slice(&block.to_le_bytes());
    }
    content
}

/// Stamp of a block's content; `None` if it is no content of one write.
fn stamp_of(block: u64, content: &[u8]) -> Option<u64> {
    let stamp = u64::from_le_bytes(*content.first_chunk()?);
    (content == content_of(block, stamp)).then_some(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(stamp: u64) -> Vec<u8> {
        content_of(3, stamp).to_vec()
    }

    #[test]
    fn a_write_that_lands_after_one_that_followed_it_is_found() {
        let mut history = History::default();
        let first = history.begin_write(3..4);
        history.end_write(first, Outcome::Done);
        let second = history.begin_write(2..5);
        let during = history.begin_read();
        assert_eq!(history.end_read(during, 3, &content(first)), Ok(()), "the second may be late");
        history.end_write(second, Outcome::Done);
        let after = history.begin_read();
        assert_eq!(history.end_read(after, 3, &content(second)), Ok(()));
        let late = history.begin_read();
        let found = history.end_read(late, 3, &content(first)).unwrap_err();
        assert!(found.reason.contains("overwritten before"), "{found:?}");
    }

    #[test]
    fn a_write_that_was_seen_is_not_unseen() {
        let mut history = History::default();
        let first = history.begin_write(3..4);
        history.end_write(first, Outcome::Done);
        let second = history.begin_write(3..4);
        let read = history.begin_read();
        assert_eq!(history.end_read(read, 3, &content(second)), Ok(()));
        let read = history.begin_read();
        assert!(history.end_read(read, 3, &content(first)).is_err(), "the second was there before");
    }

    #[test]
    fn what_was_not_sent_does_not_land_and_what_is_unknown_may() {
        let mut history = History::default();
        let (refused, unknown) = (history.begin_write(3..4), history.begin_write(3..4));
        history.end_write(refused, Outcome::NotSent);
        history.end_write(unknown, Outcome::Unknown);
        let last = history.begin_write(3..4);
        history.end_write(last, Outcome::Done);
        let read = history.begin_read();
        assert_eq!(history.end_read(read, 3, &content(unknown)), Ok(()));
        assert!(history.end_read(read, 3, &content(refused)).is_err());
        assert!(history.end_read(read, 3, &content(99)).is_err(), "no such write");
        assert!(history.end_read(read, 3, &content_of(4, last)).is_err(), "another block");
        assert!(history.end_read(read, 3, &content(0)).is_err(), "zeros are older than the last");
    }
}
