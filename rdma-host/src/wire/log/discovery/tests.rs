use super::*;

/// Entry of Linux nvmet for a RoCE port, written by offset.
fn entry() -> Vec<u8> {
    let mut bytes = vec![0; DiscoveryEntry::SIZE];
    bytes[..4].copy_from_slice(&[1, 1, 2, 4]);
    bytes[4..12].copy_from_slice(&[0x02, 0x01, 0xff, 0xff, 32, 0, 0x03, 0]);
    bytes[32..36].copy_from_slice(b"4420");
    bytes[256..266].copy_from_slice(b"nqn.test:a");
    bytes[512..522].copy_from_slice(b"10.10.10.1");
    bytes[768..778].copy_from_slice(&[1, 4, 1, 0, 0, 0, 0, 0, 0x34, 0x12]);
    bytes
}

fn parse(bytes: &[u8]) -> DiscoveryEntry {
    let mut entries = DiscoveryEntry::parse_all(bytes).unwrap();
    assert_eq!(entries.len(), 1);
    entries.remove(0)
}

#[test]
fn header_by_offset() {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&[9, 0, 0, 0, 0, 0, 0, 0x80]);
    bytes[8..16].copy_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0]);
    bytes[16] = 1;
    let header = DiscoveryHeader::parse(&bytes).unwrap();
    let expected = DiscoveryHeader { generation: 0x8000_0000_0000_0009, records: 3, format: 1 };
    assert_eq!(header, expected);
    assert!(DiscoveryHeader::parse(&bytes[..17]).is_err());
}

#[test]
fn entry_by_offset() {
    let seen = parse(&entry());
    let expected = DiscoveryEntry {
        transport: TransportType::RDMA,
        family: AddressFamily::IPV4,
        kind: SubsystemType::NVM,
        requirements: TransportRequirements(4),
        port: 0x0102,
        controller: ControllerId::DYNAMIC,
        admin_queue_entries: 32,
        flags: DiscoveryEntryFlags(3),
        service: "4420".to_owned(),
        subsystem: "nqn.test:a".to_owned(),
        address: "10.10.10.1".to_owned(),
        specific: TransportSpecific::Rdma {
            service: RdmaService::CONNECTED,
            provider: RdmaProvider::ROCE_V2,
            connection_management: 1,
            partition_key: 0x1234,
        },
    };
    assert_eq!(seen, expected);
    assert_eq!(seen.socket_address(), Ok("10.10.10.1:4420".parse().unwrap()));
    assert_eq!(seen.nqn().unwrap().as_str(), "nqn.test:a");
}

#[test]
fn fields_without_nul_end_at_their_end() {
    let mut bytes = entry();
    bytes[32..64].fill(b'4');
    bytes[256..512].fill(b'n');
    bytes[512..768].fill(b'9');
    let seen = parse(&bytes);
    assert_eq!(seen.service, "4".repeat(32));
    assert_eq!(seen.subsystem, "n".repeat(256));
    assert_eq!(seen.address, "9".repeat(256));
    assert!(matches!(seen.socket_address(), Err(DiscoveryEntryError::Address { .. })));
    assert!(matches!(seen.nqn(), Err(DiscoveryEntryError::Subsystem(_))));
}

#[test]
fn fields_padded_with_spaces_mean_the_same() {
    let mut bytes = entry();
    bytes[32..64].copy_from_slice(format!("{:32}", "4420").as_bytes());
    bytes[512..768].copy_from_slice(format!("{:256}", "10.10.10.1").as_bytes());
    assert_eq!(parse(&bytes), parse(&entry()));
}

#[test]
fn an_entry_cut_off_is_refused() {
    let bytes = [entry(), entry()].concat();
    assert_eq!(DiscoveryEntry::parse_all(&bytes).unwrap().len(), 2);
    let error = DiscoveryEntry::parse_all(&bytes[..2047]).unwrap_err();
    let expected = LogError::Length { page: LogPage::DISCOVERY, bytes: 2047, least: 2048 };
    assert_eq!(error, expected);
}

#[test]
fn unknown_values_print_as_numbers() {
    let mut bytes = entry();
    bytes[..4].copy_from_slice(&[9, 8, 7, 0x17]);
    bytes[10] = 0x40;
    let seen = parse(&bytes);
    let words = [
        seen.transport.to_string(),
        seen.family.to_string(),
        seen.kind.to_string(),
        seen.requirements.to_string(),
        seen.flags.to_string(),
    ];
    let numbers = ["0x09", "0x08", "0x07", "0x17", "0x40"];
    assert_eq!(words, numbers.map(|number| format!("unrecognized ({number})")));
    assert_eq!(seen.specific, TransportSpecific::None);
    assert_eq!(seen.socket_address(), Err(DiscoveryEntryError::Transport(TransportType(9))));
}

#[test]
fn words_are_those_of_nvme_cli() {
    let requirements = |bits| TransportRequirements(bits).to_string();
    assert_eq!(requirements(0), "not specified");
    assert_eq!(requirements(1), "required");
    assert_eq!(requirements(6), "not required, sq flow control disable supported");
    assert_eq!(requirements(3), "unrecognized (0x03)");
    let flags = |bits| DiscoveryEntryFlags(bits).to_string();
    assert_eq!(flags(0), "none");
    assert_eq!(flags(3), "explicit discovery connections, duplicate discovery information");
    assert_eq!(flags(4), "no cdc connectivity");
    assert!(
        DiscoveryEntryFlags(2).takes_persistent_connections()
            && DiscoveryEntryFlags(1).duplicates()
    );
    assert_eq!(SubsystemType::REFERRAL.to_string(), "discovery subsystem referral");
    assert_eq!(RdmaProvider::ROCE_V2.to_string(), "roce-v2");
}

#[test]
fn invalid_addresses_give_the_reason() {
    type Change = fn(&mut Vec<u8>);
    let cases: [(Change, &str); 5] = [
        (|bytes| bytes[0] = 3, "transport is tcp"),
        (|bytes| bytes[1] = 2, "not of family ipv6"),
        (|bytes| bytes[512] = b';', "\";0.10.10.1\""),
        (|bytes| bytes[32..36].copy_from_slice(b"0000"), "no port"),
        (|bytes| bytes[36..38].copy_from_slice(b"00"), "\"442000\" is no port"),
    ];
    for (change, words) in cases {
        let mut bytes = entry();
        change(&mut bytes);
        let error = parse(&bytes).socket_address().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn tcp_has_its_security() {
    let mut bytes = entry();
    bytes[0] = 3;
    bytes[768] = 2;
    assert_eq!(parse(&bytes).specific, TransportSpecific::Tcp(SecurityType::TLS13));
}
