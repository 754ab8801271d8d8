//! One end of a connection, and a model of what is posted there.

use std::collections::{BTreeMap, VecDeque};

use rdma_fabric::Host;
use verbs::{
    Buffer, Completion, Endpoint, FlushedWork, PreparedQueuePair, QueuePair, QueuePairCapabilities,
    RemoteKey, WorkKind,
};

use super::{
    At, Run,
    host::{DomainBuffer, RECEIVES, check_returned},
};

pub(super) struct ConnectionEnd {
    /// Name that the ends exchange in private data.
    pub(super) name: u32,
    pub(super) peer: u32,
    pub(super) endpoint: Option<Endpoint<Host>>,
    pub(super) pair: Pair,
    /// Number of the completion queue.
    pub(super) queue: u32,
    pub(super) domain: u32,
    /// Number of removals of the device when the queue pair was made.
    pub(super) removals: u32,
    pub(super) receives: BTreeMap<u64, PostedBuffers>,
    pub(super) sends: BTreeMap<u64, PostedBuffers>,
    /// Number of posted requests without a buffer: inline sends, binds and invalidations.
    pub(super) inline: u32,
    /// Number of completions of those; not each of them has one.
    pub(super) credited: u32,
    /// Windows of the queue pair that are bound, by index.
    pub(super) windows: BTreeMap<RemoteKey, (usize, KeyState)>,
    /// Windows of the queue pair that are free.
    pub(super) free_windows: Vec<usize>,
    pub(super) unflushed: bool,
    /// Completions that arrived before the event of the established connection.
    pub(super) early: Vec<Completion>,
    /// Completions that were completed already.
    pub(super) completed: VecDeque<Completion>,
    /// Number of the last message that arrived.
    pub(super) last_message: Option<u32>,
}

/// State of the queue pair.
pub(super) enum Pair {
    None,
    Prepared(PreparedQueuePair<Host>),
    Live(QueuePair<Host>),
}

/// Buffers of a work request: address and length of each.
#[derive(Debug)]
pub(super) struct PostedBuffers {
    pub(super) ranges: Vec<(u64, usize)>,
    /// The request is a read of the memory that the peer keeps for that.
    pub(super) reads: bool,
}

/// State of a window's key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum KeyState {
    InUse,
    /// Either side has posted an invalidation.
    Ending,
}

impl ConnectionEnd {
    pub(super) fn new(name: u32, endpoint: Endpoint<Host>) -> Self {
        Self {
            name,
            peer: 0,
            endpoint: Some(endpoint),
            pair: Pair::None,
            queue: 0,
            domain: 0,
            removals: 0,
            receives: BTreeMap::new(),
            sends: BTreeMap::new(),
            inline: 0,
            credited: 0,
            windows: BTreeMap::new(),
            free_windows: Vec::new(),
            unflushed: false,
            early: Vec::new(),
            completed: VecDeque::new(),
            last_message: None,
        }
    }

    pub(super) fn number(&self) -> Option<u32> {
        match &self.pair {
            Pair::None => None,
            Pair::Prepared(pair) => Some(pair.number()),
            Pair::Live(pair) => Some(pair.number()),
        }
    }

    pub(super) fn live(&mut self) -> Option<&mut QueuePair<Host>> {
        match &mut self.pair {
            Pair::Live(pair) => Some(pair),
            Pair::None | Pair::Prepared(_) => None,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.pair, Pair::Live(_))
    }

    pub(super) fn check_credits(&self) {
        let Pair::Live(pair) = &self.pair else { return };
        let receives = u32::try_from(self.receives.len()).expect("a small number");
        assert_eq!(pair.receive_credits() + receives, SIZE.max_recv_wr, "receives");
        let sends = u32::try_from(self.sends.len()).expect("a small number");
        assert!(pair.send_credits() + sends <= SIZE.max_send_wr, "more credits than slots");
        assert!(self.credited <= self.inline, "completions of nothing");
        let all_back = self.inline == 0 && sends == 0;
        assert!(
            !all_back || pair.send_credits() == SIZE.max_send_wr,
            "credits of nothing are missing"
        );
    }

    /// Checks that all work requests have come back.
    pub(super) fn assert_idle(&self) {
        let Pair::Live(pair) = &self.pair else { return };
        let what = format!("{:?} {:?}", self.sends, self.receives);
        assert!(self.sends.is_empty() && self.receives.is_empty(), "never came back: {what}");
        // An inline send that succeeded without a completion keeps its slot until the next one.
        let unsignaled = if self.inline > 0 { SIGNAL_PERIOD - 1 } else { 0 };
        let missing = SIZE.max_send_wr - pair.send_credits();
        assert!(missing <= unsignaled, "{missing} credits never came back");
    }

    /// Closes the queue pair; outstanding buffers come back.
    fn close(&mut self) -> Vec<DomainBuffer> {
        let returned: Vec<FlushedWork> = match std::mem::replace(&mut self.pair, Pair::None) {
            Pair::None => return Vec::new(),
            Pair::Prepared(pair) => pair.close(),
            Pair::Live(pair) => pair.close(),
        };
        let mut pieces = Vec::new();
        for one in returned {
            let posted = match one.kind {
                WorkKind::Send => &mut self.sends,
                WorkKind::Receive => &mut self.receives,
            };
            pieces.extend(check_returned(posted, one, self.domain));
        }
        assert!(self.sends.is_empty(), "sends did not come back: {:?}", self.sends);
        assert!(self.receives.is_empty(), "receives did not come back: {:?}", self.receives);
        self.forget();
        pieces
    }

    /// Forgets the queue pair and all that is posted to it.
    pub(super) fn forget(&mut self) {
        self.pair = Pair::None;
        self.sends.clear();
        self.receives.clear();
        self.windows.clear();
        self.free_windows.clear();
        self.early.clear();
        (self.inline, self.credited) = (0, 0);
        self.unflushed = false;
    }
}

impl Run<'_> {
    pub(super) fn close(&mut self, at: At) {
        let host = &mut self.hosts[at.host];
        let Some(end) = host.ends[at.end].as_mut() else { return };
        let pieces = end.close();
        host.free.extend(pieces);
        self.count("closed");
    }

    /// Drops a part of an end, or all of it.
    pub(super) fn drop_part(&mut self, at: At, value: u8) {
        let Some(end) = self.end(at) else { return };
        match value % 3 {
            0 => end.endpoint = None,
            1 => end.forget(),
            _ => self.hosts[at.host].ends[at.end] = None,
        }
        self.count("dropped");
    }

    pub(super) fn disconnect(&mut self, at: At) {
        let Some(endpoint) = self.end(at).and_then(|end| end.endpoint.as_mut()) else { return };
        match endpoint.disconnect() {
            Ok(()) => self.count("disconnected"),
            Err(verbs::Error::Disconnect(_)) => self.count("nothing to disconnect"),
            Err(other) => panic!("a disconnect: {other}"),
        }
    }

    /// Checks that a completion that was completed is stale.
    pub(super) fn complete_again(&mut self, at: At) {
        let Some(end) = self.end(at) else { return };
        let Some(completion) = end.completed.pop_front() else { return };
        let Some(pair) = end.live() else { return };
        let again = pair.complete(&completion);
        assert!(again.is_err(), "{completion:?} was completed twice: {again:?}");
        self.count("stale");
    }
}

/// Address and length of a buffer.
pub(super) fn range(buffer: &Buffer) -> (u64, usize) {
    (buffer.address(), buffer.len())
}

/// Size of each queue pair.
pub(super) const SIZE: QueuePairCapabilities = QueuePairCapabilities {
    max_send_wr: 8,
    max_recv_wr: RECEIVES,
    max_send_sge: 2,
    max_inline_data: 32,
};
/// One inline send in this many is signaled.
const SIGNAL_PERIOD: u32 = SIZE.max_send_wr / 4;
/// Number of completions that are kept to be completed again.
pub(super) const COMPLETED_MAX: usize = 8;
