//! Who this host is: /etc/nvme as nvme-cli keeps it, or a name that stays the same.

use std::fs;

use rdma_host::HostIdentity;
use rdma_host::wire::Nqn;
use uuid::Uuid;

use crate::failure::Failure;

/// Names host identifiers made of a machine id, so that they tell nothing about it.
const MACHINE_NAMESPACE: Uuid = Uuid::from_u128(0x7f0c_66a2_42d5_4be4_9d0c_2a54_9f3e_1c70);

/// The host's identity: what the options say, else /etc/nvme/hostnqn and hostid, else one made of
/// the machine id (which survives reboots), else a random one.
pub(crate) fn identity(nqn: Option<&str>, id: Option<Uuid>) -> Result<HostIdentity, Failure> {
    let nqn = match nqn {
        Some(nqn) => Some(parse(nqn, "--hostnqn")?),
        None => {
            file("/etc/nvme/hostnqn").map(|nqn| parse(&nqn, "/etc/nvme/hostnqn")).transpose()?
        }
    };
    let id = match (id, &nqn) {
        (Some(id), _) => id,
        (None, Some(nqn)) => uuid_inside(nqn).or_else(id_file).unwrap_or_else(machine_id),
        (None, None) => id_file().unwrap_or_else(machine_id),
    };
    Ok(HostIdentity { nqn: nqn.unwrap_or_else(|| Nqn::from_host_id(id)), id })
}

fn parse(nqn: &str, origin: &str) -> Result<Nqn, Failure> {
    nqn.parse().map_err(|error| Failure::usage(format!("{origin}: {error}")))
}

/// By convention the host identifier is the UUID inside the NQN.
fn uuid_inside(nqn: &Nqn) -> Option<Uuid> {
    nqn.as_str().rsplit_once("uuid:").and_then(|(_, uuid)| uuid.parse().ok())
}

fn id_file() -> Option<Uuid> {
    file("/etc/nvme/hostid").and_then(|id| id.parse().ok())
}

fn machine_id() -> Uuid {
    match file("/etc/machine-id") {
        Some(machine) => Uuid::new_v5(&MACHINE_NAMESPACE, machine.as_bytes()),
        None => Uuid::new_v4(),
    }
}

/// The first line of a file that exists and is not empty.
fn file(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_the_one_in_the_name() {
        let nqn = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-0000-000000000001";
        let identity = identity(Some(nqn), None).unwrap();
        assert_eq!(identity.id, Uuid::from_u128(1));
        assert_eq!(identity.nqn.as_str(), nqn);
    }

    #[test]
    fn without_a_name_it_is_made_of_the_id() {
        let id = Uuid::from_u128(7);
        let named = HostIdentity::from_id(id);
        if file("/etc/nvme/hostnqn").is_none() {
            assert_eq!(identity(None, Some(id)).unwrap(), named);
        }
        assert_eq!(identity(None, None).unwrap(), identity(None, None).unwrap());
    }

    #[test]
    fn a_wrong_name_is_a_usage_error() {
        assert_eq!(identity(Some("host"), None).unwrap_err().exit_code(), 2);
    }
}
