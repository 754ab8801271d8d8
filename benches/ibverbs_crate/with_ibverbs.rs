//! The ping-pong over the crate `ibverbs`.
//!
//! # Safety
//!
//! This file exists because posting is unsafe in that crate: nothing there keeps memory from
//! being touched, freed or posted again while the device uses it. Here each request has a
//! region of its own, which is left alone until the request's completion, and which the fields'
//! order frees after the queue pair. The safe side cannot reach a region.

#![allow(unsafe_code)]

use std::net::{IpAddr, Ipv6Addr};

use ibverbs::{
    CompletionQueue, Context, Gid, MemoryRegion, PreparedQueuePair, ProtectionDomain, QueuePair,
    ibv_qp_type::IBV_QPT_RC, ibv_wc,
};

use crate::{DEPTH, LENGTH, Result, message, wait};

/// A device, and the index of the GID to use.
pub(crate) struct Device {
    context: Context,
    gid_index: u32,
}

impl Device {
    /// Opens the device that has an address.
    pub(crate) fn open(address: IpAddr) -> Result<Self> {
        let wanted = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        for device in ibverbs::devices()?.iter() {
            let Ok(context) = device.open() else { continue }; // its port is down
            let found = context.gid_table().iter().find(|entry| {
                entry.gid_type == ibverbs_sys::IBV_GID_TYPE_ROCE_V2
                    && as_address(entry.gid) == wanted
            });
            if let Some(gid_index) = found.map(|entry| entry.gid_index) {
                return Ok(Self { context, gid_index });
            }
        }
        Err(format!("no device has the address {address}").into())
    }

    /// Makes what a pair is connected with: a domain, and a queue for each end.
    pub(crate) fn resources(&self) -> Result<(ProtectionDomain<'_>, [CompletionQueue<'_>; 2])> {
        let queue = |id| self.context.create_cq(2 * i32::from(DEPTH), id);
        Ok((self.context.alloc_pd()?, [queue(0)?, queue(1)?]))
    }
}

/// Two connected ends.
pub(crate) struct Pair<'a> {
    client: End<'a>,
    server: End<'a>,
    number: u64,
}

impl<'a> Pair<'a> {
    pub(crate) fn connect(
        device: &Device,
        domain: &'a ProtectionDomain<'a>,
        queues: &'a [CompletionQueue<'a>; 2],
    ) -> Result<Self> {
        let prepare = |queue| -> Result<PreparedQueuePair<'a>> {
            let mut builder = domain.create_qp(queue, queue, IBV_QPT_RC);
            builder.set_gid_index(device.gid_index).set_timeout(ACK_TIMEOUT);
            builder.set_max_send_wr(DEPTH.into()).set_max_recv_wr(DEPTH.into());
            Ok(builder.build()?)
        };
        let (client, server) = (prepare(&queues[0])?, prepare(&queues[1])?);
        let (to_client, to_server) = (client.endpoint(), server.endpoint());
        let client = End::new(client.handshake(to_server)?, domain, &queues[0])?;
        let server = End::new(server.handshake(to_client)?, domain, &queues[1])?;
        Ok(Self { client, server, number: 0 })
    }

    pub(crate) fn round_trip(&mut self) -> Result<()> {
        self.number += 1;
        self.client.send(self.number)?;
        let number = self.server.receive()?;
        self.server.send(number)?;
        if self.client.receive()? != self.number {
            return Err("another message came back".into());
        }
        Ok(())
    }
}

/// One end. The queue pair drops first, then the memory that it may use.
struct End<'a> {
    queue_pair: QueuePair<'a>,
    queue: &'a CompletionQueue<'a>,
    completions: [ibv_wc; BATCH],
    sends: Vec<MemoryRegion<u8>>,
    receives: Vec<MemoryRegion<u8>>,
    /// Indices of `sends` that are not posted.
    spare: Vec<u8>,
}

impl<'a> End<'a> {
    fn new(
        queue_pair: QueuePair<'a>,
        domain: &ProtectionDomain<'_>,
        queue: &'a CompletionQueue<'a>,
    ) -> Result<Self> {
        let regions = || (0..DEPTH).map(|_| domain.allocate(LENGTH)).collect::<Result<_, _>>();
        let mut end = Self {
            queue_pair,
            queue,
            completions: [ibv_wc::default(); BATCH],
            sends: regions()?,
            receives: regions()?,
            spare: (0..DEPTH).collect(),
        };
        for index in 0..DEPTH {
            end.post_receive(index)?;
        }
        Ok(end)
    }

    fn send(&mut self, number: u64) -> Result<()> {
        while self.spare.is_empty() {
            if self.poll()?.is_some() {
                return Err("a message came unasked".into());
            }
        }
        let index = self.spare.pop().ok_or("one has come back")?;
        let region = &mut self.sends[usize::from(index)];
        region.copy_from_slice(&message(number));
        // SAFETY: the region is not in `spare` until the completion with this index has come.
        Ok(unsafe { self.queue_pair.post_send(region, .., index.into()) }?)
    }

    fn post_receive(&mut self, index: u8) -> Result<()> {
        let region = &mut self.receives[usize::from(index)];
        // SAFETY: only `poll` looks into the region, after the completion with this index.
        Ok(unsafe { self.queue_pair.post_receive(region, .., RECEIVE | u64::from(index)) }?)
    }

    fn receive(&mut self) -> Result<u64> {
        wait(|| self.poll())
    }

    /// Takes completions, and returns the number of the message if one was among them.
    fn poll(&mut self) -> Result<Option<u64>> {
        let mut received = None;
        let count = self.queue.poll(&mut self.completions)?.len();
        for at in 0..count {
            let completion = self.completions[at];
            if let Some((status, _)) = completion.error() {
                return Err(format!("status {status}").into());
            }
            let index = u8::try_from(completion.wr_id() & !RECEIVE)?;
            if completion.wr_id() & RECEIVE == 0 {
                self.spare.push(index);
            } else {
                let region = &self.receives[usize::from(index)];
                let number = region.first_chunk().ok_or("a message begins with a number")?;
                received = Some(u64::from_le_bytes(*number));
                self.post_receive(index)?;
            }
        }
        Ok(received)
    }
}

fn as_address(gid: Gid) -> Ipv6Addr {
    Ipv6Addr::from_bits(u128::from(gid.subnet_prefix()) << 64 | u128::from(gid.interface_id()))
}

/// Mark of the ids of receives.
const RECEIVE: u64 = 1 << 8;
const BATCH: usize = 16;
/// Acknowledge timeout: 4.096 µs times 2 to the power of this, 67 ms.
const ACK_TIMEOUT: u8 = 14;
