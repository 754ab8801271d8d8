//! Exchanges with the kernel's target, with known randomness on our side: each is printed as a row
//! of `auth/vectors/live.json`, for `auth/vectors/check_live.py` to compute again.

use std::fmt::Write;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use auth::message::RECEIVE_LENGTH;
use auth::{
    Credentials, GroupId, HashId, Offer, Policy, Randomness, Secret, SequenceNumber, TransactionId,
};
use rdma_host::HostIdentity;
use rdma_host::wire::{
    AuthenticationCommand, ConnectCommand, ConnectData, ControllerId, IntoBytes, QueueId, Request,
    Sqe,
};
use tests::{SUBSYSTEM, noise, target};
use verbs::{
    Access, Buffer, Capabilities, Completion, CompletionQueue, ConnectParameters, ConnectionEvent,
    Domain, Endpoint, QueuePair, Retired,
};

/// The host that the target file names.
const HOST: &str = "nqn.2026-11.org.soft-roce:secret";

const LIMIT: Duration = Duration::from_secs(30);

const ENTRIES: u16 = 32;

/// An admin queue, one command at a time.
struct Queue {
    queue_pair: QueuePair,
    completions: CompletionQueue,
    domain: Domain,
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
    fn connect() -> Self {
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
        let capabilities = Capabilities { send: 4, receive: 4, segments: 1, inline: 64 };
        let mut prepared =
            endpoint.queue_pair(&domain, &completions, capabilities).expect("a queue pair");
        for _ in 0..4 {
            let buffer = domain.allocate(16, Access::LOCAL_WRITE).expect("memory");
            prepared.post_receive(buffer, 0).map_err(|refused| refused.error).expect("room");
        }
        prepared.flush().expect("receives are taken");
        let request = Request::new(QueueId::ADMIN, ENTRIES, ControllerId(0));
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
        let retired = self.queue_pair.retire(completion).expect("it is ours");
        let Retired::Receive { buffer, .. } = retired else { return None };
        let mut response = [0; 16];
        buffer.copy_out(0, &mut response);
        self.queue_pair.post_receive(buffer, 0).map_err(|refused| refused.error).expect("room");
        Some(response)
    }

    fn send(&mut self, message: &[u8]) {
        let length = u32::try_from(message.len()).expect("below 2 KiB");
        let data = self.memory(message);
        self.execute(&AuthenticationCommand::send(length).to_sqe(), &data);
    }

    /// What the target says, without the zeros behind it.
    fn receive(&mut self) -> Vec<u8> {
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
}

/// What our side brings to one exchange.
struct Inputs {
    number: u32,
    hash: HashId,
    group: GroupId,
    host: String,
    controller: Option<String>,
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Inputs {
    /// One exchange, as a row.
    fn play(&self) -> serde_json::Value {
        let (transaction_id, s2) = (0x4000 + self.number, 0x0102_0300 + self.number);
        let challenge_random = noise(64, u64::from(self.number) + 1000);
        let exponent_random = noise(52, u64::from(self.number) + 2000);
        let parse = |text: &str| Secret::parse(text).expect("a valid secret");
        let credentials = match &self.controller {
            None => Credentials::one_way(parse(&self.host)),
            Some(controller) => {
                Credentials::two_way(parse(&self.host), parse(controller)).expect("two secrets")
            }
        };
        let offer = Offer {
            credentials: &credentials,
            policy: Policy::default(),
            host_nqn: HOST,
            subsystem_nqn: SUBSYSTEM,
            transaction_id: TransactionId(u16::try_from(transaction_id).expect("small")),
        };
        let mut queue = Queue::connect();
        queue.connect_command();
        let (negotiate, state) = offer.begin().expect("two names");
        queue.send(&negotiate);
        let challenge = queue.receive();
        let mut parts = [&challenge_random, &exponent_random].into_iter();
        let randomness = Randomness::draw(|buffer| {
            buffer.copy_from_slice(parts.next().expect("two draws"));
            Ok::<_, ()>(())
        })
        .expect("it is there");
        let sequence_number = SequenceNumber(NonZeroU32::new(s2).expect("not zero"));
        let (reply, state) = state
            .handle(&challenge, randomness, sequence_number)
            .unwrap_or_else(|failure| panic!("{failure}"));
        queue.send(&reply);
        let success1 = queue.receive();
        let (success2, how) = state.handle(&success1).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!((how.hash, how.group), (self.hash, self.group));
        let mut messages = vec![negotiate, challenge, reply, success1];
        if let Some(success2) = success2 {
            queue.send(&success2);
            messages.push(success2);
        }
        let messages: Vec<_> = messages.iter().map(|message| hexadecimal(message)).collect();
        serde_json::json!({
            "note": format!("{} number {}", kernel(), self.number),
            "hash_min": 1,
            "group_min": 0,
            "host_nqn": HOST,
            "subsystem_nqn": SUBSYSTEM,
            "transaction_id": transaction_id,
            "s2": s2,
            "challenge_random": hexadecimal(&challenge_random),
            "exponent_random": hexadecimal(&exponent_random),
            "host_secret": self.host,
            "controller_secret": self.controller,
            "messages": messages,
            "outcome": {"authenticated": {
                "hash": how.hash.0,
                "group": how.group.0,
                "controller_proved": how.controller_proved,
            }},
        })
    }
}

impl Queue {
    fn connect_command(&mut self) {
        let host =
            HostIdentity::from_id("6a2c1f4e-0b1d-4c8e-9f53-7d1e2a3b4c5d".parse().expect("a UUID"));
        let (subsystem, name) = (SUBSYSTEM.parse().expect("an NQN"), HOST.parse().expect("an NQN"));
        let data = ConnectData::new(host.id, ControllerId::DYNAMIC, &subsystem, &name);
        let data = self.memory(data.as_bytes());
        let command = ConnectCommand::new(QueueId::ADMIN, ENTRIES, 0);
        let result = self.execute(&command.to_sqe(), &data);
        assert_eq!(result >> 16, 0b10, "ATR is set");
    }
}

/// The kernel's release.
fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn exchanges_with_known_randomness_succeed() {
    let set = |attribute: &str, value: &str| {
        let _ = target(&["set", "host", HOST, attribute, value]);
    };
    let groups = ["null", "ffdhe2048", "ffdhe3072", "ffdhe4096", "ffdhe6144", "ffdhe8192"];
    let hashes = ["sha256", "sha384", "sha512"];
    let mut number = 0;
    for (group, group_name) in (0..).zip(groups) {
        set("dhchap_dhgroup", group_name);
        for (hash, hash_name) in (1..).zip(hashes) {
            set("dhchap_hash", hash_name);
            for two_way in [false, true] {
                let secret = |shift: u32| {
                    let transformation = HashId(u8::try_from((number + shift) % 4).expect("small"));
                    let length = [32, 48, 64][(number + shift) as usize % 3];
                    let bytes = noise(length, u64::from(number * 2 + shift) + 1);
                    let secret = Secret::from_bytes(transformation, &bytes).expect("a length");
                    secret.encode().as_str().to_owned()
                };
                let (host, controller) = (secret(0), two_way.then(|| secret(1)));
                set("dhchap_key", &host);
                if let Some(controller) = &controller {
                    set("dhchap_ctrl_key", controller);
                }
                let (hash, group) = (HashId(hash), GroupId(group));
                let row = Inputs { number, hash, group, host, controller }.play();
                println!("TRANSCRIPT {row}");
                number += 1;
            }
        }
    }
    assert_eq!(number, 36);
}
