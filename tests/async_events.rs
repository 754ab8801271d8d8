//! Events that a controller tells, over the fabric, against a target that tells whatever a test
//! wants.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rdma_fabric::{Fabric, Host};
use rdma_host::{
    ConnectOptions, Controller, EventDetail, HostIdentity, Namespace, NamespaceChange,
    config::EVENT_INTERVAL_MIN,
    wire::{AsyncEventKind, NamespaceId},
};
use tests::target::{Answer, ReceivedCommand, TARGET_ADDRESS, Target};

/// Connects to a target with this hook. Must be called in a runtime: the target is a task of it.
async fn connect(
    hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static,
) -> (Controller<Host>, Namespace) {
    let fabric = Fabric::auto(1);
    let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
    tokio::spawn(Target::new(&fabric, Box::new(hook)).run());
    let nqn = "nqn.2026-11.org.soft-roce:scripted".parse().expect("an NQN");
    let identity = HostIdentity::from_id(uuid::Uuid::from_u128(1));
    let address = TARGET_ADDRESS.parse().expect("an address");
    let options = ConnectOptions::new(address, nqn, identity);
    let controller = Controller::connect_over(&host, &options).await.expect("it is honest so far");
    let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
    (controller, namespace)
}

fn run(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        // Against hanging for ever; nothing here takes a fraction of it.
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test ends");
    });
}

async fn works(controller: &Controller<Host>, namespace: &Namespace) {
    let buffer = controller.allocate(4096).expect("memory");
    namespace.read(0, buffer).await.expect("the connection lives");
}

/// Tells if this is an admin command with this opcode.
fn is(seen: ReceivedCommand, opcode: u8) -> bool {
    seen.queue == 0 && seen.sqe[0] == opcode
}

const REQUEST: u8 = 0x0c;
const GET_LOG_PAGE: u8 = 0x02;
const SET_FEATURES: u8 = 0x09;

#[test]
fn events_of_every_kind_are_told_in_order() {
    const EVENTS: [u64; 9] = [
        0x0004_0002, // a namespace
        0x0003_0102, // firmware
        0x000c_0302, // access states
        0x0001_0300, // an error
        0x0002_0101, // health
        0x0080_0006, // a reservation
        0x00c7_2a07, // of the vendor
        0xffff_ffff_ffff_ffff,
        0x0000_0003, // of no type
    ];
    run(async {
        let identified = Arc::new(AtomicBool::new(false));
        let go = Arc::clone(&identified);
        let (mut events, mut asked) = (EVENTS.into_iter(), None);
        let (controller, namespace) = connect(move |seen, answer| {
            if is(seen, REQUEST) {
                asked = Some(seen);
            } else if is(seen, GET_LOG_PAGE) && seen.sqe[40] == 0x04 {
                answer.data = vec![0; 4096];
                (answer.data[0], answer.data[4]) = (1, 9);
            }
            // The event goes out with a later answer, once there is a subscriber.
            if seen.queue == 0
                && go.load(Ordering::Relaxed)
                && let Some(seen) = asked.take()
                && let Some(event) = events.next()
            {
                answer.messages.push(seen.response(0, event));
            }
        })
        .await;
        let mut notices = controller.events();
        identified.store(true, Ordering::Relaxed);
        // Any admin command will do.
        controller.namespaces().await.expect("it is honest");
        for expected in EVENTS {
            let notice = notices.next().await.expect("it goes on");
            assert_eq!(notice.event.0, expected, "{notice}");
            match (notice.event.kind(), &notice.detail) {
                (AsyncEventKind::NamespaceAttributeChanged, EventDetail::Namespaces(changes)) => {
                    let [first, second] = changes.as_slice() else { panic!("{notice}") };
                    assert!(matches!(first, (NamespaceId(1), NamespaceChange::Same(_))));
                    assert!(matches!(second, (NamespaceId(9), NamespaceChange::Same(_))));
                }
                (AsyncEventKind::FirmwareActivationStarting, EventDetail::Firmware(_))
                | (AsyncEventKind::AnaChange, EventDetail::Ana(_))
                | (AsyncEventKind::Error(3), EventDetail::Errors(_))
                | (AsyncEventKind::Health(1), EventDetail::Health(_))
                | (AsyncEventKind::ReservationLogAvailable, EventDetail::Reservation(_))
                | (AsyncEventKind::Other { .. }, EventDetail::Nothing) => {}
                _ => panic!("{notice:?}"),
            }
        }
        works(&controller, &namespace).await;
        controller.shutdown().await;
        assert!(notices.next().await.is_none(), "they end with the controller");
    });
}

#[test]
fn a_storm_costs_ten_requests_a_second() {
    run(async {
        let requests = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&requests);
        let began = Instant::now();
        let (controller, namespace) = connect(move |seen, answer| {
            if is(seen, REQUEST) {
                counted.fetch_add(1, Ordering::Relaxed);
                answer.messages = vec![seen.response(0, 0x00c7_2a07)];
            }
        })
        .await;
        let mut notices = controller.events();
        for _ in 0..5 {
            notices.next().await.expect("it goes on");
        }
        let most = began.elapsed().as_millis() / EVENT_INTERVAL_MIN.as_millis() + 1;
        let requests = requests.load(Ordering::Relaxed);
        assert!(u128::from(requests) <= most, "{requests} requests, where {most} are due");
        works(&controller, &namespace).await;
        controller.shutdown().await;
    });
}

#[test]
fn who_takes_no_request_is_not_asked_again() {
    run(async {
        let requests = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&requests);
        let (controller, namespace) = connect(move |seen, answer| {
            if is(seen, REQUEST) {
                counted.fetch_add(1, Ordering::Relaxed);
                answer.messages = vec![seen.response(0x4001, 0)];
            }
        })
        .await;
        tokio::time::sleep(3 * EVENT_INTERVAL_MIN).await;
        works(&controller, &namespace).await;
        assert_eq!(requests.load(Ordering::Relaxed), 1);
        controller.shutdown().await;
    });
}

#[test]
fn what_is_on_stays_on_and_a_refusal_is_put_up_with() {
    run(async {
        let set = Arc::new(AtomicU32::new(0));
        let told = Arc::clone(&set);
        let (controller, namespace) = connect(move |seen, answer| {
            if is(seen, 0x06) && seen.sqe[40] == 0x01 {
                // Events of namespaces, and one of an unknown kind.
                answer.data[92..96].copy_from_slice(&[0, 1, 0, 1]);
            } else if is(seen, 0x0a) {
                // Warnings of health are on.
                answer.messages = vec![seen.response(0, 0x1f)];
            } else if is(seen, SET_FEATURES) && seen.sqe[40] == 0x0b {
                told.store(seen.u32_at(44), Ordering::Relaxed);
                answer.messages = vec![seen.response(0x4002, 0)];
            }
        })
        .await;
        assert_eq!(set.load(Ordering::Relaxed), 0x11f);
        works(&controller, &namespace).await;
        controller.shutdown().await;
    });
}

#[test]
fn who_lists_no_names_is_put_up_with() {
    run(async {
        let (controller, namespace) = connect(|seen, answer| {
            if is(seen, 0x06) && seen.sqe[40] == 0x03 {
                *answer = Answer { messages: vec![seen.response(0x4002, 0)], ..Answer::default() };
            }
        })
        .await;
        assert_eq!(namespace.info().uuid, None);
        works(&controller, &namespace).await;
        controller.shutdown().await;
    });
}
