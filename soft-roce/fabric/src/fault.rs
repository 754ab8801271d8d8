//! Faults at named points: what goes wrong, and where.

use std::time::Duration;

use verbs::Status;

/// Where a fault strikes. Each is counted from the moment the fault is planned, from 1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Point {
    /// The nth arming of a completion queue on a host; just before it.
    Arm {
        /// Name of the host.
        host: String,
        /// Which one.
        nth: u32,
    },
    /// The nth completion on a host, of any of its queues.
    Completion {
        /// Name of the host.
        host: String,
        /// Which one.
        nth: u32,
    },
    /// The nth connection request that a host sends.
    Connect {
        /// Name of the host.
        host: String,
        /// Which one.
        nth: u32,
    },
    /// The nth message that a host sends over any of its queue pairs: send, write or read.
    Message {
        /// Name of the host.
        host: String,
        /// Which one.
        nth: u32,
    },
    /// A while from now.
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

/// What goes wrong. One that makes no sense where it strikes does nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fault {
    /// What is on its way arrives, as by [`Fabric::settle`](super::Fabric::settle).
    Arrive,
    /// A host's address moves to another device, as when a bond fails over: its endpoints are
    /// told that they are stranded.
    ChangeAddress(String),
    /// A host's completion queues fail: that is reported, and nothing comes out of them any more.
    CompletionQueuesFail(String),
    /// A message's bytes change on the way: one is xored at an offset.
    Corrupt {
        /// Which byte; nothing happens beyond the message's end.
        offset: usize,
        /// The bits that flip.
        bits: u8,
    },
    /// A message or completion takes longer.
    Delay(Duration),
    /// A message, with all its retries, or a connection request is lost: the sender's retries
    /// are used up.
    Drop,
    /// A completion comes twice, as rxe is known to do; a message comes twice, which nobody sees.
    Duplicate,
    /// A completion reports a failure, and its queue pair fails.
    Fail(Status),
    /// The network between two hosts is cut, both ways.
    Partition(String, String),
    /// A host's port gets its link back.
    PortActive(String),
    /// A host's port loses its link.
    PortDown(String),
    /// A host's queue pairs fail without a completion of what is posted: it is only reported.
    QueuePairsDie(String),
    /// A connection request is rejected with a reason, such as 10, by the peer's system.
    Reject(i32),
    /// A host's device goes away.
    RemoveDevice(String),
    /// A completion never comes, though the work was done.
    Suppress,
}

/// Which counter a happening belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FaultCounter {
    Arm,
    Completion,
    Connect,
    Message,
}

/// Faults that have yet to strike.
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
    pub(super) fn schedule(
        &mut self,
        counter: FaultCounter,
        (host, nth): (usize, u32),
        fault: Fault,
    ) {
        self.scheduled.push(ScheduledFault { counter, host, left: nth, fault });
    }

    /// Counts a happening, and returns what strikes it.
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
    fn a_fault_strikes_once_where_it_was_planned() {
        let mut faults = Faults::default();
        faults.schedule(FaultCounter::Message, (0, 2), Fault::Drop);
        faults.schedule(FaultCounter::Message, (0, 2), Fault::Duplicate);
        assert!(faults.take(FaultCounter::Message, 0).is_empty());
        assert!(faults.take(FaultCounter::Message, 1).is_empty(), "another host");
        assert!(faults.take(FaultCounter::Connect, 0).is_empty(), "another counter");
        assert_eq!(faults.take(FaultCounter::Message, 0), [Fault::Drop, Fault::Duplicate]);
        assert!(faults.take(FaultCounter::Message, 0).is_empty());
    }
}
