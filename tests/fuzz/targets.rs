//! Bodies of the fuzz targets, called by the fuzzer and, with the committed corpus, by the ordinary
//! tests.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz identify`, and so on.

#![allow(dead_code, reason = "each fuzz target uses one")]

use std::{fs, sync::LazyLock};

use nvmf_options::{configuration::Configuration, target_address};
use rdma_host::{
    proto::ProtectedBlocks,
    wire::{
        AnaLog, ChangedNamespaceList, CmAcceptData, CmReject, ControllerInfo,
        CrossControllerResetLog, DiscoveryEntry, DiscoveryHeader, EffectsLog, EnduranceGroupLog,
        ErrorLogEntry, FeatureEffectsLog, FirmwareSlotLog, HealthLog, NamespaceId,
        NamespaceIdDescriptors, NamespaceInfo, NamespaceList, NvmLimits, ProtectionTags,
        ReservationNotification, RotationalMediaLog, SupportedLogPages, controller_fields,
        is_unprintable, lba_format_fields, namespace_fields, power_state_fields,
    },
};
use simulation::Script;
use tempfile::TempDir;

/// Steps of the longest simulation, so that each input is run in milliseconds.
const STEPS_MAX: usize = 48;

/// Identify data of each kind, of 4,096 bytes that begin with the input.
pub(crate) fn identify(data: &[u8]) {
    let mut page = data.to_vec();
    page.resize(4096, 0);
    let controller = ControllerInfo::parse(&page).expect("4,096 bytes are a controller");
    for text in [controller.serial, controller.model, controller.firmware] {
        assert!(text.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{text:?}");
    }
    if let Ok(namespace) = NamespaceInfo::parse(NamespaceId(1), &page) {
        assert!(namespace.block_size.is_power_of_two() && namespace.block_size >= 512);
        assert!(namespace.bytes() >= u64::from(namespace.block_size));
        let _ = namespace.with_extended_format(NamespaceInfo::format_index(&page), &page);
        if let Some(blocks) = ProtectedBlocks::of(&namespace) {
            let mut block = page[..blocks.size().min(4096)].to_vec();
            block.resize(blocks.size(), 0);
            let tags = ProtectionTags::default();
            blocks.protect(&mut block, &tags);
            assert_eq!(blocks.check(0, &block, blocks.checks(&tags, true), &tags), Ok(()));
        }
    }
    let list = NamespaceList::parse(&page).expect("4,096 bytes are a list").0;
    assert!(list.is_sorted_by(|a, b| a < b));
    let _ = NvmLimits::parse(&page);
    let _ = NamespaceIdDescriptors::parse(&page);
    for fields in [controller_fields, namespace_fields] {
        assert!(!fields(&page).expect("it has 4,096 bytes").is_empty());
    }
    for rows in [power_state_fields, lba_format_fields] {
        assert!(!rows(&page).expect("it has 4,096 bytes").is_empty());
    }
}

/// Groups of an ANA log page are within the page.
pub(crate) fn ana_log(data: &[u8]) {
    if let Ok(log) = AnaLog::parse(data) {
        let namespaces: usize = log.groups.iter().map(|group| group.namespaces.len()).sum();
        assert!(16 + log.groups.len() * 32 + namespaces * 4 <= data.len());
        assert!(log.groups.iter().all(|group| group.id != 0));
    }
}

/// Namespaces of a list of changed ones are told once.
pub(crate) fn changed_namespaces_log(data: &[u8]) {
    if let Ok(log) = ChangedNamespaceList::parse(data) {
        let _ = format!("{log:?}");
    }
}

/// Commands that the effects log page names can be asked for.
pub(crate) fn effects_log(data: &[u8]) {
    if let Ok(log) = EffectsLog::parse(data) {
        let _ = format!("{log:?}");
    }
}

/// Entries of an error log page are whole ones.
pub(crate) fn error_log(data: &[u8]) {
    if let Ok(entries) = ErrorLogEntry::parse_all(data) {
        assert!(entries.len() * 64 <= data.len());
        let _ = format!("{entries:?}");
    }
}

/// Revisions of a firmware log page print.
pub(crate) fn firmware_log(data: &[u8]) {
    if let Ok(log) = FirmwareSlotLog::parse(data) {
        let _ = format!("{log:?}");
    }
}

/// Numbers of a health log page print.
pub(crate) fn health_log(data: &[u8]) {
    if let Ok(log) = HealthLog::parse(data) {
        let _ = format!("{log:?}");
    }
}

/// Values of the short log pages print, and name what is known of them.
pub(crate) fn short_log_pages(data: &[u8]) {
    let _ = format!("{:?}", EnduranceGroupLog::parse(data));
    let _ = format!("{:?}", RotationalMediaLog::parse(data));
    if let Ok(log) = CrossControllerResetLog::parse(data) {
        assert!(8 + log.entries.len() * 8 <= data.len());
    }
    if let Ok(log) = ReservationNotification::parse(data) {
        assert!(!log.kind.to_string().is_empty());
    }
    if let Ok(SupportedLogPages(pages)) = SupportedLogPages::parse(data) {
        let FeatureEffectsLog(features) = FeatureEffectsLog::parse(data).expect("it is as long");
        assert_eq!(pages.len(), features.len());
        assert!(features.iter().all(|(_, effects)| effects.scope().len() <= 6));
    }
}

/// Header and entries of a discovery log page.
pub(crate) fn discovery(data: &[u8]) {
    if let Ok(header) = DiscoveryHeader::parse(data) {
        let _ = format!("{header:?}");
    }
    let Ok(entries) = DiscoveryEntry::parse_all(data) else { return };
    for entry in entries {
        for text in [&entry.service, &entry.subsystem, &entry.address] {
            assert!(!text.chars().any(is_unprintable), "{text:?}");
        }
        if let Ok(place) = entry.socket_address() {
            assert!(place.port() != 0);
        }
        let _ = format!("{} {} {} {entry:?}", entry.transport, entry.family, entry.kind);
    }
}

/// Private data of an accept, and of a reject by each of some reasons.
pub(crate) fn private_data(data: &[u8]) {
    let _ = CmAcceptData::parse(data);
    for reason in [0, 8, 10, 28] {
        assert!(!CmReject::parse(reason, data).to_string().is_empty());
    }
}

/// Configuration in the INI format.
pub(crate) fn configuration_ini(data: &[u8]) {
    configuration("configuration.conf", data);
}

/// Configuration in the JSON format.
pub(crate) fn configuration_json(data: &[u8]) {
    configuration("configuration.json", data);
}

/// Configuration in lines of options.
pub(crate) fn discovery_conf(data: &[u8]) {
    configuration("discovery.conf", data);
}

/// Loads a configuration; a refusal is one line.
fn configuration(name: &str, data: &[u8]) {
    static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a folder"));
    let path = FOLDER.path().join(name);
    fs::write(&path, data).expect("it can be written");
    let connections =
        Configuration::load(&path).and_then(|configuration| configuration.connections());
    if let Err(failure) = connections {
        let text = failure.to_string();
        assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
    }
}

/// Target in a URI or transport ID.
pub(crate) fn target(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match target_address::parse_target(text) {
        Ok(target) => assert!(!target.address.is_empty(), "{target:?}"),
        Err(refusal) => assert!(!refusal.is_empty()),
    }
}

/// Simulation of a script.
pub(crate) fn simulation(data: &[u8]) {
    let data = &data[..data.len().min(8 + 4 * STEPS_MAX)];
    let script = Script::from_bytes(data);
    let report = simulation::run(&script);
    assert!(report.violations.is_empty(), "tests/simulate {script}: {:?}", report.violations);
}
