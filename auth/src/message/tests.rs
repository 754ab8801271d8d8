//! Literal bytes of every message, both ways, and what is not a message.

use proptest::prelude::*;

use super::*;

const IDS: [u16; 7] = [0x0000, 0x0101, 0x0102, 0x0103, 0x0104, 0x00f0, 0x00f1];
const TRANSACTION: TransactionId = TransactionId(0x1234);

fn with_zeros(bytes: &[u8]) -> Vec<u8> {
    [bytes, &[0; 50]].concat()
}

fn literal(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn negotiate_is_seventy_two_bytes() {
    let message = Negotiate {
        transaction_id: TRANSACTION,
        secure_channel: SecureChannel::NONE,
        hashes: [3, 2, 1].map(HashId).to_vec(),
        groups: [5, 4, 0].map(GroupId).to_vec(),
    };
    let head = [0x00, 0x00, 0, 0, 0x34, 0x12, 0, 1, 0x01, 0, 3, 3];
    let bytes = literal(&[&head, &[3, 2, 1], &[0; 27], &[5, 4, 0], &[0; 27]]);
    assert_eq!(message.encode(), bytes);
    assert_eq!(bytes.len(), NEGOTIATE_LENGTH);
    assert_eq!(Negotiate::decode(&with_zeros(&bytes)), Ok(message));
}

#[test]
fn negotiate_has_one_descriptor_of_dh_hmac_chap() {
    let message = Negotiate {
        transaction_id: TRANSACTION,
        secure_channel: SecureChannel(2),
        hashes: (0..40).map(HashId).collect(),
        groups: (0..40).map(GroupId).collect(),
    };
    let bytes = message.encode();
    let decoded = Negotiate::decode(&bytes).ok().unwrap();
    assert_eq!(decoded.secure_channel, SecureChannel(2));
    assert_eq!((decoded.hashes.len(), decoded.groups.len()), (30, 30));
    for (offset, value) in [(7, 0), (7, 2), (8, 2), (10, 31), (11, 31)] {
        let mut changed = bytes.clone();
        changed[offset] = value;
        assert_eq!(Negotiate::decode(&changed), Err(MessageError::Descriptors), "byte {offset}");
    }
}

#[test]
fn challenge_has_its_challenge_then_its_value() {
    let message = Challenge {
        transaction_id: TRANSACTION,
        hash: HashId::SHA_384,
        group: GroupId::FFDHE_2048,
        sequence_number: 0x0102_0304,
        challenge: &[0xaa; 48],
        public_value: &[0xbb; 256],
    };
    let head = [0x01, 0x01, 0, 0, 0x34, 0x12, 48, 0, 2, 1, 0x00, 0x01, 4, 3, 2, 1];
    let bytes = literal(&[&head, &[0xaa; 48], &[0xbb; 256]]);
    assert_eq!(message.encode(), bytes);
    assert_eq!(Challenge::decode(&with_zeros(&bytes)), Ok(message));
}

#[test]
fn reply_always_contains_a_challenge_field() {
    let message = Reply {
        transaction_id: TRANSACTION,
        sequence_number: 0x0102_0304,
        response: &[0xaa; 32],
        challenge: Some(&[0xcc; 32]),
        public_value: &[0xbb; 256],
    };
    let head = [0x01, 0x02, 0, 0, 0x34, 0x12, 32, 0, 1, 0, 0x00, 0x01, 4, 3, 2, 1];
    let bytes = literal(&[&head, &[0xaa; 32], &[0xcc; 32], &[0xbb; 256]]);
    assert_eq!(message.encode(), bytes);
    assert_eq!(Reply::decode(&with_zeros(&bytes)), Ok(message));

    let one_way = Reply { challenge: None, public_value: &[], ..message };
    let head = [0x01, 0x02, 0, 0, 0x34, 0x12, 32, 0, 0, 0, 0, 0, 4, 3, 2, 1];
    let bytes = literal(&[&head, &[0xaa; 32], &[0; 32]]);
    assert_eq!(one_way.encode(), bytes);
    assert_eq!(Reply::decode(&bytes), Ok(one_way));
}

#[test]
fn longest_reply_is_what_a_buffer_must_hold() {
    let message = Reply {
        transaction_id: TRANSACTION,
        sequence_number: 1,
        response: &[1; 64],
        challenge: None,
        public_value: &[1; 1024],
    };
    assert_eq!(message.encode().len(), SEND_LENGTH_MAX);
    assert_eq!(SEND_LENGTH_MAX, 1168);
}

#[test]
fn success1_ends_with_the_response_if_there_is_one() {
    let message = Success1 { transaction_id: TRANSACTION, hash_length: 32, response: None };
    let bytes = literal(&[&[0x01, 0x03, 0, 0, 0x34, 0x12, 32, 0, 0], &[0; 7]]);
    assert_eq!(message.encode(), bytes);
    assert_eq!(Success1::decode(&with_zeros(&bytes)), Ok(message));

    let message = Success1 { response: Some(&[0xaa; 32]), ..message };
    let bytes = literal(&[&[0x01, 0x03, 0, 0, 0x34, 0x12, 32, 0, 1], &[0; 7], &[0xaa; 32]]);
    assert_eq!(message.encode(), bytes);
    assert_eq!(Success1::decode(&with_zeros(&bytes)), Ok(message));
}

#[test]
fn success2_is_sixteen_bytes() {
    let message = Success2 { transaction_id: TRANSACTION };
    let bytes = literal(&[&[0x01, 0x04, 0, 0, 0x34, 0x12], &[0; 10]]);
    assert_eq!(message.encode(), bytes);
    assert_eq!(Success2::decode(&with_zeros(&bytes)), Ok(message));
    assert_eq!(Success2::decode(&bytes[..15]), Err(MessageError::Short { needed: 16, actual: 15 }));
}

#[test]
fn failures_are_eight_bytes() {
    for (id, byte) in [(MessageId::FAILURE1, 0xf1), (MessageId::FAILURE2, 0xf0)] {
        let explanation = Explanation::HASH_NOT_USABLE;
        let message = FailureMessage { id, transaction_id: TRANSACTION, explanation };
        let bytes = [0x00, byte, 0, 0, 0x34, 0x12, 1, 4];
        assert_eq!(message.encode(), bytes);
        assert_eq!(bytes.len(), FAILURE_LENGTH);
        assert_eq!(FailureMessage::decode(&bytes), Ok(message));
        let followed = literal(&[&bytes, &[9]]);
        assert_eq!(FailureMessage::decode(&followed), Ok(message), "what follows is ignored");
        let error = MessageError::Short { needed: 8, actual: 7 };
        assert_eq!(FailureMessage::decode(&bytes[..7]), Err(error));
    }
}

#[test]
fn other_messages_are_refused_by_their_id() {
    let bytes = Success2 { transaction_id: TRANSACTION }.encode();
    let error = MessageError::Id(MessageId::SUCCESS2);
    assert_eq!(Negotiate::decode(&bytes), Err(error));
    assert_eq!(Challenge::decode(&bytes), Err(error));
    assert_eq!(Reply::decode(&bytes), Err(error));
    assert_eq!(Success1::decode(&bytes), Err(error));
    assert_eq!(FailureMessage::decode(&bytes), Err(error));
    let bytes = literal(&[&[0x01, 0x03], &bytes[2..]]);
    assert_eq!(Success2::decode(&bytes), Err(MessageError::Id(MessageId::SUCCESS1)));
}

#[test]
fn reserved_bytes_do_not_matter() {
    let message = Success1 { transaction_id: TRANSACTION, hash_length: 32, response: None };
    let mut bytes = message.encode();
    for offset in [2, 3, 7, 9, 10, 11, 12, 13, 14, 15] {
        bytes[offset] = 0xff;
    }
    assert_eq!(Success1::decode(&bytes), Ok(message));
}

#[test]
fn flags_are_zero_or_one() {
    let reply = Reply {
        transaction_id: TRANSACTION,
        sequence_number: 1,
        response: &[1; 32],
        challenge: None,
        public_value: &[],
    };
    let success =
        Success1 { transaction_id: TRANSACTION, hash_length: 32, response: Some(&[2; 32]) };
    let (mut reply, mut success) = (reply.encode(), success.encode());
    for value in [2, 0x80, 0xff] {
        (reply[8], success[8]) = (value, value);
        assert_eq!(Reply::decode(&reply), Err(MessageError::Flag(value)));
        assert_eq!(Success1::decode(&success), Err(MessageError::Flag(value)));
    }
}

#[test]
fn bytes_behind_a_message_are_zero() {
    let message = Success2 { transaction_id: TRANSACTION }.encode();
    for offset in [16, 17, 100, RECEIVE_LENGTH - 1] {
        let mut bytes = message.clone();
        bytes.resize(RECEIVE_LENGTH, 0);
        assert!(Success2::decode(&bytes).is_ok());
        bytes[offset] = 1;
        assert_eq!(Success2::decode(&bytes), Err(MessageError::Trailing { offset }));
    }
}

#[test]
fn lengths_in_a_message_do_not_reach_past_its_end() {
    let mut bytes = Challenge {
        transaction_id: TRANSACTION,
        hash: HashId::SHA_256,
        group: GroupId::NULL,
        sequence_number: 1,
        challenge: &[1; 32],
        public_value: &[],
    }
    .encode();
    (bytes[10], bytes[11]) = (0xff, 0xff);
    let error = MessageError::Short { needed: 16 + 32 + 0xffff, actual: 48 };
    assert_eq!(Challenge::decode(&bytes), Err(error));
    bytes[6] = 0xff;
    let error = MessageError::Short { needed: 16 + 255, actual: 48 };
    assert_eq!(Challenge::decode(&bytes), Err(error));
}

#[test]
fn header_of_any_message_is_read() {
    let header = Header { id: MessageId(0xabcd), transaction_id: TransactionId(0x0201) };
    assert_eq!(Header::decode(&[0xab, 0xcd, 9, 9, 1, 2, 9]), Ok(header));
    for length in 0..6 {
        assert!(Header::decode(&[0; 6][..length]).is_err());
    }
}

#[test]
fn ids_and_explanations_are_named() {
    let names = IDS.map(|id| MessageId(id).to_string()).join(" ");
    assert_eq!(names, "Negotiate Challenge Reply Success1 Success2 Failure2 Failure1");
    assert_eq!(MessageId(0x0105).to_string(), "message 0x0105");
    assert_eq!(format!("{:?}", MessageId::REPLY), "MessageId(Reply)");
    let mut texts: Vec<_> = (1..=8).map(|value| Explanation(value).to_string()).collect();
    assert_eq!(texts.last().map(String::as_str), Some("explanation 0x08"));
    assert_eq!(format!("{:?}", Explanation(5)), "Explanation(DH group not usable)");
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), 8);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        id in prop::sample::select(&IDS[..]),
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        for (byte, value) in bytes.iter_mut().zip(id.to_be_bytes()) {
            *byte = value;
        }
        let _ = Negotiate::decode(&bytes);
        let _ = Challenge::decode(&bytes);
        let _ = Reply::decode(&bytes);
        let _ = Success1::decode(&bytes);
        let _ = Success2::decode(&bytes);
        let _ = FailureMessage::decode(&bytes);
    }

    #[test]
    fn every_truncation_is_noticed(length in 0_usize..320) {
        let bytes = Challenge {
            transaction_id: TRANSACTION,
            hash: HashId::SHA_384,
            group: GroupId::FFDHE_2048,
            sequence_number: 7,
            challenge: &[0xaa; 48],
            public_value: &[0xbb; 256],
        }
        .encode();
        prop_assert_eq!(Challenge::decode(&bytes[..length]).is_err(), length < 320);
    }
}
