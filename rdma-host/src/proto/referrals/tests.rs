use std::collections::HashMap;

use super::*;
use crate::wire::DiscoveryEntry;

/// Log with referrals to these hosts of 10.0.0.0/8.
fn log(referrals: &[u32]) -> DiscoveryLog {
    let bytes = referrals.iter().flat_map(|&host| {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + host).to_string();
        entry(&address, 1, 1)
    });
    let bytes: Vec<_> = bytes.chain(entry("10.0.0.1", 1, 2)).collect();
    DiscoveryLog {
        generation: 1,
        entries: DiscoveryEntry::parse_all(&bytes).unwrap(),
        bytes: Vec::new(),
    }
}

fn entry(address: &str, family: u8, kind: u8) -> Vec<u8> {
    let mut bytes = vec![0; DiscoveryEntry::SIZE];
    bytes[..3].copy_from_slice(&[1, family, kind]);
    bytes[32..36].copy_from_slice(b"4420");
    bytes[256..256 + Nqn::DISCOVERY.len()].copy_from_slice(Nqn::DISCOVERY.as_bytes());
    bytes[512..512 + address.len()].copy_from_slice(address.as_bytes());
    bytes
}

fn host(host: u32) -> SocketAddr {
    SocketAddr::new(std::net::Ipv4Addr::from_bits(0x0a00_0000 + host).into(), 4420)
}

fn discovery() -> Nqn {
    Nqn::DISCOVERY.parse().unwrap()
}

/// Walks a network of referrals from host 1; returns the hosts queried and the reasons for the
/// others.
fn walk(depth_max: u8, network: &HashMap<u32, Vec<u32>>) -> (Vec<(u32, u8)>, Vec<SkipReason>) {
    let mut walk = ReferralWalk::new(depth_max);
    walk.add(host(1), discovery()).unwrap();
    let (mut asked, mut skipped) = (Vec::new(), Vec::new());
    while let Some(target) = walk.next() {
        let SocketAddr::V4(address) = target.address else { panic!("IPv4") };
        let number = address.ip().to_bits() - 0x0a00_0000;
        asked.push((number, target.depth));
        let log = log(network.get(&number).map_or(&[], Vec::as_slice));
        skipped.extend(walk.handle_log(&target, &log).into_iter().map(|skipped| skipped.reason));
    }
    (asked, skipped)
}

#[test]
fn cycles_are_walked_once() {
    let network = HashMap::from([(1, vec![1, 2]), (2, vec![3, 2]), (3, vec![1, 2, 3])]);
    let (asked, skipped) = walk(9, &network);
    assert_eq!(asked, [(1, 0), (2, 1), (3, 2)]);
    assert_eq!(skipped, vec![SkipReason::AlreadyQueried; 5]);
}

#[test]
fn the_depth_is_limited() {
    let network: HashMap<_, _> = (1..100).map(|number| (number, vec![number + 1])).collect();
    for depth in [0, 1, 7] {
        let (asked, skipped) = walk(depth, &network);
        assert_eq!(asked.len(), usize::from(depth) + 1);
        assert_eq!(skipped, [SkipReason::Depth(depth)]);
    }
}

#[test]
fn the_shortest_path_counts() {
    // 4 is three referrals away through 2 and 3, but also one directly.
    let network = HashMap::from([(1, vec![2, 4]), (2, vec![3]), (3, vec![4]), (4, vec![5])]);
    let (asked, _) = walk(2, &network);
    assert_eq!(asked, [(1, 0), (2, 1), (4, 1), (3, 2), (5, 2)]);
}

#[test]
fn the_number_of_subsystems_is_limited() {
    let network = HashMap::from([(1, (2..2000).collect())]);
    let (asked, skipped) = walk(9, &network);
    assert_eq!(asked.len(), DISCOVERY_TARGETS_MAX);
    assert!(skipped.iter().all(|reason| *reason == SkipReason::TooMany(DISCOVERY_TARGETS_MAX)));
}

#[test]
fn invalid_addresses_are_reported() {
    let bytes = [entry("$(reboot)", 1, 1), entry("fe80::2", 2, 1)].concat();
    let log = DiscoveryLog {
        generation: 1,
        entries: DiscoveryEntry::parse_all(&bytes).unwrap(),
        bytes: Vec::new(),
    };
    let mut walk = ReferralWalk::new(1);
    let from = "[fe80::1%3]:4420".parse().unwrap();
    walk.add(from, discovery()).unwrap();
    assert_eq!(walk.add(from, discovery()), Err(SkipReason::AlreadyQueried));
    let first = walk.next().unwrap();
    let skipped = walk.handle_log(&first, &log);
    assert_eq!(skipped.len(), 1);
    assert!(skipped[0].to_string().contains("$(reboot)"), "{}", skipped[0]);
    let second = walk.next().unwrap().address;
    assert_eq!(second, "[fe80::2%3]:4420".parse().unwrap(), "on the same interface");
}
