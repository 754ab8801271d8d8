//! Every value of `vectors/vectors.json`, which another implementation has computed.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use auth::{
    ChallengeInput, EXPONENT_LENGTH_MAX, GroupId, HashId, PrivateKey, ResponseInput, Secret,
    SecureChannel, TransactionId, augmented_challenge, controller_response, host_response,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    version: u32,
    refused_secrets: Vec<RefusedSecret>,
    key_exchanges: Vec<KeyExchange>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct RefusedSecret {
    note: String,
    text: String,
}

#[derive(Deserialize)]
struct KeyExchange {
    name: String,
    group: u8,
    host_random: String,
    controller_random: String,
    host_public: String,
    controller_public: String,
    shared_secret: String,
}

#[derive(Deserialize)]
struct Case {
    number: usize,
    hash: u8,
    group: u8,
    key_exchange: Option<String>,
    host_secret: String,
    host_nqn: String,
    subsystem_nqn: String,
    transaction_id: u16,
    s1: u32,
    c1: String,
    host_response: String,
    controller: Option<Controller>,
}

#[derive(Deserialize)]
struct Controller {
    secret: String,
    s2: u32,
    c2: String,
    response: String,
}

fn vectors() -> Vectors {
    let vectors: Vectors =
        serde_json::from_str(include_str!("../vectors/vectors.json")).expect("as documented");
    assert_eq!(vectors.version, 1);
    vectors
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    assert!(hexadecimal.is_ascii() && hexadecimal.len().is_multiple_of(2));
    let pairs = (0..hexadecimal.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key(group: u8, random: &str) -> PrivateKey {
    let random: [u8; EXPONENT_LENGTH_MAX] = bytes(random).try_into().expect("52 bytes");
    PrivateKey::from_random(GroupId(group), &random).expect("a group with values")
}

#[test]
fn key_exchanges_agree() {
    let exchanges = vectors().key_exchanges;
    assert_eq!(exchanges.len(), 20);
    for exchange in exchanges {
        let what = format!("{}, {}", GroupId(exchange.group), exchange.name);
        let host = key(exchange.group, &exchange.host_random);
        let controller = key(exchange.group, &exchange.controller_random);
        assert_eq!(hex(&host.public_value()), exchange.host_public, "{what}");
        assert_eq!(hex(&controller.public_value()), exchange.controller_public, "{what}");
        let shared = host.shared_secret(&bytes(&exchange.controller_public)).ok().unwrap();
        assert_eq!(hex(shared.as_bytes()), exchange.shared_secret, "{what}");
        let shared = controller.shared_secret(&bytes(&exchange.host_public)).ok().unwrap();
        assert_eq!(hex(shared.as_bytes()), exchange.shared_secret, "{what}");
    }
}

#[test]
fn responses_agree() {
    let vectors = vectors();
    assert!(vectors.cases.len() >= 500, "{} cases", vectors.cases.len());
    for case in &vectors.cases {
        let shared = case.key_exchange.as_ref().map_or_else(Vec::new, |name| {
            let mut exchanges = vectors.key_exchanges.iter();
            let exchange = exchanges.find(|one| one.group == case.group && one.name == *name);
            bytes(&exchange.expect("every key exchange named is there").shared_secret)
        });
        check_host(case, &shared);
        if let Some(controller) = &case.controller {
            check_controller(case, controller, &shared);
        }
    }
}

fn check_host(case: &Case, shared_secret: &[u8]) {
    let challenge = augmented_challenge(&ChallengeInput {
        hash: HashId(case.hash),
        group: GroupId(case.group),
        challenge: &bytes(&case.c1),
        shared_secret,
    });
    let secret = Secret::parse(&case.host_secret).ok().unwrap();
    assert_eq!(secret.encode().as_str(), case.host_secret);
    let input = ResponseInput {
        key: &secret.transform(&case.host_nqn),
        challenge: &challenge.ok().unwrap(),
        sequence_number: case.s1,
        transaction_id: TransactionId(case.transaction_id),
        host_nqn: &case.host_nqn,
        subsystem_nqn: &case.subsystem_nqn,
    };
    let response = host_response(&input, SecureChannel::NONE);
    assert!(response.matches(&bytes(&case.host_response)), "case {}", case.number);
    assert_eq!(hex(response.into_wire().as_bytes()), case.host_response);
}

fn check_controller(case: &Case, controller: &Controller, shared_secret: &[u8]) {
    let challenge = augmented_challenge(&ChallengeInput {
        hash: HashId(case.hash),
        group: GroupId(case.group),
        challenge: &bytes(&controller.c2),
        shared_secret,
    });
    let secret = Secret::parse(&controller.secret).ok().unwrap();
    let input = ResponseInput {
        key: &secret.transform(&case.subsystem_nqn),
        challenge: &challenge.ok().unwrap(),
        sequence_number: controller.s2,
        transaction_id: TransactionId(case.transaction_id),
        host_nqn: &case.host_nqn,
        subsystem_nqn: &case.subsystem_nqn,
    };
    let response = controller_response(&input);
    assert!(response.matches(&bytes(&controller.response)), "case {}", case.number);
    assert_eq!(hex(response.into_wire().as_bytes()), controller.response);
}

#[test]
fn every_combination_is_there() {
    let mut combinations: Vec<_> = vectors()
        .cases
        .iter()
        .map(|case| {
            let secret = Secret::parse(&case.host_secret).ok().unwrap();
            let two_way = case.controller.is_some();
            (secret.hash(), case.host_secret.len(), case.hash, case.group, two_way)
        })
        .collect();
    combinations.sort_unstable();
    combinations.dedup();
    assert_eq!(combinations.len(), 4 * 3 * 3 * 6 * 2);
}

#[test]
fn refused_secrets_are_refused() {
    for RefusedSecret { note, text } in vectors().refused_secrets {
        assert!(Secret::parse(&text).is_err(), "{note}: {text:?}");
    }
}
