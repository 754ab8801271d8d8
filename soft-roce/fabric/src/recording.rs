//! Recording of the calls and results of a run, for a replay.

use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};
use verbs::{
    Limits, TransportType,
    memory::Mapping,
    provider::{
        CmRequest, Operation, Payload, Payloads, ReceiveRequest, SendRequest, WorkCompletion,
    },
};

/// Line of a recording. Objects are numbered by kind from 0, in the order of creation; `errno` is
/// that of a refused call.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) enum Record {
    Request {
        endpoint: usize,
        what: String,
        errno: Option<i32>,
    },
    Event(CmEventRecord),
    Limits {
        endpoint: usize,
        names: [String; 2],
        numbers: [u64; 9],
    },
    Registered {
        local: u32,
        remote: u32,
    },
    CompletionQueue {
        capacity: u32,
        number: u32,
    },
    QueuePair {
        number: u32,
    },
    Post {
        pair: usize,
        what: String,
    },
    /// The last `untaken` posts were refused.
    Refused {
        pair: usize,
        untaken: usize,
        errno: i32,
    },
    Completion(CompletionRecord),
    DeviceEvent {
        domain: usize,
        kind: u32,
        subject: (u8, u32),
    },
}

/// CM event.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct CmEventRecord {
    pub(super) endpoint: usize,
    pub(super) kind: u32,
    pub(super) status: i32,
    pub(super) data: Vec<u8>,
    pub(super) parameters: [u8; 4],
    pub(super) incoming: bool,
}

/// Completion, with the changes of registered memory up to it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct CompletionRecord {
    pub(super) pair: usize,
    pub(super) receive: bool,
    /// Index among the sends or receives of the queue pair, from 0.
    pub(super) nth: usize,
    pub(super) status: u32,
    pub(super) length: u32,
    pub(super) invalidated: Option<u32>,
    pub(super) written: Vec<MemoryChange>,
}

/// Change of bytes in one registration.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct MemoryChange {
    pub(super) registration: usize,
    pub(super) offset: usize,
    /// Bytes in hexadecimal.
    pub(super) bytes: String,
}

impl MemoryChange {
    /// Decodes the bytes, up to the first that is not hexadecimal.
    pub(super) fn decode(&self) -> Vec<u8> {
        let pairs = (0..self.bytes.len() / 2).map(|at| self.bytes.get(2 * at..2 * at + 2));
        pairs.map_while(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
    }
}

/// Posted work request.
pub(super) struct PostedRequest {
    pub(super) receive: bool,
    pub(super) token: u64,
    pub(super) what: String,
}

/// Recording in progress.
#[derive(Default)]
pub(super) struct Recording {
    entries: Vec<Record>,
    regions: Vec<Option<Region>>,
    /// Changes before the last posts, which are recorded with the next completion.
    changed: Vec<MemoryChange>,
    endpoints: usize,
    domains: usize,
    pairs: Vec<Tokens>,
}

/// Tokens of a queue pair's requests, in order.
#[derive(Default)]
struct Tokens {
    number: u32,
    sends: Vec<u64>,
    receives: Vec<u64>,
}

/// Registered memory, and its contents at the last comparison.
struct Region {
    memory: Weak<Mapping>,
    seen: Vec<u8>,
}

impl Recording {
    pub(super) fn text(&self) -> String {
        let line = |entry| serde_json::to_string(entry).expect("numbers and strings are JSON");
        self.entries.iter().map(|entry| line(entry) + "\n").collect()
    }

    pub(super) fn write(&mut self, entry: Record) {
        self.entries.push(entry);
    }

    pub(super) fn endpoint(&mut self) -> usize {
        self.endpoints += 1;
        self.endpoints - 1
    }

    pub(super) fn domain(&mut self) -> usize {
        self.domains += 1;
        self.domains - 1
    }

    pub(super) fn region(&mut self, memory: Option<&Arc<Mapping>>) {
        self.regions.push(
            memory.map(|memory| Region {
                memory: Arc::downgrade(memory),
                seen: vec![0; memory.len()],
            }),
        );
    }

    pub(super) fn pair(&mut self, number: u32) -> usize {
        self.pairs.push(Tokens { number, ..Tokens::default() });
        self.write(Record::QueuePair { number });
        self.pairs.len() - 1
    }

    pub(super) fn post(&mut self, pair: usize, post: &PostedRequest) {
        self.tokens(pair, post.receive).push(post.token);
        if !post.receive {
            // The local side may have written too; later changes are made by the peer.
            let changes = self.changes();
            self.changed.extend(changes);
        }
        self.write(Record::Post { pair, what: post.what.clone() });
    }

    /// Records that the last posts were refused.
    pub(super) fn refuse(&mut self, pair: usize, posts: &[PostedRequest], errno: i32) {
        for post in posts {
            self.tokens(pair, post.receive).pop();
        }
        self.write(Record::Refused { pair, untaken: posts.len(), errno });
    }

    fn tokens(&mut self, pair: usize, receive: bool) -> &mut Vec<u64> {
        let tokens = &mut self.pairs[pair];
        if receive { &mut tokens.receives } else { &mut tokens.sends }
    }

    /// Records a completion of a known queue pair.
    pub(super) fn complete(&mut self, completion: &WorkCompletion) {
        let of = |tokens: &Tokens| tokens.number == completion.queue_pair();
        let Some(pair) = self.pairs.iter().rposition(of) else { return };
        let receive = completion.is_receive();
        let tokens = &self.pairs[pair];
        let tokens = if receive { &tokens.receives } else { &tokens.sends };
        let Some(nth) = tokens.iter().rposition(|&token| token == completion.token()) else {
            return;
        };
        let mut written = std::mem::take(&mut self.changed);
        written.extend(self.changes());
        let entry = CompletionRecord {
            pair,
            receive,
            nth,
            status: completion.status().0,
            length: completion.length(),
            invalidated: completion.invalidated().map(|key| key.0),
            written,
        };
        self.write(Record::Completion(entry));
    }

    /// Returns the changes since the last comparison, one range per registration.
    fn changes(&mut self) -> Vec<MemoryChange> {
        let mut patches = Vec::new();
        for (registration, region) in self.regions.iter_mut().enumerate() {
            let Some(Region { memory, seen }) = region else { continue };
            let Some(memory) = memory.upgrade() else { continue };
            let mut now = vec![0; memory.len()];
            memory.device_read(0, &mut now);
            let differs = |index: &usize| now[*index] != seen[*index];
            let first = (0..now.len()).find(differs);
            let last = (0..now.len()).rev().find(differs);
            if let (Some(first), Some(last)) = (first, last) {
                let bytes = now[first..=last].iter().map(|byte| format!("{byte:02x}")).collect();
                patches.push(MemoryChange { registration, offset: first, bytes });
                *seen = now;
            }
        }
        patches
    }
}

/// Name of a CM request in a recording.
pub(super) fn request(request: &CmRequest<'_>) -> String {
    let text = format!("{request:?}");
    let end = text.find(|letter: char| !letter.is_alphanumeric()).unwrap_or(text.len());
    text[..end].to_owned()
}

/// Name of a receive in a recording.
pub(super) fn receive(request: &ReceiveRequest) -> String {
    format!("receive {}", request.sge.length)
}

/// Name of a send in a recording: operation and number of bytes. Addresses differ between runs and
/// are left out.
pub(super) fn send(request: &SendRequest, payloads: &Payloads) -> String {
    let what = match request.operation {
        Operation::BindWindow(_) => "bind",
        Operation::LocalInvalidate(_) => "invalidate",
        Operation::RdmaRead(_) => "read",
        Operation::RdmaWrite(_) => "write",
        Operation::Send => "send",
        Operation::SendWithInvalidate(_) => "send with invalidate",
    };
    let length = match &request.payload {
        Payload::Inline { length, .. } => *length,
        Payload::Nothing => 0,
        payload @ Payload::SgList { .. } => {
            payloads.sg_list(payload).iter().map(|sge| sge.length).sum()
        }
    };
    format!("{what} {length}")
}

pub(super) fn limits_out(limits: &Limits) -> ([String; 2], [u64; 9]) {
    let numbers = [
        limits.completion_queue_entries.into(),
        limits.initiator_read_atomic.into(),
        limits.memory_region_bytes,
        limits.memory_regions.into(),
        limits.queue_pair_work_requests.into(),
        limits.queue_pairs.into(),
        limits.read_atomic.into(),
        limits.send_sge.into(),
        limits.windows.into(),
    ];
    ([limits.device.clone(), limits.firmware.clone()], numbers)
}

pub(super) fn limits_in(names: &[String; 2], numbers: &[u64; 9]) -> Limits {
    let at = |index: usize| u32::try_from(numbers[index]).unwrap_or(u32::MAX);
    Limits {
        device: names[0].clone(),
        firmware: names[1].clone(),
        completion_queue_entries: at(0),
        initiator_read_atomic: at(1),
        memory_region_bytes: numbers[2],
        memory_regions: at(3),
        queue_pair_work_requests: at(4),
        queue_pairs: at(5),
        read_atomic: at(6),
        send_sge: at(7),
        windows: at(8),
        path_mtu: None,                      // of no interest to a replay
        numa_node: None,                     // differs between machines
        transport: TransportType::default(), // a replayed connect does not block
    }
}
