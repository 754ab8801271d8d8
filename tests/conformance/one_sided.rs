//! Reads, writes and windows: what a key allows, to whom, and until when.

use verbs::{Access, BindInfo, Buffer, ConnectParameters, RemoteAddress, RemoteKey, Status};

use super::fixture::{Bench, Case, Pair, Prepared, contents, listen, resolved};

pub(crate) fn cases<B: Bench>() -> Vec<Case<B>> {
    vec![
        Case { name: "key: another domain's", must: REFUSED, ask: other_domain },
        Case { name: "key: beyond the end", must: REFUSED, ask: beyond_the_end },
        Case { name: "key: deregistered", must: REFUSED, ask: deregistered },
        Case { name: "key: no right to read", must: REFUSED, ask: read_only_write },
        Case { name: "key: no right to write", must: REFUSED, ask: write_to_read_only },
        Case { name: "key: unknown", must: REFUSED, ask: unknown_key },
        Case { name: "read", must: "what the server has", ask: read },
        Case {
            name: "read: more than may be open",
            must: "[SUCCESS, SUCCESS, SUCCESS, SUCCESS]",
            ask: many_reads,
        },
        Case { name: "write: before the send", must: "written", ask: write },
        Case { name: "write: inline", must: "written", ask: write_inline },
        Case { name: "window: another connection's", must: REFUSED, ask: other_connection },
        Case { name: "window: beyond the end", must: REFUSED, ask: beyond_the_window },
        Case {
            name: "window: bound anew",
            must: "new key SUCCESS, old key REMOTE_ACCESS",
            ask: rebound,
        },
        Case { name: "window: invalidated here", must: REFUSED, ask: invalidated_here },
        Case {
            name: "window: invalidated there",
            must: "named true, REMOTE_ACCESS",
            ask: invalidated_there,
        },
        Case { name: "window: no right to write", must: REFUSED, ask: window_write },
        Case { name: "window: read", must: "SUCCESS", ask: window_read },
        Case {
            name: "window: invalidating a registration",
            must: "server [REMOTE_INVALID_REQUEST, FLUSHED], client [SUCCESS]",
            ask: invalidate_registration,
        },
    ]
}

const REFUSED: &str = "client [REMOTE_ACCESS, FLUSHED], server [FLUSHED]";
const ALL: [Access; 3] = [Access::REMOTE_READ, Access::REMOTE_WRITE, Access::BIND];

fn place(buffer: &Buffer, key: RemoteKey) -> RemoteAddress {
    RemoteAddress { address: buffer.address(), key }
}

fn own(buffer: &Buffer) -> RemoteAddress {
    place(buffer, buffer.remote_key())
}

fn all() -> Access {
    ALL.into_iter().fold(Access::NONE, |one, other| one | other)
}

/// One access that should be refused, something after it, and how both ends end.
fn refused<B: Bench>(pair: &mut Pair<'_, B>, write: bool, at: RemoteAddress) -> String {
    pair.server.post_receives(1, 64);
    access(pair, write, at);
    pair.client.send(b"later");
    let client = pair.client_says(2);
    format!("client {client:?}, server {:?}", pair.server_says(1))
}

fn access<B: Bench>(pair: &mut Pair<'_, B>, write: bool, at: RemoteAddress) {
    let buffer = pair.client.buffer(&[9; 32], Access::LOCAL_WRITE);
    let posted = if write {
        pair.client.queue_pair.rdma_write(buffer, at, 0)
    } else {
        pair.client.queue_pair.rdma_read(buffer, at, 0)
    };
    posted.expect("there is room");
    pair.client.queue_pair.flush().expect("the device takes it");
}

fn with_access<B: Bench>(bench: &B, allowed: Access, write: bool) -> String {
    let mut pair = Pair::connect(bench);
    let memory = pair.server.buffer(&[1; 32], allowed);
    refused(&mut pair, write, own(&memory))
}

fn write_to_read_only<B: Bench>(bench: &B) -> String {
    with_access(bench, Access::REMOTE_READ, true)
}

fn read_only_write<B: Bench>(bench: &B) -> String {
    with_access(bench, Access::REMOTE_WRITE, false)
}

fn many_reads<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench); // which allows one
    let memory = pair.server.buffer(&[1; 32], Access::REMOTE_READ);
    (0..4).for_each(|_| access(&mut pair, false, own(&memory)));
    format!("{:?}", pair.client_says(4))
}

fn unknown_key<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    let memory = pair.server.buffer(&[1; 32], all());
    let RemoteKey(key) = memory.remote_key();
    refused(&mut pair, false, place(&memory, RemoteKey(key ^ 0x55)))
}

fn deregistered<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    let memory = pair.server.buffer(&[1; 32], all());
    let at = own(&memory);
    drop(memory);
    refused(&mut pair, false, at)
}

fn beyond_the_end<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    let memory = pair.server.buffer(&[1; 31], all());
    refused(&mut pair, true, own(&memory))
}

fn other_domain<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    let domain = pair.server.endpoint.domain().expect("a domain");
    let memory = domain.allocate(32, all()).expect("memory");
    refused(&mut pair, false, own(&memory))
}

fn read<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    let memory = pair.server.buffer(b"what the server has", Access::REMOTE_READ);
    let into = [10, 9].map(|length| pair.client.buffer(&vec![0; length], Access::LOCAL_WRITE));
    let [first, second] = into;
    pair.client.queue_pair.rdma_read((first, second), own(&memory), 0).expect("there is room");
    pair.client.queue_pair.flush().expect("the device takes it");
    let completions = pair.client.completions(bench, 1);
    match pair.client.queue_pair.complete(&completions[0]) {
        Ok(verbs::CompletedWork::Send { buffers, .. }) => {
            let parts = buffers.iter().map(|part| contents(part, part.len()));
            parts.flatten().collect::<Vec<_>>().escape_ascii().to_string()
        }
        other => format!("{other:?}"),
    }
}

fn write<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    pair.server.post_receives(1, 64);
    let memory = pair.server.buffer(&[0; 7], Access::REMOTE_WRITE);
    let bytes = pair.client.buffer(b"written", Access::NONE);
    pair.client.queue_pair.rdma_write(bytes, own(&memory), 0).expect("there is room");
    pair.client.send(b"done");
    pair.server.messages(bench, 1);
    String::from_utf8_lossy(&contents(&memory, 7)).into_owned()
}

fn write_inline<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    pair.server.post_receives(1, 64);
    let memory = pair.server.buffer(&[0; 7], Access::REMOTE_WRITE);
    pair.client.queue_pair.rdma_write_inline(b"written", own(&memory)).expect("there is room");
    pair.client.send(b"done");
    pair.server.messages(bench, 1);
    String::from_utf8_lossy(&contents(&memory, 7)).into_owned()
}

/// Binds the only window of the server to the first 32 bytes of a buffer.
fn bind<B: Bench>(pair: &mut Pair<'_, B>, memory: &Buffer, access: Access) -> RemoteKey {
    let window = pair.server.domain.window().expect("a window");
    let window = pair.server.queue_pair.add_window(window).expect("it is of the domain");
    assert_eq!(window, 0);
    let to = BindInfo { buffer: memory, range: 0..32, access };
    let key = pair.server.queue_pair.bind(window, &to).expect("there is room");
    pair.server.queue_pair.flush().expect("the device takes it");
    pair.bench.quiet(std::time::Duration::from_millis(1));
    key
}

fn through_window<B: Bench>(bench: &B, access: Access, write: bool, skip: u64) -> String {
    let mut pair = Pair::connect(bench);
    let memory = pair.server.buffer(&[1; 64], all());
    let key = bind(&mut pair, &memory, access);
    let address = memory.address() + skip;
    refused(&mut pair, write, RemoteAddress { address, key })
}

fn window_write<B: Bench>(bench: &B) -> String {
    through_window(bench, Access::REMOTE_READ, true, 0)
}

fn beyond_the_window<B: Bench>(bench: &B) -> String {
    through_window(bench, Access::REMOTE_READ, false, 1)
}

fn window_read<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    let memory = pair.server.buffer(&[1; 64], all());
    let key = bind(&mut pair, &memory, Access::REMOTE_READ);
    one_read(&mut pair, place(&memory, key))
}

fn one_read<B: Bench>(pair: &mut Pair<'_, B>, at: RemoteAddress) -> String {
    access(pair, false, at);
    pair.client_says(1).first().map_or("nothing".to_owned(), |status| format!("{status:?}"))
}

fn other_connection<B: Bench>(bench: &B) -> String {
    let mut first = Pair::connect(bench);
    let memory = first.server.buffer(&[1; 64], all());
    let key = bind(&mut first, &memory, Access::REMOTE_READ);
    let (mut listener, address) = listen(bench);
    let client = Prepared::new(resolved(bench, address));
    let domain = Some(first.server.domain.clone());
    let mut second =
        Pair::between(bench, &mut listener, client, domain, &ConnectParameters::default());
    refused(&mut second, false, place(&memory, key))
}

fn invalidated_here<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    let memory = pair.server.buffer(&[1; 64], all());
    let key = bind(&mut pair, &memory, Access::REMOTE_READ);
    pair.server.queue_pair.local_invalidate(0).expect("there is room");
    pair.server.queue_pair.flush().expect("the device takes it");
    assert_eq!(pair.server_says(1), [Status::SUCCESS]);
    refused(&mut pair, false, place(&memory, key))
}

/// The client invalidates a key of the server; says whether the server was told which.
fn invalidate<B: Bench>(pair: &mut Pair<'_, B>, key: RemoteKey) -> bool {
    pair.server.post_receives(1, 64);
    pair.client.queue_pair.send_inline_with_invalidate(b"done", key).expect("there is room");
    pair.client.queue_pair.flush().expect("the device takes it");
    let completions = pair.server.completions(pair.bench, 1);
    pair.server.queue_pair.complete(&completions[0]).expect("it is ours");
    completions[0].invalidated() == Some(key)
}

fn invalidated_there<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    let memory = pair.server.buffer(&[1; 64], all());
    let key = bind(&mut pair, &memory, Access::REMOTE_READ);
    let named = invalidate(&mut pair, key);
    format!("named {named}, {}", one_read(&mut pair, place(&memory, key)))
}

fn rebound<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    let memory = pair.server.buffer(&[1; 64], all());
    let old = bind(&mut pair, &memory, Access::REMOTE_READ);
    invalidate(&mut pair, old);
    assert!(!pair.server.queue_pair.is_bound(0), "its key is invalid");
    let to = BindInfo { buffer: &memory, range: 0..32, access: Access::REMOTE_READ };
    let new = pair.server.queue_pair.bind(0, &to).expect("there is room");
    pair.server.queue_pair.flush().expect("the device takes it");
    bench.quiet(std::time::Duration::from_millis(1));
    let with_new = one_read(&mut pair, place(&memory, new));
    format!("new key {with_new}, old key {}", one_read(&mut pair, place(&memory, old)))
}

fn invalidate_registration<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    let memory = pair.server.buffer(&[1; 64], all());
    pair.server.post_receives(2, 64);
    let message = pair.client.buffer(b"message", Access::NONE);
    let key = memory.remote_key();
    pair.client.queue_pair.send_with_invalidate(message, key, 0).expect("there is room");
    pair.client.queue_pair.flush().expect("the device takes it");
    let server = pair.server_says(2);
    format!("server {server:?}, client {:?}", pair.client_says(1))
}
