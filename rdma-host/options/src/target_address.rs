//! Address of a subsystem, in a URI, an SPDK transport ID or the options of nvme-cli.

use std::{
    fs,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs},
};

use rdma_host::{ConnectOptions, wire::Nqn};

use crate::failure::Failure;

/// Address and name of a subsystem.
#[derive(Debug, PartialEq, Eq)]
pub struct TargetAddress {
    /// Address, or name of a host.
    pub address: String,
    /// Port.
    pub service: u16,
    /// NQN of the subsystem.
    pub nqn: String,
}

/// Socket address of an address or name and a port, as options give them.
pub fn address(traddr: &str, trsvcid: Option<&str>) -> Result<SocketAddr, Failure> {
    let service = service(trsvcid).map_err(Failure::usage)?;
    resolve(&TargetAddress { address: traddr.to_owned(), service, nqn: String::new() })
}

/// Socket address of a path, `ADDRESS[:PORT]` as in a URI.
pub(crate) fn path_address(path: &str) -> Result<SocketAddr, Failure> {
    if path.is_empty() || path.contains(['/', ',']) {
        return Err(Failure::usage(format!("{path:?} is no path; write ADDRESS or ADDRESS:PORT")));
    }
    resolve(&parse_uri(&format!("{path}/")).map_err(Failure::usage)?)
}

/// Address and NQN in a URI or transport ID, where `default_nqn` may be left out.
pub fn parse_with_default_nqn(text: &str, default_nqn: &str) -> Result<(SocketAddr, Nqn), Failure> {
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

/// Targets that a URI with several addresses between commas stands for, one for each address; the
/// text itself if it has one address or is no URI.
#[must_use]
pub fn each_address(text: &str) -> Vec<String> {
    let several = || {
        let rest = after_scheme(text)?;
        let (authority, nqn) = rest.split_once('/')?;
        let scheme = &text[..text.len() - rest.len()];
        Some(authority.split(',').map(|address| format!("{scheme}{address}/{nqn}")).collect())
    };
    several().unwrap_or_else(|| vec![text.to_owned()])
}

/// Address and NQN in a URI or transport ID. The address is not resolved.
///
/// # Errors
///
/// When the text is neither, or a part of it is wrong: what to write instead.
pub fn parse_target(text: &str) -> Result<TargetAddress, String> {
    let target = match after_scheme(text) {
        Some(rest) => parse_uri(rest)?,
        None if text.contains("traddr:") => parse_transport_id(text)?,
        None => {
            return Err(format!(
                "{text:?} is no target; write nvmf-rdma://ADDRESS:PORT/NQN, or options -a -s -n"
            ));
        }
    };
    if target.address.is_empty() {
        return Err(format!("{text:?} lacks an address; write nvmf-rdma://ADDRESS:PORT/NQN"));
    }
    Ok(target)
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
            let service = after.strip_prefix(':');
            if service.is_none() && !after.is_empty() {
                return Err(format!("{after:?} follows the IPv6 address; write [ADDRESS]:PORT"));
            }
            (address, service)
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
pub fn service(trsvcid: Option<&str>) -> Result<u16, String> {
    trsvcid.map_or(Ok(ConnectOptions::SERVICE), parse_service)
}

fn parse_service(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|&port| port != 0).ok_or(format!("{text:?} is no port, 1 to 65535"))
}

/// Socket address of a subsystem.
pub(crate) fn resolve(target: &TargetAddress) -> Result<SocketAddr, Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn target_address(address: &str, service: u16, nqn: &str) -> TargetAddress {
        TargetAddress { address: address.to_owned(), service, nqn: nqn.to_owned() }
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
            ("nvmf-rdma://[fe80::1]4420/nqn.x", "follows the IPv6 address"),
            ("nvmf-rdma:///nqn.x", "lacks an address"),
            ("trtype:RDMA traddr: subnqn:nqn.x", "lacks an address"),
            ("trtype:TCP traddr:1.2.3.4 subnqn:nqn.x", "not supported"),
            ("trtype:RDMA traddr:1.2.3.4", "subnqn"),
            ("traddr:1.2.3.4 bogus:1 subnqn:nqn.x", "bogus"),
        ] {
            let error = parse_target(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
