//! Discovery controllers that break the protocol, fail or never end: each walk ends, and says why.
//! Over the fabric, so it needs no device and runs anywhere.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rdma_fabric::{Fabric, Host};
use rdma_host::{
    ConnectOptions, Discovery, DiscoveryController, DiscoveryEvent, DiscoveryLog, DiscoveryWatch,
    Error, HostIdentity, SkipReason, wire::Nqn,
};
use tests::target::{Answer, ReceivedCommand, TARGET_ADDRESS, Target};

/// A log as a target keeps it: the bytes of each entry.
#[derive(Clone, Default)]
struct Log {
    generation: u64,
    entries: Vec<Vec<u8>>,
    /// NUMREC, if it is not the number of entries.
    records: Option<u64>,
}

impl Log {
    fn bytes(&self) -> Vec<u8> {
        let records = self.records.unwrap_or(self.entries.len() as u64);
        let mut bytes = vec![0; 1024];
        bytes[..8].copy_from_slice(&self.generation.to_le_bytes());
        bytes[8..16].copy_from_slice(&records.to_le_bytes());
        bytes.extend(self.entries.concat());
        bytes
    }

    /// Bytes at the offset that a command asks for, with zeros behind the end.
    fn read(&self, seen: ReceivedCommand) -> Vec<u8> {
        let dwords = (seen.u32_at(40) >> 16) + 1 + ((seen.u32_at(44) & 0xffff) << 16);
        let offset = usize::try_from(seen.u64_at(48)).expect("an offset");
        let mut bytes = self.bytes().split_off(offset.min(1024 * (1 + self.entries.len())));
        bytes.resize(dwords as usize * 4, 0);
        bytes
    }
}

fn entry(kind: u8, address: &str, nqn: &str) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    bytes[..3].copy_from_slice(&[1, 1, kind]);
    bytes[32..36].copy_from_slice(b"4420");
    bytes[256..256 + nqn.len()].copy_from_slice(nqn.as_bytes());
    bytes[512..512 + address.len()].copy_from_slice(address.as_bytes());
    bytes
}

fn subsystems(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|index| entry(2, "10.0.0.2", &format!("nqn.test:{index}"))).collect()
}

/// Tells if a command reads the discovery log.
fn reads_log(seen: ReceivedCommand) -> bool {
    seen.queue == 0 && seen.sqe[0] == 0x02 && seen.sqe[40] == 0x70
}

fn options() -> ConnectOptions {
    let nqn = Nqn::DISCOVERY.parse().expect("an NQN");
    let host = HostIdentity::from_id(uuid::Uuid::from_u128(1));
    let mut options = ConnectOptions::new(TARGET_ADDRESS.parse().expect("an address"), nqn, host);
    options.keep_alive = Duration::ZERO;
    options
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(test)
}

/// A fabric with the host to connect from.
fn bed() -> (Fabric, Arc<Host>) {
    let fabric = Fabric::auto(1);
    let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
    (fabric, host)
}

/// Reads the log of a target with this hook.
fn read(
    hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static,
) -> Result<DiscoveryLog, Error> {
    let (fabric, host) = bed();
    let target = Target::new(&fabric, Box::new(hook));
    run(async {
        tokio::spawn(target.run());
        let controller = DiscoveryController::connect_over(&host, &options()).await?;
        let log = controller.read_log().await;
        controller.shutdown().await;
        log
    })
}

/// A target with this log.
fn with_log(log: Log) -> impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static {
    move |seen, answer| {
        if reads_log(seen) {
            answer.data = log.read(seen);
        }
    }
}

#[test]
fn an_honest_log_is_read_whole() {
    for count in [0, 1, 3, 64, 65, 300] {
        let log = Log { generation: 9, entries: subsystems(count), ..Log::default() };
        let seen = read(with_log(log)).unwrap();
        assert_eq!(seen.generation, 9);
        let names = seen.entries.iter().map(|entry| entry.subsystem.as_str());
        let expected: Vec<_> = (0..count).map(|index| format!("nqn.test:{index}")).collect();
        assert!(names.eq(expected.iter().map(String::as_str)), "{count} entries");
    }
}

#[test]
fn a_generation_that_never_stays_ends_it() {
    let mut log = Log { entries: subsystems(5), ..Log::default() };
    let error = read(move |seen, answer| {
        if reads_log(seen) {
            log.generation += 1;
            answer.data = log.read(seen);
        }
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("keeps changing"), "{error}");
}

#[test]
fn a_change_in_the_middle_is_noticed() {
    let mut log = Log { entries: subsystems(70), ..Log::default() };
    let mut reads = 0;
    let seen = read(move |seen, answer| {
        if reads_log(seen) {
            reads += 1;
            // After the first of two pages: the second is of another log already.
            if reads == 3 {
                log = Log { generation: 5, entries: subsystems(2), ..Log::default() };
            }
            answer.data = log.read(seen);
        }
    });
    let seen = seen.unwrap();
    assert_eq!((seen.generation, seen.entries.len()), (5, 2));
}

#[test]
fn counts_that_make_no_sense_are_refused() {
    for records in [65_537, 1 << 54, u64::MAX] {
        let log = Log { records: Some(records), ..Log::default() };
        let error = read(with_log(log)).unwrap_err().to_string();
        assert!(error.contains(&format!("claims {records} entries")), "{error}");
    }
}

#[test]
fn entries_that_are_not_there_are_no_places() {
    let log = Log { entries: subsystems(2), records: Some(5), ..Log::default() };
    let seen = read(with_log(log)).unwrap();
    assert_eq!(seen.entries.len(), 5);
    assert!(seen.entries[..2].iter().all(|entry| entry.socket_address().is_ok()));
    assert!(
        seen.entries[2..].iter().all(|entry| entry.socket_address().is_err()),
        "zeros lead nowhere"
    );
}

#[test]
fn pages_sent_short_hold_nothing_of_ours() {
    let log = Log { entries: subsystems(3), ..Log::default() };
    let seen = read(move |seen, answer| {
        if reads_log(seen) {
            answer.data = log.read(seen);
            // Success, but less than was asked for.
            answer.data.truncate(1024 + 300);
        }
    });
    let seen = seen.unwrap();
    assert_eq!(seen.entries[0].subsystem, "nqn.test:0");
    assert_eq!(seen.entries[1].subsystem, "nqn.test:1");
    assert_eq!((seen.entries[1].address.as_str(), seen.entries[2].subsystem.as_str()), ("", ""));
}

#[test]
fn pages_sent_long_end_the_connection() {
    let log = Log { entries: subsystems(3), ..Log::default() };
    let error = read(move |seen, answer| {
        if reads_log(seen) {
            answer.data = log.read(seen);
            answer.data.resize(1 << 20, 0xff);
        }
    });
    assert_eq!(error.unwrap_err().class(), rdma_host::ErrorClass::Transport);
}

#[test]
fn noise_is_survived() {
    for seed in 0..40 {
        let outcome = read(move |seen, answer| {
            if reads_log(seen) {
                let mut noise = tests::noise(Log::default().read(seen).len(), seed);
                if seen.u64_at(48) == 0 {
                    // A header that leads on to the entries.
                    noise[8..20].fill(0);
                    noise[8] = 3;
                }
                answer.data = noise;
            }
        });
        let log = outcome.unwrap();
        for entry in &log.entries {
            let texts = [&entry.service, &entry.subsystem, &entry.address];
            assert!(!texts.iter().any(|text| text.chars().any(char::is_control)), "seed {seed}");
        }
    }
}

#[test]
fn a_subsystem_with_namespaces_is_none_for_discovery() {
    let error = read(|seen, answer| {
        if seen.queue == 0 && seen.sqe[0] == 0x06 {
            answer.data[111] = 1;
        }
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("no discovery subsystem"), "{error}");
}

#[test]
fn referrals_in_a_circle_are_walked_once() {
    let (fabric, host) = bed();
    let asked = Arc::new(AtomicUsize::new(0));
    let names = ["10.0.0.2", "10.0.0.3", "10.0.0.4"];
    let targets: Vec<_> = (0..3)
        .map(|index| {
            // To the next one, to itself, and to an address without a listener.
            let to = [names[(index + 1) % 3], names[index], "10.0.0.99"];
            let entries = to.map(|address| entry(1, address, Nqn::DISCOVERY)).to_vec();
            let mut hook = with_log(Log { entries, ..Log::default() });
            let asked = Arc::clone(&asked);
            let hook = move |seen: ReceivedCommand, answer: &mut Answer| {
                asked.fetch_add(usize::from(seen.is_fabrics(0x01)), Ordering::Relaxed);
                hook(seen, answer);
            };
            let address = format!("{}:4420", names[index]);
            Target::at(&fabric, &format!("target {index}"), &address, Box::new(hook))
        })
        .collect();
    run(async {
        for target in targets {
            tokio::spawn(target.run());
        }
        let mut walk = Discovery::over(&host, &options(), 2);
        let mut seen = Vec::new();
        let mut reasons = Vec::new();
        while let Some(discovered) = walk.next().await {
            seen.push((discovered.target.address.ip().to_string(), discovered.outcome.is_ok()));
            reasons.extend(discovered.skipped.into_iter().map(|skipped| skipped.reason));
        }
        let expected =
            [("10.0.0.2", true), ("10.0.0.3", true), ("10.0.0.99", false), ("10.0.0.4", true)];
        let expected: Vec<_> =
            expected.iter().map(|(address, ok)| ((*address).to_owned(), *ok)).collect();
        let sorted = |mut list: Vec<(String, bool)>| {
            list.sort();
            list
        };
        assert_eq!(sorted(seen), sorted(expected));
        assert_eq!(reasons.len(), 6, "{reasons:?}");
        assert!(reasons.iter().all(|reason| *reason == SkipReason::AlreadyQueried), "{reasons:?}");
    });
    assert_eq!(asked.load(Ordering::Relaxed), 3, "each was asked once");
}

#[test]
fn changes_are_told_and_storms_are_survived() {
    let (fabric, host) = bed();
    let mut log = Log { entries: subsystems(1), ..Log::default() };
    // What comes of the event requests: a change, then nonsense, then changes of nothing.
    let mut events = VecDeque::from([0x0070_f002, 0x00c7_ff07, 0x0000_0000, 0xffff_ffff]);
    events.extend([0x0070_f002; 3]);
    let hook = move |seen: ReceivedCommand, answer: &mut Answer| {
        if seen.queue == 0 && seen.sqe[0] == 0x06 {
            answer.data[95] = 0x80;
        } else if reads_log(seen) {
            answer.data = log.read(seen);
        } else if seen.queue == 0 && seen.sqe[0] == 0x0c {
            if events.len() == 7 {
                log = Log { generation: 1, entries: subsystems(2), ..Log::default() };
            }
            // With no event left, the request stays open.
            let event = events.pop_front();
            answer.messages = event.map(|event| seen.response(0, event)).into_iter().collect();
            if events.is_empty() {
                log = Log { generation: 2, entries: subsystems(3), ..Log::default() };
            }
        }
    };
    let target = Target::new(&fabric, Box::new(hook));
    run(async {
        tokio::spawn(target.run());
        let mut watch = DiscoveryWatch::connect_over(&host, &options()).await.unwrap();
        let mut counts = Vec::new();
        while counts.last() != Some(&3) {
            match watch.next().await {
                DiscoveryEvent::Log(log) => counts.push(log.entries.len()),
                other => panic!("{other:?}"),
            }
        }
        counts.retain(|count| *count != 1);
        assert_eq!(counts, [2, 3], "each log is told once");
        watch.shutdown().await;
    });
}

#[test]
fn a_target_that_tells_nothing_cannot_be_watched() {
    let (fabric, host) = bed();
    let target = Target::new(&fabric, Box::new(with_log(Log::default())));
    run(async {
        tokio::spawn(target.run());
        let error = DiscoveryWatch::connect_over(&host, &options()).await.err().unwrap();
        assert!(error.to_string().contains("OAES"), "{error}");
    });
}

#[test]
fn a_watch_hears_of_its_own_loss() {
    let (fabric, host) = bed();
    let hook = |seen: ReceivedCommand, answer: &mut Answer| {
        if seen.queue == 0 && seen.sqe[0] == 0x06 {
            answer.data[95] = 0x80;
        } else if reads_log(seen) {
            answer.data = Log::default().read(seen);
        } else if seen.queue == 0 && seen.sqe[0] == 0x0c {
            answer.messages.clear();
        }
    };
    let target = Target::new(&fabric, Box::new(hook));
    run(async {
        let target = tokio::spawn(target.run());
        let mut options = options();
        options.keep_alive = Duration::from_millis(400);
        let mut watch = DiscoveryWatch::connect_over(&host, &options).await.unwrap();
        assert!(matches!(watch.next().await, DiscoveryEvent::Log(_)));
        target.abort();
        match watch.next().await {
            DiscoveryEvent::Lost { attempt: 1, max: Some(60), cause, .. } => {
                assert_eq!(cause.class(), rdma_host::ErrorClass::Transport, "{cause}");
            }
            other => panic!("{other:?}"),
        }
        watch.shutdown().await;
    });
}

#[test]
fn a_watch_reconnects_until_its_attempts_run_out() {
    let (fabric, host) = bed();
    let mut reads = 0;
    let hook = move |seen: ReceivedCommand, answer: &mut Answer| {
        if seen.queue == 0 && seen.sqe[0] == 0x06 {
            answer.data[95] = 0x80;
        } else if reads_log(seen) {
            reads += 1;
            let records = (reads == 1).then_some(u64::MAX);
            answer.data = Log { records, ..Log::default() }.read(seen);
        } else if seen.queue == 0 && seen.sqe[0] == 0x0c {
            answer.messages.clear();
        }
    };
    let target = Target::new(&fabric, Box::new(hook));
    run(async {
        let target = tokio::spawn(target.run());
        let mut options = options();
        options.keep_alive = Duration::from_millis(400);
        options.reconnect.delay = Duration::from_millis(20);
        options.reconnect.loss_timeout = Some(Duration::from_millis(40));
        let mut watch = DiscoveryWatch::connect_over(&host, &options).await.unwrap();
        match watch.next().await {
            DiscoveryEvent::Lost { attempt: 1, max: Some(2), cause, .. } => {
                assert!(cause.to_string().contains("claims"), "{cause}");
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(watch.next().await, DiscoveryEvent::Log(_)));
        target.abort();
        for expected in [1, 2] {
            let event = watch.next().await;
            assert!(
                matches!(event, DiscoveryEvent::Lost { attempt, .. } if attempt == expected),
                "{event:?}"
            );
        }
        for _ in 0..2 {
            let event = watch.next().await;
            assert!(matches!(event, DiscoveryEvent::Ended(Error::GaveUp(_))), "{event:?}");
        }
    });
}
