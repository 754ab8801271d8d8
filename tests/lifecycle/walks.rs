//! Walks over namespaces and discovery subsystems: each ends in time, whatever the targets do; and
//! requests that a controller can't serve.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rdma_host::{
    Controller, Discovery, DiscoveryEvent, DiscoveryWatch, Error, ErrorClass, HostIdentity,
    error::{GiveUpReason, Misuse},
    wire::{NamespaceId, Nqn},
};
use tests::target::{Answer, ReceivedCommand, TARGET_ADDRESS, Target};

use super::{Bed, ConnectOptions, options, run};

#[test]
fn a_namespace_of_a_polled_controller_is_refused_by_name() {
    run(async {
        let bed = Bed::new();
        let connecting = Controller::connect_over(&bed.host, &options());
        let (controller, pollers) = connecting.polled(1).await.unwrap();
        let error = controller.namespace(NamespaceId(1)).await.err().expect("there are pollers");
        assert!(matches!(error, Error::Misuse(Misuse::PolledController)), "{error}");
        assert_eq!(error.class(), ErrorClass::Caller);
        controller.identify_namespace(NamespaceId(1)).await.expect("that needs none");
        drop(pollers);
        controller.shutdown().await;
    });
}

/// The fabric's device has four million entries of a completion queue.
#[test]
fn queues_beyond_the_device_are_a_usage_error_that_names_its_limit() {
    run(async {
        let bed = Bed::new();
        bed.answer(|seen, answer| {
            if seen.queue == 0 && seen.sqe[0] == 0x09 {
                answer.messages = vec![seen.response(0, 0xea5f_ea5f)];
            }
        });
        let mut options = options();
        options.io_queues = 60_000;
        let connecting = Controller::connect_over(&bed.host, &options);
        let error = connecting.polled(1).await.err().expect("that is too much");
        let Error::Misuse(Misuse::DeviceLimit { needed, max, .. }) = &error else {
            panic!("{error}");
        };
        assert!(needed > max, "{error}");
        let words = format!("allows {max}; use fewer or smaller queues");
        assert!(error.to_string().contains(&words), "{error}");
        assert_eq!(error.class(), ErrorClass::Caller);
    });
}

/// A walk that identifies namespaces by other means asks for their list alone, and has the same
/// limit.
#[test]
fn a_walk_identifies_namespaces_once() {
    run(async {
        let bed = Bed::new();
        let asked = Arc::new(AtomicU32::new(0));
        let seen_asked = Arc::clone(&asked);
        bed.answer(move |seen, answer| {
            let is_identify = seen.queue == 0 && seen.sqe[0] == 0x06;
            if is_identify && seen.sqe[40] == 0x02 {
                answer.data = vec![0; 4096];
                (answer.data[0], answer.data[4]) = (1, 2);
            } else if is_identify && seen.sqe[40] == 0x00 {
                seen_asked.fetch_add(1, Ordering::Relaxed);
            }
        });
        let (controller, namespace) = bed.connect(&options()).await;
        let info = namespace.info();
        drop(namespace);
        let before = asked.load(Ordering::Relaxed);
        let mut walk = controller.identify_namespaces(Duration::from_millis(300)).await.unwrap();
        let known = walk.next_by(async |_| Ok(info)).await;
        assert!(matches!(known, Some((NamespaceId(1), Ok(found))) if found == info));
        let silent = walk.next_by(async |_| std::future::pending().await).await;
        assert!(matches!(silent, Some((NamespaceId(2), Err(Error::Timeout { .. })))));
        assert!(walk.next_by(async |_| Ok(info)).await.is_none());
        assert_eq!(asked.load(Ordering::Relaxed), before);
        controller.shutdown().await;
    });
}

/// The target answers no Identify Namespace after the fourth; what was identified before is there.
/// Without an end of the walk, the first of the others would fail after the admin timeout, and the
/// next ones be asked for.
#[test]
fn the_identification_of_namespaces_ends_in_time() {
    run(async {
        let bed = Bed::new();
        let asked = Arc::new(AtomicU32::new(0));
        let seen_asked = Arc::clone(&asked);
        bed.answer(move |seen, answer| {
            let is_identify = seen.queue == 0 && seen.sqe[0] == 0x06;
            if is_identify && seen.sqe[40] == 0x02 {
                answer.data = vec![0; 4096];
                for id in 0..100u8 {
                    answer.data[usize::from(id) * 4] = id + 1;
                }
            } else if is_identify
                && seen.sqe[40] == 0x00
                && seen_asked.fetch_add(1, Ordering::Relaxed) > 4
            {
                answer.messages.clear();
            }
        });
        // It identifies the first namespace.
        let (controller, _) = bed.connect(&options()).await;
        let timeout = Duration::from_secs(3);
        let mut walk = controller.identify_namespaces(timeout).await.unwrap();
        assert_eq!(walk.remaining().len(), 100);
        let (mut identified, mut errors) = (0, Vec::new());
        while let Some((_, outcome)) = walk.next().await {
            match outcome {
                Ok(_) => identified += 1,
                Err(error) => errors.push(error),
            }
        }
        assert_eq!(identified, 4);
        let [Error::Timeout { after, .. }] = errors.as_slice() else { panic!("{errors:?}") };
        assert_eq!(*after, timeout);
        assert_eq!(walk.remaining().len(), 100 - identified);
        // The commands for one namespace, which was never answered.
        assert_eq!(asked.load(Ordering::Relaxed), 1 + 4 + 1);
        controller.shutdown().await;
    });
}

/// 1,100 namespaces are two pages of the list; one that can't be used does not hide the others.
#[test]
fn more_namespaces_than_a_list_holds_are_identified() {
    const NAMESPACES: u32 = 1100;
    const BROKEN: u32 = 1024;
    run(async {
        let bed = Bed::new();
        let (controller, _) = bed.connect(&options()).await;
        bed.answer(|seen, answer| {
            if seen.queue != 0 || seen.sqe[0] != 0x06 {
                return;
            }
            let (namespace, structure) = (seen.u32_at(4), seen.sqe[40]);
            if structure == 0x02 {
                let ids = (namespace + 1..=NAMESPACES).take(1024).chain(std::iter::repeat(0));
                answer.data = ids.take(1024).flat_map(u32::to_le_bytes).collect();
            } else if structure == 0x00 && namespace == BROKEN {
                answer.data[130] = 3; // blocks of 8 bytes
            }
        });
        let mut walk = controller.identify_namespaces(Duration::from_secs(60)).await.unwrap();
        assert_eq!(walk.remaining().len(), 1100);
        let (mut expected, mut failed) = (1.., Vec::new());
        while let Some((id, identified)) = walk.next().await {
            assert_eq!(Some(id.0), expected.next());
            match identified {
                Ok(info) => assert_eq!((info.id, info.blocks), (id, 1024)),
                Err(error) => failed.push((id.0, error.to_string())),
            }
        }
        assert_eq!(expected.next(), Some(NAMESPACES + 1));
        let [(BROKEN, error)] = &failed[..] else { panic!("{failed:?}") };
        assert!(error.contains("2^3"), "{error}");
        controller.shutdown().await;
    });
}

/// Options for the discovery subsystem of the scripted target.
fn discovery_options() -> ConnectOptions {
    let host = HostIdentity::from_id(uuid::Uuid::from_u128(1));
    let nqn = Nqn::DISCOVERY.parse().expect("an NQN");
    ConnectOptions::new(TARGET_ADDRESS.parse().expect("an address"), nqn, host)
}

/// Makes a discovery controller of the target, whose log has these entries.
fn answer_discovery(seen: ReceivedCommand, answer: &mut Answer, entries: &[[u8; 1024]]) {
    if seen.is_identify_controller() {
        answer.data[95] = 0x80; // discovery log change events
        answer.data[111] = 2;
    } else if seen.queue == 0 && seen.sqe[0] == 0x02 {
        let mut log = vec![0; 1024];
        log[0] = 1;
        log[8..16].copy_from_slice(&(entries.len() as u64).to_le_bytes());
        log.extend(entries.concat());
        let bytes = (seen.u32_at(40) >> 16) as usize + ((seen.u32_at(44) & 0xffff) << 16) as usize;
        let offset = usize::try_from(seen.u64_at(48)).expect("it is small");
        let end = (offset + (bytes + 1) * 4).min(log.len());
        answer.data = log[offset..end].to_vec();
        answer.messages = vec![seen.response(0, 0)];
    }
}

/// Referral to the discovery subsystem at an address.
fn referral(address: &str) -> [u8; 1024] {
    let mut entry = [0; 1024];
    (entry[0], entry[1], entry[2]) = (1, 1, 1);
    entry[32..36].copy_from_slice(b"4420");
    entry[256..256 + Nqn::DISCOVERY.len()].copy_from_slice(Nqn::DISCOVERY.as_bytes());
    entry[512..512 + address.len()].copy_from_slice(address.as_bytes());
    entry
}

/// Hosts that take packets and answer none.
fn silent_hosts(bed: &Bed, count: u8) {
    for host in 0..count {
        let address = format!("10.0.1.{host}");
        bed.fabric.host(&address, address.parse().expect("an address"));
        bed.fabric.partition("host", &address);
    }
}

/// The last of many referrals leads to a subsystem that answers; the others are silent.
#[test]
fn dead_referrals_do_not_hide_one_that_lives() {
    run(async {
        let bed = Bed::new();
        silent_hosts(&bed, 15);
        bed.answer(|seen, answer| {
            let mut entries: Vec<_> =
                (0..15).map(|host| referral(&format!("10.0.1.{host}"))).collect();
            entries.push(referral("10.0.0.3"));
            answer_discovery(seen, answer, &entries);
        });
        let hook = |seen: ReceivedCommand, answer: &mut Answer| answer_discovery(seen, answer, &[]);
        let other = Target::at(&bed.fabric, "other", "10.0.0.3:4420", Box::new(hook));
        tokio::spawn(other.run());
        let timeout = Duration::from_secs(25);
        let mut walk = Discovery::over(&bed.host, &discovery_options(), 8).within(timeout);
        let mut found = Vec::new();
        while let Some(discovered) = walk.next().await {
            found.push(discovered);
        }
        assert_eq!(found.len(), 17);
        // At the end of that time, the last one would have failed, too.
        let living = found.iter().filter(|one| one.outcome.is_ok());
        let living: Vec<_> = living.map(|one| one.target.address.to_string()).collect();
        assert_eq!(living, [TARGET_ADDRESS, "10.0.0.3:4420"]);
    });
}

#[test]
fn a_walk_over_referrals_ends_in_time() {
    run(async {
        let bed = Bed::new();
        silent_hosts(&bed, 20);
        bed.answer(|seen, answer| {
            let entries: Vec<_> = (0..20).map(|host| referral(&format!("10.0.1.{host}"))).collect();
            answer_discovery(seen, answer, &entries);
        });
        let timeout = Duration::from_millis(1500);
        let mut walk = Discovery::over(&bed.host, &discovery_options(), 1).within(timeout);
        let mut outcomes = Vec::new();
        while let Some(discovered) = walk.next().await {
            outcomes.push(discovered.outcome);
        }
        assert_eq!(outcomes.len(), 21);
        assert!(outcomes[0].is_ok(), "{:?}", outcomes[0]);
        // None waited for its own end, which is a later one.
        for outcome in &outcomes[1..] {
            let error = outcome.as_ref().expect_err("it is dead");
            assert!(error.to_string().contains("the walk over referrals"), "{error}");
        }
    });
}

/// The controller can be connected to, and never lets its log be read.
#[test]
fn a_log_that_is_never_readable_ends_the_watch() {
    for max in [0, 3] {
        run(async {
            let bed = Bed::new();
            let connects = Arc::new(AtomicU32::new(0));
            let seen_connects = Arc::clone(&connects);
            bed.answer(move |seen, answer| {
                answer_discovery(seen, answer, &[]);
                if seen.queue == 0 && seen.sqe[0] == 0x02 {
                    answer.data.clear();
                    answer.messages = vec![seen.response(0x006, 0)];
                }
                if seen.is_fabrics(0x01) {
                    seen_connects.fetch_add(1, Ordering::Relaxed);
                }
            });
            let mut options = discovery_options();
            options.reconnect = super::options().reconnect;
            options.reconnect.loss_timeout = Some(max * options.reconnect.delay);
            let mut watch = DiscoveryWatch::connect_over(&bed.host, &options).await.unwrap();
            let error = loop {
                match watch.next().await {
                    DiscoveryEvent::Ended(error) => break error,
                    DiscoveryEvent::Log(log) => panic!("{log:?}"),
                    DiscoveryEvent::Lost { .. } => {}
                }
            };
            let Error::GaveUp(end) = &error else { panic!("{error}") };
            assert_eq!((end.attempts, end.reason), (max, GiveUpReason::Exhausted), "{error}");
            assert_eq!(connects.load(Ordering::Relaxed), max + 1);
            watch.shutdown().await;
        });
    }
}
