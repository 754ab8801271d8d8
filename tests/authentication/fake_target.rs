//! Authenticating again with a target that does what Linux's does not: it goes on after a failure,
//! or lies. Over the fabric, so it needs no device and runs anywhere.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use auth::{Authenticated, GroupId, HashId, Secret, message::MessageId};
use rdma_fabric::{Fabric, Host};
use rdma_host::{
    ConnectOptions, Controller, Error, ErrorClass, Fence, FenceOptions, HostIdentity,
    ReconnectOptions, StateChanges, error::AuthenticationFailure,
};
use tests::{
    authenticator::{Authenticator, Settings, Tamper},
    target::{TARGET_ADDRESS, Target},
};

use super::bed::{Keys, in_runtime, plain, write_and_read};

const SUBSYSTEM: &str = "nqn.2026-11.org.soft-roce:scripted";

const HOW: Authenticated =
    Authenticated { hash: HashId::SHA_384, group: GroupId::FFDHE_2048, controller_proved: true };

/// Both secrets that go by a number.
fn keys(number: u64) -> Keys {
    Keys::new(plain(2 * number + 1), Some(plain(2 * number + 2)))
}

fn options() -> ConnectOptions {
    let host = HostIdentity::from_id(uuid::Uuid::from_u128(1));
    let address = TARGET_ADDRESS.parse().expect("an address");
    let mut options = ConnectOptions::new(address, SUBSYSTEM.parse().expect("an NQN"), host);
    options.io_queues = 2;
    options.reconnect = ReconnectOptions::never();
    // Without a fence queue ids begin with 1.
    options.fence = FenceOptions::default().mode(Fence::Off);
    options.authentication.credentials = Some(keys(0).credentials());
    options
}

fn settings(number: u64) -> Settings {
    let keys = keys(number);
    let parse = |text: &str| Secret::parse(text).expect("a valid secret");
    Settings {
        host_secret: parse(&keys.host),
        controller_secret: keys.controller.as_deref().map(parse),
        hash: HOW.hash,
        group: HOW.group,
        host_nqn: options().host.nqn.to_string(),
        subsystem_nqn: SUBSYSTEM.to_owned(),
        seed: 7,
    }
}

/// A connected controller and its changes; the target has the secrets of the number in `keys`, and
/// what it sends in each exchange after those of the connect goes through a `tamper`.
async fn connected(
    number: &Arc<AtomicU64>,
    tamper: fn(u16) -> Tamper,
) -> (Fabric, Controller<Host>, StateChanges) {
    let fabric = Fabric::auto(1);
    let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
    let number = Arc::clone(number);
    let mut exchanges = 0;
    let target = Target::new(&fabric, Box::new(|_, _| ())).authenticating(move |queue| {
        exchanges += 1;
        let settings = settings(number.load(Ordering::Relaxed));
        match exchanges {
            0..=3 => Authenticator::new(settings),
            _ => Authenticator::hostile(settings, tamper(queue)),
        }
    });
    tokio::spawn(target.run());
    let controller = Controller::connect_over(&host, &options()).await.expect("it knows us");
    assert_eq!(controller.negotiated().authenticated, [Some(HOW); 3]);
    let changes = controller.changes();
    (fabric, controller, changes)
}

fn honest(_: u16) -> Tamper {
    Box::new(|_, _| ())
}

/// The connection is the one of before, and carries I/O.
async fn assert_untouched(controller: &Controller<Host>, changes: &mut StateChanges) {
    write_and_read(controller).await;
    let changed = tokio::time::timeout(Duration::from_millis(1), changes.next()).await;
    assert!(changed.is_err(), "{changed:?}");
}

#[test]
fn secrets_change_on_every_queue() {
    in_runtime(async {
        let number = Arc::new(AtomicU64::new(0));
        let (_fabric, controller, mut changes) = connected(&number, honest).await;
        for next in 1..=3 {
            number.store(next, Ordering::Relaxed);
            let how = controller.reauthenticate(Some(keys(next).credentials())).await;
            assert_eq!(how.expect("it knows us"), [Some(HOW); 3]);
            let how = controller.reauthenticate(None).await;
            assert_eq!(how.expect("it knows us"), [Some(HOW); 3]);
            assert_untouched(&controller, &mut changes).await;
        }
        controller.shutdown().await;
    });
}

#[test]
fn where_the_target_lets_it_live_a_refusal_changes_nothing() {
    in_runtime(async {
        let number = Arc::new(AtomicU64::new(0));
        let (_fabric, controller, mut changes) = connected(&number, honest).await;
        let error = controller.reauthenticate(Some(keys(1).credentials())).await;
        let error = error.expect_err("it does not know these");
        assert!(matches!(error, Error::ReauthenticationFailed(_)), "{error}");
        assert_eq!(error.class(), ErrorClass::Access, "{error}");
        assert_untouched(&controller, &mut changes).await;
        let how = controller.reauthenticate(None).await;
        assert_eq!(how.expect("it knows us"), [Some(HOW); 3]);
        // A key that the target alone has changed is found out.
        number.store(2, Ordering::Relaxed);
        let error = controller.reauthenticate(None).await.expect_err("it has another one");
        assert!(matches!(error, Error::Authentication { .. }), "{error}");
        assert_untouched(&controller, &mut changes).await;
        controller.shutdown().await;
    });
}

#[test]
fn a_target_that_does_not_prove_itself_again_is_refused() {
    fn unproved(_: u16) -> Tamper {
        Box::new(|id, message| {
            if id == MessageId::SUCCESS1 {
                message[8] = 0;
                message.truncate(16);
            }
        })
    }
    in_runtime(async {
        let number = Arc::new(AtomicU64::new(0));
        let (_fabric, controller, mut changes) = connected(&number, unproved).await;
        let error = controller.reauthenticate(None).await.expect_err("it proves nothing");
        let Error::Authentication { failure: AuthenticationFailure::Exchange(failure), .. } =
            &error
        else {
            panic!("{error}")
        };
        println!("{failure}");
        assert_untouched(&controller, &mut changes).await;
        controller.shutdown().await;
    });
}

/// The admin queue takes the new secrets, an I/O queue does not: they stay, and the error says
/// where it went wrong.
#[test]
fn an_io_queue_that_fails_is_named() {
    fn wrong_on_queue_2(queue: u16) -> Tamper {
        Box::new(move |id, message| {
            if id == MessageId::SUCCESS1 && queue == 2 {
                message[16] ^= 1;
            }
        })
    }
    in_runtime(async {
        let number = Arc::new(AtomicU64::new(0));
        let (_fabric, controller, mut changes) = connected(&number, wrong_on_queue_2).await;
        number.store(1, Ordering::Relaxed);
        let error = controller.reauthenticate(Some(keys(1).credentials())).await;
        let error = error.expect_err("queue 2 fails");
        assert!(error.to_string().starts_with("queue 2: "), "{error}");
        assert!(matches!(error, Error::Authentication { .. }), "{error}");
        assert_untouched(&controller, &mut changes).await;
        let error = controller.reauthenticate(None).await.expect_err("queue 2 fails again");
        assert!(error.to_string().starts_with("queue 2: "), "{error}");
        controller.shutdown().await;
    });
}
