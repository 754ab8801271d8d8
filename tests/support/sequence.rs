//! Any sequence of operations on the verbs engine, decoded from bytes, over the fabric.
//!
//! Two hosts, several queue pairs and completion queues each. For any bytes the following holds, or
//! [`run`] panics:
//!
//! * each work request completes once, or comes back once when its queue pair closes;
//! * it gives back the buffers it was given, and no others;
//! * a completion that was completed is stale from then on;
//! * credits add up after each step, and are all back once a connection has ended;
//! * messages arrive unchanged, in order, none twice; a read brings the bytes that were there;
//! * a window comes back only when its key is out of use;
//! * an armed completion queue wakes its owner;
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

use connection_end::ConnectionEnd;
use faults::Faults;
use host::HostState;
use input::Input;

/// Number of times that each thing happened, by name.
pub type Counts = BTreeMap<String, u64>;

/// Carries out the operations of `bytes`, three bytes each, at most [`OPERATIONS_MAX`] of them. The
/// first three are a seed for the fabric and the faults that are allowed.
///
/// # Panics
///
/// When something does not hold that must.
#[must_use]
pub fn run(bytes: &[u8]) -> Counts {
    let mut run = Run::new(bytes);
    for _ in 0..OPERATIONS_MAX {
        let Some([code, who, value]) = run.input.operation() else { break };
        run.operate(code, who, value);
    }
    run.finish()
}

struct Run<'a> {
    fabric: Fabric,
    hosts: [HostState; 2],
    input: Input<'a>,
    faults: Faults,
    sent: BTreeMap<u32, work::Message>,
    made: u32,
    counts: Counts,
}

impl<'a> Run<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut input = Input::new(bytes);
        let [seed, allowed, _] = input.operation().unwrap_or_default();
        let fabric = Fabric::new(seed.into());
        let hosts = [0, 1].map(|index| HostState::new(&fabric, index));
        Self {
            fabric,
            hosts,
            input,
            faults: Faults::allowed(allowed),
            sent: BTreeMap::new(),
            made: 0,
            counts: Counts::new(),
        }
    }

    /// Carries out one operation; `who` selects the end and the completion queue.
    fn operate(&mut self, code: u8, who: u8, value: u8) {
        let at = At { host: usize::from(who & 1), end: usize::from(who >> 1) % CONNECTIONS_MAX };
        let queue = usize::from(who >> 4) % QUEUES;
        match code % 48 {
            0..4 => self.establish(at, value),
            4 => self.open(at, value),
            5 | 6 => self.connection_event(at, value),
            7 => self.listener_event(at.host, value),
            8..12 => self.post_send(at, value),
            12 | 13 => self.post_inline(at, value),
            14..18 => self.post_receive(at),
            18 | 19 => self.post_read(at, value),
            20 | 21 => self.post_write(at, value),
            22 => self.bind(at, value),
            23 => self.invalidate(at),
            24 => self.reclaim(at),
            25..28 => self.flush(at),
            28..32 => drop(self.poll(at.host, queue, value)),
            32 => self.arm(at.host, queue),
            33 => self.hosts[at.host].acknowledge(queue),
            34 => self.hosts[at.host].resize(queue, value),
            35 => self.complete_again(at),
            36 | 37 => self.fabric.settle(),
            38 => drop(self.fabric.step()),
            39 => self.fabric.advance(Duration::from_millis(u64::from(value) * 8)),
            40 | 41 => self.inject_fault(value),
            42 if value < 64 => self.disconnect(at),
            43 if value < 64 => self.close(at),
            44 if value < 64 => self.drop_part(at, value),
            45 => self.hosts[at.host].device_events(),
            46 if value < 32 => self.hosts[at.host].drop_something(value),
            _ => self.flush_and_settle(at),
        }
        self.check_credits();
    }

    fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    fn number(&mut self) -> u32 {
        self.made += 1;
        self.made
    }

    fn end(&mut self, At { host, end }: At) -> Option<&mut ConnectionEnd> {
        self.hosts[host].ends[end].as_mut()
    }

    fn all_ends() -> impl Iterator<Item = At> {
        (0..2).flat_map(|host| (0..CONNECTIONS_MAX).map(move |end| At { host, end }))
    }

    fn check_credits(&self) {
        let ends = self.hosts.iter().flat_map(|host| host.ends.iter().flatten());
        ends.for_each(ConnectionEnd::check_credits);
    }

    fn flush_and_settle(&mut self, at: At) {
        self.flush(at);
        self.fabric.settle();
    }

    /// Ends all connections, and with them all that is posted; then drops everything.
    fn finish(mut self) -> Counts {
        self.fabric.run_until_idle();
        for at in Self::all_ends() {
            self.drain(at);
        }
        self.check_credits();
        let mut left: Vec<At> = Self::all_ends().collect();
        while !left.is_empty() {
            let choice = self.input.pick(2 * left.len());
            let at = left.remove(choice / 2);
            if choice.is_multiple_of(2) {
                self.close(at);
            }
            let [first, second] = &mut self.hosts;
            let host = if at.host == 0 { first } else { second };
            host.ends[at.end] = None;
            host.drop_something(u8::try_from(self.input.pick(8)).expect("less than 8"));
        }
        let Self { fabric, hosts, counts, .. } = self;
        drop(hosts);
        fabric.run_until_idle();
        assert_eq!(fabric.objects(), Objects::default(), "something is left");
        counts
    }

    /// Ends a connection: all that is posted comes back, and with it all credits.
    fn drain(&mut self, at: At) {
        self.flush(at);
        let Some(end) = self.end(at) else { return };
        let unflushed = end.unflushed;
        let ended = end.endpoint.as_mut().is_some_and(|endpoint| endpoint.disconnect().is_ok());
        let live = end.is_live();
        self.fabric.run_until_idle(); // completions may be late
        for queue in 0..QUEUES {
            while self.poll(at.host, queue, u8::MAX) > 0 {}
        }
        let Some(end) = self.hosts[at.host].ends[at.end].as_ref() else { return };
        let reached = self.hosts[at.host].has_queue(end.queue) && !self.hosts[at.host].overrun;
        if ended && live && !unflushed && reached && !self.faults.suppresses {
            end.assert_idle();
            self.count("drained");
        }
    }
}

/// Indices of a connection's end: that of its host, and that among the host's ends.
#[derive(Clone, Copy)]
struct At {
    host: usize,
    end: usize,
}

/// Operations of one play.
pub const OPERATIONS_MAX: usize = 2000;
/// Queue pairs of a host at a time.
const CONNECTIONS_MAX: usize = 4;
/// Completion queues of a host.
const QUEUES: usize = 2;
