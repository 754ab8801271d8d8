//! Every exchange of `vectors/transcripts.json` and `vectors/live.json`, byte for byte: another
//! implementation has played both sides, or Linux the controller's, and the host's side must be
//! the same here.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::num::NonZeroU32;

use auth::{
    Authenticated, Credentials, Failure, GroupId, HashId, Negotiation, Policy, Randomness, Secret,
    SequenceNumber, TransactionId,
    message::{Explanation, FailureMessage, MessageId},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Transcripts {
    version: u32,
    transcripts: Vec<Transcript>,
}

#[derive(Deserialize)]
struct Transcript {
    note: String,
    hash_min: u8,
    group_min: u8,
    host_secret: String,
    controller_secret: Option<String>,
    host_nqn: String,
    subsystem_nqn: String,
    transaction_id: u16,
    s2: NonZeroU32,
    challenge_random: String,
    exponent_random: String,
    messages: Vec<String>,
    outcome: Outcome,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Authenticated { hash: u8, group: u8, controller_proved: bool },
    Error(String),
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    assert!(hexadecimal.is_ascii() && hexadecimal.len().is_multiple_of(2));
    let pairs = (0..hexadecimal.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap()).collect()
}

fn credentials(transcript: &Transcript) -> Credentials {
    let host = Secret::parse(&transcript.host_secret).ok().unwrap();
    match &transcript.controller_secret {
        None => Credentials::one_way(host),
        Some(text) => Credentials::two_way(host, Secret::parse(text).ok().unwrap()).ok().unwrap(),
    }
}

fn randomness(transcript: &Transcript) -> Randomness {
    let mut parts = [&transcript.challenge_random, &transcript.exponent_random].into_iter();
    Randomness::draw(|buffer| {
        let part = bytes(parts.next().expect("two draws"));
        assert_eq!(part.len(), buffer.len());
        buffer.copy_from_slice(&part);
        Ok::<_, ()>(())
    })
    .ok()
    .unwrap()
}

/// Plays the host's side; what it sends must be the next message each time.
fn play(
    transcript: &Transcript,
    messages: &mut impl Iterator<Item = Vec<u8>>,
) -> Result<Authenticated, Failure> {
    let negotiation = Negotiation {
        credentials: &credentials(transcript),
        policy: Policy::new(HashId(transcript.hash_min), GroupId(transcript.group_min)).unwrap(),
        host_nqn: &transcript.host_nqn,
        subsystem_nqn: &transcript.subsystem_nqn,
        transaction_id: TransactionId(transcript.transaction_id),
    };
    let (negotiate, state) = negotiation.start().ok().unwrap();
    assert_eq!(Some(negotiate), messages.next());
    let challenge = messages.next().expect("a challenge");
    let s2 = SequenceNumber(transcript.s2);
    let (reply, state) = state.handle(&challenge, randomness(transcript), s2)?;
    assert_eq!(Some(reply), messages.next());
    let (success2, authenticated) = state.handle(&messages.next().expect("a verdict"))?;
    if let Some(success2) = success2 {
        assert_eq!(Some(success2), messages.next());
    }
    Ok(authenticated)
}

#[test]
fn exchanges_are_the_same_byte_for_byte() {
    replay(include_str!("../vectors/transcripts.json"), 90);
}

/// Exchanges with nvmet of two kernels: three hashes, six groups, one-way and two-way on each.
#[test]
fn exchanges_with_linux_are_the_same_byte_for_byte() {
    replay(include_str!("../vectors/live.json"), 72);
}

fn replay(json: &str, at_least: usize) {
    let all: Transcripts = serde_json::from_str(json).expect("as documented");
    assert_eq!(all.version, 1);
    assert!(all.transcripts.len() >= at_least);
    for transcript in &all.transcripts {
        let note = &transcript.note;
        let mut messages = transcript.messages.iter().map(|message| bytes(message));
        match (play(transcript, &mut messages), &transcript.outcome) {
            (Ok(got), &Outcome::Authenticated { hash, group, controller_proved }) => {
                let (hash, group) = (HashId(hash), GroupId(group));
                assert_eq!(got, Authenticated { hash, group, controller_proved }, "{note}");
            }
            (Err(failure), Outcome::Error(name)) => {
                let got = format!("{:?}", failure.error());
                let got = got.split([' ', '(']).next().unwrap();
                assert_eq!(got, name, "{note}: {failure}");
                assert_eq!(failure.message(), messages.next(), "{note}: {failure}");
            }
            (got, _) => panic!("{note}: {got:?}"),
        }
        assert_eq!(messages.next(), None, "{note}: a message is left");
    }
}

#[test]
fn failures_in_transcripts_say_which_exchange_and_why() {
    let bytes = bytes("00f0000034120106");
    let failure = FailureMessage::decode(&bytes).ok().unwrap();
    assert_eq!(failure.id, MessageId::FAILURE2);
    assert_eq!(failure.transaction_id, TransactionId(0x1234));
    assert_eq!(failure.explanation, Explanation::INCORRECT_PAYLOAD);
    assert_eq!(failure.encode(), bytes);
}
