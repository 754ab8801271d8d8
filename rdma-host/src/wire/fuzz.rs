//! Property tests: no bytes from a target make a parser panic, and accepted values are consistent.

use proptest::{collection::vec, prelude::*};

use super::*;

proptest! {
    #[test]
    fn any_length_parses_without_panic(bytes in vec(any::<u8>(), 0..5000)) {
        let _ = CmAcceptData::parse(&bytes);
        let _ = CmReject::parse(28, &bytes).to_string();
        let _ = ControllerInfo::parse(&bytes);
        let _ = NamespaceList::parse(&bytes);
        let _ = NamespaceInfo::parse(NamespaceId(1), &bytes);
        let _ = ChangedNamespaceList::parse(&bytes);
        let _ = CrossControllerResetLog::parse(&bytes);
        let _ = DiscoveryHeader::parse(&bytes);
        let _ = ErrorLogEntry::parse_all(&bytes);
        let _ = FirmwareSlotLog::parse(&bytes);
        let _ = HealthLog::parse(&bytes);
        let _ = EffectsLog::parse(&bytes);
        let _ = NvmLimits::parse(&bytes);
        let _ = CopyLimits::parse(&bytes);
        let _ = ReservationReport::parse(&bytes);
        let _ = NamespaceIdDescriptors::parse(&bytes);
    }

    #[test]
    fn any_ana_page_parses_without_panic(mut bytes in vec(any::<u8>(), 0..2000), few: bool) {
        // Large counts fail at once; small ones reach deeper into the parser.
        if few {
            for byte in bytes.iter_mut().skip(8) {
                *byte &= 0x03;
            }
        }
        if let Ok(log) = AnaLog::parse(&bytes) {
            let namespaces: usize = log.groups.iter().map(|group| group.namespaces.len()).sum();
            prop_assert!(16 + log.groups.len() * 32 + namespaces * 4 <= bytes.len());
            prop_assert!(log.groups.iter().all(|group| group.id != 0));
        }
    }

    #[test]
    fn any_discovery_entry_parses_without_panic(
        bytes in vec(any::<u8>(), 2 * DiscoveryEntry::SIZE),
    ) {
        let entries = DiscoveryEntry::parse_all(&bytes).expect("two whole entries");
        prop_assert_eq!(entries.len(), 2);
        for entry in entries {
            for text in [&entry.service, &entry.subsystem, &entry.address] {
                prop_assert!(!text.chars().any(is_unprintable), "{:?}", text);
            }
            if let Ok(place) = entry.socket_address() {
                prop_assert!(place.port() != 0);
            }
            let words = [
                entry.transport.to_string(),
                entry.family.to_string(),
                entry.kind.to_string(),
                entry.requirements.to_string(),
                entry.flags.to_string(),
            ];
            prop_assert!(words.iter().all(|word| !word.is_empty()));
        }
    }

    #[test]
    fn any_event_prints(result: u64) {
        let event = AsyncEvent(result);
        prop_assert!(!event.kind().to_string().is_empty());
        prop_assert!(!event.log_page().to_string().is_empty());
    }

    #[test]
    fn any_identify_data_parses_without_panic(bytes in vec(any::<u8>(), Identify::SIZE)) {
        if let Ok(info) = NamespaceInfo::parse(NamespaceId(1), &bytes) {
            prop_assert!(info.block_size.is_power_of_two() && info.block_size >= 512);
            prop_assert!(info.bytes() >= u64::from(info.block_size));
            let _ = info.with_extended_format(NamespaceInfo::format_index(&bytes), &bytes);
        }
        let _ = NamespaceIdDescriptors::parse(&bytes);
        let info = ControllerInfo::parse(&bytes).expect("4,096 bytes are a controller");
        for text in [info.serial, info.model, info.firmware, info.subsystem_nqn] {
            prop_assert!(text.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{text:?}");
        }
        let list = NamespaceList::parse(&bytes).expect("4,096 bytes are a list").0;
        prop_assert!(list.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn any_response_prints(bytes in any::<[u8; 16]>()) {
        let response = Cqe::read_from_bytes(&bytes).expect("16 bytes are a response");
        prop_assert!(!response.status().to_string().is_empty());
        prop_assert!(!connect_invalid_parameter(response.result_dword()).is_empty());
        let capabilities = ControllerCapabilities(response.result());
        prop_assert!(capabilities.queue_entries_max() >= 1);
        prop_assert!(capabilities.page_size_min() >= 4096);
    }

    #[test]
    fn keyed_descriptors_keep_what_they_are_given(
        address: u64,
        length in 0..=SglDescriptor::KEYED_LENGTH_MAX,
        key: u32,
    ) {
        let descriptor = SglDescriptor::keyed(address, length, RemoteKey(key));
        let bytes: [u8; 16] = zerocopy::transmute!(descriptor);
        prop_assert_eq!(&bytes[..8], &address.to_le_bytes());
        prop_assert_eq!(&bytes[8..11], &length.to_le_bytes()[..3]);
        prop_assert_eq!(&bytes[11..15], &key.to_le_bytes());
    }
}
