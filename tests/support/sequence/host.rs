//! Objects of a host besides its connections: a domain, queues, buffers, windows, a listener.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use rdma_fabric::{Fabric, Host};
use verbs::{Access, Buffer, CompletionQueue, Endpoint, FlushedWork, ProtectionDomain};

use super::{
    CONNECTIONS_MAX, QUEUES,
    connection_end::{ConnectionEnd, PostedBuffers, range},
};

pub(super) const NAMES: [&str; 2] = ["one", "other"];

pub(super) struct HostState {
    pub(super) name: &'static str,
    pub(super) provider: Arc<Host>,
    pub(super) listener: Option<Endpoint<Host>>,
    pub(super) domain: Option<ProtectionDomain<Host>>,
    /// Number of the domain: how many have been made.
    pub(super) domains_made: u32,
    pub(super) queues: [Option<Queue>; QUEUES],
    /// Buffers that are not posted.
    pub(super) free: Vec<DomainBuffer>,
    /// Memory that the peer reads, and memory that it writes.
    pub(super) exposed: Option<(DomainBuffer, DomainBuffer)>,
    pub(super) ends: [Option<ConnectionEnd>; CONNECTIONS_MAX],
    /// Number of times that the device was removed.
    pub(super) removals: u32,
    /// A completion queue has overrun.
    pub(super) overrun: bool,
}

/// A buffer, and the number of its domain.
pub(super) struct DomainBuffer {
    pub(super) buffer: Buffer,
    pub(super) domain: u32,
}

/// A completion queue and its number.
pub(super) struct Queue {
    pub(super) raw: CompletionQueue<Host>,
    pub(super) number: u32,
    pub(super) armed: bool,
    /// The next completion must make the queue readable: it was empty after it was armed.
    pub(super) awaited: bool,
}

impl HostState {
    pub(super) fn new(fabric: &Fabric, index: usize) -> Self {
        let name = NAMES[index];
        Self {
            name,
            provider: fabric.host(name, address(index).ip()),
            listener: None,
            domain: None,
            domains_made: 0,
            queues: [const { None }; QUEUES],
            free: Vec::new(),
            exposed: None,
            ends: [const { None }; CONNECTIONS_MAX],
            removals: 0,
            overrun: false,
        }
    }

    /// The domain, made from an endpoint if there is none; none if the device is gone.
    pub(super) fn domain(&mut self, endpoint: &Endpoint<Host>) -> Option<ProtectionDomain<Host>> {
        if self.domain.is_none() {
            self.domain = endpoint.domain().ok();
            self.domains_made += 1;
        }
        self.domain.clone()
    }

    /// Takes a buffer of [`BUFFER_BYTES`] bytes of the present domain or an earlier one.
    pub(super) fn piece(&mut self) -> Option<DomainBuffer> {
        if self.free.is_empty() {
            let access = Access::LOCAL_WRITE | Access::BIND;
            let mut whole = self.domain.as_ref()?.allocate(4 * BUFFER_BYTES, access).ok()?;
            let domain = self.domains_made;
            while whole.len() > BUFFER_BYTES {
                let buffer = whole.split_off(whole.len() - BUFFER_BYTES);
                self.free.push(DomainBuffer { buffer, domain });
            }
            self.free.push(DomainBuffer { buffer: whole, domain });
        }
        self.free.pop()
    }

    /// Memory that the peer reads and memory that it writes; made on first use.
    pub(super) fn exposed(&mut self) -> Option<&(DomainBuffer, DomainBuffer)> {
        if self.exposed.is_none() {
            let (domain, number) = (self.domain.as_ref()?, self.domains_made);
            let piece = |access| {
                let buffer = domain.allocate(BUFFER_BYTES, access).ok()?;
                Some(DomainBuffer { buffer, domain: number })
            };
            let mut source = piece(Access::REMOTE_READ)?;
            source.buffer.fill(SOURCE_BYTE);
            self.exposed = Some((source, piece(Access::REMOTE_WRITE)?));
        }
        self.exposed.as_ref()
    }

    pub(super) fn has_queue(&self, number: u32) -> bool {
        self.queues.iter().flatten().any(|queue| queue.number == number)
    }

    pub(super) fn acknowledge(&mut self, queue: usize) {
        if let Some(queue) = &mut self.queues[queue] {
            queue.raw.acknowledge().expect("the channel can be read");
            (queue.armed, queue.awaited) = (false, false);
        }
    }

    /// Resizes a completion queue, which may be refused.
    pub(super) fn resize(&mut self, queue: usize, value: u8) {
        let Some(queue) = &mut self.queues[queue] else { return };
        let wanted = u32::from(value) * 2;
        match queue.raw.resize(wanted) {
            Ok(()) => assert!(queue.raw.capacity() >= wanted, "it is as large as was asked for"),
            Err(verbs::Error::Misuse(_) | verbs::Error::ResizeCompletionQueue { .. }) => {}
            Err(other) => panic!("a queue of {wanted}: {other}"),
        }
    }

    pub(super) fn device_events(&self) {
        if let Some(domain) = &self.domain {
            while domain.next_event().expect("it can be read").is_some() {}
        }
    }

    /// Drops one object, which may be in use.
    pub(super) fn drop_something(&mut self, value: u8) {
        match value % 6 {
            0 => self.listener = None,
            1 => self.domain = None,
            2 | 3 => self.queues[usize::from(value % 2)] = None,
            4 => self.free.clear(),
            _ => self.exposed = None,
        }
    }
}

/// Compares buffers that came back with those that were posted under the tag.
pub(super) fn check_returned(
    posted: &mut BTreeMap<u64, PostedBuffers>,
    returned: FlushedWork,
    domain: u32,
) -> Vec<DomainBuffer> {
    let held = posted.remove(&returned.tag);
    let held = held.unwrap_or_else(|| panic!("{returned:?} was not outstanding"));
    let buffers: Vec<Buffer> = returned.buffers.into_iter().collect();
    let ranges: Vec<_> = buffers.iter().map(range).collect();
    assert_eq!(held.ranges, ranges, "other buffers than were posted");
    buffers.into_iter().map(|buffer| DomainBuffer { buffer, domain }).collect()
}

/// Address on which a host listens.
pub(super) fn address(index: usize) -> SocketAddr {
    let last = if index == 0 { 1 } else { 2 };
    SocketAddr::from(([10, 0, 0, last], 4420))
}

/// Length of a buffer in bytes.
pub(super) const BUFFER_BYTES: usize = 64;
/// Byte that the memory which peers read is filled with.
pub(super) const SOURCE_BYTE: u8 = 0xA5;
/// Receives of a queue pair.
pub(super) const RECEIVES: u32 = 6;
