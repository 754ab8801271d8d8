//! Connects two ends on one device and passes messages between them.
//!
//! ```sh
//! cargo run --example loopback 192.0.2.1:4791   # an address of an RDMA device of this machine
//! ```
//!
//! A thread listens; it refuses the first request and takes the second. Then inline messages
//! and buffers go back and forth, eight at a time, until this side disconnects.

use std::{
    collections::VecDeque, error::Error, net::SocketAddr, os::fd::AsFd, process::ExitCode,
    sync::mpsc, thread, time::Duration,
};

use rustix::event::{PollFd, PollFlags, poll};
use verbs::{
    Access, CompletedWork, Completion, CompletionQueue, ConnectParameters, ConnectionEvent,
    Endpoint, ProtectionDomain, QueuePair, QueuePairCapabilities,
};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let address = std::env::args().nth(1).ok_or("usage: loopback ADDRESS:PORT")?.parse()?;
    let (listening, ready) = mpsc::channel();
    let (done, server) = mpsc::channel();
    thread::spawn(move || done.send(serve(address, listening)));
    let client = match ready.recv() {
        Ok(()) => drive(address),
        Err(_) => Err("the server does not listen".into()),
    };
    // Where both ends fail, the server's reason is the first.
    match server.recv_timeout(TIMEOUT) {
        Ok(Err(server)) => Err(server),
        _ => client,
    }
}

fn drive(address: SocketAddr) -> Result<()> {
    be_refused(address)?;
    let mut client = connect(address)?;
    client.ping_pong()?;
    client.endpoint.disconnect()?;
    let event = wait_for_event(&mut client.endpoint)?;
    println!("client: {event:?}");
    Ok(())
}

/// Refuses the first request, takes the second, and sends everything back that arrives.
fn serve(address: SocketAddr, listening: mpsc::Sender<()>) -> Result<()> {
    let mut listener = Endpoint::open()?;
    listener.listen(address, 8)?;
    listening.send(())?;

    let (mut endpoint, data) = wait_for_request(&mut listener)?;
    println!("server: refusing {:?}", text(&data));
    endpoint.reject(b"try again")?;

    let (endpoint, data) = wait_for_request(&mut listener)?;
    println!("server: accepting {:?}", text(&data));
    let mut end = End::establish(endpoint, |endpoint| {
        endpoint.accept(&ConnectParameters { private_data: b"welcome", ..Default::default() })
    })?;
    end.echo()?;
    println!("server: disconnected");
    Ok(())
}

fn be_refused(address: SocketAddr) -> Result<()> {
    let refused = End::establish(resolve(address)?, |endpoint| {
        endpoint.connect(&ConnectParameters { private_data: b"first", ..Default::default() })
    });
    println!("client: {}", refused.err().ok_or("the server took the first request")?);
    Ok(())
}

fn connect(address: SocketAddr) -> Result<End> {
    End::establish(resolve(address)?, |endpoint| {
        endpoint.connect(&ConnectParameters { private_data: b"second", ..Default::default() })
    })
}

/// Finds the device and the way to an address.
fn resolve(address: SocketAddr) -> Result<Endpoint> {
    let mut endpoint = Endpoint::open()?;
    endpoint.resolve_address(None, address, TIMEOUT)?;
    match wait_for_event(&mut endpoint)? {
        ConnectionEvent::AddressResolved => endpoint.resolve_route(TIMEOUT)?,
        other => return Err(format!("no device leads to {address}: {other:?}").into()),
    }
    match wait_for_event(&mut endpoint)? {
        ConnectionEvent::RouteResolved => Ok(endpoint),
        other => Err(format!("no route to {address}: {other:?}").into()),
    }
}

/// One end of an established connection.
struct End {
    endpoint: Endpoint,
    domain: ProtectionDomain,
    queue: CompletionQueue,
    queue_pair: QueuePair,
}

impl End {
    /// Makes everything that an endpoint needs, posts receives, and connects or accepts.
    fn establish(
        mut endpoint: Endpoint,
        start: impl FnOnce(&mut Endpoint) -> Result<(), verbs::Error>,
    ) -> Result<Self> {
        let domain = endpoint.domain()?;
        let queue = endpoint.completion_queue(2 * 2 * DEPTH)?;
        let capabilities = QueuePairCapabilities {
            max_send_wr: 2 * DEPTH,
            max_recv_wr: 2 * DEPTH,
            max_send_sge: 2,
            max_inline_data: 64,
        };
        let mut queue_pair = endpoint.queue_pair(&domain, &queue, capabilities)?;
        for tag in 0..2 * DEPTH {
            let buffer = domain.allocate(LENGTH, Access::LOCAL_WRITE)?;
            queue_pair.post_receive(buffer, tag.into())?;
        }
        queue_pair.flush()?;
        start(&mut endpoint)?;
        match wait_for_event(&mut endpoint)? {
            ConnectionEvent::Established(established) => {
                let queue_pair = queue_pair.ready(&established);
                Ok(Self { endpoint, domain, queue, queue_pair })
            }
            ConnectionEvent::Rejected { status, private_data } => {
                let text = text(&private_data);
                Err(format!("refused with status {status} and {text:?}").into())
            }
            other => Err(format!("not connected: {other:?}").into()),
        }
    }

    /// Sends [`DEPTH`] inline messages and as many buffers, waits for all to come back, and
    /// again.
    fn ping_pong(&mut self) -> Result<()> {
        let mut buffers = Vec::new();
        for _ in 0..DEPTH {
            buffers.push(self.domain.allocate(LENGTH, Access::LOCAL_WRITE)?);
        }
        for round in 0..ROUNDS {
            for (tag, mut buffer) in (0..).zip(buffers.drain(..)) {
                self.queue_pair.send_inline(&round.to_le_bytes())?;
                buffer.copy_in(0, &round.to_le_bytes());
                self.queue_pair.send(buffer, tag)?;
            }
            self.queue_pair.flush()?;
            let mut back = 0;
            while back < 2 * DEPTH || buffers.len() < DEPTH as usize {
                for completion in wait_for_completions(&mut self.queue)? {
                    match self.complete(&completion)? {
                        CompletedWork::Credit => {}
                        CompletedWork::Send { buffers: sent, .. } => buffers.extend(sent),
                        CompletedWork::Receive { tag, buffer, .. } => {
                            let mut number = [0; 4];
                            buffer.copy_out(0, &mut number);
                            assert_eq!(u32::from_le_bytes(number), round, "messages keep order");
                            back += 1;
                            self.queue_pair.post_receive(buffer, tag)?;
                        }
                    }
                }
                self.queue_pair.flush()?;
            }
        }
        println!("client: {} messages went and came back", ROUNDS * 2 * DEPTH);
        Ok(())
    }

    /// Sends back what arrives, until the peer disconnects.
    fn echo(&mut self) -> Result<()> {
        let mut answers = VecDeque::new();
        loop {
            while let Some(event) = self.endpoint.next_event()? {
                if matches!(event, ConnectionEvent::Disconnected) {
                    self.endpoint.disconnect()?; // answers the peer
                    return Ok(());
                }
            }
            for completion in completions_or_event(&mut self.queue, &self.endpoint)? {
                if !completion.status().is_success() {
                    continue; // flushed by the disconnect
                }
                if let CompletedWork::Receive { tag, buffer, length } =
                    self.complete(&completion)?
                {
                    let mut number = [0; 4];
                    buffer.copy_out(0, &mut number);
                    assert!(length >= 4, "all messages begin with a number");
                    answers.push_back(number);
                    self.queue_pair.post_receive(buffer, tag)?;
                }
            }
            // A message can arrive before the credit for the last answer is back.
            while self.queue_pair.send_credits() > 0 {
                let Some(answer) = answers.pop_front() else { break };
                self.queue_pair.send_inline(&answer)?;
            }
            self.queue_pair.flush()?;
        }
    }

    fn complete(&mut self, completion: &Completion) -> Result<CompletedWork> {
        if !completion.status().is_success() {
            return Err(completion.status().to_string().into());
        }
        Ok(self.queue_pair.complete(completion)?)
    }
}

fn wait_for_request(listener: &mut Endpoint) -> Result<(Endpoint, verbs::PrivateData)> {
    match wait_for_event(listener)? {
        ConnectionEvent::ConnectRequest { endpoint, private_data, .. } => {
            Ok((endpoint, private_data))
        }
        other => Err(format!("expected a request: {other:?}").into()),
    }
}

fn wait_for_event(endpoint: &mut Endpoint) -> Result<ConnectionEvent> {
    loop {
        if let Some(event) = endpoint.next_event()? {
            return Ok(event);
        }
        poll(&mut [PollFd::new(&*endpoint, PollFlags::IN)], None)?;
    }
}

fn wait_for_completions(queue: &mut CompletionQueue) -> Result<Vec<Completion>> {
    loop {
        let completions = take(queue)?;
        if !completions.is_empty() {
            return Ok(completions);
        }
        poll(&mut [PollFd::new(&*queue, PollFlags::IN)], None)?;
    }
}

/// Waits for completions, or for the endpoint to have an event; then there may be none.
fn completions_or_event(
    queue: &mut CompletionQueue,
    endpoint: &impl AsFd,
) -> Result<Vec<Completion>> {
    let completions = take(queue)?;
    if !completions.is_empty() {
        return Ok(completions);
    }
    let mut files = [PollFd::new(&*queue, PollFlags::IN), PollFd::new(endpoint, PollFlags::IN)];
    poll(&mut files, None)?;
    take(queue)
}

/// Asks for an event at the next completion, and takes those that came before.
fn take(queue: &mut CompletionQueue) -> Result<Vec<Completion>> {
    queue.acknowledge()?;
    queue.arm()?;
    let mut completions = vec![Completion::default(); 64];
    let count = queue.poll(&mut completions)?;
    completions.truncate(count);
    Ok(completions)
}

/// Private data without the zeroes that the system pads it with.
fn text(private_data: &[u8]) -> String {
    String::from_utf8_lossy(private_data).trim_end_matches('\0').to_owned()
}

const DEPTH: u32 = 8;
const ROUNDS: u32 = 1000;
const LENGTH: usize = 4096;
const TIMEOUT: Duration = Duration::from_secs(3);
