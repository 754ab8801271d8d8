//! Finding each other, private data, refusals, and the end.

use verbs::{ConnectParameters, ConnectionEvent, Endpoint, Error, PrivateData, Status};

use super::fixture::{
    Bench, Case, End, PATIENT, Pair, Prepared, SIZE, event, listen, requested, resolved,
};

pub(crate) fn cases<B: Bench>() -> Vec<Case<B>> {
    vec![
        Case { name: "accept: data", must: "15 of 196 bytes", ask: accept_data },
        Case { name: "accept: longest data", must: "196 of 196 bytes", ask: accept_longest },
        Case { name: "connect: data", must: "15 of 56 bytes", ask: connect_data },
        Case { name: "connect: longest data", must: "56 of 56 bytes", ask: connect_longest },
        Case { name: "connect: nobody listens", must: "rejected 8", ask: nobody_listens },
        Case { name: "connect: parameters seen", must: PARAMETERS, ask: parameters },
        Case { name: "disconnect: both ends are flushed", must: FLUSHED, ask: disconnect_flushes },
        Case { name: "disconnect: events", must: EVENTS, ask: events },
        Case { name: "dropped end", must: "disconnected", ask: dropped_end },
        Case { name: "dropped request", must: "rejected 28", ask: dropped_request },
        Case { name: "misuse: before resolving", must: EARLY, ask: too_early },
        Case { name: "misuse: second queue pair", must: "misuse", ask: second_queue_pair },
        Case { name: "listen: port taken", must: "98", ask: port_taken },
        Case { name: "listen: strange address", must: "99", ask: strange_address },
        Case { name: "reject: data", must: "28, 9 of 148 bytes", ask: reject_data },
        Case { name: "reject: flushes receives", must: "[FLUSHED]", ask: reject_flushes },
    ]
}

const PARAMETERS: &str = "server: bears 2, has 3, retries 4 and 5; \
                          client: bears 1, has 1, retries 0 and 7";
const FLUSHED: &str = "server [FLUSHED, FLUSHED]; client [FLUSHED, FLUSHED]";
const EVENTS: &str = "server: Disconnected; client: Disconnected, TimewaitExit";
const EARLY: &str = "limits misuse, domain misuse, reject 22, ack timeout 22, route 22, \
                     connect 22, accept 22, disconnect 22";

/// Length of the text that arrived, and that of the field which carries it.
fn arrived(data: &PrivateData, sent: &[u8]) -> String {
    let same = data.iter().zip(sent).take_while(|(one, other)| one == other).count();
    let padded = data[same..].iter().all(|&byte| byte == 0);
    format!("{same} of {} bytes{}", data.len(), if padded { "" } else { ", and others" })
}

fn with_connect_data<B: Bench>(bench: &B, data: &[u8]) -> String {
    let (mut listener, address) = listen(bench);
    let mut client = Prepared::new(resolved(bench, address));
    let parameters = ConnectParameters { private_data: data, ..ConnectParameters::default() };
    client.endpoint.connect(&parameters).expect("it is sent");
    match event(bench, &mut listener) {
        Some(ConnectionEvent::ConnectRequest { private_data, .. }) => arrived(&private_data, data),
        other => format!("{other:?}"),
    }
}

fn connect_data<B: Bench>(bench: &B) -> String {
    with_connect_data(bench, b"from the client")
}

fn connect_longest<B: Bench>(bench: &B) -> String {
    with_connect_data(bench, &[7; 56])
}

fn with_accept_data<B: Bench>(bench: &B, data: &[u8]) -> String {
    let (mut listener, address) = listen(bench);
    let mut client = Prepared::new(resolved(bench, address));
    client.endpoint.connect(&ConnectParameters::default()).expect("it is sent");
    let mut server = Prepared::new(requested(bench, &mut listener));
    let parameters = ConnectParameters { private_data: data, ..ConnectParameters::default() };
    server.endpoint.accept(&parameters).expect("it is sent");
    let (_, established) = client.ready(bench);
    arrived(&PrivateData::new(established.private_data()), data)
}

fn accept_data<B: Bench>(bench: &B) -> String {
    with_accept_data(bench, b"from the server")
}

fn accept_longest<B: Bench>(bench: &B) -> String {
    with_accept_data(bench, &[7; 196])
}

fn reject_data<B: Bench>(bench: &B) -> String {
    let (mut listener, address) = listen(bench);
    let mut client = Prepared::new(resolved(bench, address));
    client.endpoint.connect(&ConnectParameters::default()).expect("it is sent");
    requested(bench, &mut listener).reject(b"no thanks").expect("it is sent");
    match event(bench, &mut client.endpoint) {
        Some(ConnectionEvent::Rejected { status, private_data }) => {
            format!("{status}, {}", arrived(&private_data, b"no thanks"))
        }
        other => format!("{other:?}"),
    }
}

fn reject_flushes<B: Bench>(bench: &B) -> String {
    let (mut listener, address) = listen(bench);
    let mut client = Prepared::new(resolved(bench, address));
    let buffer = client.domain.allocate(64, verbs::Access::LOCAL_WRITE).expect("memory");
    client.queue_pair.post_receive(buffer, 0).expect("there is room");
    client.queue_pair.flush().expect("the device takes it");
    client.endpoint.connect(&ConnectParameters::default()).expect("it is sent");
    requested(bench, &mut listener).reject(b"").expect("it is sent");
    event(bench, &mut client.endpoint);
    bench.quiet(PATIENT / 100);
    let mut completions = [verbs::Completion::default(); 4];
    let count = client.queue.poll(&mut completions).expect("it has not overrun");
    let statuses: Vec<Status> =
        completions[..count].iter().map(|completion| completion.status()).collect();
    format!("{statuses:?}")
}

fn rejection<B: Bench>(bench: &B, endpoint: &mut Endpoint<B::Provider>) -> String {
    match event(bench, endpoint) {
        Some(ConnectionEvent::Rejected { status, .. }) => format!("rejected {status}"),
        other => format!("{other:?}"),
    }
}

fn nobody_listens<B: Bench>(bench: &B) -> String {
    let (listener, address) = listen(bench);
    drop(listener);
    let mut client = Prepared::new(resolved(bench, address));
    match client.endpoint.connect(&ConnectParameters::default()) {
        Ok(()) => rejection(bench, &mut client.endpoint),
        error => format!("refused within the call: {}", refusal(error)),
    }
}

fn dropped_request<B: Bench>(bench: &B) -> String {
    let (mut listener, address) = listen(bench);
    let mut client = Prepared::new(resolved(bench, address));
    client.endpoint.connect(&ConnectParameters::default()).expect("it is sent");
    drop(requested(bench, &mut listener));
    rejection(bench, &mut client.endpoint)
}

fn parameters<B: Bench>(bench: &B) -> String {
    let (mut listener, address) = listen(bench);
    let mut client = Prepared::new(resolved(bench, address));
    let proposed = ConnectParameters {
        responder_resources: 3,
        initiator_depth: 2,
        retry_count: 4,
        rnr_retry_count: 5,
        ..ConnectParameters::default()
    };
    client.endpoint.connect(&proposed).expect("it is sent");
    let Some(ConnectionEvent::ConnectRequest { endpoint, parameters, .. }) =
        event(bench, &mut listener)
    else {
        panic!("expected a request")
    };
    let mut server = Prepared::new(endpoint);
    server.endpoint.accept(&ConnectParameters::default()).expect("it is sent");
    let (_, established) = client.ready(bench);
    let say = |seen: verbs::ConnectionParameters| {
        let (bears, has) = (seen.responder_resources, seen.initiator_depth);
        format!(
            "bears {bears}, has {has}, retries {} and {}",
            seen.retry_count, seen.rnr_retry_count
        )
    };
    format!("server: {}; client: {}", say(parameters), say(established.parameters()))
}

fn disconnect<B: Bench>(pair: &mut Pair<'_, B>) {
    pair.client.endpoint.disconnect().expect("there is a connection");
    for end in [&mut pair.server, &mut pair.client] {
        let found = event(pair.bench, &mut end.endpoint);
        assert!(matches!(found, Some(ConnectionEvent::Disconnected)), "{found:?}");
        let _ = end.endpoint.disconnect(); // answers, or finds nothing to do
    }
}

fn disconnect_flushes<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    pair.server.post_receives(2, 64);
    pair.client.post_receives(2, 64);
    disconnect(&mut pair);
    format!("server {:?}; client {:?}", pair.server_says(2), pair.client_says(2))
}

fn events<B: Bench>(bench: &B) -> String {
    let mut pair = Pair::connect(bench);
    let named = |found: Option<ConnectionEvent<B::Provider>>| {
        found.map_or("nothing".to_owned(), |found| format!("{found:?}"))
    };
    pair.client.endpoint.disconnect().expect("there is a connection");
    let server = named(event(bench, &mut pair.server.endpoint));
    pair.server.endpoint.disconnect().expect("it is the answer");
    let first = named(event(bench, &mut pair.client.endpoint));
    let second = named(event(bench, &mut pair.client.endpoint));
    format!("server: {server}; client: {first}, {second}")
}

fn dropped_end<B: Bench>(bench: &B) -> String {
    let Pair { client, server: End { mut endpoint, .. }, .. } = Pair::connect(bench);
    drop(client);
    match event(bench, &mut endpoint) {
        Some(ConnectionEvent::Disconnected) => "disconnected".to_owned(),
        other => format!("{other:?}"),
    }
}

/// A refusal in a word: the error number behind it, if there is one.
pub(crate) fn refusal<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(Error::Misuse(_)) => "misuse".to_owned(),
        Err(error) => {
            let source = std::error::Error::source(&error);
            let number = source.and_then(|source| source.downcast_ref::<std::io::Error>());
            let number = number.and_then(std::io::Error::raw_os_error);
            number.map_or_else(|| error.to_string(), |number| number.to_string())
        }
    }
}

fn too_early<B: Bench>(bench: &B) -> String {
    let mut endpoint = Endpoint::open_with(bench.client()).expect("an endpoint");
    let parameters = ConnectParameters::default();
    let answers = [
        ("limits", refusal(endpoint.limits())),
        ("domain", refusal(endpoint.domain())),
        ("reject", refusal(endpoint.reject(b""))),
        ("ack timeout", refusal(endpoint.set_ack_timeout(32))),
        ("route", refusal(endpoint.resolve_route(PATIENT))),
        ("connect", refusal(endpoint.connect(&parameters))),
        ("accept", refusal(endpoint.accept(&parameters))),
        ("disconnect", refusal(endpoint.disconnect())),
    ];
    answers.map(|(what, answer)| format!("{what} {answer}")).join(", ")
}

fn second_queue_pair<B: Bench>(bench: &B) -> String {
    let (_listener, address) = listen(bench);
    let Prepared { mut endpoint, domain, queue_pair, .. } = Prepared::new(resolved(bench, address));
    let queue = endpoint.completion_queue(SIZE.max_send_wr + SIZE.max_recv_wr).expect("a queue");
    let answer = refusal(endpoint.queue_pair(&domain, &queue, SIZE));
    drop(queue_pair);
    answer
}

fn port_taken<B: Bench>(bench: &B) -> String {
    let (_listener, address) = listen(bench);
    let mut endpoint = Endpoint::open_with(bench.server()).expect("an endpoint");
    refusal(endpoint.listen(address, 1))
}

fn strange_address<B: Bench>(bench: &B) -> String {
    let mut endpoint = Endpoint::open_with(bench.server()).expect("an endpoint");
    let strange = "192.0.2.1:4420".parse().expect("it is an address");
    refusal(endpoint.listen(strange, 1))
}
