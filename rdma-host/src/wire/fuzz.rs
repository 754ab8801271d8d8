//! No bytes from a target make a parser panic, and what it accepts makes sense.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn any_length_is_survived(bytes in vec(any::<u8>(), 0..5000)) {
        let _ = Accept::parse(&bytes);
        let _ = Reject::parse(28, &bytes).to_string();
        let _ = ControllerInfo::parse(&bytes);
        let _ = NamespaceList::parse(&bytes);
        let _ = NamespaceInfo::parse(NamespaceId(1), &bytes);
    }

    #[test]
    fn any_identify_data_is_survived(bytes in vec(any::<u8>(), Identify::SIZE)) {
        if let Ok(info) = NamespaceInfo::parse(NamespaceId(1), &bytes) {
            prop_assert!(info.block_size.is_power_of_two() && info.block_size >= 512);
            prop_assert!(info.bytes() >= u64::from(info.block_size));
        }
        let info = ControllerInfo::parse(&bytes).expect("4,096 bytes are a controller");
        for text in [info.serial, info.model, info.firmware, info.subsystem_nqn] {
            prop_assert!(text.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{text:?}");
        }
        let list = NamespaceList::parse(&bytes).expect("4,096 bytes are a list").0;
        prop_assert!(list.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn any_response_has_words(bytes in any::<[u8; 16]>()) {
        let response = Cqe::read_from_bytes(&bytes).expect("16 bytes are a response");
        prop_assert!(!response.status().to_string().is_empty());
        prop_assert!(!connect_fault(response.result_dword()).is_empty());
        let capabilities = Capabilities(response.result());
        prop_assert!(capabilities.queue_entries_max() >= 1);
        prop_assert!(capabilities.page_size_min() >= 4096);
    }

    #[test]
    fn keyed_descriptors_keep_what_they_are_given(
        address: u64,
        length in 0..=Sgl::KEYED_LENGTH_MAX,
        key: u32,
    ) {
        let bytes: [u8; 16] = zerocopy::transmute!(Sgl::keyed(address, length, RemoteKey(key)));
        prop_assert_eq!(&bytes[..8], &address.to_le_bytes());
        prop_assert_eq!(&bytes[8..11], &length.to_le_bytes()[..3]);
        prop_assert_eq!(&bytes[11..15], &key.to_le_bytes());
    }
}
