//! Faults that are injected at given points.

use std::time::Duration;

use verbs::Status;

/// Point at which a fault is injected. Occurrences are counted from 1, from the time the fault is
/// scheduled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Point {
    /// Just before the nth arming of a completion queue on a host.
    Arm {
        /// Name of the host.
        host: String,
        /// Number of the occurrence.
        nth: u32,
    },
    /// The nth completion on a host, on any of its queues.
    Completion {
        /// Name of the host.
        host: String,
        /// Number of the occurrence.
        nth: u32,
    },
    /// The nth connection request that a host sends.
    Connect {
        /// Name of the host.
        host: String,
        /// Number of the occurrence.
        nth: u32,
    },
    /// The nth message that a host sends over any of its queue pairs: send, write or read.
    Message {
        /// Name of the host.
        host: String,
        /// Number of the occurrence.
        nth: u32,
    },
    /// This time from now.
    Time(Duration),
}

impl Point {
    /// The nth arming of a completion queue on a host.
    pub fn arm(host: impl Into<String>, nth: u32) -> Self {
        Self::Arm { host: host.into(), nth }
    }

    /// The nth completion on a host.
    pub fn completion(host: impl Into<String>, nth: u32) -> Self {
        Self::Completion { host: host.into(), nth }
    }

    /// The nth connection request from a host.
    pub fn connect(host: impl Into<String>, nth: u32) -> Self {
        Self::Connect { host: host.into(), nth }
    }

    /// The nth message from a host.
    pub fn message(host: impl Into<String>, nth: u32) -> Self {
        Self::Message { host: host.into(), nth }
    }
}

/// Injected fault. A fault that does not apply at its point has no effect.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Delivers everything in transit, as [`Fabric::settle`](super::Fabric::settle) does.
    Arrive,
    /// Moves a host's address to another device, as a failover of a bond does: its endpoints are
    /// notified of the address change.
    ChangeAddress(String),
    /// Fails a host's completion queues: the failure is reported, and they return no more
    /// completions.
    CompletionQueuesFail(String),
    /// Corrupts a message: one byte is xored at an offset.
    Corrupt {
        /// Offset of the byte; no effect beyond the end of the message.
        offset: usize,
        /// Mask to xor with.
        bits: u8,
    },
    /// Delays a message or completion.
    Delay(Duration),
    /// Drops a message with all its retries, or a connection request: the sender's retries are
    /// exceeded.
    Drop,
    /// Duplicates a completion, as rxe is known to do, or a message, which has no visible effect.
    Duplicate,
    /// Replaces the status of a completion; its queue pair fails.
    Fail(Status),
    /// Cuts the network between two hosts, in both directions.
    Partition(String, String),
    /// Sets a host's port to active.
    PortActive(String),
    /// Sets a host's port to down.
    PortDown(String),
    /// Fails a host's queue pairs without completing what is posted; only the device event is
    /// raised.
    QueuePairsDie(String),
    /// Rejects a connection request on the peer's system with this reason, such as 10.
    Reject(i32),
    /// Removes a host's device.
    RemoveDevice(String),
    /// Suppresses a completion, though the work was done.
    Suppress,
}

/// Counter of occurrences.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FaultCounter {
    Arm,
    Completion,
    Connect,
    Message,
}

/// Scheduled faults.
#[derive(Default)]
pub(super) struct Faults {
    scheduled: Vec<ScheduledFault>,
}

struct ScheduledFault {
    counter: FaultCounter,
    host: usize,
    left: u32,
    fault: Fault,
}

impl Faults {
    pub(super) fn schedule(&mut self, counter: FaultCounter, host: usize, nth: u32, fault: Fault) {
        self.scheduled.push(ScheduledFault { counter, host, left: nth, fault });
    }

    /// Counts an occurrence, and returns the faults that are due.
    pub(super) fn take(&mut self, counter: FaultCounter, host: usize) -> Vec<Fault> {
        let mut taken = Vec::new();
        self.scheduled.retain_mut(|scheduled| {
            if scheduled.counter != counter || scheduled.host != host {
                return true;
            }
            scheduled.left = scheduled.left.saturating_sub(1);
            if scheduled.left == 0 {
                taken.push(scheduled.fault.clone());
            }
            scheduled.left > 0
        });
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_applies_once_at_its_point() {
        let mut faults = Faults::default();
        faults.schedule(FaultCounter::Message, 0, 2, Fault::Drop);
        faults.schedule(FaultCounter::Message, 0, 2, Fault::Duplicate);
        assert!(faults.take(FaultCounter::Message, 0).is_empty());
        assert!(faults.take(FaultCounter::Message, 1).is_empty(), "another host");
        assert!(faults.take(FaultCounter::Connect, 0).is_empty(), "another counter");
        assert_eq!(faults.take(FaultCounter::Message, 0), [Fault::Drop, Fault::Duplicate]);
        assert!(faults.take(FaultCounter::Message, 0).is_empty());
    }
}
