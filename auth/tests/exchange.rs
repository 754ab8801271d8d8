//! Exchanges with a controller that is honest, or not: every deviation ends as it must.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::num::NonZeroU32;

use auth::{
    Authenticated, AwaitChallenge, AwaitSuccess1, Credentials, ExchangeError, Failure,
    FailureClass, GroupId, HashId, Negotiation, NqnError, Policy, Randomness, Secret,
    SecureChannel, SequenceNumber, TransactionId, Warning,
    message::{
        Challenge, Explanation, FailureMessage, MessageError, MessageId, Negotiate, RECEIVE_LENGTH,
        Reply, Success1, Success2,
    },
};
use authenticator::{Authenticator, Settings, Tamper};
use proptest::prelude::*;

#[allow(unreachable_pub, reason = "it is part of a library too")]
#[path = "../../tests/support/authenticator.rs"]
mod authenticator;

const HOST_NQN: &str = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-0000-000000000001";
const SUBSYSTEM_NQN: &str = "nqn.test:s1";
const HOST_SEED: u8 = 0x40;
const CONTROLLER_SEED: u8 = 0x90;

fn secret(byte: u8) -> Secret {
    Secret::from_bytes(HashId::SHA_256, &[byte; 32]).ok().unwrap()
}

fn settings(hash: HashId, group: GroupId) -> Settings {
    Settings {
        host_secret: secret(1),
        controller_secret: Some(secret(2)),
        hash,
        group,
        host_nqn: HOST_NQN.to_owned(),
        subsystem_nqn: SUBSYSTEM_NQN.to_owned(),
        seed: CONTROLLER_SEED,
    }
}

fn credentials(two_way: bool) -> Credentials {
    if two_way {
        Credentials::two_way(secret(1), secret(2)).ok().unwrap()
    } else {
        Credentials::one_way(secret(1))
    }
}

fn randomness() -> Randomness {
    let fill = |bytes: &mut [u8]| {
        bytes.fill(HOST_SEED);
        Ok::<_, ()>(())
    };
    Randomness::draw(fill).ok().unwrap()
}

const S2: SequenceNumber = SequenceNumber(NonZeroU32::MAX);

/// State that waits for a Challenge.
fn awaiting_challenge(credentials: &Credentials) -> AwaitChallenge {
    let (policy, transaction_id) = (Policy::default(), TransactionId(0x1234));
    let (host_nqn, subsystem_nqn) = (HOST_NQN, SUBSYSTEM_NQN);
    let negotiation = Negotiation { credentials, policy, host_nqn, subsystem_nqn, transaction_id };
    negotiation.start().ok().unwrap().1
}

/// Runs a whole exchange and delivers a Failure2 as a driver would.
fn exchange(
    credentials: &Credentials,
    policy: Policy,
    controller: &mut Authenticator,
) -> Result<Authenticated, Failure> {
    let result = steps(credentials, policy, controller);
    if let Some(message) = result.as_ref().err().and_then(Failure::message) {
        controller.send(&message);
    }
    result
}

fn steps(
    credentials: &Credentials,
    policy: Policy,
    controller: &mut Authenticator,
) -> Result<Authenticated, Failure> {
    let negotiation = Negotiation {
        credentials,
        policy,
        host_nqn: HOST_NQN,
        subsystem_nqn: SUBSYSTEM_NQN,
        transaction_id: TransactionId(0x1234),
    };
    let (negotiate, state) = negotiation.start().ok().unwrap();
    controller.send(&negotiate);
    let (reply, state) = state.handle(&controller.receive(RECEIVE_LENGTH), randomness(), S2)?;
    controller.send(&reply);
    let (success2, authenticated) = state.handle(&controller.receive(RECEIVE_LENGTH))?;
    if let Some(success2) = success2 {
        controller.send(&success2);
    }
    Ok(authenticated)
}

/// Runs an exchange with SHA-256 in which `tamper` changes the controller's messages.
fn tampered(
    group: GroupId,
    two_way: bool,
    tamper: impl FnMut(MessageId, &mut Vec<u8>) + Send + 'static,
) -> (Result<Authenticated, Failure>, Option<Explanation>) {
    let tamper: Tamper = Box::new(tamper);
    let mut controller = Authenticator::hostile(settings(HashId::SHA_256, group), tamper);
    let result = exchange(&credentials(two_way), Policy::default(), &mut controller);
    assert_eq!(result.is_ok(), controller.is_authenticated());
    (result, controller.failure())
}

fn error(result: Result<Authenticated, Failure>) -> Option<ExchangeError> {
    result.err().map(|failure| *failure.error())
}

#[test]
fn every_hash_and_group_authenticates_both_ways() {
    for group in (0..=5).map(GroupId) {
        for hash in [HashId::SHA_256, HashId::SHA_384, HashId::SHA_512] {
            for controller_proved in [false, true] {
                let mut controller = Authenticator::new(settings(hash, group));
                let credentials = credentials(controller_proved);
                let result = exchange(&credentials, Policy::default(), &mut controller);
                assert_eq!(result, Ok(Authenticated { hash, group, controller_proved }));
                assert!(controller.is_authenticated());
                assert_eq!(controller.failure(), None);
                let last = if controller_proved { MessageId::SUCCESS2 } else { MessageId::REPLY };
                assert_eq!(controller.last_sent()[..2], last.0.to_be_bytes());
            }
        }
    }
}

#[test]
fn wrong_secrets_and_names_are_told_apart() {
    let refused = Some(ExchangeError::Refused(Explanation::AUTHENTICATION_FAILED));
    let mut wrong_host = settings(HashId::SHA_256, GroupId::NULL);
    wrong_host.host_secret = secret(9);
    let mut other_name = settings(HashId::SHA_256, GroupId::NULL);
    other_name.host_nqn.push('x');
    let mut no_own = settings(HashId::SHA_256, GroupId::NULL);
    no_own.controller_secret = None;
    for settings in [wrong_host, other_name, no_own] {
        let mut controller = Authenticator::new(settings);
        let result = exchange(&credentials(true), Policy::default(), &mut controller);
        assert_eq!(result.as_ref().err().map(Failure::class), Some(FailureClass::KeyRejected));
        assert_eq!(result.as_ref().err().and_then(Failure::message), None);
        assert_eq!(error(result), refused);
    }
    let mut wrong_own = settings(HashId::SHA_256, GroupId::NULL);
    wrong_own.controller_secret = Some(secret(9));
    let mut controller = Authenticator::new(wrong_own);
    let result = exchange(&credentials(true), Policy::default(), &mut controller);
    assert_eq!(error(result), Some(ExchangeError::ResponseWrong));
    assert_eq!(controller.failure(), Some(Explanation::AUTHENTICATION_FAILED));
}

#[test]
fn choices_below_the_minimums_are_refused() {
    let policy = Policy::new(HashId::SHA_384, GroupId::FFDHE_3072).unwrap();
    let run = |hash, group| {
        let mut controller = Authenticator::new(settings(hash, group));
        exchange(&credentials(true), policy, &mut controller)
    };
    for group in [GroupId::NULL, GroupId::FFDHE_2048] {
        let minimum = GroupId::FFDHE_3072;
        let expected = Some(ExchangeError::GroupBelowMinimum { chosen: group, minimum });
        assert_eq!(error(run(HashId::SHA_384, group)), expected);
    }
    let refused = Some(ExchangeError::Refused(Explanation::HASH_NOT_USABLE));
    assert_eq!(error(run(HashId::SHA_256, GroupId::FFDHE_3072)), refused);
    assert!(run(HashId::SHA_384, GroupId::FFDHE_3072).is_ok());
}

#[test]
fn groups_of_tp4201_are_incompatible() {
    for group in [0x10, 0x11, 0x20, 0x21, 0x30, 0x31].map(GroupId) {
        let mut controller = Authenticator::new(settings(HashId::SHA_256, group));
        let result = exchange(&credentials(true), Policy::default(), &mut controller);
        assert_eq!(result.as_ref().err().map(Failure::class), Some(FailureClass::Incompatible));
        assert_eq!(error(result), Some(ExchangeError::GroupUnsupported(group)));
        assert_eq!(controller.failure(), Some(Explanation::GROUP_NOT_USABLE));
    }
}

#[test]
fn reflected_values_are_detected() {
    // A controller with our seed sends our public value.
    let mut settings = settings(HashId::SHA_256, GroupId::FFDHE_2048);
    settings.seed = HOST_SEED;
    let mut controller = Authenticator::new(settings);
    let result = exchange(&credentials(true), Policy::default(), &mut controller);
    assert_eq!(error(result), Some(ExchangeError::PublicValueReflected));
    assert_eq!(controller.failure(), Some(Explanation::AUTHENTICATION_FAILED));

    let (result, told) = tampered(GroupId::NULL, true, |id, message| {
        if id == MessageId::CHALLENGE {
            message[16..].fill(HOST_SEED);
        }
    });
    assert_eq!(error(result), Some(ExchangeError::ChallengeReflected));
    assert_eq!(told, Some(Explanation::AUTHENTICATION_FAILED));
}

/// Flips every bit of the controller's messages; only reserved bits are ignored.
#[test]
fn no_flipped_bit_authenticates() {
    let reserved = |id: MessageId, offset: usize| {
        [2, 3, 7].contains(&offset) || id == MessageId::SUCCESS1 && (9..16).contains(&offset)
    };
    for (target, length) in [(MessageId::CHALLENGE, 48), (MessageId::SUCCESS1, 48)] {
        for (offset, bit) in (0..length).flat_map(|offset| (0..8).map(move |bit| (offset, bit))) {
            let (result, _) = tampered(GroupId::NULL, true, move |id, message| {
                if id == target {
                    assert_eq!(message.len(), length);
                    message[offset] ^= 1 << bit;
                }
            });
            assert_eq!(result.is_ok(), reserved(target, offset), "{target} {offset} {bit}");
        }
    }
}

#[test]
fn no_shortened_message_authenticates() {
    for target in [MessageId::CHALLENGE, MessageId::SUCCESS1] {
        for length in 0..48 {
            let negotiation = Negotiation {
                credentials: &credentials(true),
                policy: Policy::default(),
                host_nqn: HOST_NQN,
                subsystem_nqn: SUBSYSTEM_NQN,
                transaction_id: TransactionId(1),
            };
            let mut controller = Authenticator::new(settings(HashId::SHA_256, GroupId::NULL));
            let (negotiate, state) = negotiation.start().ok().unwrap();
            controller.send(&negotiate);
            let challenge = controller.receive(48);
            if target == MessageId::CHALLENGE {
                assert!(state.handle(&challenge[..length], randomness(), S2).is_err());
                continue;
            }
            let (reply, state) = state.handle(&challenge, randomness(), S2).ok().unwrap();
            controller.send(&reply);
            assert!(state.handle(&controller.receive(48)[..length]).is_err(), "{length}");
        }
    }
}

/// Sends every kind of message in place of Challenge and of Success1.
#[test]
fn messages_out_of_order_are_named() {
    let transaction_id = TransactionId(0x1234);
    let explanation = Explanation::HASH_NOT_USABLE;
    let (hashes, groups) = (vec![HashId::SHA_256], vec![GroupId::NULL]);
    let secure_channel = SecureChannel::NONE;
    let (challenge, response) = (&[3; 32][..], &[4; 32][..]);
    let failure = |id| FailureMessage { id, transaction_id, explanation }.encode();
    let messages = [
        Negotiate { transaction_id, secure_channel, hashes, groups }.encode(),
        Challenge {
            transaction_id,
            hash: HashId::SHA_256,
            group: GroupId::NULL,
            sequence_number: 1,
            challenge,
            public_value: &[],
        }
        .encode(),
        Reply {
            transaction_id,
            sequence_number: 1,
            response,
            challenge: Some(challenge),
            public_value: &[],
        }
        .encode(),
        Success1 { transaction_id, hash_length: 32, response: Some(response) }.encode(),
        Success2 { transaction_id }.encode(),
        failure(MessageId::FAILURE2),
        failure(MessageId::FAILURE1),
        vec![0xff; 100],
    ];
    for message in messages {
        for expected in [MessageId::CHALLENGE, MessageId::SUCCESS1] {
            let actual = MessageId(u16::from_be_bytes([message[0], message[1]]));
            let sent = message.clone();
            let (result, told) = tampered(GroupId::NULL, true, move |id, message| {
                if id == expected {
                    message.clone_from(&sent);
                }
            });
            let error = error(result);
            match actual {
                MessageId::FAILURE1 => {
                    assert_eq!(error, Some(ExchangeError::Refused(explanation)));
                    assert_eq!(told, None);
                }
                actual if actual == expected => assert!(error.is_some(), "not the real one"),
                actual => {
                    let named = ExchangeError::OutOfOrder { expected, actual };
                    assert_eq!(error, Some(named));
                    assert_eq!(told, Some(Explanation::INCORRECT_MESSAGE));
                }
            }
        }
    }
}

#[test]
fn a_failure1_is_accepted_with_any_transaction_id() {
    let explanation = Explanation::AUTHENTICATION_FAILED;
    let (result, told) = tampered(GroupId::NULL, false, move |_, message| {
        let (id, transaction_id) = (MessageId::FAILURE1, TransactionId(0xffff));
        *message = FailureMessage { id, transaction_id, explanation }.encode();
    });
    assert_eq!(error(result), Some(ExchangeError::Refused(explanation)));
    assert_eq!(told, None, "nothing is sent after a Failure1");

    let state = awaiting_challenge(&credentials(false));
    let failure = state.handle(&[0, 0xf1, 0, 0, 0x34, 0x12, 1], randomness(), S2).err().unwrap();
    let error = MessageError::Short { needed: 8, actual: 7 };
    let expected = MessageId::CHALLENGE;
    assert_eq!(failure.error(), &ExchangeError::Malformed { expected, error });
}

#[test]
fn nqns_invalid_in_connect_are_refused() {
    let credentials = credentials(false);
    let begin = |host_nqn: &str, subsystem_nqn: &str| {
        let (policy, transaction_id) = (Policy::default(), TransactionId(0));
        let credentials = &credentials;
        let negotiation =
            Negotiation { credentials, policy, host_nqn, subsystem_nqn, transaction_id };
        negotiation.start().map(|(negotiate, _)| negotiate.len())
    };
    let longest = "n".repeat(223);
    assert_eq!(begin(&longest, &longest), Ok(72));
    for refused in ["", "nqn.test\0:x", &"n".repeat(224)] {
        let error = Err(NqnError { length: refused.len() });
        assert_eq!(begin(refused, "n"), error);
        assert_eq!(begin("n", refused), error);
    }
}

#[test]
fn weak_choices_give_warnings() {
    let warnings = |group, controller_proved| {
        let authenticated = Authenticated { hash: HashId::SHA_256, group, controller_proved };
        authenticated.warnings().collect::<Vec<_>>()
    };
    assert_eq!(warnings(GroupId::NULL, false), [Warning::NullGroup, Warning::OneWay]);
    let small = Warning::SmallGroup(GroupId::FFDHE_2048);
    assert_eq!(warnings(GroupId::FFDHE_2048, true), [small]);
    assert_eq!(warnings(GroupId::FFDHE_3072, true), []);
    assert_eq!(warnings(GroupId::FFDHE_8192, false), [Warning::OneWay]);
}

#[test]
fn states_go_to_other_threads() {
    fn movable<T: Send + Sync + 'static>() {}
    movable::<AwaitChallenge>();
    movable::<AwaitSuccess1>();
    movable::<Credentials>();
    movable::<Randomness>();
    movable::<Failure>();
}

#[test]
fn numbers_wrap_where_they_may() {
    let next = |number| SequenceNumber(NonZeroU32::new(number).unwrap()).following().0.get();
    assert_eq!((next(1), next(0xffff_fffe), next(0xffff_ffff)), (2, 0xffff_ffff, 1));
    assert_eq!(TransactionId(0xffff).following(), TransactionId(0));
    assert_eq!(TransactionId(7).following(), TransactionId(8));
}

#[test]
fn randomness_fails_as_its_source_does() {
    assert_eq!(Randomness::draw(|_| Err("no entropy")).err(), Some("no entropy"));
    let mut lengths = Vec::new();
    let draw = Randomness::draw(|bytes| {
        lengths.push(bytes.len());
        if lengths.len() == 2 { Err(()) } else { Ok(()) }
    });
    assert!(draw.is_err());
    assert_eq!(lengths, [64, 52]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_a_state_panic(
        first in prop::collection::vec(any::<u8>(), 0..100),
        second in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let (result, _) = tampered(GroupId::NULL, true, move |id, message| {
            message.truncate(6);
            message.extend_from_slice(if id == MessageId::CHALLENGE { &first } else { &second });
        });
        prop_assert!(result.is_err());
    }
}
