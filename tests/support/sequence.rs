//! Any sequence of operations on the verbs engine, read from bytes, over the fabric.
//!
//! Two hosts, several queue pairs and completion queues each. Whatever the bytes say, these hold,
//! or [`play`] panics:
//!
//! * each work request completes once, or comes back once when its queue pair closes;
//! * it gives back the buffers it was given, and no others;
//! * a completion that was completed is stale from then on;
//! * credits add up after each step, and are all back once a connection has ended;
//! * messages arrive as they were sent, in order, none twice; what was read is what was there;
//! * a window comes back only when its key is out of use;
//! * who has armed a completion queue is woken;
//! * the device refuses nothing that the engine has let through;
//! * in the end, dropped in any order, nothing is left in the fabric.
//!
//! One interpreter serves the ordinary tests, the fuzzer and Miri: `tests/longer`.

mod connect;
mod connection_end;
mod faults;
mod host;
mod input;
mod work;

use std::{collections::BTreeMap, time::Duration};

use rdma_fabric::{Fabric, Objects};

use connection_end::End;
use faults::Harm;
use host::Side;
use input::Bytes;

/// How often what happened, by name.
pub type Tally = BTreeMap<String, u64>;

/// Does what the bytes say: three to an operation, at most [`OPERATIONS_MAX`] of them. The first
/// three are a seed for the fabric, and what harm may be done.
///
/// # Panics
///
/// When something does not hold that must.
#[must_use]
pub fn play(bytes: &[u8]) -> Tally {
    let mut play = Play::new(bytes);
    for _ in 0..OPERATIONS_MAX {
        let Some([code, who, value]) = play.bytes.operation() else { break };
        play.operate(code, who, value);
    }
    play.finish()
}

struct Play<'a> {
    fabric: Fabric,
    sides: [Side; 2],
    bytes: Bytes<'a>,
    harm: Harm,
    sent: BTreeMap<u32, work::Message>,
    made: u32,
    tally: Tally,
}

impl<'a> Play<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut bytes = Bytes::new(bytes);
        let [seed, allowed, _] = bytes.operation().unwrap_or_default();
        let fabric = Fabric::new(seed.into());
        let sides = [0, 1].map(|index| Side::new(&fabric, index));
        Self {
            fabric,
            sides,
            bytes,
            harm: Harm::allowed(allowed),
            sent: BTreeMap::new(),
            made: 0,
            tally: Tally::new(),
        }
    }

    /// One operation: what, at which end, and with what.
    fn operate(&mut self, code: u8, who: u8, value: u8) {
        let at = (usize::from(who & 1), usize::from(who >> 1) % ENDS);
        let queue = usize::from(who >> 4) % QUEUES;
        match code % 48 {
            0..4 => self.establish(at, value),
            4 => self.open(at, value),
            5 | 6 => self.connection_event(at, value),
            7 => self.listener_event(at.0, value),
            8..12 => self.post_send(at, value),
            12 | 13 => self.post_inline(at, value),
            14..18 => self.post_receive(at),
            18 | 19 => self.post_read(at, value),
            20 | 21 => self.post_write(at, value),
            22 => self.bind(at, value),
            23 => self.invalidate(at),
            24 => self.reclaim(at),
            25..28 => self.flush(at),
            28..32 => drop(self.poll((at.0, queue), value)),
            32 => self.arm((at.0, queue)),
            33 => self.sides[at.0].acknowledge(queue),
            34 => self.sides[at.0].resize(queue, value),
            35 => self.retire_again(at),
            36 | 37 => self.fabric.settle(),
            38 => drop(self.fabric.step()),
            39 => self.fabric.advance(Duration::from_millis(u64::from(value) * 8)),
            40 | 41 => self.do_harm(value),
            42 if value < 64 => self.disconnect(at),
            43 if value < 64 => self.close(at),
            44 if value < 64 => self.drop_part(at, value),
            45 => self.sides[at.0].device_events(),
            46 if value < 32 => self.sides[at.0].drop_something(value),
            _ => self.flush_and_settle(at),
        }
        self.check_credits();
    }

    fn count(&mut self, what: impl Into<String>) {
        *self.tally.entry(what.into()).or_default() += 1;
    }

    fn number(&mut self) -> u32 {
        self.made += 1;
        self.made
    }

    fn end(&mut self, (side, end): At) -> Option<&mut End> {
        self.sides[side].ends[end].as_mut()
    }

    fn all_ends() -> impl Iterator<Item = At> {
        (0..2).flat_map(|side| (0..ENDS).map(move |end| (side, end)))
    }

    fn check_credits(&self) {
        let ends = self.sides.iter().flat_map(|side| side.ends.iter().flatten());
        ends.for_each(End::check_credits);
    }

    fn flush_and_settle(&mut self, at: At) {
        self.flush(at);
        self.fabric.settle();
    }

    /// Ends all connections, and with them all that is posted; then drops everything.
    fn finish(mut self) -> Tally {
        self.fabric.run_until_idle();
        for at in Self::all_ends() {
            self.drain(at);
        }
        self.check_credits();
        let mut left: Vec<At> = Self::all_ends().collect();
        while !left.is_empty() {
            let choice = self.bytes.pick(2 * left.len());
            let at = left.remove(choice / 2);
            if choice.is_multiple_of(2) {
                self.close(at);
            }
            let [first, second] = &mut self.sides;
            let side = if at.0 == 0 { first } else { second };
            side.ends[at.1] = None;
            side.drop_something(u8::try_from(self.bytes.pick(8)).expect("less than 8"));
        }
        let Self { fabric, sides, tally, .. } = self;
        drop(sides);
        fabric.run_until_idle();
        assert_eq!(fabric.objects(), Objects::default(), "something is left");
        tally
    }

    /// What is posted to a connection comes back when it ends, and with it all credits.
    fn drain(&mut self, at: At) {
        self.flush(at);
        let Some(end) = self.end(at) else { return };
        let unflushed = end.unflushed;
        let ended = end.endpoint.as_mut().is_some_and(|endpoint| endpoint.disconnect().is_ok());
        let live = end.is_live();
        self.fabric.run_until_idle(); // completions may be late
        for queue in 0..QUEUES {
            while self.poll((at.0, queue), u8::MAX) > 0 {}
        }
        let Some(end) = self.sides[at.0].ends[at.1].as_ref() else { return };
        let reached = self.sides[at.0].has_queue(end.queue) && !self.sides[at.0].overrun;
        if ended && live && !unflushed && reached && !self.harm.suppresses {
            end.assert_idle();
            self.count("drained");
        }
    }
}

/// A side, and a place among its ends.
type At = (usize, usize);

/// Operations of one play.
pub const OPERATIONS_MAX: usize = 2000;
/// Queue pairs of a side at a time.
const ENDS: usize = 4;
/// Completion queues of a side.
const QUEUES: usize = 2;
