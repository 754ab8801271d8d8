//! Published secrets, refusals, and properties of the text form.
//!
//! The keys were computed with Python's `hmac`, an implementation independent of ours.

use proptest::prelude::*;

use super::*;

const SPECIFICATION: &str = "DHHC-1:00:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:";
const HOST_NQN: &str = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-0000-000000000001";
const SUBSYSTEM_NQN: &str = "nqn.test:s1";
const IDS: [HashId; 4] = [HashId::NONE, HashId::SHA_256, HashId::SHA_384, HashId::SHA_512];
const LENGTHS: [usize; 3] = [32, 48, 64];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn counting(length: usize) -> Vec<u8> {
    (0..=u8::MAX).cycle().take(length).collect()
}

fn error(text: &str) -> Option<SecretError> {
    Secret::parse(text).err()
}

/// A well-formed text around whatever bytes stand for secret and checksum.
fn text_around(payload: &[u8]) -> String {
    format!("DHHC-1:00:{}:", Base64::encode_string(payload))
}

fn with_checksum(bytes: &[u8]) -> Vec<u8> {
    [bytes, &crc32fast::hash(bytes).to_le_bytes()].concat()
}

#[test]
fn published_secrets_are_read() {
    let published = [
        (SPECIFICATION, "89aeb31a874eaf84841b46736b0dfdf2ba58d30aa2a545a3e235a3521e07594c"),
        (
            "DHHC-1:00:9wCYVQqDvADjGIZo6q/v2SfmXZqqkNa9TcvYu97Ly3Q/gajh:",
            "f70098550a83bc00e3188668eaafefd927e65d9aaa90d6bd4dcbd8bbdecbcb74",
        ),
        (
            "DHHC-1:00:Jc/My1o0qtLCWRp+sHhAVN6mFaS7YQOMYhk9zSmlatobqB8C:",
            "25cfcccb5a34aad2c2591a7eb0784054dea615a4bb61038c62193dcd29a56ada",
        ),
        (
            "DHHC-1:00:TATezKzRaxSMwvxnSwtvCD9XMxK9tM2bZLkjkM2qeu/d+5VC:",
            "4c04deccacd16b148cc2fc674b0b6f083f573312bdb4cd9b64b92390cdaa7aef",
        ),
        (
            "DHHC-1:01:l29rbM7waP9bX4gjmx0e6S6eK5sDb7a5c0jZJG2XxcwvDbY0:",
            "976f6b6ccef068ff5b5f88239b1d1ee92e9e2b9b036fb6b97348d9246d97c5cc",
        ),
    ];
    for (text, bytes) in published {
        let secret = Secret::parse(text).ok().unwrap();
        assert_eq!(hex(&secret.bytes), bytes);
        assert_eq!(secret.encode().as_str(), text);
    }
}

#[test]
fn specification_example_is_valid_under_every_hash_id() {
    for id in IDS {
        let text = SPECIFICATION.replace(":00:", &format!(":{:02x}:", id.0));
        let secret = Secret::parse(&text).ok().unwrap();
        assert_eq!(secret.hash(), id);
        assert!(secret.has_same_bytes(&Secret::parse(SPECIFICATION).ok().unwrap()));
    }
}

#[test]
fn wrong_checksum_is_refused_and_its_sibling_is_not() {
    let bad = "DHHC-1:00:Jc/My1o0qtLCWRp+sHhAVafdfaS7YQOMYhk9zSmlatobqB8C:";
    let good = "DHHC-1:00:Jc/My1o0qtLCWRp+sHhAVN6mFaS7YQOMYhk9zSmlatobqB8C:";
    assert_eq!(error(bad), Some(SecretError::Checksum));
    assert_eq!(error(good), None);

    let bytes = counting(48);
    let big_endian = [&bytes[..], &crc32fast::hash(&bytes).to_be_bytes()].concat();
    assert_eq!(error(&text_around(&big_endian)), Some(SecretError::Checksum));
}

#[test]
fn malformed_texts_are_refused() {
    let base64 = "ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n";
    let refused = [
        (String::new(), SecretError::Prefix),
        (format!("DHHC-1;00:{base64}:"), SecretError::Prefix),
        (format!("dhhc-1:00:{base64}:"), SecretError::Prefix),
        (format!("DHHC-2:00:{base64}:"), SecretError::Prefix),
        (format!(" DHHC-1:00:{base64}:"), SecretError::Prefix),
        ("DHHC-1:".into(), SecretError::HashField),
        ("DHHC-1:00".into(), SecretError::HashField),
        (format!("DHHC-1::{base64}:"), SecretError::HashField),
        (format!("DHHC-1:0:{base64}:"), SecretError::HashField),
        (format!("DHHC-1:000:{base64}:"), SecretError::HashField),
        (format!("DHHC-1:+1:{base64}:"), SecretError::HashField),
        (format!("DHHC-1:-1:{base64}:"), SecretError::HashField),
        (format!("DHHC-1: 1:{base64}:"), SecretError::HashField),
        (format!("DHHC-1:1 :{base64}:"), SecretError::HashField),
        (format!("DHHC-1:  :{base64}:"), SecretError::HashField),
        (format!("DHHC-1:g0:{base64}:"), SecretError::HashField),
        (format!("DHHC-1:é:{base64}:"), SecretError::HashField),
        (format!("DHHC-1:04:{base64}:"), SecretError::HashUnsupported(HashId(4))),
        (format!("DHHC-1:09:{base64}:"), SecretError::HashUnsupported(HashId(9))),
        (format!("DHHC-1:fF:{base64}:"), SecretError::HashUnsupported(HashId(0xff))),
        ("DHHC-1:04:".into(), SecretError::HashUnsupported(HashId(4))),
        ("DHHC-1:00:".into(), SecretError::FinalColon),
        (format!("DHHC-1:00:{base64}"), SecretError::FinalColon),
        (format!("DHHC-1:00:{base64}\n"), SecretError::FinalColon),
        (format!("DHHC-1:00:{base64}::"), SecretError::TrailingText),
        (format!("DHHC-1:00:{base64}:\n"), SecretError::TrailingText),
        (format!("DHHC-1:00: {base64}:"), SecretError::Encoding),
        (format!("DHHC-1:00:{base64}\n:"), SecretError::Encoding),
        (format!("DHHC-1:00:{}:", &base64[1..]), SecretError::Encoding),
        (format!("DHHC-1:00:{}:", base64.replace('6', "-")), SecretError::Encoding),
        (format!("DHHC-1:00:{}:", base64.replace('6', "é")), SecretError::Encoding),
    ];
    for (text, expected) in refused {
        assert_eq!(error(&text), Some(expected), "{text:?}");
    }
}

#[test]
fn base64_padding_must_be_present_and_canonical() {
    let text = text_around(&with_checksum(&counting(48)));
    assert_eq!(error(&text), None);
    assert!(text.ends_with("==:"));
    assert_eq!(error(&text.replace("==", "")), Some(SecretError::Encoding));
    assert_eq!(error(&text.replace("==", "=")), Some(SecretError::Encoding));

    // The last character before the padding carries two bits of payload; setting another bit
    // would give one secret two texts.
    let last = text.find('=').unwrap() - 1;
    let mut loose = text.into_bytes();
    loose[last] += 1;
    assert_eq!(error(&String::from_utf8(loose).unwrap()), Some(SecretError::Encoding));
}

#[test]
fn only_three_lengths_are_accepted() {
    for length in 0..=65 {
        let bytes = counting(length);
        let expected =
            (!LENGTHS.contains(&length)).then_some(SecretError::Length { bytes: length });
        assert_eq!(Secret::from_bytes(HashId::NONE, &bytes).err(), expected);
        assert_eq!(error(&text_around(&with_checksum(&bytes))), expected);
    }
    for length in 0..4 {
        let expected = Some(SecretError::Length { bytes: 0 });
        assert_eq!(error(&text_around(&counting(length))), expected, "shorter than a checksum");
    }
    for (length, characters) in [(66, 96), (1 << 16, 87_388)] {
        let text = text_around(&with_checksum(&counting(length)));
        assert_eq!(error(&text), Some(SecretError::TextLength { characters }));
    }
}

#[test]
fn every_hash_id_goes_with_every_length() {
    for (id, length) in IDS.iter().flat_map(|&id| LENGTHS.map(|length| (id, length))) {
        let bytes = counting(length);
        let text = Secret::from_bytes(id, &bytes).ok().unwrap().encode();
        assert_eq!(text.len(), [59, 83, 103][length / 16 - 2]);
        assert_eq!(text[7..9], format!("{:02x}", id.0));
        assert_eq!(text.capacity(), 103, "it has grown and left a copy behind");

        let secret = Secret::parse(&text).ok().unwrap();
        assert_eq!(secret.hash(), id);
        assert_eq!(secret.bytes[..], bytes);
        assert_eq!(secret.encode(), text);
    }
}

#[test]
fn unknown_hash_ids_make_no_secret() {
    for id in (4..=u8::MAX).map(HashId) {
        let refused = Secret::from_bytes(id, &[0; 32]).err();
        assert_eq!(refused, Some(SecretError::HashUnsupported(id)));
    }
}

#[test]
fn secret_without_hash_is_its_own_key() {
    for length in LENGTHS {
        let bytes = counting(length);
        let secret = Secret::from_bytes(HashId::NONE, &bytes).ok().unwrap();
        assert_eq!(secret.transform(HOST_NQN).as_bytes(), bytes);
    }
}

#[test]
fn specification_example_gives_one_key_per_name() {
    let secret = Secret::parse(&SPECIFICATION.replace(":00:", ":01:")).ok().unwrap();
    assert_eq!(
        hex(secret.transform(HOST_NQN).as_bytes()),
        "30ec326a9164ef751470fc129b83a2f17593c43d19f4c615c46e65ba3ff72021"
    );
    assert_eq!(
        hex(secret.transform(SUBSYSTEM_NQN).as_bytes()),
        "df56dd6b9bd8028c9e7fb1b4372176d70318e7d97a729f174d46f3947f368f01"
    );
}

#[test]
fn key_length_follows_the_hash_not_the_secret() {
    let keys = [
        (1, 32, "6c7b81cb2a746f74454b1d7140f3153b51ca99459fcef7a86a17f27695b87cd8"),
        (1, 48, "e121c5fb90939dfad5a4e132d54f904e12d59888417e8c21bad4255421a59e9a"),
        (1, 64, "22818cb68f817249ef80550893aba5d1eeb671b2811683324aa9475decca8e5f"),
        (
            2,
            32,
            "c482300b17213cd9b9cfaecb3be7e824561882f715cff290f089bcf62772ecc7\
             b1601a415724a7f4e0999b78079a558e",
        ),
        (
            2,
            48,
            "c916f39d7bd438ac94ce98f12f22202c6bc43b1b1bf7f081a36fd76d11b4b173\
             0726ff75f32576b5749cfa06d1a7b4f5",
        ),
        (
            2,
            64,
            "4a3ecd979fb2cdae0e09c30e47356572881d2a1a4180bd5b9981b4aae0a55db9\
             d05b7211e833ccc23654edd695058cfb",
        ),
        (
            3,
            32,
            "5f233f233263efc7342e477170607b1a36dbbce203872202311382fb13479a60\
             af958176f5101a338a53d05c8c75a398df3a99111fc9fcd23fdd838df30d33d1",
        ),
        (
            3,
            48,
            "b42c048c932bf0b5a2877190c83cb7361da45664a77297515d39936363bd69bb\
             3b52dcef88c915f08571ff819b65f6123a04e001e3df774526a7f3cb0699c254",
        ),
        (
            3,
            64,
            "5da79d3888c5ddac507b097840c4c8af8c7099e3f32fbf216209d24103f54bcf\
             22284e7034bb579a8997475f50aec0bff3ccad184563779e81f48c405071b970",
        ),
    ];
    for (id, length, key) in keys {
        let secret = Secret::from_bytes(HashId(id), &counting(length)).ok().unwrap();
        assert_eq!(hex(secret.transform(HOST_NQN).as_bytes()), key, "hash {id}, {length} bytes");
    }
}

#[test]
fn same_bytes_are_found_whatever_the_hash() {
    let make = |id, bytes: &[u8]| Secret::from_bytes(id, bytes).ok().unwrap();
    let secret = make(HashId::NONE, &counting(32));
    assert!(secret.has_same_bytes(&make(HashId::SHA_512, &counting(32))));
    assert!(!secret.has_same_bytes(&make(HashId::NONE, &counting(48))));
    assert!(!secret.has_same_bytes(&make(HashId::NONE, &[0; 32])));
}

#[test]
fn secrets_and_keys_are_wiped_on_drop() {
    fn wiped<T: ZeroizeOnDrop>(_: &T) {}
    let secret = Secret::parse(SPECIFICATION).ok().unwrap();
    let key = secret.transform(HOST_NQN);
    wiped(&secret);
    wiped(&secret.bytes);
    wiped(&secret.encode());
    wiped(&key);
    wiped(&key.bytes);
}

prop_compose! {
    fn any_secret()(
        id in prop::sample::select(&IDS[..]),
        bytes in prop::sample::select(&LENGTHS[..])
            .prop_flat_map(|length| prop::collection::vec(any::<u8>(), length)),
    ) -> (HashId, Vec<u8>) {
        (id, bytes)
    }
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        let _ = Secret::parse(&text);
    }

    #[test]
    fn arbitrary_text_behind_a_good_start_never_panics(id in 0_u8..6, rest in any::<String>()) {
        let _ = Secret::parse(&format!("DHHC-1:{rest}"));
        let _ = Secret::parse(&format!("DHHC-1:{id:02}:{rest}:"));
    }

    #[test]
    fn arbitrary_base64_never_panics(payload in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = Secret::parse(&text_around(&payload));
    }

    #[test]
    fn parse_undoes_encode((id, bytes) in any_secret()) {
        let text = Secret::from_bytes(id, &bytes).ok().unwrap().encode();
        let secret = Secret::parse(&text).ok().unwrap();
        prop_assert_eq!(secret.hash(), id);
        prop_assert_eq!(&secret.bytes[..], &bytes);
        prop_assert_eq!(secret.encode(), text);
    }

    /// A changed character flips a few neighbouring bits, which a CRC-32 always notices.
    #[test]
    fn one_wrong_character_is_refused(
        (id, bytes) in any_secret(),
        index in any::<prop::sample::Index>(),
        replacement in any::<char>(),
    ) {
        let text = Secret::from_bytes(id, &bytes).ok().unwrap().encode();
        let index = 10 + index.index(text.len() - 10);
        prop_assume!(text[index..] != *format!("{replacement}{}", &text[index + 1..]));
        let changed = format!("{}{replacement}{}", &text[..index], &text[index + 1..]);
        prop_assert!(error(&changed).is_some());
    }

    #[test]
    fn truncated_text_is_refused(
        (id, bytes) in any_secret(),
        index in any::<prop::sample::Index>(),
    ) {
        let text = Secret::from_bytes(id, &bytes).ok().unwrap().encode();
        prop_assert!(error(&text[..index.index(text.len())]).is_some());
    }
}
