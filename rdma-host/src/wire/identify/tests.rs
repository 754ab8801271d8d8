use super::*;
use crate::wire::{GuardType, ProtectionFormat, ProtectionType};

/// Identify Controller data of Linux nvmet, written by offset.
fn controller() -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[4..24].copy_from_slice(b"fad656a175bdab25d99e");
    bytes[24..64].copy_from_slice(format!("{:40}", "Linux").as_bytes());
    bytes[64..72].copy_from_slice(b"6.12.117");
    bytes[76] = 0x0a;
    bytes[77] = 8;
    bytes[78..80].copy_from_slice(&[0x01, 0x02]);
    bytes[80..84].copy_from_slice(&[0, 3, 1, 0]);
    bytes[92..96].copy_from_slice(&[0x00, 0x09, 0x00, 0x80]);
    bytes[96] = 0x41;
    bytes[111] = 2;
    bytes[128..134].copy_from_slice(&[1, 0, 0, 1, 0, 0]);
    bytes[135..144].copy_from_slice(&[7, 1, 2, 3, 4, 5, 6, 7, 8]);
    bytes[262] = 127;
    bytes[320] = 10;
    bytes[342] = 10;
    bytes[348] = 128;
    bytes[514] = 128;
    bytes[516..520].copy_from_slice(&[0, 4, 0, 0]);
    bytes[520..524].copy_from_slice(&[0x0c, 1, 1, 0]);
    bytes[525] = 1;
    bytes[536..540].copy_from_slice(&[0x05, 0x00, 0x10, 0x00]);
    bytes[541] = 2;
    bytes[768..774].copy_from_slice(b"nqn.s\x1b");
    bytes[1792..1796].copy_from_slice(&[4, 1, 0, 0]);
    bytes[1796] = 1;
    bytes[1803] = 1;
    bytes[1807] = 3;
    bytes
}

#[test]
fn controller_by_offset() {
    let info = ControllerInfo::parse(&controller()).unwrap();
    assert_eq!(info.serial, "fad656a175bdab25d99e");
    assert_eq!(info.model, "Linux");
    assert_eq!(info.firmware, "6.12.117");
    assert_eq!(info.subsystem_nqn, "nqn.s?");
    assert_eq!(info.version, Version(0x0001_0300));
    assert_eq!(info.controller_id, ControllerId(0x0201));
    assert_eq!(info.controller_type, ControllerType::DISCOVERY);
    assert_eq!(info.events, AsyncEventMask(0x8000_0900));
    assert!(info.reports_ana);
    assert_eq!(info.optional_commands, OptionalCommands { oncs: 0x010c, fuses: 1 });
    assert_eq!(info.ana_transition_time, Duration::from_secs(10));
    assert_eq!(info.retry_delays, [100, 25_600, 0].map(Duration::from_millis));
    let instance = ControllerInstance { uniquifier: 7, random: 0x0807_0605_0403_0201 };
    assert_eq!((info.instance, info.cross_controller_resets_max), (Some(instance), 3));
    assert_eq!((info.ana_groups, info.error_entries_max), (128, 128));
    assert_eq!(info.active_namespaces_max, 512);
    assert_eq!(info.transfer_pages_log2, Some(8));
    assert_eq!(info.keep_alive_granularity, 10);
    assert!(info.traffic_keeps_alive);
    assert_eq!(info.commands_max, 128);
    assert_eq!(info.namespace_id_max, 1024);
    assert!(info.volatile_write_cache && info.keyed_sgl && info.in_capsule_sgl);
    assert_eq!(info.command_capsule_bytes, 64 + 4096);
    assert_eq!(info.response_capsule_bytes, 16);
    assert_eq!(info.in_capsule_offset_bytes, 0);
    assert_eq!(info.descriptors_max, 1);
}

#[test]
fn a_controller_without_a_random_number_has_no_instance() {
    let mut bytes = controller();
    bytes[136..144].fill(0);
    assert_eq!(ControllerInfo::parse(&bytes).unwrap().instance, None);
}

#[test]
fn wrong_lengths_are_named() {
    assert_eq!(ControllerInfo::parse(&[0; 4095]), Err(IdentifyError::Length(4095)));
    assert_eq!(NamespaceList::parse(&[0; 8]), Err(IdentifyError::Length(8)));
    assert_eq!(NamespaceInfo::parse(NamespaceId(1), &[]), Err(IdentifyError::Length(0)));
}

fn namespace(blocks: u64, exponent: u8, metadata: u8, flbas: u8) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[..8].copy_from_slice(&blocks.to_le_bytes());
    bytes[26] = flbas;
    let format = 128 + 4 * (usize::from(flbas & 0xf) | usize::from((flbas >> 5) & 3) << 4);
    bytes[92] = 3;
    bytes[format] = metadata;
    bytes[format + 2] = exponent;
    bytes
}

#[test]
fn namespace_by_offset() {
    for flbas in [0x00, 0x03, 0x2f, 0x6f] {
        let info = NamespaceInfo::parse(NamespaceId(7), &namespace(2048, 12, 0, flbas)).unwrap();
        assert_eq!((info.blocks, info.block_size, info.bytes()), (2048, 4096, 8 << 20));
        assert_eq!((info.nguid, info.ana_group), (None, 3));
    }
}

#[test]
fn the_same_namespace_has_equal_identifiers() {
    let mut bytes = namespace(2048, 12, 0, 0);
    bytes[104..120].copy_from_slice(&[7; 16]);
    bytes[120..128].copy_from_slice(&[0, 0x1b, 0x44, 0x11, 0x3a, 0xb7, 0, 1]);
    let info = NamespaceInfo::parse(NamespaceId(7), &bytes).unwrap();
    assert_eq!(info.eui64.unwrap().to_string(), "001b44113ab70001");
    let names = NamespaceIdDescriptors {
        uuid: Some(Uuid::from_u128(1)),
        ..NamespaceIdDescriptors::default()
    };
    let named = info.with_id_descriptors(names).unwrap();
    assert_eq!((named.nguid, named.eui64), (info.nguid, info.eui64));
    let grown = NamespaceInfo { blocks: 4096, ana_group: 2, ..named };
    assert!(named.is_same_as(&grown) && grown.is_same_as(&named));
    for other in [
        info,
        NamespaceInfo { uuid: Some(Uuid::from_u128(2)), ..named },
        NamespaceInfo { nguid: None, ..named },
        NamespaceInfo { eui64: Some(Eui64([9; 8])), ..named },
        NamespaceInfo { block_size: 512, ..named },
        NamespaceInfo { metadata: MetadataFormat { bytes: 8, protection: None }, ..named },
        NamespaceInfo { command_set: 2, ..named },
    ] {
        assert!(!named.is_same_as(&other) && !other.is_same_as(&named), "{other:?}");
    }
}

#[test]
fn command_sets_without_blocks_are_refused() {
    let info = NamespaceInfo::parse(NamespaceId(7), &namespace(2048, 12, 0, 0)).unwrap();
    let of = |command_set| NamespaceIdDescriptors {
        command_set: Some(command_set),
        ..NamespaceIdDescriptors::default()
    };
    assert!(!info.with_id_descriptors(of(0)).unwrap().is_zoned());
    assert!(info.with_id_descriptors(of(NamespaceInfo::ZONED)).unwrap().is_zoned());
    let namespace = NamespaceId(7);
    let refused = info.with_id_descriptors(of(1));
    assert_eq!(refused, Err(IdentifyError::CommandSet { namespace, command_set: 1 }));
}

#[test]
fn commands_of_the_zoned_set_in_literal_bytes() {
    let namespace = Identify::zoned_namespace(NamespaceId(7));
    assert_eq!(namespace.as_bytes()[..8], [0x06, 0x40, 0, 0, 7, 0, 0, 0]);
    assert_eq!(namespace.as_bytes()[40..48], [5, 0, 0, 0, 0, 0, 0, 2]);
    assert_eq!(Identify::zoned_controller().as_bytes()[40..48], [6, 0, 0, 0, 0, 0, 0, 2]);
}

#[test]
fn namespaces_that_cannot_be_used_are_refused() {
    let id = NamespaceId(7);
    let parse = |bytes: Vec<u8>| NamespaceInfo::parse(id, &bytes).unwrap_err();
    assert_eq!(parse(namespace(0, 9, 0, 0)), IdentifyError::NoNamespace(id));
    for exponent in [0, 8, 21, 63, 255] {
        let expected = IdentifyError::BlockSize { namespace: id, exponent };
        assert_eq!(parse(namespace(1, exponent, 0, 0)), expected);
    }
    let separate = IdentifyError::SeparateMetadata { namespace: id, bytes: 8 };
    assert_eq!(parse(namespace(1, 9, 8, 0)), separate);
    assert_eq!(
        parse(namespace(u64::MAX, 9, 0, 0)),
        IdentifyError::Size { namespace: id, blocks: u64::MAX, block_size: 512 }
    );
}

#[test]
fn namespace_list_stops_where_it_no_longer_ascends() {
    let mut bytes = vec![0; 4096];
    for (index, id) in [1u32, 2, 9, 9, 10].iter().enumerate() {
        bytes[4 * index..4 * index + 4].copy_from_slice(&id.to_le_bytes());
    }
    let list = NamespaceList::parse(&bytes).unwrap();
    assert_eq!(list.0, [1, 2, 9].map(NamespaceId));
}

#[test]
fn metadata_by_offset() {
    let parse = |metadata, dps| {
        let mut bytes = namespace(1, 12, metadata, 0x13);
        bytes[29] = dps;
        NamespaceInfo::parse(NamespaceId(7), &bytes)
    };
    let plain = parse(64, 0).unwrap();
    assert_eq!(plain.metadata, MetadataFormat { bytes: 64, protection: None });
    assert_eq!(plain.extended_block_size(), 4160);
    let first = parse(16, 0b1010).unwrap();
    let protection = ProtectionFormat::without_extension(ProtectionType::Type2, true);
    assert_eq!(first.metadata.protection, Some(protection));
    for (metadata, dps) in [(4, 1), (8, 4)] {
        let error = parse(metadata, dps).unwrap_err();
        assert!(matches!(error, IdentifyError::Protection { .. }), "{error}");
    }
    let mut extended = vec![0; 4096];
    extended[12 + 4 * 3..][..2].copy_from_slice(&(2u16 << 7 | 16).to_le_bytes());
    let protection = first.with_extended_format(3, &extended).unwrap().metadata.protection;
    let (guard, storage_tag_bits) =
        protection.map(|one| (one.guard, one.storage_tag_bits)).unwrap();
    assert_eq!((guard, storage_tag_bits), (GuardType::Crc64, 16));
    let error = parse(8, 1).unwrap().with_extended_format(3, &extended).unwrap_err();
    assert!(matches!(error, IdentifyError::Protection { bytes: 8, .. }), "16 do not fit: {error}");
    let error = first.with_extended_format(3, &[]).unwrap_err();
    assert_eq!(error, IdentifyError::Length(0));
}
