//! An admin queue at the verbs, one command at a time.

use std::time::{Duration, Instant};

use auth::message::RECEIVE_LENGTH;
use rdma_host::{
    HostIdentity,
    wire::{
        AuthenticationCommand, CmRequestData, ConnectCommand, ConnectData, ControllerId, IntoBytes,
        QueueId, Sqe,
    },
};
use verbs::{
    Access, Buffer, CompletedWork, Completion, CompletionQueue, ConnectParameters, ConnectionEvent,
    Endpoint, ProtectionDomain, QueuePair, QueuePairCapabilities,
};

const LIMIT: Duration = Duration::from_secs(30);

const ENTRIES: u16 = 32;

/// The queue; disconnects on drop.
pub(super) struct Queue {
    queue_pair: QueuePair,
    completions: CompletionQueue,
    domain: ProtectionDomain,
    _endpoint: Endpoint,
    commands: u16,
}

/// Tries until there is something.
fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(begun.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

impl Queue {
    /// Connects for this host and subsystem; the target asks for authentication.
    pub(super) fn connect(host: &str, subsystem: &str) -> Self {
        let mut queue = Self::open();
        queue.connect_command(host, subsystem);
        queue
    }

    fn open() -> Self {
        let mut endpoint = Endpoint::open().expect("an endpoint");
        let address = format!("{}:4420", tests::address()).parse().expect("an address");
        let event = |endpoint: &mut Endpoint| {
            until("a connection event", || endpoint.next_event().expect("events can be read"))
        };
        endpoint.resolve_address(None, address, LIMIT).expect("a device leads there");
        assert!(matches!(event(&mut endpoint), ConnectionEvent::AddressResolved));
        endpoint.resolve_route(LIMIT).expect("the address is resolved");
        assert!(matches!(event(&mut endpoint), ConnectionEvent::RouteResolved));
        let domain = endpoint.domain().expect("a domain");
        let completions = endpoint.completion_queue(64).expect("a completion queue");
        let capabilities = QueuePairCapabilities {
            max_send_wr: 4,
            max_recv_wr: 4,
            max_send_sge: 1,
            max_inline_data: 64,
        };
        let mut prepared =
            endpoint.queue_pair(&domain, &completions, capabilities).expect("a queue pair");
        for _ in 0..4 {
            let buffer = domain.allocate(16, Access::LOCAL_WRITE).expect("memory");
            prepared.post_receive(buffer, 0).map_err(|refused| refused.error).expect("room");
        }
        prepared.flush().expect("receives are taken");
        let request = CmRequestData::new(QueueId::ADMIN, ENTRIES, ControllerId(0));
        let parameters = ConnectParameters {
            private_data: request.as_bytes(),
            responder_resources: 4,
            ..ConnectParameters::default()
        };
        endpoint.connect(&parameters).expect("a request is sent");
        let ConnectionEvent::Established(established) = event(&mut endpoint) else {
            panic!("the target accepts");
        };
        let queue_pair = prepared.ready(&established);
        Self { queue_pair, completions, domain, _endpoint: endpoint, commands: 0 }
    }

    /// Sends a command with this memory; returns the result.
    fn execute(&mut self, sqe: &Sqe, data: &Buffer) -> u64 {
        self.commands += 1;
        let mut bytes = sqe.as_bytes().to_vec();
        bytes[2..4].copy_from_slice(&self.commands.to_le_bytes());
        bytes[24..32].copy_from_slice(&data.address().to_le_bytes());
        let length = u32::try_from(data.len()).expect("a page").to_le_bytes();
        bytes[32..35].copy_from_slice(&length[..3]);
        bytes[35..39].copy_from_slice(&data.remote_key().0.to_le_bytes());
        bytes[39] = 0x40;
        self.queue_pair.send_inline(&bytes).expect("there is room");
        self.queue_pair.flush().expect("the device takes it");
        let response = until("a response", || self.response());
        assert_eq!(response[12..14], self.commands.to_le_bytes());
        let status = u16::from_le_bytes([response[14], response[15]]) >> 1;
        assert_eq!(status, 0, "command {}: status {status:#x}", self.commands);
        u64::from_le_bytes(response[..8].try_into().expect("8 bytes"))
    }

    fn response(&mut self) -> Option<[u8; 16]> {
        let mut batch = [Completion::default(); 1];
        let count = self.completions.poll(&mut batch).expect("the queue has not overrun");
        let completion = batch.first().filter(|_| count == 1)?;
        assert!(completion.status().is_success(), "{completion:?}");
        let completed = self.queue_pair.complete(completion).expect("it is ours");
        let CompletedWork::Receive { buffer, .. } = completed else { return None };
        let mut response = [0; 16];
        buffer.copy_out(0, &mut response);
        self.queue_pair.post_receive(buffer, 0).map_err(|refused| refused.error).expect("room");
        Some(response)
    }

    pub(super) fn send(&mut self, message: &[u8]) {
        let length = u32::try_from(message.len()).expect("below 2 KiB");
        let data = self.memory(message);
        self.execute(&AuthenticationCommand::send(length).to_sqe(), &data);
    }

    /// Message of the target, without the zeros behind it.
    pub(super) fn receive(&mut self) -> Vec<u8> {
        let data = self.memory(&[0; RECEIVE_LENGTH]);
        let length = u32::try_from(RECEIVE_LENGTH).expect("a page");
        self.execute(&AuthenticationCommand::receive(length).to_sqe(), &data);
        let mut bytes = vec![0; RECEIVE_LENGTH];
        data.copy_out(0, &mut bytes);
        let hash_length = usize::from(bytes[6]);
        let length = match bytes[..2] {
            [1, 1] => 16 + hash_length + usize::from(u16::from_le_bytes([bytes[10], bytes[11]])),
            [1, 3] => 16 + usize::from(bytes[8]) * hash_length,
            _ => panic!("neither a Challenge nor a Success1: {:?}", &bytes[..8]),
        };
        bytes.truncate(length);
        bytes
    }

    fn memory(&self, bytes: &[u8]) -> Buffer {
        let access = Access::LOCAL_WRITE | Access::REMOTE_READ | Access::REMOTE_WRITE;
        let mut buffer = self.domain.allocate(bytes.len(), access).expect("memory");
        buffer.copy_in(0, bytes);
        buffer
    }

    /// The names need not be NQNs as this host would have them.
    fn connect_command(&mut self, host: &str, subsystem: &str) {
        let identity =
            HostIdentity::from_id("6a2c1f4e-0b1d-4c8e-9f53-7d1e2a3b4c5d".parse().expect("a UUID"));
        let any = "nqn.any".parse().expect("an NQN");
        let mut data =
            ConnectData::new(identity.id, ControllerId::DYNAMIC, &any, &any).as_bytes().to_vec();
        for (place, name) in [(256, subsystem), (512, host)] {
            data[place..place + 256].fill(0);
            data[place..place + name.len()].copy_from_slice(name.as_bytes());
        }
        let data = self.memory(&data);
        let command = ConnectCommand::new(QueueId::ADMIN, ENTRIES, 0);
        let result = self.execute(&command.to_sqe(), &data);
        assert_eq!(result >> 16, 0b10, "ATR is set");
    }
}
