//! Search of this process's memory for secrets after every way in which authentication fails, and
//! after it has succeeded: none is left. Over the fabric; host and controller are both in here.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    sync::Arc,
    time::Duration,
};

use auth::{Credentials, GroupId, HashId, Secret};
use rdma_fabric::Fabric;
use rdma_host::{ConnectOptions, Controller, HostIdentity, ReconnectOptions};
use tests::{
    authentication_hook::{AuthenticationHook, OutgoingMessage},
    authenticator::Settings,
    target::{TARGET_ADDRESS, Target},
};

use crate::cases::ROWS;

#[allow(dead_code, reason = "what must come of them is another test's")]
#[path = "hostile_auth/cases.rs"]
mod cases;

const SUBSYSTEM: &str = "nqn.2026-11.org.soft-roce:scripted";

/// Bytes of each needle: both ends of each secret.
const NEEDLE: usize = 16;

/// One byte of a secret.
fn byte(seed: u8, index: u8) -> u8 {
    index.wrapping_mul(31).wrapping_add(seed) ^ 0x5a
}

/// The secret, of which only it has the bytes.
fn secret(seed: u8) -> Secret {
    let mut bytes = Box::new([0; 48]);
    for (index, place) in (0..).zip(bytes.iter_mut()) {
        *place = byte(seed, index);
    }
    let secret = Secret::from_bytes(HashId::SHA_384, bytes.as_slice()).expect("48 bytes");
    bytes.fill(0);
    std::hint::black_box(&bytes);
    secret
}

/// Addresses in this process of the first or the last bytes of a secret. They are computed one by
/// one, so that looking for them leaves none.
fn found(seed: u8) -> Vec<String> {
    let maps = fs::read_to_string("/proc/self/maps").expect("maps");
    let mut memory = File::open("/proc/self/mem").expect("memory");
    let (mut all, mut window) = (Vec::new(), vec![0; 1 << 20]);
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').expect("a range");
        if !rest.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
            continue;
        }
        let (start, end) = range.split_once('-').expect("a range");
        let [mut at, end] = [start, end].map(|end| u64::from_str_radix(end, 16).expect("a number"));
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(window.len());
            let bytes = &mut window[..length];
            memory.seek(SeekFrom::Start(at)).expect("an address");
            if memory.read_exact(bytes).is_err() {
                break; // pages of devices
            }
            for first in [0, 32] {
                if has_needle(bytes, seed, first) {
                    all.push(format!("bytes from {first} of secret {seed} in {line}"));
                }
            }
            // A needle may begin in one piece and end in the next.
            at += length as u64;
            at -= if at < end { NEEDLE as u64 } else { 0 };
        }
    }
    all
}

fn has_needle(bytes: &[u8], seed: u8, first: u8) -> bool {
    let wanted = byte(seed, first);
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(wanted, rest) {
        rest = &rest[at..];
        let same = rest.len() >= NEEDLE
            && (first..).zip(&rest[..NEEDLE]).all(|(index, &found)| found == byte(seed, index));
        if same {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

fn host_identity() -> HostIdentity {
    HostIdentity::from_id(uuid::Uuid::from_u128(1))
}

/// Connects once to a target that attacks every queue like this; returns whether that succeeded.
fn connect(group: GroupId, two_way: bool, attack: fn(OutgoingMessage<'_>)) -> bool {
    let settings = move |_| Settings {
        host_secret: secret(1),
        controller_secret: Some(secret(2)),
        hash: HashId::SHA_256,
        group,
        host_nqn: host_identity().nqn.to_string(),
        subsystem_nqn: SUBSYSTEM.to_owned(),
        seed: 7,
    };
    let authentication = AuthenticationHook::hostile(settings, attack);
    let fabric = Fabric::auto(1);
    let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
    let address = TARGET_ADDRESS.parse().expect("an address");
    let nqn = SUBSYSTEM.parse().expect("an NQN");
    let mut options = ConnectOptions::new(address, nqn, host_identity());
    options.io_queues = 1;
    options.reconnect = ReconnectOptions::never();
    options.authentication.credentials = Some(Arc::new(if two_way {
        Credentials::two_way(secret(1), secret(2)).expect("two secrets")
    } else {
        Credentials::one_way(secret(1))
    }));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let target =
            Target::new(&fabric, Box::new(move |seen, answer| authentication.answer(seen, answer)));
        tokio::spawn(target.run());
        let connecting = Controller::connect_over(&host, &options);
        let outcome = tokio::time::timeout(Duration::from_secs(50), connecting).await;
        match outcome.expect("it does not hang") {
            Ok(controller) => {
                controller.shutdown().await;
                true
            }
            Err(_) => false,
        }
    })
}

#[test]
fn no_way_to_fail_leaves_a_secret_behind() {
    if File::open("/proc/self/mem").is_err() {
        println!("SKIPPED: this process may not read its own memory");
        return;
    }
    // What is there is found.
    let held = secret(9);
    assert!(!found(9).is_empty());
    drop(held);
    assert_eq!(found(9), [""; 0]);
    for row in ROWS {
        connect(row.group, row.two_way, row.attack);
        for seed in [1, 2] {
            assert_eq!(found(seed), [""; 0], "{}", row.name);
        }
    }
    for group in [GroupId::NULL, GroupId::FFDHE_2048] {
        assert!(connect(group, true, |_| ()));
        for seed in [1, 2] {
            assert_eq!(found(seed), [""; 0], "{group}");
        }
    }
}
