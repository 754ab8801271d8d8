//! Bodies of the fuzz targets, called by the fuzzer and, with the committed corpus, by the ordinary
//! tests.
//!
//! `cd auth && cargo +nightly fuzz run challenge`, and so on.

#![allow(dead_code, reason = "each fuzz target uses one")]

use std::num::NonZeroU32;

use auth::{
    AwaitChallenge, Credentials, HashId, Negotiation, Policy, Randomness, Secret, SequenceNumber,
    TransactionId,
    message::{Challenge, FailureMessage, Negotiate, Reply, Success1, Success2},
};

/// Checks that a secret has exactly one text form.
pub(crate) fn secret(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(secret) = Secret::parse(text) {
        assert_eq!(secret.encode().as_str(), text);
    }
}

/// Checks that a decoded message is the same after encoding and decoding again, as do the next five
/// targets.
pub(crate) fn negotiate(data: &[u8]) {
    if let Ok(message) = Negotiate::decode(data) {
        assert_eq!(Negotiate::decode(&message.encode()).as_ref(), Ok(&message));
    }
}

pub(crate) fn challenge(data: &[u8]) {
    if let Ok(message) = Challenge::decode(data) {
        assert_eq!(Challenge::decode(&message.encode()), Ok(message));
    }
}

pub(crate) fn reply(data: &[u8]) {
    if let Ok(message) = Reply::decode(data) {
        assert_eq!(Reply::decode(&message.encode()), Ok(message));
    }
}

pub(crate) fn success1(data: &[u8]) {
    if let Ok(message) = Success1::decode(data) {
        let Success1 { transaction_id, hash_length, response } = message;
        assert!(response.is_none_or(|response| response.len() == usize::from(hash_length)));
        let message = Success1 { transaction_id, hash_length, response };
        assert_eq!(Success1::decode(&message.encode()), Ok(message));
    }
}

pub(crate) fn success2(data: &[u8]) {
    if let Ok(message) = Success2::decode(data) {
        assert_eq!(Success2::decode(&message.encode()), Ok(message));
    }
}

pub(crate) fn failure(data: &[u8]) {
    if let Ok(message) = FailureMessage::decode(data) {
        assert_eq!(FailureMessage::decode(&message.encode()), Ok(message));
    }
}

/// Checks that any bytes in place of a Challenge give a matching Reply or an error.
pub(crate) fn await_challenge(data: &[u8]) {
    if let Ok((sent, _)) = begin(true).handle(data, randomness(), S2) {
        let (reply, challenge) = (Reply::decode(&sent), Challenge::decode(data));
        let (Ok(reply), Ok(challenge)) = (reply, challenge) else { panic!("not as it was read") };
        assert_eq!(Some(reply.response.len()), challenge.hash.digest_length());
        assert_eq!(Some(reply.public_value.len()), challenge.group.value_length());
        assert_ne!(challenge.sequence_number, 0);
    }
}

/// Checks that no bytes in place of a Success1 pass for a response, which would need the secret.
pub(crate) fn await_success1(data: &[u8]) {
    for two_way in [false, true] {
        let challenge = Challenge {
            transaction_id: TRANSACTION,
            hash: HashId::SHA_256,
            group: auth::GroupId::NULL,
            sequence_number: 1,
            challenge: &[3; 32],
            public_value: &[],
        };
        let (_, state) = begin(two_way)
            .handle(&challenge.encode(), randomness(), S2)
            .unwrap_or_else(|failure| panic!("an honest challenge: {failure}"));
        let accepted = state.handle(data).is_ok();
        let plain = Success1 { transaction_id: TRANSACTION, hash_length: 32, response: None };
        assert_eq!(accepted, !two_way && Success1::decode(data) == Ok(plain));
    }
}

fn begin(two_way: bool) -> AwaitChallenge {
    let secret = |byte| Secret::from_bytes(HashId::NONE, &[byte; 32]).expect("32 bytes");
    let credentials = if two_way {
        Credentials::two_way(secret(1), secret(2)).expect("they differ")
    } else {
        Credentials::one_way(secret(1))
    };
    let negotiation = Negotiation {
        credentials: &credentials,
        policy: Policy::default(),
        host_nqn: "nqn.test:host",
        subsystem_nqn: "nqn.test:s1",
        transaction_id: TRANSACTION,
    };
    negotiation.start().expect("both names are NQNs").1
}

fn randomness() -> Randomness {
    let fill = |bytes: &mut [u8]| {
        bytes.fill(0x5a);
        Ok::<_, ()>(())
    };
    Randomness::draw(fill).expect("filling does not fail")
}

const TRANSACTION: TransactionId = TransactionId(0);
const S2: SequenceNumber = SequenceNumber(NonZeroU32::MIN);
