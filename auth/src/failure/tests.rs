//! Every error: its text, its class, and what the controller is told.

use super::*;

/// Every error there is with its class and explanation; zero where no Failure2 is sent.
fn errors() -> Vec<(ExchangeError, FailureClass, u8)> {
    use ExchangeError as Error;
    use FailureClass::{Downgraded, Incompatible, KeyRejected, PeerMisbehaved};
    let (hash, group) = (HashId::SHA_512, GroupId::FFDHE_8192);
    let expected = MessageId::CHALLENGE;
    let length = PublicValueError::Length { expected: 1024, actual: 65535 };
    let (chosen, minimum) = (GroupId::FFDHE_2048, group);
    let mut errors = vec![
        (Error::ChallengeReflected, PeerMisbehaved, 1),
        (Error::GroupBelowMinimum { chosen, minimum }, Downgraded, 5),
        (Error::GroupNotOffered(GroupId(0xee)), PeerMisbehaved, 5),
        (Error::GroupUnsupported(GroupId::SECP384R1_ML_KEM_1024), Incompatible, 5),
        (Error::HashBelowMinimum { chosen: HashId::SHA_256, minimum: hash }, Downgraded, 4),
        (Error::HashLength { hash, actual: 255 }, PeerMisbehaved, 6),
        (Error::HashNotOffered(HashId(0xee)), PeerMisbehaved, 4),
        (Error::OutOfOrder { expected, actual: MessageId(0xeeee) }, PeerMisbehaved, 7),
        (Error::PublicValue { group, error: length }, PeerMisbehaved, 6),
        (Error::PublicValue { group, error: PublicValueError::Range }, PeerMisbehaved, 6),
        (Error::PublicValueReflected, PeerMisbehaved, 1),
        (Error::ResponseMissing, Downgraded, 1),
        (Error::ResponseReflected, PeerMisbehaved, 1),
        (Error::ResponseUnexpected, PeerMisbehaved, 6),
        (Error::ResponseWrong, KeyRejected, 1),
        (Error::SequenceNumberZero, PeerMisbehaved, 6),
        (Error::TransactionId { expected: 0xffff, actual: 0xfffe }, PeerMisbehaved, 6),
    ];
    let malformed = [
        MessageError::Short { needed: 65823, actual: 4096 },
        MessageError::Trailing { offset: 4095 },
        MessageError::Id(MessageId::SUCCESS1),
        MessageError::Descriptors,
        MessageError::Flag(255),
    ];
    for error in malformed {
        errors.push((Error::Malformed { expected, error }, PeerMisbehaved, 6));
    }
    for explanation in 0..=u8::MAX {
        let class = if (2..=7).contains(&explanation) { Incompatible } else { KeyRejected };
        errors.push((Error::Refused(Explanation(explanation)), class, 0));
    }
    errors
}

#[test]
fn every_error_has_its_class_and_failure2() {
    for (error, class, explanation) in errors() {
        let failure = Failure::new(error, TransactionId(0x1234), MessageId::CHALLENGE);
        assert_eq!(failure.error(), &error);
        assert_eq!(failure.class(), class, "{error}");
        let message = [0x00, 0xf0, 0, 0, 0x34, 0x12, 1, explanation];
        let expected = (explanation != 0).then(|| message.to_vec());
        assert_eq!(failure.message(), expected, "{error}");
    }
}

/// Behaviour of both initiators in the bed, where a target can be made to show it.
#[test]
fn a_key_rejected_by_the_rules_of_linux_is_final() {
    let names = |due| {
        let all = errors().into_iter().map(|(error, ..)| error);
        let all = all.filter(|error| Failure::new(*error, TransactionId(0), due).is_final());
        let mut names: Vec<_> = all
            .map(|error| format!("{error:?}").split([' ', '(']).next().unwrap().to_owned())
            .collect();
        names.dedup();
        names
    };
    assert_eq!(names(MessageId::CHALLENGE), ["OutOfOrder", "TransactionId", "Refused"]);
    assert_eq!(
        names(MessageId::SUCCESS1),
        [
            "ChallengeReflected",
            "HashLength",
            "OutOfOrder",
            "ResponseReflected",
            "ResponseUnexpected",
            "ResponseWrong",
            "TransactionId",
            "Refused",
        ]
    );
}

#[test]
fn every_error_is_one_line_with_a_remedy() {
    for (error, ..) in errors() {
        let failure = Failure::new(error, TransactionId(0), MessageId::SUCCESS1);
        let message = failure.to_string();
        assert!(message.contains("target"), "not whose side: {message}");
        assert!(message.contains("; "), "no remedy: {message}");
        assert!(!message.contains('\n') && message.len() <= 120, "{} {message}", message.len());
    }
}

#[test]
fn a_refusal_contains_a_remedy() {
    let text = |explanation| ExchangeError::Refused(Explanation(explanation)).to_string();
    let expected = "the target refused: authentication failed; \
                    compare secrets and host NQN at both ends";
    assert_eq!(text(1), expected);
    let mut remedies: Vec<_> = (1..=7)
        .map(|explanation| text(explanation).split("; ").last().unwrap().to_owned())
        .collect();
    remedies.sort();
    remedies.dedup();
    assert_eq!(remedies.len(), 6, "incorrect payload and message have one: {remedies:?}");
}

#[test]
fn classes_have_names() {
    use FailureClass as Class;
    let classes = [
        Class::Downgraded,
        Class::Incompatible,
        Class::KeyMissing,
        Class::KeyRejected,
        Class::PeerMisbehaved,
    ];
    let names = classes.map(|class| class.to_string()).join(", ");
    let expected = "downgraded, incompatible, key missing, key rejected, target misbehaved";
    assert_eq!(names, expected);
}
