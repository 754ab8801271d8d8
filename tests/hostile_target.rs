//! A target that answers wrongly, the same over the fabric and over rxe: what it receives and
//! answers, and what the caller is told, is one transcript, whichever carries the messages.

// bed: waits --target tests/targets/shallow.toml

#[path = "hostile_target/rows.rs"]
mod rows;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use rdma_fabric::Fabric;
use rdma_host::{
    ConnectOptions, Controller, Error, ErrorClass, Fence, FenceOptions, HostIdentity, Namespace,
    ReconnectOptions, wire::NamespaceId,
};
use rows::{ROWS, Row};
use tests::target::{Answer, ReceivedCommand, TARGET_ADDRESS, Target};
use verbs::{Provider, RdmaCore};

/// I/O commands of a play, one after the other; then the namespaces are listed.
const COMMANDS: u64 = 6;
/// Admin commands that come by the clock, or in no order with others: Keep Alive, Abort and
/// Asynchronous Event Request. What became of an Abort is part of the outcome.
const UNORDERED: [u8; 3] = [0x18, 0x08, 0x0c];

/// Lines of both sides, in the order in which they happen.
type Transcript = Arc<Mutex<Vec<String>>>;

fn options(address: SocketAddr) -> ConnectOptions {
    let nqn = "nqn.2026-11.org.soft-roce:scripted".parse().expect("an NQN");
    let host = HostIdentity::from_id(uuid::Uuid::from_u128(1));
    // With a fence, the ids of queues do not begin with 1.
    let fence = FenceOptions::default().mode(Fence::Off);
    ConnectOptions::new(address, nqn, host)
        .io_queues(1)
        .io_timeout(Duration::from_millis(500))
        .reconnect(ReconnectOptions::never())
        .fence(fence)
}

/// Words of an error: those of a lost connection are its transport's own.
fn words(error: &Error) -> String {
    match error.class() {
        ErrorClass::Transport if !matches!(error, Error::CommandTimeout { .. }) => {
            "Transport".to_owned()
        }
        class => format!("{class:?}: {error}"),
    }
}

/// Plays a row between two providers.
async fn play<P: Provider>(
    host: &Arc<P>,
    target: Arc<P>,
    address: SocketAddr,
    row: &Row,
) -> Vec<String> {
    let transcript = Transcript::default();
    let (seen_by_target, misbehave) = (Arc::clone(&transcript), row.misbehave);
    let mut count = 0;
    let hook = move |seen: ReceivedCommand, answer: &mut Answer| {
        count += u32::from(seen.is_io());
        misbehave(count, &seen, answer);
        if seen.queue != 0 || !UNORDERED.contains(&seen.sqe[0]) {
            seen_by_target.lock().expect("no panic").push(line_of(&seen, answer));
        }
    };
    let mut scripted = Target::over(target, address, Box::new(hook));
    if let Some(private_data) = row.accept {
        scripted = scripted.accepting_with(private_data);
    }
    if let Some(private_data) = row.reject {
        scripted = scripted.rejecting(Box::new(move |_| Some(private_data.to_vec())));
    }
    let serving = tokio::spawn(scripted.run());
    let outcome = call(host, &options(address), &transcript).await;
    transcript.lock().expect("no panic").push(outcome);
    serving.abort();
    let _ = serving.await;
    std::mem::take(&mut transcript.lock().expect("no panic"))
}

/// Command as the target has received it, and its answer, without what differs from run to run.
fn line_of(seen: &ReceivedCommand, answer: &Answer) -> String {
    let messages = answer.messages.iter().map(|message| {
        let status = message.get(14..16).map(|bytes| [bytes[0], bytes[1]]);
        format!("{} bytes, status {status:02x?}", message.len())
    });
    format!(
        "queue {}: command {:#04x}, type {:#04x}, dwords 10 to 12 {:02x?}; {} bytes of data, {:?}",
        seen.queue,
        seen.sqe[0],
        seen.sqe[4],
        &seen.sqe[40..52],
        answer.data.len(),
        messages.collect::<Vec<_>>(),
    )
}

/// Connects, writes and reads, lists the namespaces, and shuts down; returns how that ended.
async fn call<P: Provider>(
    host: &Arc<P>,
    options: &ConnectOptions,
    transcript: &Transcript,
) -> String {
    let controller = match Controller::connect_over(host, options).await {
        Ok(controller) => controller,
        Err(error) => return format!("connect: {}", words(&error)),
    };
    let done = async {
        let namespace = controller.namespace(NamespaceId(1)).await?;
        for number in 0..COMMANDS {
            let done = command(&controller, &namespace, number).await;
            let ended = match &done {
                Ok(()) => "done".to_owned(),
                Err(error) => words(error),
            };
            transcript.lock().expect("no panic").push(format!("host: {number}: {ended}"));
            done?;
        }
        controller.namespaces().await.map(|_| ())
    };
    let ended = match done.await {
        Ok(()) => "done".to_owned(),
        Err(error) => words(&error),
    };
    // A command that was refused ends no controller.
    let is_over = tokio::time::timeout(Duration::from_millis(100), controller.failed()).await;
    controller.shutdown().await;
    format!("{ended}; the controller {}", if is_over.is_ok() { "ended" } else { "went on" })
}

/// Writes a block, or reads it back.
async fn command<P: Provider>(
    controller: &Controller<P>,
    namespace: &Namespace,
    number: u64,
) -> Result<(), Error> {
    let mut buffer = controller.allocate(512)?;
    let done = if number.is_multiple_of(2) {
        buffer.fill(u8::try_from(number).expect("few"));
        namespace.write(number, buffer).await
    } else {
        namespace.read(number - 1, buffer).await
    };
    let buffer = done.map_err(|failed| {
        assert!(failed.buffer.is_some(), "the buffer comes back");
        failed.error
    })?;
    if number % 2 == 1 {
        let mut read = [0; 512];
        buffer.copy_out(0, &mut read);
        assert!(read.iter().all(|&byte| u64::from(byte) == number - 1), "what was written");
    }
    Ok(())
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("the play ends")
    })
}

fn over_fabric(row: &Row) -> Vec<String> {
    let address: SocketAddr = TARGET_ADDRESS.parse().expect("an address");
    let fabric = Fabric::auto(1);
    let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
    let target = fabric.host("target", address.ip());
    run(play(&host, target, address, row))
}

#[test]
fn the_caller_is_told_what_the_target_does() {
    let differs = ROWS.iter().filter_map(|row| {
        let outcome = over_fabric(row).pop().expect("the outcome");
        let (name, expected) = (row.name, row.outcome);
        (!outcome.contains(expected)).then(|| format!("{name}: {outcome}: not {expected:?}"))
    });
    let differs: Vec<_> = differs.collect();
    assert!(differs.is_empty(), "{}", differs.join("\n"));
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_transcript_over_rxe_is_that_over_the_fabric() {
    let [host, target] = [Arc::new(RdmaCore::new()), Arc::new(RdmaCore::new())];
    for (port, row) in (4450..).zip(&ROWS) {
        let address = SocketAddr::new(tests::options().address.ip(), port);
        let over_rxe = run(play(&host, Arc::clone(&target), address, row));
        println!("{}: {}", row.name, over_rxe.last().expect("the outcome"));
        let over_fabric = over_fabric(row);
        let differs = over_rxe.iter().zip(&over_fabric).find(|(rxe, fabric)| rxe != fabric);
        assert_eq!(differs, None, "{}: over rxe, and over the fabric", row.name);
        assert_eq!(over_rxe.len(), over_fabric.len(), "{}: {over_rxe:#?}", row.name);
    }
}
