//! Known answers for challenges and responses, and what must change them.
//!
//! All values were computed from the formulas with Python's `hmac` and `hashlib`, an
//! implementation independent of ours, which `vectors/live.json` has met a live controller with.

use super::*;
use crate::Secret;

const HOST_NQN: &str = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-0000-000000000001";
const SUBSYSTEM_NQN: &str = "nqn.test:s1";
const SPECIFICATION: &str = "DHHC-1:00:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 00 01 02 and so on.
fn counting(length: usize) -> Vec<u8> {
    (0..=u8::MAX).cycle().take(length).collect()
}

/// ff fe fd and so on.
fn counting_down(length: usize) -> Vec<u8> {
    (0..=u8::MAX).rev().cycle().take(length).collect()
}

fn specification_key() -> Key {
    Secret::parse(SPECIFICATION).ok().unwrap().transform(HOST_NQN)
}

fn key(hash: HashId, bytes: &[u8], nqn: &str) -> Key {
    Secret::from_bytes(hash, bytes).ok().unwrap().transform(nqn)
}

fn plain(challenge: &[u8]) -> AugmentedChallenge {
    let hash = HashId::SHA_256;
    augmented_challenge(&ChallengeInput {
        hash,
        group: GroupId::NULL,
        challenge,
        shared_secret: &[],
    })
    .ok()
    .unwrap()
}

fn input<'a>(key: &'a Key, challenge: &'a AugmentedChallenge) -> ResponseInput<'a> {
    ResponseInput {
        key,
        challenge,
        sequence_number: 1,
        transaction_id: TransactionId(0),
        host_nqn: HOST_NQN,
        subsystem_nqn: SUBSYSTEM_NQN,
    }
}

fn host(input: &ResponseInput<'_>) -> String {
    hex(host_response(input, SecureChannel::NONE).into_wire().as_bytes())
}

fn controller(input: &ResponseInput<'_>) -> String {
    hex(controller_response(input).into_wire().as_bytes())
}

#[test]
fn golden_host_response() {
    let (key, challenge) = (specification_key(), plain(&counting(32)));
    assert_eq!(
        host(&input(&key, &challenge)),
        "6cfd29d600d0372e8f79a8e23a621ba3b8d542311713be668e5b271593203bc2"
    );
}

#[test]
fn golden_controller_response() {
    let (key, challenge) = (specification_key(), plain(&counting_down(32)));
    let input = ResponseInput { sequence_number: 2, ..input(&key, &challenge) };
    assert_eq!(
        controller(&input),
        "5efaf18fd5ce452575945559a3e1a5285202589f8e880d8c608347337ddafe10"
    );
}

/// The shared secret begins with a zero byte, which must be hashed like any other.
#[test]
fn golden_augmented_challenge() {
    let challenge = augmented_challenge(&ChallengeInput {
        hash: HashId::SHA_256,
        group: GroupId::FFDHE_2048,
        challenge: &counting(32),
        shared_secret: &counting(256),
    });
    assert_eq!(
        hex(&challenge.ok().unwrap().bytes),
        "489a13eb1ddc349965d38820eb1815d05a2d88380bef20978854622d32e71f0d"
    );
}

#[test]
fn null_group_leaves_the_challenge_as_it_is() {
    assert_eq!(plain(&counting(32)).bytes[..], counting(32));
}

#[test]
fn secure_channel_enters_the_host_response() {
    let (key, challenge) = (specification_key(), plain(&counting(32)));
    let response = host_response(&input(&key, &challenge), SecureChannel(2)).into_wire();
    assert_eq!(
        hex(response.as_bytes()),
        "87e0a871a66eeaa648ba9d02813b41380a8dcede25ec022137fb42a896a2ec2e"
    );
}

#[test]
fn longest_names_and_extreme_numbers() {
    let host_nqn = format!("nqn.{}", "h".repeat(219));
    let subsystem_nqn = format!("nqn.{}", "s".repeat(219));
    let key = specification_key();
    let (c1, c2) = (plain(&counting(32)), plain(&counting_down(32)));
    let input = |challenge| ResponseInput {
        sequence_number: 0,
        transaction_id: TransactionId(0xffff),
        host_nqn: &host_nqn,
        subsystem_nqn: &subsystem_nqn,
        ..input(&key, challenge)
    };
    assert_eq!(
        host(&input(&c1)),
        "475bf59fcd6e032b7a241b4ced274c0d28653074e33bc98ae429459f188181fb"
    );
    assert_eq!(
        controller(&input(&c2)),
        "e88a2c6e59f355edfb7c679ec1e8cd6bc40d5fa6647a25de8ee360dfa716154e"
    );
}

struct Vector {
    hash: HashId,
    host_challenge: &'static str,
    controller_challenge: &'static str,
    host_response: &'static str,
    controller_response: &'static str,
}

/// A 48-byte host secret and a 64-byte controller secret under each hash, ffdhe3072 with a shared
/// secret of 00 and then a5, S1 01020304h, S2 fffffffeh, T_ID fffeh.
const VECTORS: [Vector; 3] = [
    Vector {
        hash: HashId::SHA_256,
        host_challenge: "25260d0ebbe5dac13d0a8a9ef5c831d66db7e4b7ac7dd7bcf0bd3e10e5c2e695",
        controller_challenge: "19a70e7ec5e4c66afc75daee5703330abe11cbb263fb7f0306a4f1822eb9a90e",
        host_response: "de1c96dcf81d578fae389e2f78376f59f17689e42bb45a6e9765adeb09bec29a",
        controller_response: "8e3495fe42a6ea6dd3d88928b976c10c20d1ad5b5d93c73107fc0faa22390a54",
    },
    Vector {
        hash: HashId::SHA_384,
        host_challenge: "ff6598e13b05438a994b852e5ccb96155f9e9acf4fa64245c71bc8fcf49886ad\
                         e2d7d50d1cb73844f6bc2a7ce9a8c6a7",
        controller_challenge: "e852668cdd3c04db562cf4a1e615b2c3d8e5588e920bb864f3eda0e453411ce8\
                               06d1ff8f1227d9d1cb486a24368ca885",
        host_response: "088a08b127723245ed9d190b2ef7500918435c8982ce1292c199948e410509b6\
                        3b459e82c9a956cf4c7826e0a5f0e0cf",
        controller_response: "3d6782c0929c304b3a9cff5871a48f2d194f1672b71cfcf1ef431a6cef6abf80\
                              0741526a1451c621902bc2292ca4e39a",
    },
    Vector {
        hash: HashId::SHA_512,
        host_challenge: "5db0fe31d0ef8aadb19e5492a2f7f7356101dae72ad684cacefdfed934113a43\
                         008d380cedf28c404677d0e40420a4d5542eed08567d9d7e93d668bac410a88b",
        controller_challenge: "a24a67df21dd7c115a39c9a88fb780a3d6e738135cc044a3e55a47cd87740441\
                               f74eaa50770bc9459234db1f61cc744b4c15dc567ee5c94906b13d7399c97fd7",
        host_response: "90b69030825a93b549b221756456b0342cbc2eb709d6738fbbcbd5e047750b43\
                        58c346b74317fff040a2b4b38622da5ff1d2cbc5ed7145c5ec446b19af760c93",
        controller_response: "a42081d709149eb2e78589c351ce16a777e72f3669eff2759ff1fa83a66b8c7b\
                              31e77232adf9d419c6f01c4822d4c3b735b875512f31f1ebde58bac6a24fa44e",
    },
];

#[test]
fn every_hash_with_a_group_and_unequal_lengths() {
    for vector in VECTORS {
        let hash = vector.hash;
        let digest_length = hash.digest_length().unwrap();
        let mut shared_secret = [0xa5; 384];
        shared_secret[0] = 0;
        let augment = |challenge: Vec<u8>| {
            let input = ChallengeInput {
                hash,
                group: GroupId::FFDHE_3072,
                challenge: &challenge,
                shared_secret: &shared_secret,
            };
            augmented_challenge(&input).ok().unwrap()
        };
        let c1 = augment(counting(digest_length));
        let c2 = augment(counting_down(digest_length));
        assert_eq!(hex(&c1.bytes), vector.host_challenge);
        assert_eq!(hex(&c2.bytes), vector.controller_challenge);

        let transaction_id = TransactionId(0xfffe);
        let host_key = key(hash, &counting(48), HOST_NQN);
        let sequence_number = 0x0102_0304;
        let from_host = ResponseInput { sequence_number, transaction_id, ..input(&host_key, &c1) };
        assert_eq!(host(&from_host), vector.host_response);

        let controller_key = key(hash, &counting_down(64), SUBSYSTEM_NQN);
        let sequence_number = 0xffff_fffe;
        let from_controller =
            ResponseInput { sequence_number, transaction_id, ..input(&controller_key, &c2) };
        assert_eq!(controller(&from_controller), vector.controller_response);
    }
}

#[test]
fn every_input_changes_both_responses() {
    let (key, other_key) = (specification_key(), self::key(HashId::NONE, &[7; 32], HOST_NQN));
    let (challenge, other_challenge) = (plain(&counting(32)), plain(&counting_down(32)));
    let original = input(&key, &challenge);
    let inputs = [
        original,
        ResponseInput { key: &other_key, ..original },
        ResponseInput { challenge: &other_challenge, ..original },
        ResponseInput { sequence_number: 0x0100_0000, ..original },
        ResponseInput { transaction_id: TransactionId(1), ..original },
        ResponseInput { host_nqn: "nqn.test:h", ..original },
        ResponseInput { subsystem_nqn: "nqn.test:s2", ..original },
        ResponseInput { host_nqn: SUBSYSTEM_NQN, subsystem_nqn: HOST_NQN, ..original },
    ];
    let mut responses: Vec<_> =
        inputs.iter().map(host).chain(inputs.iter().map(controller)).collect();
    responses.sort();
    responses.dedup();
    assert_eq!(responses.len(), 2 * inputs.len(), "two inputs gave one response");
}

#[test]
fn tag_matches_nothing_but_itself() {
    let (key, challenge) = (specification_key(), plain(&counting(32)));
    let tag = || host_response(&input(&key, &challenge), SecureChannel::NONE);
    let wire = tag().into_wire();
    let bytes = wire.as_bytes();
    assert!(tag().matches(bytes));
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(!tag().matches(&changed), "bit {bit}");
    }
    assert!(!tag().matches(&[]));
    assert!(!tag().matches(&bytes[..31]));
    assert!(!tag().matches(&[bytes, &[0]].concat()));
}

#[test]
fn wrong_lengths_are_refused() {
    let groups = [
        GroupId::NULL,
        GroupId::FFDHE_2048,
        GroupId::FFDHE_3072,
        GroupId::FFDHE_4096,
        GroupId::FFDHE_6144,
        GroupId::FFDHE_8192,
    ];
    for group in groups {
        let expected = group.value_length().unwrap();
        for actual in [0, expected.saturating_sub(1), expected, expected + 1] {
            let shared_secret = vec![1; actual];
            let input = ChallengeInput {
                hash: HashId::SHA_512,
                group,
                challenge: &[0; 64],
                shared_secret: &shared_secret,
            };
            let error = CalculationError::SharedSecretLength { expected, actual };
            assert_eq!(augmented_challenge(&input).err(), (actual != expected).then_some(error));
        }
    }
    for actual in [0, 32, 47, 49, 64] {
        let challenge = vec![0; actual];
        let (hash, group) = (HashId::SHA_384, GroupId::NULL);
        let input = ChallengeInput { hash, group, challenge: &challenge, shared_secret: &[] };
        let error = CalculationError::ChallengeLength { expected: 48, actual };
        assert_eq!(augmented_challenge(&input).err(), Some(error));
    }
}

#[test]
fn ids_not_implemented_are_refused() {
    let error = |hash, group| {
        let input = ChallengeInput { hash, group, challenge: &[0; 32], shared_secret: &[] };
        augmented_challenge(&input).err()
    };
    for hash in [HashId::NONE, HashId(4), HashId(0xff)] {
        let expected = CalculationError::HashUnsupported(hash);
        assert_eq!(error(hash, GroupId::NULL), Some(expected));
    }
    for group in [GroupId(6), GroupId::SECP256R1, GroupId::SECP384R1_ML_KEM_1024, GroupId(0xff)] {
        let expected = CalculationError::GroupUnsupported(group);
        assert_eq!(error(HashId::SHA_256, group), Some(expected));
    }
}

#[test]
fn secret_results_are_wiped_on_drop() {
    fn wiped<T: ZeroizeOnDrop>(_: &T) {}
    let (key, challenge) = (specification_key(), plain(&counting(32)));
    let tag = controller_response(&input(&key, &challenge));
    wiped(&challenge);
    wiped(&challenge.bytes);
    wiped(&tag);
    wiped(&tag.bytes);
}
