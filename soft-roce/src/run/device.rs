//! The RDMA devices of a guest, and the network each is at.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The bed's address inside every guest: the first RDMA device, and the target.
pub const ADDRESS: &str = "10.10.10.1";

/// IPv6 address of the same interface.
pub const ADDRESS_V6: &str = "fd10:10:10::1";

/// The address of siw where there is rxe as well.
pub const SECOND_ADDRESS: &str = "10.10.11.1";

/// IPv6 address of the second interface.
pub const SECOND_ADDRESS_V6: &str = "fd10:10:11::1";

/// The kind of RDMA device that a guest has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Device {
    /// Soft-RoCE: `rxe0` at [`ADDRESS`].
    #[default]
    Rxe,
    /// Soft-iWARP: `siw0` at [`ADDRESS`], so that target files and tests need no change.
    Siw,
    /// `rxe0` at [`ADDRESS`] and `siw0` at [`SECOND_ADDRESS`].
    Both,
}

/// One RDMA device on a network device of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) name: &'static str,
    /// The driver, as `rdma link add` names it.
    pub(crate) kind: &'static str,
    pub(crate) netdev: &'static str,
    pub(crate) address: &'static str,
    pub(crate) address_v6: &'static str,
}

const RXE: Link =
    Link { name: "rxe0", kind: "rxe", netdev: "dum0", address: ADDRESS, address_v6: ADDRESS_V6 };

const SIW: Link = Link { name: "siw0", kind: "siw", ..RXE };

const SECOND_SIW: Link =
    Link { netdev: "dum1", address: SECOND_ADDRESS, address_v6: SECOND_ADDRESS_V6, ..SIW };

impl Device {
    /// The word for it on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rxe => "rxe",
            Self::Siw => "siw",
            Self::Both => "both",
        }
    }

    /// The devices to make, the one at [`ADDRESS`] first.
    pub(crate) fn links(self) -> &'static [Link] {
        match self {
            Self::Rxe => &[RXE],
            Self::Siw => &[SIW],
            Self::Both => &[RXE, SECOND_SIW],
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            // Empty is what an environment variable is when it was meant to be unset.
            "" | "rxe" => Ok(Self::Rxe),
            "siw" => Ok(Self::Siw),
            "both" => Ok(Self::Both),
            other => Err(Error::Usage(format!("no device {other:?}; known are rxe, siw, both"))),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed() {
        for device in [Device::Rxe, Device::Siw, Device::Both] {
            assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
        }
        assert_eq!("".parse::<Device>().unwrap(), Device::default());
        let error = "mlx5".parse::<Device>().unwrap_err().to_string();
        assert!(error.contains("mlx5") && error.contains("siw"), "{error}");
    }

    #[test]
    fn the_bed_s_address_is_always_there_and_nothing_twice() {
        for device in [Device::Rxe, Device::Siw, Device::Both] {
            let links = device.links();
            assert_eq!((links[0].address, links[0].netdev), (ADDRESS, "dum0"));
        }
        let [rxe, siw] = Device::Both.links() else { panic!("two devices") };
        assert!(rxe.name != siw.name && rxe.netdev != siw.netdev && rxe.address != siw.address);
    }
}
