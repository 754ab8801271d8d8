//! Targets at IPv6 addresses, link-local ones too.

// bed: --target tests/targets/ipv6.toml --deny non-flush.error

use std::{fs, net::Ipv6Addr};

use tests::{SUBSYSTEM, noise, nvmf, nvmf_ok, run};

/// The bed's network interface, and its address.
const INTERFACE: &str = "dum0";
const ADDRESS: &str = "fd10:10:10::1";

/// The link-local address that the kernel gave the interface.
fn link_local() -> Ipv6Addr {
    let table = fs::read_to_string("/proc/net/if_inet6").expect("the kernel has IPv6");
    let ours = table.lines().find(|line| line.starts_with("fe80") && line.ends_with(INTERFACE));
    let digits =
        ours.and_then(|line| line.split_whitespace().next()).expect("a link-local address");
    Ipv6Addr::from_bits(u128::from_str_radix(digits, 16).expect("hexadecimal digits"))
}

/// Writes blocks at a place and reads them back.
fn round_trip(arguments: &[&str], lba: u64) {
    let data = noise(3 * 4096, lba);
    let lba = lba.to_string();
    let at = ["--lba", &lba, "--blocks", "3"];
    let _ = nvmf_ok(&[&["write", "--overwrite"], arguments, &at[..]].concat(), &data);
    assert!(nvmf_ok(&[&["read"], arguments, &at[..]].concat(), &[]) == data);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn at_a_global_address() {
    round_trip(&[&format!("nvmf-rdma://[{ADDRESS}]/{SUBSYSTEM}")], 1);
    round_trip(&["-a", ADDRESS, "-s", "4421", "-n", SUBSYSTEM], 5);
    round_trip(&["-a", ADDRESS, "-w", ADDRESS, "-n", SUBSYSTEM], 9);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn at_a_link_local_address() {
    let address = link_local();
    let zoned = format!("{address}%{INTERFACE}");
    round_trip(&[&format!("nvmf-rdma://[{zoned}]:4421/{SUBSYSTEM}")], 1);
    let place = ["-a", &zoned, "-s", "4421", "-n", SUBSYSTEM];
    round_trip(&place, 5);
    round_trip(&[&place[..], &["-w", &address.to_string()]].concat(), 9);

    let output = run(nvmf().args(["identify", "-a", &address.to_string(), "-n", SUBSYSTEM]), &[]);
    assert_eq!(output.status.code(), Some(2), "without its interface");
}
