//! Socket addresses in C's form, and file descriptors of C's structures.
//!
//! # Safety
//!
//! This file exists because librdmacm takes a `struct sockaddr *`. It promises that the pointer
//! is to a structure of the family that it names, which lives as long as the [`SocketAddress`].

#![allow(unsafe_code)]

use std::net::SocketAddr;

use rdma_core_sys::rdma_sockaddr;

/// A socket address in C's form.
pub(super) struct SocketAddress(rdma_sockaddr);

impl SocketAddress {
    /// Address of an id, with the port set to 0.
    pub(super) fn any_port_of(address: &rdma_sockaddr) -> Option<Self> {
        let mut copy = *address;
        // SAFETY: every member begins with the family; librdmacm zeroes addresses to begin with.
        match libc::c_int::from(unsafe { copy.addr.sa_family }) {
            libc::AF_INET => copy.sin.sin_port = 0,
            libc::AF_INET6 => copy.sin6.sin6_port = 0,
            _ => return None,
        }
        Some(Self(copy))
    }

    /// Valid as long as `self`.
    pub(super) fn pointer(&mut self) -> *mut libc::sockaddr {
        (&raw mut self.0).cast()
    }
}

impl From<SocketAddr> for SocketAddress {
    fn from(address: SocketAddr) -> Self {
        // SAFETY: `sockaddr_storage` is integers and arrays of them, for which zeroes are valid.
        let mut raw = rdma_sockaddr { storage: unsafe { std::mem::zeroed() } };
        match address {
            SocketAddr::V4(address) => {
                raw.sin = libc::sockaddr_in {
                    sin_family: family(libc::AF_INET),
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
                    sin_zero: [0; 8],
                };
            }
            SocketAddr::V6(address) => {
                raw.sin6 = libc::sockaddr_in6 {
                    sin6_family: family(libc::AF_INET6),
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: address.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                    sin6_scope_id: address.scope_id(),
                };
            }
        }
        Self(raw)
    }
}

fn family(family: libc::c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(family).expect("address families are small numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_in_network_order() {
        let address = SocketAddress::from(SocketAddr::from(([10, 9, 8, 7], 0x1234)));
        // SAFETY: an IPv4 address was just written, and every byte is initialised.
        let raw = unsafe { address.0.sin };
        assert_eq!(libc::c_int::from(raw.sin_family), libc::AF_INET);
        assert_eq!(raw.sin_port.to_ne_bytes(), [0x12, 0x34]);
        assert_eq!(raw.sin_addr.s_addr.to_ne_bytes(), [10, 9, 8, 7]);
    }

    #[test]
    fn an_ipv6_address_keeps_its_scope() {
        let address: SocketAddr = "[fe80::1%3]:4420".parse().expect("it is an address");
        let address = SocketAddress::from(address);
        // SAFETY: an IPv6 address was just written, and every byte is initialised.
        let raw = unsafe { address.0.sin6 };
        assert_eq!(libc::c_int::from(raw.sin6_family), libc::AF_INET6);
        assert_eq!(raw.sin6_port.to_ne_bytes(), 4420_u16.to_be_bytes());
        assert_eq!(raw.sin6_scope_id, 3);
        assert_eq!(raw.sin6_addr.s6_addr[..2], [0xfe, 0x80]);
    }

    #[test]
    fn the_port_can_be_left_open() {
        let address = SocketAddress::from(SocketAddr::from(([10, 9, 8, 7], 4420)));
        let open = SocketAddress::any_port_of(&address.0).expect("it is an IPv4 address");
        // SAFETY: the copy is of an IPv4 address, and every byte is initialised.
        let raw = unsafe { open.0.sin };
        assert_eq!(raw.sin_port, 0);
        assert_eq!(raw.sin_addr.s_addr.to_ne_bytes(), [10, 9, 8, 7]);
    }
}
