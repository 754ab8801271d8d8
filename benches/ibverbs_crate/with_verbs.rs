//! The ping-pong over `verbs`.

use std::{net::SocketAddr, time::Duration};

use verbs::{
    Access, Buffer, CompletedWork, Completion, CompletionQueue, ConnectParameters, ConnectionEvent,
    Endpoint, PreparedQueuePair, ProtectionDomain, QueuePair, QueuePairCapabilities,
};

use crate::{DEPTH, LENGTH, Result, message, wait};

/// Two connected ends.
pub(crate) struct Pair {
    client: End,
    server: End,
    number: u64,
}

/// Operation that sends a message.
#[derive(Clone, Copy)]
pub(crate) enum Sends {
    Buffers,
    Inline,
}

impl Pair {
    pub(crate) fn connect(address: SocketAddr, sends: Sends) -> Result<Self> {
        let mut listener = Endpoint::open()?;
        listener.listen(address, 1)?;
        let mut client = Prepared::new(resolve(address)?)?;
        client.endpoint.connect(&ConnectParameters::default())?;
        let mut server = match event(&mut listener)? {
            ConnectionEvent::ConnectRequest { endpoint, .. } => Prepared::new(endpoint)?,
            other => return Err(format!("expected a request: {other:?}").into()),
        };
        server.endpoint.accept(&ConnectParameters::default())?;
        Ok(Self { client: client.ready(sends)?, server: server.ready(sends)?, number: 0 })
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

/// An end whose connection is not established.
struct Prepared {
    endpoint: Endpoint,
    domain: ProtectionDomain,
    queue: CompletionQueue,
    queue_pair: PreparedQueuePair,
}

impl Prepared {
    fn new(mut endpoint: Endpoint) -> Result<Self> {
        let domain = endpoint.domain()?;
        let (depth, inline) = (DEPTH.into(), LENGTH.try_into()?);
        let queue = endpoint.completion_queue(2 * depth)?;
        let capabilities = QueuePairCapabilities {
            max_send_wr: depth,
            max_recv_wr: depth,
            max_send_sge: 1,
            max_inline_data: inline,
        };
        let mut queue_pair = endpoint.queue_pair(&domain, &queue, capabilities)?;
        for buffer in buffers(&domain)? {
            queue_pair.post_receive(buffer, 0)?;
        }
        queue_pair.flush()?;
        Ok(Self { endpoint, domain, queue, queue_pair })
    }

    fn ready(mut self, sends: Sends) -> Result<End> {
        let ConnectionEvent::Established(established) = event(&mut self.endpoint)? else {
            return Err("the connection is not established".into());
        };
        Ok(End {
            queue_pair: self.queue_pair.ready(&established),
            spare: buffers(&self.domain)?,
            completions: [Completion::default(); BATCH],
            queue: self.queue,
            _endpoint: self.endpoint,
            sends,
        })
    }
}

struct End {
    queue_pair: QueuePair,
    queue: CompletionQueue,
    completions: [Completion; BATCH],
    /// Buffers to send, one for each send that may be posted.
    spare: Vec<Buffer>,
    sends: Sends,
    _endpoint: Endpoint,
}

impl End {
    fn send(&mut self, number: u64) -> Result<()> {
        while self.queue_pair.send_credits() == 0 {
            if self.poll()?.is_some() {
                return Err("a message came unasked".into());
            }
        }
        match self.sends {
            Sends::Buffers => {
                let mut buffer = self.spare.pop().ok_or("a credit comes with its buffer")?;
                buffer.copy_in(0, &message(number));
                self.queue_pair.send(buffer, 0)?;
            }
            Sends::Inline => self.queue_pair.send_inline(&message(number))?,
        }
        Ok(self.queue_pair.flush()?)
    }

    fn receive(&mut self) -> Result<u64> {
        wait(|| self.poll())
    }

    /// Takes completions, and returns the number of the message if one was among them.
    fn poll(&mut self) -> Result<Option<u64>> {
        let mut received = None;
        let count = self.queue.poll(&mut self.completions)?;
        for completion in &self.completions[..count] {
            if !completion.status().is_success() {
                return Err(completion.status().to_string().into());
            }
            match self.queue_pair.complete(completion)? {
                CompletedWork::Credit => {}
                CompletedWork::Send { buffers, .. } => self.spare.extend(buffers),
                CompletedWork::Receive { buffer, .. } => {
                    let mut number = [0; size_of::<u64>()];
                    buffer.copy_out(0, &mut number);
                    received = Some(u64::from_le_bytes(number));
                    self.queue_pair.post_receive(buffer, 0)?;
                }
            }
        }
        Ok(received)
    }
}

/// Makes an endpoint with a resolved address and route.
fn resolve(address: SocketAddr) -> Result<Endpoint> {
    let mut endpoint = Endpoint::open()?;
    endpoint.resolve_address(None, address, TIMEOUT)?;
    event(&mut endpoint)?;
    endpoint.resolve_route(TIMEOUT)?;
    event(&mut endpoint)?;
    Ok(endpoint)
}

fn event(endpoint: &mut Endpoint) -> Result<ConnectionEvent> {
    wait(|| Ok(endpoint.next_event()?))
}

fn buffers(domain: &ProtectionDomain) -> Result<Vec<Buffer>> {
    (0..DEPTH).map(|_| Ok(domain.allocate(LENGTH, Access::LOCAL_WRITE)?)).collect()
}

const BATCH: usize = 16;
const TIMEOUT: Duration = Duration::from_secs(3);
