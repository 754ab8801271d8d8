use super::*;
use crate::wire::{MetadataFormat, NamespaceId};

/// Layout of blocks of this many bytes of data and of metadata before or after the protection
/// information.
fn layout(data: u32, other: u16, guard: GuardType, is_first: bool) -> ProtectedBlocks {
    let storage_tag_bits = if guard == GuardType::Crc16 { 0 } else { 16 };
    let protection_type = ProtectionType::Type1;
    let format = ProtectionFormat { guard, protection_type, is_first, storage_tag_bits };
    let bytes = other + u16::try_from(format.bytes()).unwrap();
    let info = NamespaceInfo {
        id: NamespaceId(1),
        blocks: 1,
        block_size: data,
        metadata: MetadataFormat { bytes, protection: Some(format) },
        nguid: None,
        eui64: None,
        uuid: None,
        command_set: 0,
        ana_group: 0,
    };
    ProtectedBlocks::of(&info).unwrap()
}

const GUARDS: [GuardType; 3] = [GuardType::Crc16, GuardType::Crc32, GuardType::Crc64];

/// Guard of a block with this data.
fn guard_of(guard: GuardType, data: &[u8]) -> u64 {
    let blocks = layout(u32::try_from(data.len()).unwrap(), 0, guard, false);
    let mut block = data.to_vec();
    block.resize(blocks.size(), 0);
    blocks.protect(&mut block, &ProtectionTags::default());
    ProtectionInformation::parse(blocks.format(), &block[blocks.place()]).guard
}

/// Bytes that count from one of 0 to 255 on, up or down.
fn counting(bytes: usize, from: u8, step: u8) -> Vec<u8> {
    let next = |last: &u8| Some(last.wrapping_add(step));
    std::iter::successors(Some(from), next).take(bytes).collect()
}

/// Test cases of the NVM specification (5.3.1) for 4 KiB without metadata, and of SBC-3 for 32
/// bytes, to which it refers for 16 bits.
#[test]
fn guards_of_the_specifications_test_cases() {
    let cases = [
        (vec![0; 4096], 0x98f9_4189, 0x6482_d367_eb22_b64e),
        (vec![0xff; 4096], 0x25c1_fe13, 0xc0dd_ba73_02ec_a3ac),
        (counting(4096, 0, 1), 0x9c71_fe32, 0x3e72_9f5f_6750_449c),
        (counting(4096, 0xff, 0xff), 0x2149_41a8, 0x9a2d_f64b_8e9e_517e),
    ];
    for (data, short, long) in cases {
        assert_eq!(guard_of(GuardType::Crc32, &data), short);
        assert_eq!(guard_of(GuardType::Crc64, &data), long);
    }
    let mut two = vec![0; 32];
    two[..2].fill(0xff);
    for (data, guard) in [
        (vec![0; 32], 0),
        (vec![0xff; 32], 0xa293),
        (counting(32, 0, 1), 0x0224),
        (two, 0x21b8),
        (counting(32, 0xff, 0xff), 0xa0b7),
    ] {
        assert_eq!(guard_of(GuardType::Crc16, &data), guard);
    }
}

/// Next number of a xorshift generator.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

const TAGS: ProtectionTags = ProtectionTags {
    application: 0x5a5a,
    application_mask: u16::MAX,
    storage: 0x1234,
    reference: 0x00c0_ffee,
};

/// One flipped bit in each of 10^6 random blocks: in data, other metadata, guard or tags. The
/// blocks are parts of random bytes, from any offset on.
fn find_each_flipped_bit(guard: GuardType) {
    const BLOCKS: usize = 1_000_000;
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let bytes: Vec<u8> = (0..1 << 17).flat_map(|_| random(&mut state).to_le_bytes()).collect();
    let blocks = layout(64, 8, guard, false);
    let checks = blocks.checks(&TAGS, guard != GuardType::Crc16);
    let size = blocks.size();
    let (mut block, mut found) = (vec![0; size], 0);
    for index in 0..BLOCKS {
        let chosen = usize::try_from(random(&mut state) >> 8).unwrap();
        let start = chosen % (bytes.len() - size);
        block.copy_from_slice(&bytes[start..][..size]);
        blocks.protect(&mut block, &TAGS);
        if index % 1000 == 0 {
            assert_eq!(blocks.check(7, &block, checks, &TAGS), Ok(()));
        }
        let bit = (chosen >> 24) % (8 * size);
        block[bit / 8] ^= 1 << (bit % 8);
        found += usize::from(blocks.check(7, &block, checks, &TAGS).is_err());
    }
    assert_eq!(found, BLOCKS);
}

#[test]
fn each_flipped_bit_is_found_by_16_bits() {
    find_each_flipped_bit(GuardType::Crc16);
}

#[test]
fn each_flipped_bit_is_found_by_32_bits() {
    find_each_flipped_bit(GuardType::Crc32);
}

#[test]
fn each_flipped_bit_is_found_by_64_bits() {
    find_each_flipped_bit(GuardType::Crc64);
}

#[test]
fn a_mismatch_names_block_field_and_values() {
    for guard in GUARDS {
        let blocks = layout(512, 0, guard, false);
        let mut block = vec![7; blocks.size()];
        blocks.protect(&mut block, &TAGS);
        let checks = blocks.checks(&TAGS, true);
        let mismatch = |block: &[u8], tags| blocks.check(9, block, checks, &tags).unwrap_err();
        let field = |mismatch: ProtectionMismatch| (mismatch.field, mismatch.found);
        let tags = ProtectionTags { application: 0x5a5b, ..TAGS };
        assert_eq!(field(mismatch(&block, tags)), (ProtectionField::ApplicationTag, 0x5a5a));
        let masked = ProtectionTags { application_mask: 0xfff0, ..tags };
        assert_eq!(blocks.check(9, &block, checks, &masked), Ok(()));
        let tags = ProtectionTags { reference: 1, ..TAGS };
        let wrong = mismatch(&block, tags);
        assert_eq!(field(wrong), (ProtectionField::ReferenceTag, 0x00c0_ffee));
        assert_eq!((wrong.lba, wrong.expected), (9, 1));
        if guard != GuardType::Crc16 {
            let tags = ProtectionTags { storage: 1, ..TAGS };
            assert_eq!(field(mismatch(&block, tags)), (ProtectionField::StorageTag, 0x1234));
        }
        let right = ProtectionInformation::parse(blocks.format(), &block[blocks.place()]).guard;
        block[3] ^= 1;
        let wrong = mismatch(&block, TAGS);
        assert_eq!((wrong.field, wrong.found), (ProtectionField::Guard, right));
        let text = wrong.to_string();
        assert!(text.contains("block 9") && text.contains(&format!("{right:#x}")), "{text}");
        let unchecked = ProtectionChecks { guard: false, ..checks };
        assert_eq!(blocks.check(9, &block, unchecked, &TAGS), Ok(()));
    }
}

#[test]
fn protection_information_is_first_or_last_in_the_metadata() {
    for guard in GUARDS {
        for (is_first, other_is_guarded) in [(true, false), (false, true)] {
            let blocks = layout(512, 8, guard, is_first);
            let place = blocks.place();
            let expected = if is_first { 512 } else { 520 };
            assert_eq!(place, expected..expected + blocks.format().bytes());
            let mut block = vec![7; blocks.size()];
            blocks.protect(&mut block, &TAGS);
            let other = if is_first { blocks.size() - 1 } else { 512 };
            assert_eq!(block[other], 7, "other metadata is left alone");
            block[other] ^= 1;
            let checked = blocks.check(0, &block, blocks.checks(&TAGS, false), &TAGS);
            assert_eq!(checked.is_err(), other_is_guarded, "{guard:?}");
        }
    }
}

#[test]
fn tags_that_disable_checks_do() {
    let mut blocks = layout(512, 0, GuardType::Crc16, false);
    let unwritten = vec![0xff; blocks.size()];
    let checks = blocks.checks(&TAGS, false);
    assert_eq!(blocks.check(0, &unwritten, checks, &TAGS), Ok(()));
    blocks.format.protection_type = ProtectionType::Type3;
    let mut block = unwritten;
    assert_eq!(blocks.check(0, &block, checks, &TAGS), Ok(()));
    *block.last_mut().unwrap() = 0;
    let mismatch = blocks.check(0, &block, checks, &TAGS).unwrap_err();
    assert_eq!(mismatch.field, ProtectionField::Guard, "type 3 needs both tags");
    assert!(!blocks.checks(&TAGS, false).reference_tag, "type 3 has no reference tag to check");
}
