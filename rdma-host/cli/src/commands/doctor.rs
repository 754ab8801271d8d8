//! `nvmf doctor`: whether this machine can be a host, and what keeps it from being a fast one.

use std::fmt::Write as _;

use clap::Args;
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};
use verbs::{DeviceInfo, PortState, TransportType};

use crate::{
    Format,
    environment::{self, Device},
    failure::Failure,
    output, size,
};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Output format.
    #[arg(short, long, value_name = "FORMAT", default_value = "normal")]
    output_format: Format,
}

/// Verdict of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CheckVerdict {
    Ok,
    /// Not as fast, or not as much, as it could be.
    Warning,
    /// No connection can be made.
    Error,
}

/// One line.
#[derive(Debug)]
struct Check {
    verdict: CheckVerdict,
    name: String,
    /// Finding, and the remedy if it is one to be mended.
    text: String,
}

/// Facts of a port that the kernel tells in `/sys`.
#[derive(Clone, Debug, Default)]
struct PortFacts {
    is_ethernet: bool,
    gid_types: Option<String>,
    netdev: Option<String>,
    netdev_mtu: Option<u32>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut checks = vec![connection_manager()];
    checks.extend(devices());
    checks.push(locked_memory(getrlimit(Resource::Memlock).current));
    checks.extend(environment::cpu_governor().map(|governor| processors(&governor)));
    match arguments.output_format {
        Format::Json => output::print_json(&Value::Array(checks.iter().map(to_json).collect()))?,
        Format::Normal => output::print_text(&to_text(&checks))?,
    }
    match checks.iter().filter(|check| check.verdict == CheckVerdict::Error).count() {
        0 => Ok(()),
        errors => Err(Failure::failed(format!(
            "this machine cannot connect: {errors} of {} checks failed",
            checks.len()
        ))),
    }
}

fn to_text(checks: &[Check]) -> String {
    checks.iter().fold(String::new(), |mut text, Check { verdict, name, text: found }| {
        let _ = writeln!(text, "{:<8} {name}: {found}", verdict.name());
        text
    })
}

fn to_json(check: &Check) -> Value {
    json!({ "verdict": check.verdict.name(), "check": check.name, "text": check.text })
}

impl CheckVerdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl Check {
    fn new(verdict: CheckVerdict, name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { verdict, name: name.into(), text: text.into() }
    }
}

/// The connection manager, as every connection begins with it.
fn connection_manager() -> Check {
    let name = "connection manager";
    match verbs::Endpoint::open() {
        Ok(_) => Check::new(CheckVerdict::Ok, name, "/dev/infiniband/rdma_cm can be opened"),
        Err(error) => Check::new(CheckVerdict::Error, name, error.to_string()),
    }
}

fn devices() -> Vec<Check> {
    match verbs::devices() {
        Ok(devices) if devices.is_empty() => vec![Check::new(
            CheckVerdict::Error,
            "devices",
            "there is no RDMA device; load the driver of the network card, or for soft-RoCE: rdma \
             link add rxe0 type rxe netdev INTERFACE",
        )],
        Ok(devices) => devices.iter().flat_map(device).collect(),
        Err(error) => vec![Check::new(CheckVerdict::Error, "devices", error.to_string())],
    }
}

/// A device, then its ports.
fn device(info: &DeviceInfo) -> Vec<Check> {
    let files = Device::new(&info.name);
    let mut checks = vec![offers(info, files.is_software())];
    for port in &info.ports {
        let file = files.ports().into_iter().find(|file| file.number() == port.number.to_string());
        let facts = file.map_or_else(PortFacts::default, |file| PortFacts {
            is_ethernet: file.link_layer().is_some_and(|layer| layer == "Ethernet"),
            gid_types: file.gid_types(),
            netdev: file.netdev(),
            netdev_mtu: file.netdev_mtu(),
        });
        let name = format!("{} port {}", info.name, port.number);
        let is_iwarp = info.limits.transport == TransportType::Iwarp;
        checks.push(check_port(&name, port.state, &facts, is_iwarp));
    }
    checks
}

/// Limits of a device, as far as they decide what a host does.
fn offers(info: &DeviceInfo, is_software: bool) -> Check {
    let limits = &info.limits;
    let kind = if is_software {
        "software".to_owned()
    } else {
        format!("hardware, firmware {}", limits.firmware)
    };
    let node = limits.numa_node.map_or_else(String::new, |node| format!("; NUMA node {node}"));
    let text = format!(
        "{kind}{node}; completion vectors: {}; queues: up to {} of {} work requests; memory modes: \
         {}",
        info.completion_vectors,
        limits.queue_pairs,
        limits.queue_pair_work_requests,
        if limits.windows > 0 { "pool, window" } else { "pool" },
    );
    Check::new(CheckVerdict::Ok, &*info.name, text)
}

fn check_port(name: &str, state: PortState, facts: &PortFacts, is_iwarp: bool) -> Check {
    if state != PortState::ACTIVE {
        let remedy = match &facts.netdev {
            Some(netdev) => format!("check the cable, and: ip link set {netdev} up"),
            None => "check the cable and the subnet manager".to_owned(),
        };
        return Check::new(CheckVerdict::Warning, name, format!("{state}; {remedy}"));
    }
    let netdev = facts.netdev.as_deref().unwrap_or("no network interface");
    if !facts.is_ethernet || is_iwarp {
        return Check::new(CheckVerdict::Ok, name, format!("active, {netdev}"));
    }
    let types = facts.gid_types.as_deref().unwrap_or_default();
    if !types.contains("RoCE v2") {
        let text = format!("active, {netdev}, without a GID of RoCE v2; give {netdev} an address");
        return Check::new(CheckVerdict::Warning, name, text);
    }
    match facts.netdev_mtu {
        Some(mtu) if mtu < MTU_OF_LARGEST_PATH => Check::new(
            CheckVerdict::Warning,
            name,
            format!(
                "active, {netdev}, RoCE v2; its MTU of {mtu} bytes allows packets of {} bytes: \
                 with {MTU_OF_LARGEST_PATH} here, at the target and on the way they have 4096",
                packet(mtu)
            ),
        ),
        _ => Check::new(CheckVerdict::Ok, name, format!("active, {netdev}, RoCE v2")),
    }
}

/// Largest path MTU (InfiniBand 9.4.1) whose packets an Ethernet MTU carries.
fn packet(mtu: u32) -> u32 {
    let fits = |bytes: &u32| bytes + HEADERS <= mtu;
    [4096, 2048, 1024, 512].into_iter().find(fits).unwrap_or(256)
}

/// Locked memory, which every buffer and queue counts for.
fn locked_memory(limit: Option<u64>) -> Check {
    let name = "locked memory";
    match limit {
        None => Check::new(CheckVerdict::Ok, name, "unlimited"),
        Some(limit) if limit >= LOCKED_BYTES => {
            Check::new(CheckVerdict::Ok, name, format!("{} at most", size::format_bytes(limit)))
        }
        Some(limit) => Check::new(
            CheckVerdict::Warning,
            name,
            format!(
                "{} at most without CAP_IPC_LOCK, and 128 buffers of 128 KiB take {}; raise it \
                 with a line `USER - memlock unlimited` in /etc/security/limits.d and a new login \
                 (a service: LimitMEMLOCK=infinity)",
                size::format_bytes(limit),
                size::format_bytes(LOCKED_BYTES),
            ),
        ),
    }
}

fn processors(governor: &str) -> Check {
    let name = "processors";
    if governor == "performance" {
        return Check::new(CheckVerdict::Ok, name, "frequency governor performance");
    }
    let text = format!(
        "frequency governor {governor}, which adds to latencies; to measure: cpupower \
         frequency-set -g performance"
    );
    Check::new(CheckVerdict::Warning, name, text)
}

/// Memory of one queue's worth of large transfers: 128 of 128 KiB.
const LOCKED_BYTES: u64 = 128 * (128 << 10);

/// Bytes of the headers that RoCE v2 puts around a packet within Ethernet's MTU: IPv6, UDP, the
/// base and the largest extended transport header, and the checksum.
const HEADERS: u32 = 40 + 8 + 12 + 28 + 4;

/// Ethernet MTU, as networks are set up, that carries packets of 4096 bytes.
const MTU_OF_LARGEST_PATH: u32 = 4200;

#[cfg(test)]
mod tests {
    use super::*;

    fn ethernet(mtu: u32) -> PortFacts {
        PortFacts {
            is_ethernet: true,
            gid_types: Some("IB/RoCE v1, RoCE v2".into()),
            netdev: Some("eth0".into()),
            netdev_mtu: Some(mtu),
        }
    }

    #[test]
    fn a_port_is_judged_by_its_state_address_and_mtu() {
        let of = |state, facts: &PortFacts, is_iwarp| check_port("x", state, facts, is_iwarp);
        let active = PortState::ACTIVE;
        assert_eq!(of(active, &ethernet(4200), false).verdict, CheckVerdict::Ok);
        let small = of(active, &ethernet(1500), false);
        assert!(small.verdict == CheckVerdict::Warning && small.text.contains("packets of 1024"));
        // TCP's segments have no path MTU.
        assert_eq!(of(active, &ethernet(1500), true).verdict, CheckVerdict::Ok);
        let down = of(PortState::DOWN, &ethernet(4200), false);
        assert!(down.verdict == CheckVerdict::Warning && down.text.contains("ip link set eth0 up"));
        let old = PortFacts { gid_types: Some("IB/RoCE v1".into()), ..ethernet(4200) };
        assert!(of(active, &old, false).text.contains("without a GID of RoCE v2"));
    }

    #[test]
    fn packets_fit_with_their_headers() {
        let sizes = [256, 1024, 1500, 2200, 4187, 4188, 9000].map(packet);
        assert_eq!(sizes, [256, 512, 1024, 2048, 2048, 4096, 4096]);
    }

    #[test]
    fn locked_memory_is_enough_or_not() {
        assert_eq!(locked_memory(None).verdict, CheckVerdict::Ok);
        assert_eq!(locked_memory(Some(LOCKED_BYTES)).verdict, CheckVerdict::Ok);
        assert_eq!(locked_memory(Some(8 << 20)).verdict, CheckVerdict::Warning);
        assert_eq!(processors("powersave").verdict, CheckVerdict::Warning);
    }
}
