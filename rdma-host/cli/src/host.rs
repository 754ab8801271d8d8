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
    identity_from(nqn, id, first_line)
}

/// The same, with the first line of a file given by `file`.
fn identity_from(
    nqn: Option<&str>,
    id: Option<Uuid>,
    file: impl Fn(&str) -> Option<String>,
) -> Result<HostIdentity, Failure> {
    let id_file = || file("/etc/nvme/hostid").and_then(|id| id.parse().ok());
    let machine_id = || match file("/etc/machine-id") {
        Some(machine) => Uuid::new_v5(&MACHINE_NAMESPACE, machine.as_bytes()),
        None => Uuid::new_v4(),
    };
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

/// The first line of a file that exists and is not empty.
fn first_line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMED: &str = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-0000-000000000001";

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn the_id_is_the_one_in_the_name() {
        let identity = identity_from(Some(NAMED), None, nothing).unwrap();
        assert_eq!(identity.id, Uuid::from_u128(1));
        assert_eq!(identity.nqn.as_str(), NAMED);
    }

    #[test]
    fn the_files_of_nvme_cli_come_before_the_machine_id() {
        let files = |path: &str| match path {
            "/etc/nvme/hostnqn" => Some("nqn.x".to_owned()),
            "/etc/nvme/hostid" => Some(Uuid::from_u128(2).to_string()),
            _ => Some("machine".to_owned()),
        };
        let identity = identity_from(None, None, files).unwrap();
        assert_eq!((identity.nqn.as_str(), identity.id), ("nqn.x", Uuid::from_u128(2)));
    }

    #[test]
    fn without_files_it_is_made_of_the_machine_id() {
        let files = |path: &str| (path == "/etc/machine-id").then(|| "machine".to_owned());
        let identity = identity_from(None, None, files).unwrap();
        assert_eq!(identity, identity_from(None, None, files).unwrap());
        assert_eq!(identity, HostIdentity::from_id(identity.id));
        assert!(!identity.nqn.as_str().contains("machine"));
    }

    #[test]
    fn without_a_machine_id_it_is_random() {
        let identity = || identity_from(None, None, nothing).unwrap();
        assert_ne!(identity(), identity());
        let id = Uuid::from_u128(7);
        assert_eq!(identity_from(None, Some(id), nothing).unwrap(), HostIdentity::from_id(id));
    }

    #[test]
    fn a_wrong_name_is_a_usage_error() {
        assert_eq!(identity_from(Some("host"), None, nothing).unwrap_err().exit_code(), 2);
    }
}
