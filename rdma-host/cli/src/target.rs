//! Target and connect options, from a URI, an SPDK transport ID or the options of nvme-cli.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs},
    sync::Once,
    time::Duration,
};

use clap::Args;
use rdma_host::{
    ConnectOptions, MemoryMode, ReconnectOptions, WaitMode,
    config::{QUEUE_ENTRIES, RETRY_COUNT},
    wire::Nqn,
};
use uuid::Uuid;

use crate::{
    failure::Failure,
    host,
    option_value::{OrNone, or_none},
    output,
    secrets::SecretArguments,
    size,
};

/// Target and connect options; names and defaults as in nvme-cli.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Target")]
pub(crate) struct TargetArguments {
    #[arg(help = "nvmf-rdma://ADDRESS[:PORT]/NQN, or \"trtype:RDMA traddr:… subnqn:…\"")]
    target: Option<String>,

    /// Transport, as in nvme-cli; only RDMA is supported.
    #[arg(short = 't', long, value_name = "NAME", default_value = "rdma",
          hide_default_value = true, value_parser = transport)]
    transport: String,

    /// Address of the target; a link-local one with its interface: fe80::1%eth0.
    #[arg(short = 'a', long, value_name = "ADDRESS", conflicts_with = "target")]
    traddr: Option<String>,

    /// Port of the target [default: 4420].
    #[arg(short = 's', long, value_name = "PORT", conflicts_with = "target",
          value_parser = or_none::<String>)]
    trsvcid: Option<OrNone<String>>,

    /// NQN of the subsystem.
    #[arg(short = 'n', long, conflicts_with = "target")]
    nqn: Option<String>,

    /// Address of this host to use.
    #[arg(short = 'w', long, value_name = "ADDRESS", value_parser = or_none::<IpAddr>)]
    host_traddr: Option<OrNone<IpAddr>>,

    /// Host NQN [default: /etc/nvme/hostnqn, or made of the machine id].
    #[arg(short = 'q', long, value_name = "NQN", value_parser = or_none::<String>)]
    hostnqn: Option<OrNone<String>>,

    /// Host identifier [default: /etc/nvme/hostid, or the UUID of the NQN].
    #[arg(short = 'I', long, value_name = "UUID", value_parser = or_none::<Uuid>)]
    hostid: Option<OrNone<Uuid>>,

    /// Number of I/O queues [default: one for each processor].
    #[arg(short = 'i', long, visible_alias = "queues", value_name = "N",
          value_parser = size::in_range(1..=u16::MAX))]
    nr_io_queues: Option<u16>,

    /// Entries of an I/O queue; one command less can be in flight [default: 128].
    #[arg(short = 'Q', long, value_name = "N", value_parser = size::in_range(QUEUE_ENTRIES))]
    pub(crate) queue_size: Option<u16>,

    /// Keep-alive time in seconds; 0 turns it off.
    #[arg(short = 'k', long, value_name = "SECONDS", default_value = "5",
          value_parser = size::seconds)]
    keep_alive_tmo: Duration,

    #[command(flatten)]
    reconnect: ReconnectArguments,

    #[command(flatten)]
    secrets: SecretArguments,

    /// Type of service of the connections.
    #[arg(long, value_name = "TOS")]
    tos: Option<u8>,

    /// Acknowledgement timeout of the device: 4.096 µs times two to this power; 14 is 67 ms
    /// [default: the device's].
    #[arg(long, value_name = "EXPONENT", value_parser = clap::value_parser!(u8).range(0..=31))]
    ack_timeout: Option<u8>,

    /// Retransmissions by the device without an acknowledgement.
    #[arg(long, value_name = "N", default_value_t = RETRY_COUNT,
          value_parser = clap::value_parser!(u8).range(0..=7))]
    retry_count: u8,

    /// Ask the target to disable submission queue flow control.
    #[arg(long)]
    disable_sqflow: bool,

    /// Way to wait for completions: poll, event, or adaptive (spin for 50 µs, then as event).
    #[arg(long, value_name = "MODE", default_value = "adaptive", value_parser = wait_mode)]
    wait: WaitMode,

    /// Remote access to memory: pool (one key for all registered memory, valid as long as nvmf
    /// runs), or window (a key for each command, invalidated with it; if the device can).
    #[arg(long, value_name = "MODE", default_value = "pool", value_parser = memory_mode)]
    memory: MemoryMode,
}

/// Reconnecting after the connection was lost.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReconnectArguments {
    /// Seconds from a loss to the first attempt to reconnect, and between attempts.
    #[arg(short = 'c', long, value_name = "SECONDS", default_value = "10",
          value_parser = size::seconds)]
    reconnect_delay: Duration,

    /// Seconds for which attempts go on; -1 for ever, 0 for none [default: 600; bench: 0].
    #[arg(short = 'l', long, value_name = "SECONDS", allow_negative_numbers = true)]
    ctrl_loss_tmo: Option<i64>,

    /// Seconds for which commands wait for a connection; -1 as long as attempts go on.
    #[arg(long, value_name = "SECONDS", default_value_t = -1, allow_negative_numbers = true)]
    fast_io_fail_tmo: i64,

    /// Double the delay with every attempt, up to this many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = size::seconds)]
    reconnect_delay_max: Option<Duration>,

    /// Random part of each delay, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(0..=100))]
    reconnect_jitter: u8,

    /// Longest time, in seconds, from a loss to the last attempt.
    #[arg(long, value_name = "SECONDS", value_parser = size::seconds)]
    reconnect_time_limit: Option<Duration>,

    /// Give up also for causes that persist until the target is repaired.
    #[arg(long)]
    reconnect_strict: bool,

    /// Retry the first connect too.
    #[arg(long)]
    retry_first_connect: bool,
}

impl ReconnectArguments {
    pub(crate) fn options(&self) -> ReconnectOptions {
        let seconds = |seconds: i64| u64::try_from(seconds).ok().map(Duration::from_secs);
        let default = ReconnectOptions::default();
        let loss_timeout = self.ctrl_loss_tmo.map_or(default.loss_timeout, seconds);
        default
            .delay(self.reconnect_delay)
            .loss_timeout(loss_timeout)
            .fast_io_fail(seconds(self.fast_io_fail_tmo))
            .delay_max(self.reconnect_delay_max)
            .jitter_percent(self.reconnect_jitter)
            .time_limit(self.reconnect_time_limit)
            .strict(self.reconnect_strict)
            .first_connect(self.retry_first_connect)
    }
}

/// Address and name of a subsystem.
#[derive(Debug, PartialEq, Eq)]
struct TargetAddress {
    address: String,
    service: u16,
    nqn: String,
}

impl TargetArguments {
    /// Options for the library.
    pub(crate) fn options(&self) -> Result<ConnectOptions, Failure> {
        let target = self.target_address().map_err(Failure::usage)?;
        let subsystem: Nqn = target.nqn.parse().map_err(Failure::usage)?;
        let address = resolve(&target)?;
        let hostnqn = self.hostnqn.as_ref().and_then(OrNone::as_deref);
        let host = host::identity(hostnqn, self.hostid.flatten())?;
        let mut options = ConnectOptions::new(address, subsystem, host);
        warn_of_names(&options);
        options.source = self.host_traddr.flatten();
        options.io_queues = self.nr_io_queues.unwrap_or(options.io_queues);
        options.queue_entries = self.queue_size.unwrap_or(options.queue_entries);
        options.keep_alive = self.keep_alive_tmo;
        options.type_of_service = self.tos;
        options.ack_timeout = self.ack_timeout;
        options.retry_count = self.retry_count;
        options.disable_flow_control = self.disable_sqflow;
        options.wait = self.wait;
        options.memory = self.memory;
        options.reconnect = self.reconnect.options();
        options.authentication = self.secrets.options()?;
        Ok(options)
    }

    /// True if a number of I/O queues is given.
    pub(crate) fn has_queues(&self) -> bool {
        self.nr_io_queues.is_some()
    }

    /// Target in one argument, if it is given so.
    pub(crate) fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    /// Same options, for another target.
    pub(crate) fn with_target(&self, target: &str) -> Self {
        let target = Some(target.to_owned());
        Self { target, traddr: None, trsvcid: None, nqn: None, ..self.clone() }
    }

    /// Options without reconnecting, unless the command line asks for it.
    pub(crate) fn options_without_reconnect(&self) -> Result<ConnectOptions, Failure> {
        let mut options = self.options()?;
        if self.reconnect.ctrl_loss_tmo.is_none() {
            options.reconnect.loss_timeout = Some(Duration::ZERO);
        }
        Ok(options)
    }

    fn target_address(&self) -> Result<TargetAddress, String> {
        if let Some(target) = &self.target {
            return parse_target(target);
        }
        let missing = |what| {
            format!("no {what}; give nvmf-rdma://ADDRESS:PORT/NQN, or -a ADDRESS -s PORT -n NQN")
        };
        Ok(TargetAddress {
            address: self.traddr.clone().ok_or_else(|| missing("target address"))?,
            service: service(self.trsvcid.as_ref().and_then(OrNone::as_deref))?,
            nqn: self.nqn.clone().ok_or_else(|| missing("subsystem NQN"))?,
        })
    }
}

/// Socket address of an address or name and a port, as options give them.
pub(crate) fn address(traddr: &str, trsvcid: Option<&str>) -> Result<SocketAddr, Failure> {
    let service = service(trsvcid).map_err(Failure::usage)?;
    resolve(&TargetAddress { address: traddr.to_owned(), service, nqn: String::new() })
}

/// Address and NQN in a URI or transport ID, where `default_nqn` may be left out.
pub(crate) fn parse_with_default_nqn(
    text: &str,
    default_nqn: &str,
) -> Result<(SocketAddr, Nqn), Failure> {
    let whole = match after_scheme(text) {
        Some(rest) if !rest.contains('/') => format!("{text}/{default_nqn}"),
        None if text.contains("traddr:") && !text.contains("subnqn:") => {
            format!("{text} subnqn:{default_nqn}")
        }
        _ => text.to_owned(),
    };
    let target = parse_target(&whole).map_err(Failure::usage)?;
    let nqn = target.nqn.parse().map_err(Failure::usage)?;
    Ok((resolve(&target)?, nqn))
}

/// Part of a target URI after its scheme; libnvme writes the scheme as `nvme+rdma`.
fn after_scheme(text: &str) -> Option<&str> {
    text.strip_prefix("nvmf-rdma://").or_else(|| text.strip_prefix("nvme+rdma://"))
}

fn parse_target(text: &str) -> Result<TargetAddress, String> {
    match after_scheme(text) {
        Some(rest) => parse_uri(rest),
        None if text.contains("traddr:") => parse_transport_id(text),
        None => Err(format!(
            "{text:?} is no target; write nvmf-rdma://ADDRESS:PORT/NQN, or options -a -s -n"
        )),
    }
}

fn parse_uri(rest: &str) -> Result<TargetAddress, String> {
    let (authority, nqn) = rest.split_once('/').ok_or("the target URI lacks /NQN at its end")?;
    if let Some((_, options)) = nqn.split_once('?') {
        let name = options.split(['=', '&']).next().filter(|name| is_option_name(name));
        let name = name.unwrap_or("OPTION").replace('_', "-");
        return Err(format!(
            "a target URI has no options after its NQN; give --{name} on the command line"
        ));
    }
    let (address, service) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (address, after) =
                bracketed.split_once(']').ok_or("the IPv6 address lacks its closing bracket")?;
            (address, after.strip_prefix(':'))
        }
        None => match authority.rsplit_once(':') {
            Some((address, _)) if address.contains(':') => {
                return Err(format!("write the IPv6 address in brackets: [{authority}]"));
            }
            Some((address, service)) => (address, Some(service)),
            None => (authority, None),
        },
    };
    let service = service.map_or(Ok(ConnectOptions::SERVICE), parse_service)?;
    Ok(TargetAddress { address: unescape_zone(address), service, nqn: nqn.to_owned() })
}

/// True if an option of a URI is named as one of the command line may be.
fn is_option_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '-' | '_'))
}

/// Address in a URI with the `%25` before a zone (RFC 6874) as a `%`. Most URIs have a bare `%`, so
/// `%25` before a digit is left alone: it may be the start of a zone.
fn unescape_zone(address: &str) -> String {
    match address.split_once("%25") {
        Some((ip, zone)) if zone.starts_with(|first: char| !first.is_ascii_digit()) => {
            format!("{ip}%{zone}")
        }
        _ => address.to_owned(),
    }
}

/// Address in an SPDK transport ID: `key:value` pairs between spaces, keys in any case.
fn parse_transport_id(text: &str) -> Result<TargetAddress, String> {
    let (mut address, mut service, mut nqn) = (None, ConnectOptions::SERVICE, None);
    for pair in text.split_whitespace() {
        let (key, value) = pair.split_once(':').ok_or_else(|| format!("{pair:?} lacks a colon"))?;
        match key.to_ascii_lowercase().as_str() {
            "trtype" if value.eq_ignore_ascii_case("rdma") => {}
            "trtype" => return Err(format!("transport {value} is not supported; RDMA is")),
            "adfam" | "adrfam" => {}
            "traddr" => address = Some(value.to_owned()),
            "trsvcid" => service = parse_service(value)?,
            "subnqn" => nqn = Some(value.to_owned()),
            _ => return Err(format!("unknown key {key:?} in the transport ID")),
        }
    }
    let address = address.ok_or("the transport ID lacks traddr:")?;
    Ok(TargetAddress { address, service, nqn: nqn.ok_or("the transport ID lacks subnqn:")? })
}

/// Port, by default that of NVMe over RDMA.
fn service(trsvcid: Option<&str>) -> Result<u16, String> {
    trsvcid.map_or(Ok(ConnectOptions::SERVICE), parse_service)
}

fn parse_service(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|&port| port != 0).ok_or(format!("{text:?} is no port, 1 to 65535"))
}

fn resolve(target: &TargetAddress) -> Result<SocketAddr, Failure> {
    if let Some(address) = ipv6(&target.address, interface_index).map_err(Failure::usage)? {
        let (ip, zone) = address;
        return Ok(SocketAddrV6::new(ip, target.service, 0, zone).into());
    }
    let unknown = |reason: String| {
        Failure::usage(format!("{} is no address, and no known name: {reason}", target.address))
    };
    let mut found = (target.address.as_str(), target.service)
        .to_socket_addrs()
        .map_err(|error| unknown(error.to_string()))?;
    found.next().ok_or_else(|| unknown("nothing found".to_owned()))
}

/// IPv6 address and the index of its zone (RFC 4007), which a link-local address needs and others
/// lack; `None` for text that is no IPv6 address. `index` returns the index of an interface.
fn ipv6(
    text: &str,
    index: impl Fn(&str) -> Option<u32>,
) -> Result<Option<(Ipv6Addr, u32)>, String> {
    let (ip, zone) = match text.split_once('%') {
        Some((ip, zone)) => (ip, Some(zone)),
        None => (text, None),
    };
    let Ok(ip) = ip.parse::<Ipv6Addr>() else { return Ok(None) };
    match (ip.is_unicast_link_local(), zone) {
        (true, Some(zone)) => {
            let number = zone.parse().ok().filter(|&number| number != 0);
            let found = number.or_else(|| index(zone));
            let zone = found.ok_or_else(|| format!("{text}: there is no interface {zone:?}"))?;
            Ok(Some((ip, zone)))
        }
        (true, None) => {
            Err(format!("{text} is link-local; say on which interface, as in {text}%eth0"))
        }
        (false, Some(_)) => {
            Err(format!("{text}: only a link-local address (fe80::/10) has an interface"))
        }
        (false, None) => Ok(Some((ip, 0))),
    }
}

/// Index of a network interface.
fn interface_index(name: &str) -> Option<u32> {
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        return None;
    }
    fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
}

/// Parses the name of a transport, in any case.
pub(crate) fn transport(text: &str) -> Result<String, String> {
    if text.eq_ignore_ascii_case("rdma") {
        return Ok("rdma".to_owned());
    }
    Err("nvmf has one transport, rdma; nvme-cli connects the kernel's initiator by others"
        .to_owned())
}

/// Warns of names that do not conform to the specification, once.
pub(crate) fn warn_of_names(options: &ConnectOptions) {
    static WARNED: Once = Once::new();
    let names = [("subsystem", &options.subsystem), ("host", &options.host.nqn)];
    let wrong: Vec<_> = names
        .into_iter()
        .filter(|(_, nqn)| !nqn.has_prefix())
        .map(|(what, nqn)| format!("{what} NQN {:?}", nqn.as_str()))
        .collect();
    if !wrong.is_empty() {
        WARNED.call_once(|| {
            output::print_message(format_args!(
                "nvmf: warning: {} should begin with \"nqn.\"; not every target takes other names",
                wrong.join(" and ")
            ));
        });
    }
}

fn wait_mode(text: &str) -> Result<WaitMode, String> {
    match text {
        "adaptive" => Ok(WaitMode::default()),
        "event" => Ok(WaitMode::Event),
        "poll" => Ok(WaitMode::Poll),
        _ => Err("use poll, event or adaptive".to_owned()),
    }
}

fn memory_mode(text: &str) -> Result<MemoryMode, String> {
    [MemoryMode::Pool, MemoryMode::Window]
        .into_iter()
        .find(|mode| mode.name() == text)
        .ok_or("use pool or window".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target_address(address: &str, service: u16, nqn: &str) -> TargetAddress {
        TargetAddress { address: address.to_owned(), service, nqn: nqn.to_owned() }
    }

    #[test]
    fn memory_modes_are_named_as_in_reports() {
        assert_eq!(memory_mode("window"), Ok(MemoryMode::Window));
        assert_eq!(memory_mode("pool"), Ok(MemoryMode::default()));
        assert!(memory_mode("windows").is_err());
    }

    #[test]
    fn three_forms_mean_the_same() {
        let expected = Ok(target_address("10.0.0.1", 4421, "nqn.test:s1"));
        assert_eq!(parse_target("nvmf-rdma://10.0.0.1:4421/nqn.test:s1"), expected);
        let transport_id =
            "trtype:RDMA adrfam:IPv4 traddr:10.0.0.1 trsvcid:4421 subnqn:nqn.test:s1";
        assert_eq!(parse_target(transport_id), expected);
        // As libnvme writes it.
        assert_eq!(parse_target("nvme+rdma://10.0.0.1:4421/nqn.test:s1"), expected);
    }

    #[test]
    fn the_port_may_be_left_out_and_ipv6_has_brackets() {
        assert_eq!(parse_target("nvmf-rdma://h/nqn.x"), Ok(target_address("h", 4420, "nqn.x")));
        assert_eq!(
            parse_target("nvmf-rdma://[fe80::1]/nqn.x"),
            Ok(target_address("fe80::1", 4420, "nqn.x"))
        );
        assert_eq!(
            parse_target("nvmf-rdma://[::1]:1/nqn.x"),
            Ok(target_address("::1", 1, "nqn.x"))
        );
    }

    #[test]
    fn the_default_nqn_may_be_left_out() {
        let places = [
            "nvmf-rdma://10.0.0.1:4421",
            "nvmf-rdma://10.0.0.1:4421/nqn.known",
            "trtype:RDMA traddr:10.0.0.1 trsvcid:4421",
        ];
        for place in places {
            let (address, nqn) = parse_with_default_nqn(place, "nqn.known").unwrap();
            assert_eq!(
                (address.to_string().as_str(), nqn.as_str()),
                ("10.0.0.1:4421", "nqn.known")
            );
        }
        assert!(parse_with_default_nqn("10.0.0.1", "nqn.known").is_err());
    }

    /// Two interfaces.
    fn index(name: &str) -> Option<u32> {
        [("lo", 1), ("dum0", 3)].into_iter().find(|known| known.0 == name).map(|known| known.1)
    }

    #[test]
    fn a_link_local_address_has_a_zone() {
        let address = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        for (text, expected) in [
            ("fe80::1%dum0", Some((address("fe80::1"), 3))),
            ("fe80::1%7", Some((address("fe80::1"), 7))),
            ("fd10:10:10::1", Some((address("fd10:10:10::1"), 0))),
            ("::1", Some((address("::1"), 0))),
            ("10.0.0.1", None),
            ("host.example", None),
            ("host%dum0", None),
        ] {
            assert_eq!(ipv6(text, index), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("fe80::1", "fe80::1%eth0"),
            ("fe80::1%", "no interface \"\""),
            ("fe80::1%0", "no interface \"0\""),
            ("fe80::1%eth9", "no interface \"eth9\""),
            ("fd10:10:10::1%dum0", "only a link-local"),
        ] {
            let error = ipv6(text, index).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn the_zone_of_a_uri_may_be_escaped() {
        for (uri, expected) in [
            ("nvmf-rdma://[fe80::1%dum0]/nqn.x", "fe80::1%dum0"),
            ("nvmf-rdma://[fe80::1%25dum0]/nqn.x", "fe80::1%dum0"),
            ("nvmf-rdma://[fe80::1%25]/nqn.x", "fe80::1%25"),
            ("nvmf-rdma://[fe80::1%251]/nqn.x", "fe80::1%251"),
        ] {
            assert_eq!(parse_target(uri), Ok(target_address(expected, 4420, "nqn.x")), "{uri}");
        }
        let transport_id = "trtype:RDMA adrfam:IPv6 traddr:fe80::1%dum0 subnqn:nqn.x";
        assert_eq!(parse_target(transport_id), Ok(target_address("fe80::1%dum0", 4420, "nqn.x")));
    }

    #[test]
    fn interfaces_are_known_by_name() {
        assert_eq!(interface_index("lo"), Some(1));
        for wrong in ["", ".", "..", "../net/lo", "no such interface"] {
            assert_eq!(interface_index(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        for (text, expected) in [
            ("10.0.0.1", "is no target"),
            ("nvmf-rdma://10.0.0.1", "/NQN"),
            ("nvmf-rdma://10.0.0.1/nqn.x?hostnqn=nqn.y", "--hostnqn"),
            ("nvmf-rdma://10.0.0.1/nqn.x?host_traddr=10.0.0.2&tos=1", "--host-traddr"),
            ("nvmf-rdma://10.0.0.1/nqn.x?DHHC-1:00:c2VjcmV0:", "--OPTION"),
            ("nvmf-rdma://10.0.0.1:0/nqn.x", "no port"),
            ("nvmf-rdma://10.0.0.1:70000/nqn.x", "no port"),
            ("nvmf-rdma://fe80::1:4420/nqn.x", "brackets"),
            ("nvmf-rdma://[fe80::1/nqn.x", "closing bracket"),
            ("trtype:TCP traddr:1.2.3.4 subnqn:nqn.x", "not supported"),
            ("trtype:RDMA traddr:1.2.3.4", "subnqn"),
            ("traddr:1.2.3.4 bogus:1 subnqn:nqn.x", "bogus"),
        ] {
            let error = parse_target(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
