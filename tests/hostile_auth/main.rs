//! Targets that break the protocol while a queue is authenticated: nothing panics, hangs, is
//! downgraded or succeeds; the error names the fault, and says whether another attempt makes sense.
//! Over the fabric, through the whole driver.

mod cases;
mod deadlines;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use auth::{Credentials, GroupId, HashId, Policy, Secret, message::MessageId};
use rdma_fabric::{Fabric, Host};
use rdma_host::{
    ConnectOptions, Controller, Error, ErrorClass, Fence, FenceOptions, HostIdentity,
    ReconnectOptions,
    error::{AuthenticationFailure, GiveUpReason, Incompatible, Rejected, Transport},
    wire::{NamespaceId, QueueId},
};
use tests::{
    authentication_hook::{AuthenticationHook, OutgoingMessage, Report},
    authenticator::{Authenticator, Settings},
    target::{Answer, BLOCKS, ReceivedCommand, TARGET_ADDRESS, Target},
};

use crate::cases::{ROWS, Row};

const SUBSYSTEM: &str = "nqn.2026-11.org.soft-roce:scripted";

const HASHES: [HashId; 3] = [HashId::SHA_256, HashId::SHA_384, HashId::SHA_512];

const GROUPS: [GroupId; 6] = [
    GroupId::NULL,
    GroupId::FFDHE_2048,
    GroupId::FFDHE_3072,
    GroupId::FFDHE_4096,
    GroupId::FFDHE_6144,
    GroupId::FFDHE_8192,
];

fn secret(seed: u64) -> Secret {
    Secret::from_bytes(HashId::SHA_256, &tests::noise(32, seed)).expect("32 bytes")
}

fn host_identity() -> HostIdentity {
    HostIdentity::from_id(uuid::Uuid::from_u128(1))
}

fn settings(hash: HashId, group: GroupId) -> Settings {
    Settings {
        host_secret: secret(1),
        controller_secret: Some(secret(2)),
        hash,
        group,
        host_nqn: host_identity().nqn.to_string(),
        subsystem_nqn: SUBSYSTEM.to_owned(),
        seed: 7,
    }
}

fn options(two_way: bool) -> ConnectOptions {
    let nqn = SUBSYSTEM.parse().expect("an NQN");
    let address = TARGET_ADDRESS.parse().expect("an address");
    let mut options = ConnectOptions::new(address, nqn, host_identity());
    options.io_queues = 2;
    options.authentication.credentials = Some(Arc::new(if two_way {
        Credentials::two_way(secret(1), secret(2)).expect("two secrets")
    } else {
        Credentials::one_way(secret(1))
    }));
    options.reconnect = ReconnectOptions::never();
    // Without a fence queue ids begin with 1.
    options.fence = FenceOptions::default().mode(Fence::Off);
    options
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(test)
}

/// A fabric with a target whose hook this is, and the host to connect from. In a runtime.
fn bed(hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static) -> Arc<Host> {
    let fabric = Fabric::auto(1);
    let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
    tokio::spawn(Target::new(&fabric, Box::new(hook)).run());
    host
}

/// Connects to a target with this hook, which must fail.
fn refused(
    options: &ConnectOptions,
    hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static,
) -> Error {
    run(async {
        let host = bed(hook);
        let limit = Duration::from_secs(50);
        let outcome = tokio::time::timeout(limit, Controller::connect_over(&host, options)).await;
        outcome.expect("it does not hang").err().expect("the connect fails")
    })
}

/// Nothing but authentication was sent on a queue that was not authenticated.
fn assert_patient(name: &str, report: &Report) {
    assert!(report.early.is_empty(), "{name}: {report:?}");
}

async fn write_and_read(controller: &Controller<Host>) {
    let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
    assert_eq!(namespace.info().blocks, BLOCKS as u64);
    let mut buffer = controller.allocate(4096).expect("memory");
    for lba in 0..4u64 {
        buffer.fill(lba.to_le_bytes()[0] + 1);
        let written = namespace.write(lba * 8, buffer).await.expect("an authenticated queue");
        buffer = namespace.read(lba * 8, written).await.expect("an authenticated queue");
        let mut read = vec![0; 4096];
        buffer.copy_out(0, &mut read);
        assert!(read.iter().all(|&byte| byte == lba.to_le_bytes()[0] + 1));
    }
}

#[test]
fn an_honest_door_lets_all_queues_in() {
    for (group, hash, two_way) in GROUPS
        .into_iter()
        .flat_map(|group| HASHES.map(|hash| (group, hash)))
        .flat_map(|(group, hash)| [false, true].map(|two_way| (group, hash, two_way)))
    {
        let authentication = AuthenticationHook::new(move |_| settings(hash, group));
        run(async {
            let hook = authentication.clone();
            let host = bed(move |seen, answer| hook.answer(seen, answer));
            let controller = Controller::connect_over(&host, &options(two_way)).await;
            let controller = controller.unwrap_or_else(|error| panic!("{hash} {group}: {error}"));
            let how = auth::Authenticated { hash, group, controller_proved: two_way };
            assert_eq!(controller.negotiated().authenticated, [Some(how); 3]);
            write_and_read(&controller).await;
            controller.shutdown().await;
        });
        let mut report = authentication.report();
        assert_patient("honest", &report);
        report.authenticated.sort_unstable(); // the I/O queues come up together
        assert_eq!(report.authenticated, [0, 1, 2], "{report:?}");
        assert!(report.failures.is_empty(), "{report:?}");
    }
}

/// Queues whose ids do not begin with 1, as those of a controller with a write fence.
#[test]
fn queues_with_other_ids_are_authenticated_again() {
    /// Each controller of a process has its queues at another place, of two here.
    const CONTROLLERS_MAX: usize = 16;
    let mut firsts = Vec::new();
    while !firsts.contains(&QueueId(3)) && firsts.len() < CONTROLLERS_MAX {
        let exchanges = Arc::new(Mutex::new(Vec::new()));
        let (hash, group, counted) = (HASHES[0], GROUPS[0], Arc::clone(&exchanges));
        run(async {
            let fabric = Fabric::auto(1);
            let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
            let target = Target::new(&fabric, Box::new(|_, _| ())).authenticating(move |queue| {
                counted.lock().expect("no panic").push(queue);
                Authenticator::new(settings(hash, group))
            });
            tokio::spawn(target.run());
            let options = options(false).fence(FenceOptions::default().mode(Fence::Proof));
            let controller = Controller::connect_over(&host, &options).await.expect("honest");
            firsts.push(controller.negotiated().first_io_queue);
            let again = controller.reauthenticate(None).await.expect("honest");
            assert_eq!(again.len(), 3);
            assert!(again.iter().all(Option::is_some), "{again:?}");
            write_and_read(&controller).await;
            controller.shutdown().await;
        });
        let mut queues = exchanges.lock().expect("no panic").clone();
        queues.sort_unstable();
        let first = firsts.last().expect("one was added").0;
        let twice = [0, first, first + 1].map(|queue| [queue; 2]).concat();
        assert_eq!(queues, twice, "each queue twice");
    }
    assert!(firsts.contains(&QueueId(3)), "{firsts:?}");
}

/// Every row on the admin queue and on the second I/O queue, with one attempt and with three.
#[test]
fn every_lie_has_its_error_and_its_verdict() {
    assert!(ROWS.len() >= 50);
    for row in ROWS {
        for queue in [0, 2] {
            let (group, attack) = (row.group, row.attack);
            let hostile = move || {
                AuthenticationHook::hostile(
                    move |_| settings(HashId::SHA_256, group),
                    move |out| {
                        if out.queue == queue {
                            attack(out);
                        }
                    },
                )
            };
            let name = format!("{}, queue {queue}", row.name);
            let once = options(row.two_way);
            let authentication = hostile();
            let hook = authentication.clone();
            let error = refused(&once, move |seen, answer| hook.answer(seen, answer));
            check(row, &name, queue, &error);
            let report = authentication.report();
            assert_patient(&name, &report);
            let told: Vec<_> = row.expected.told.map(|told| (queue, told)).into_iter().collect();
            assert_eq!(report.failures, told, "{name}: {error}");
            assert!(!report.authenticated.contains(&queue) || row.attacks_after_proof(), "{name}");

            let mut again = once;
            again.reconnect.first_connect = true;
            again.reconnect.delay = Duration::from_millis(5);
            again.reconnect.loss_timeout = Some(Duration::from_millis(10));
            let authentication = hostile();
            let hook = authentication.clone();
            let error = refused(&again, move |seen, answer| hook.answer(seen, answer));
            let connects = authentication.report().connects;
            let expected = if row.expected.retried { 3 } else { 1 };
            assert_eq!(connects, expected, "{name}: {error}");
        }
    }
}

impl Row {
    /// The controller believes it is done: one-way, it is once it has sent its Success1.
    fn attacks_after_proof(&self) -> bool {
        self.name.starts_with("success") && !self.two_way
    }
}

fn check(row: &Row, name: &str, queue: u16, error: &Error) {
    let Error::Authentication { queue: at, failure: AuthenticationFailure::Exchange(failure) } =
        error
    else {
        panic!("{name}: {error:?}");
    };
    assert_eq!(at.0, queue, "{name}");
    let shown = format!("{:?}", failure.error());
    assert!(shown.starts_with(row.expected.error), "{name}: {shown}");
    assert_eq!(error.class(), row.expected.class, "{name}: {error}");
    assert!(!error.to_string().contains('\n'), "{name}: {error}");
}

/// Connects to a target whose answers `hook` changes after authentication; returns the error and
/// the record of the commands.
fn meddled(
    options: &ConnectOptions,
    mut hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static,
) -> (Error, Report) {
    let authentication = AuthenticationHook::new(|_| settings(HashId::SHA_256, GroupId::NULL));
    let inner = authentication.clone();
    let error = refused(options, move |seen, answer| {
        inner.answer(seen, answer);
        hook(seen, answer);
    });
    (error, authentication.report())
}

/// Connects with two more attempts if the error allows them; returns the number of attempts.
fn attempts(
    options: &ConnectOptions,
    hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static,
) -> u32 {
    let mut options = options.clone();
    options.reconnect.first_connect = true;
    options.reconnect.delay = Duration::from_millis(5);
    options.reconnect.loss_timeout = Some(Duration::from_millis(10));
    meddled(&options, hook).1.connects
}

/// A Connect response of this queue that asks for nothing.
fn without_asking(queue: u16) -> impl FnMut(ReceivedCommand, &mut Answer) + Send + Copy + 'static {
    move |seen: ReceivedCommand, answer: &mut Answer| {
        if seen.is_fabrics(0x01) && seen.queue == queue {
            answer.messages[0][2] = 0;
        }
    }
}

#[test]
fn a_target_that_asks_for_nothing_is_refused() {
    let (error, report) = meddled(&options(true), without_asking(0));
    let start = AuthenticationFailure::Requirements(auth::RequirementsError::NotRequired);
    assert!(
        matches!(&error, Error::Authentication { queue, failure }
            if queue.is_admin() && *failure == start),
        "{error:?}"
    );
    assert_eq!(error.class(), ErrorClass::Access);
    assert_patient("no ATR", &report);
    assert_eq!(attempts(&options(true), without_asking(0)), 1);
}

/// Linux 7's target asks on the admin queue only. Who took the place of it on another queue would
/// have to know the secrets there, too.
#[test]
fn a_queue_that_does_not_ask_is_authenticated_all_the_same() {
    for queue in [1, 2] {
        let authentication =
            AuthenticationHook::new(move |_| settings(HashId::SHA_256, GroupId::NULL));
        run(async {
            let (hook, mut silent) = (authentication.clone(), without_asking(queue));
            let host = bed(move |seen, answer| {
                hook.answer(seen, answer);
                silent(seen, answer);
            });
            let controller = Controller::connect_over(&host, &options(true)).await;
            let controller = controller.unwrap_or_else(|error| panic!("{queue}: {error}"));
            assert!(controller.negotiated().authenticated.iter().all(Option::is_some));
            write_and_read(&controller).await;
            controller.shutdown().await;
        });
    }
}

#[test]
fn secure_channels_are_refused() {
    for queue in [0, 1] {
        for bits in [0b100, 0b110] {
            let asking = move |seen: ReceivedCommand, answer: &mut Answer| {
                if seen.is_fabrics(0x01) && seen.queue == queue {
                    answer.messages[0][2] = bits;
                }
            };
            let (error, report) = meddled(&options(false), asking);
            assert!(
                matches!(&error, Error::Incompatible(Incompatible::SecureChannel(at))
                    if at.0 == queue),
                "{error:?}"
            );
            assert_eq!(error.class(), ErrorClass::Failed);
            assert_patient("ASCR", &report);
            assert_eq!(attempts(&options(false), asking), 3);
        }
    }
}

#[test]
fn a_host_without_secrets_is_told_to_get_some() {
    let mut options = options(false);
    options.authentication.credentials = None;
    let (error, report) = meddled(&options, |_, _| ());
    let start = AuthenticationFailure::Requirements(auth::RequirementsError::SecretMissing);
    assert!(
        matches!(&error, Error::Authentication { failure, .. } if *failure == start),
        "{error:?}"
    );
    assert_eq!((error.class(), report.commands), (ErrorClass::Access, 0));
    assert_eq!(attempts(&options, |_, _| ()), 1);
}

#[test]
fn floors_hold_against_the_target() {
    for (hash, group, error, told) in [
        (HashId::SHA_384, GroupId::NULL, "HashBelowMinimum", 4),
        (HashId::SHA_256, GroupId::FFDHE_2048, "GroupBelowMinimum", 5),
    ] {
        let mut options = options(true);
        options.authentication.policy = Policy::new(hash, group).expect("known ids");
        // It chooses what was not offered, as a target would that wants to listen.
        let authentication = AuthenticationHook::hostile(
            |_| settings(HashId::SHA_512, GroupId::NULL),
            |out| {
                if out.id == MessageId::CHALLENGE {
                    (out.message[6], out.message[8]) = (32, 1);
                    out.message.truncate(48);
                }
            },
        );
        let hook = authentication.clone();
        let got = refused(&options, move |seen, answer| hook.answer(seen, answer));
        assert!(format!("{got:?}").contains(error), "{got:?}");
        assert_eq!(got.class(), ErrorClass::Access, "{got}");
        let report = authentication.report();
        assert_eq!(report.failures, [(0, told)]);
        assert_patient(error, &report);
    }
}

/// Command of the exchange: Negotiate, Challenge, Reply, Success1, Success2.
const STEPS: u32 = 5;

/// A hook for the nth command of the exchange of one queue.
fn at_step(
    queue: u16,
    step: u32,
    mut hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static,
) -> impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static {
    let mut count = 0;
    move |seen, answer| {
        if seen.is_fabrics(0x01) {
            count = 0;
        } else if seen.queue == queue && (seen.is_fabrics(0x05) || seen.is_fabrics(0x06)) {
            if count == step {
                hook(seen, answer);
            }
            count += 1;
        }
    }
}

#[test]
fn statuses_end_the_exchange_as_they_say() {
    const DO_NOT_RETRY: u16 = 0x4000;
    for queue in [0, 2] {
        for step in 0..STEPS {
            // Invalid Field, Command Sequence Error, Authentication Required, a reserved one.
            for status in [0x002, 0x00c, 0x191, 0x7ff] {
                for (bit, connects) in [(0, 3), (DO_NOT_RETRY, 1)] {
                    let status = status | bit;
                    let refuse = move |seen: ReceivedCommand, answer: &mut Answer| {
                        answer.data.clear();
                        answer.messages = vec![seen.response(status, 0)];
                    };
                    let (error, report) = meddled(&options(true), at_step(queue, step, refuse));
                    let Error::Rejected(Rejected::Command { command, .. }) = &error else {
                        panic!("{error:?}");
                    };
                    assert!(command.starts_with("Authentication"), "{error}");
                    let access = status & 0x7ff == 0x191;
                    assert_eq!(error.class() == ErrorClass::Access, access, "{error}");
                    assert!(report.failures.is_empty(), "the target has refused: {report:?}");
                    assert_patient("status", &report);
                    let count = attempts(&options(true), at_step(queue, step, refuse));
                    assert_eq!(count, connects, "{status:#x} at {step}: {error}");
                }
            }
        }
    }
}

#[test]
fn a_connection_closed_in_the_middle_is_lost_or_a_refusal() {
    for queue in [0, 2] {
        for step in 0..STEPS {
            let close = |_: ReceivedCommand, answer: &mut Answer| {
                answer.data.clear();
                answer.messages.clear();
                answer.disconnect = true;
            };
            let (error, report) = meddled(&options(true), at_step(queue, step, close));
            // Where an answer was due that Linux's target hangs up on, the secret is refused;
            // elsewhere, and where only the offer was, it is a connection like any other.
            let (hung_up, final_) = match step {
                1 => (true, false),
                3 => (true, true),
                _ => (false, false),
            };
            match &error {
                Error::Authentication {
                    queue: at,
                    failure: AuthenticationFailure::Disconnected(_),
                } => {
                    assert!(hung_up && at.0 == queue, "{step}: {error:?}")
                }
                Error::Transport(Transport::Disconnected(at)) => {
                    assert!(!hung_up && at.0 == queue, "{step}: {error:?}");
                }
                _ => panic!("{step}: {error:?}"),
            }
            assert_eq!(error.class() == ErrorClass::Access, final_, "{step}: {error:?}");
            assert_patient("disconnect", &report);
            // A hanging up is believed the second time.
            let connects = if final_ { 1 } else { 3 } * if hung_up { 2 } else { 1 };
            assert_eq!(attempts(&options(true), at_step(queue, step, close)), connects, "{step}");
        }
    }
}

#[test]
fn a_failure1_is_not_lost_when_the_connection_closes_behind_it() {
    for queue in [0, 2] {
        for step in [1, 3] {
            let refuse = |_: ReceivedCommand, answer: &mut Answer| {
                answer.data = vec![0; 4096];
                answer.data[..8].copy_from_slice(&[0, 0xf1, 0, 0, 0, 0, 1, 1]);
                answer.disconnect = true;
            };
            let (error, _) = meddled(&options(true), at_step(queue, step, refuse));
            assert!(format!("{error:?}").contains("Refused"), "{error:?}");
            assert_eq!(error.class(), ErrorClass::Access);
            // Once more without the controller's secret, which the target may be without.
            let connects = if (queue, step) == (0, 3) { 2 } else { 1 };
            assert_eq!(attempts(&options(true), at_step(queue, step, refuse)), connects);
        }
    }
}

#[test]
fn messages_longer_than_the_buffer_reach_no_other_memory() {
    for step in [1, 3] {
        let flood = |_: ReceivedCommand, answer: &mut Answer| answer.data = vec![0xee; 1 << 20];
        let (error, report) = meddled(&options(true), at_step(0, step, flood));
        assert!(matches!(error, Error::Transport(_)), "{error:?}");
        assert_patient("flood", &report);
    }
}

/// Success without the message, or with only the beginning of it: what was in the memory before,
/// such as what we sent, is not taken for it.
#[test]
fn messages_that_were_not_sent_are_not_there() {
    for queue in [0, 2] {
        for step in [1, 3] {
            for length in [0, 1, 6] {
                let cut =
                    move |_: ReceivedCommand, answer: &mut Answer| answer.data.truncate(length);
                let (error, report) = meddled(&options(true), at_step(queue, step, cut));
                let Error::Authentication {
                    queue: at,
                    failure: AuthenticationFailure::Exchange(failure),
                } = &error
                else {
                    panic!("{length} at {step}: {error:?}");
                };
                assert_eq!((at.0, error.class()), (queue, ErrorClass::Failed), "{error}");
                let told = failure.error().explanation().expect("it is told").0;
                assert_eq!(report.failures, [(queue, told)], "{length} at {step}: {error}");
                assert_patient("cut", &report);
                let cut =
                    move |_: ReceivedCommand, answer: &mut Answer| answer.data.truncate(length);
                // Another message than due ends it for good, as with Linux; an unreadable one not.
                let expected = if failure.is_final() { 1 } else { 3 };
                let tried = attempts(&options(true), at_step(queue, step, cut));
                assert_eq!(tried, expected, "{length} at {step}: {error}");
            }
        }
    }
}

/// A target that breaks the protocol between two connections of one controller.
#[test]
fn a_controller_that_reconnects_is_as_strict() {
    for (turn, reason, tries) in [
        (
            (|out| out.message[16..].fill(9)) as fn(OutgoingMessage<'_>),
            GiveUpReason::NotRetryable,
            1,
        ),
        (|out| out.message[4] ^= 1, GiveUpReason::NotRetryable, 1),
        (|out| out.message.push(1), GiveUpReason::Exhausted, 3),
    ] {
        let mut connects = 0;
        let authentication = AuthenticationHook::hostile(
            |_| settings(HashId::SHA_256, GroupId::NULL),
            move |out| {
                connects += u32::from(out.queue == 0 && out.id == MessageId::CHALLENGE);
                if connects > 1 && out.id == MessageId::SUCCESS1 {
                    turn(out);
                }
            },
        );
        let hook = authentication.clone();
        let error = run(async {
            let host = bed(move |seen, answer| {
                hook.answer(seen, answer);
                if seen.is_io() {
                    answer.disconnect = true;
                }
            });
            let mut options = options(true);
            options.reconnect = ReconnectOptions::default()
                .delay(Duration::from_millis(5))
                .loss_timeout(Some(Duration::from_millis(15)));
            let controller = Controller::connect_over(&host, &options).await.expect("honest yet");
            let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
            let buffer = controller.allocate(512).expect("memory");
            let reading = tokio::spawn(async move { namespace.read(0, buffer).await });
            let error = controller.failed().await;
            drop(reading);
            error
        });
        let Error::GaveUp(end) = &error else { panic!("{error:?}") };
        assert_eq!((end.attempts, end.reason), (tries, reason), "{error}");
        assert_patient("reconnect", &authentication.report());
    }
}
