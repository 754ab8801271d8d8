use super::*;

fn format(guard: GuardType, storage_tag_bits: u8) -> ProtectionFormat {
    let protection_type = ProtectionType::Type1;
    ProtectionFormat { guard, protection_type, is_first: false, storage_tag_bits }
}

const INFORMATION: ProtectionInformation = ProtectionInformation {
    guard: 0x1122,
    application_tag: 0x3344,
    storage_tag: 0x05,
    reference_tag: 0x66_7788,
};

/// Protection information of a format in bytes.
fn bytes(information: ProtectionInformation, format: ProtectionFormat) -> Vec<u8> {
    let mut bytes = vec![0; format.bytes()];
    information.emit(format, &mut bytes);
    assert_eq!(ProtectionInformation::parse(format, &bytes), information);
    bytes
}

#[test]
fn protection_information_in_literal_bytes() {
    let short = bytes(INFORMATION, format(GuardType::Crc16, 8));
    assert_eq!(short, [0x11, 0x22, 0x33, 0x44, 0x05, 0x66, 0x77, 0x88]);
    let long = bytes(INFORMATION, format(GuardType::Crc32, 16));
    let expected = [0, 0, 0x11, 0x22, 0x33, 0x44, 0, 0x05, 0, 0, 0, 0, 0, 0x66, 0x77, 0x88];
    assert_eq!(long, expected);
    let long = bytes(INFORMATION, format(GuardType::Crc64, 8));
    let expected = [0, 0, 0, 0, 0, 0, 0x11, 0x22, 0x33, 0x44, 0x05, 0, 0, 0x66, 0x77, 0x88];
    assert_eq!(long, expected);
}

#[test]
fn all_of_the_space_may_be_one_tag() {
    let all = ProtectionInformation { guard: 1, application_tag: 2, ..Default::default() };
    let reference = ProtectionInformation { reference_tag: 0x0102_0304, ..all };
    assert_eq!(bytes(reference, format(GuardType::Crc16, 0))[4..], [1, 2, 3, 4]);
    let storage = ProtectionInformation { storage_tag: 0x0102_0304, ..all };
    assert_eq!(bytes(storage, format(GuardType::Crc16, 32))[4..], [1, 2, 3, 4]);
    let widest = ProtectionInformation { storage_tag: u64::MAX, reference_tag: 0xfffe, ..all };
    let expected = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe];
    assert_eq!(bytes(widest, format(GuardType::Crc32, 64))[6..], expected);
}

#[test]
fn extended_formats_by_bits() {
    let short = ProtectionFormat::without_extension(ProtectionType::Type2, true);
    let extended = |elbaf| short.with_extension(elbaf).map(|one| (one.guard, one.storage_tag_bits));
    assert_eq!(extended(0x20), Some((GuardType::Crc16, 32)));
    assert_eq!(extended(0x80 | 16), Some((GuardType::Crc32, 16)));
    assert_eq!(extended(0x100 | 48), Some((GuardType::Crc64, 48)));
    assert_eq!(extended(2 << 9 | 0x180), Some((GuardType::Crc64, 0)), "qualified");
    for wrong in [0x21, 0x80 | 15, 0x80 | 65, 0x100 | 49, 3 << 9 | 0x180] {
        assert_eq!(extended(wrong), None, "{wrong:#x}");
    }
    let metadata = |bytes| MetadataFormat { bytes, protection: Some(short) };
    assert!(metadata(8).is_protection_only() && !metadata(16).is_protection_only());
    assert_eq!(metadata(16).to_string(), "16 B with PI type 2, 16-bit guard, first");
    assert_eq!(MetadataFormat { bytes: 16, protection: None }.to_string(), "16 B");
}

#[test]
fn tags_that_disable_checks() {
    for (protection_type, reference_tag, expected) in [
        (ProtectionType::Type1, 5, true),
        (ProtectionType::Type2, 5, true),
        (ProtectionType::Type3, 5, false),
        (ProtectionType::Type3, u32::MAX.into(), true),
    ] {
        let format = ProtectionFormat::without_extension(protection_type, false);
        let information = ProtectionInformation { reference_tag, ..INFORMATION };
        assert!(!information.disables_checks(format));
        let escaped = ProtectionInformation { application_tag: u16::MAX, ..information };
        assert_eq!(escaped.disables_checks(format), expected, "{protection_type:?}");
    }
}

#[test]
fn reference_tags_count_but_in_type_3() {
    let short = ProtectionFormat::without_extension(ProtectionType::Type1, false);
    assert_eq!(short.advance(u32::MAX.into(), 2), 1);
    let constant = ProtectionFormat { protection_type: ProtectionType::Type3, ..short };
    assert_eq!(constant.advance(7, 2), 7);
}
