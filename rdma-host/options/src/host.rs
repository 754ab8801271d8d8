//! Identity of this host: from /etc/nvme, as nvme-cli keeps it, or made of the machine id.

use std::{fmt, io::ErrorKind, path::Path};

use rdma_host::{HostIdentity, wire::Nqn};
use uuid::Uuid;

use crate::{failure::Failure, option_value, program, text_file};

/// UUID namespace of host identifiers that are hashes of a machine id, which they do not disclose.
const MACHINE_NAMESPACE: Uuid = Uuid::from_u128(0x7f0c_66a2_42d5_4be4_9d0c_2a54_9f3e_1c70);

const NQN_FILE: &str = "/etc/nvme/hostnqn";
const ID_FILE: &str = "/etc/nvme/hostid";

/// Files with an identifier of this machine that survives a reboot, the best first.
const MACHINE_FILES: [&str; 3] = ["/etc/machine-id", "/var/lib/dbus/machine-id", PRODUCT_FILE];

/// File with the identifier of the board, which only root may read.
const PRODUCT_FILE: &str = "/sys/class/dmi/id/product_uuid";

/// Text in place of a machine id until the first boot has ended (machine-id(5)): that of many
/// machines.
const UNINITIALIZED: &str = "uninitialized";

/// Most bytes of a file with an identifier.
const BYTES_MAX: usize = 4096;

/// First line of a file, none if the file is missing, or the reason for which it can't be read.
type FirstLine = Result<Option<String>, Failure>;

/// File with an identifier that lasts until the next boot.
const BOOT_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// Host's identity: from the options, else from /etc/nvme/hostnqn and hostid, else made of the
/// machine id, which survives reboots, or without one of the boot id. It never differs from run to
/// run: targets know hosts by it. A file that is there and can't be read is an error: another
/// identity would take its place.
///
/// A warning on standard error says that an identity will not last. A name and an identifier that
/// do not belong together are reported with `--verbose` and by `nvmf config show`: some
/// distributions install nvme-cli that way.
pub fn identity(nqn: Option<&str>, id: Option<Uuid>) -> Result<HostIdentity, Failure> {
    let (identity, warnings) = identity_from(nqn, id, |path| first_line(Path::new(path)))?;
    for warning in warnings {
        match warning {
            IdentityWarning::Mismatch { .. } => tracing::warn!("{warning}"),
            IdentityWarning::Boot => program::warn(format_args!("{warning}")),
        }
    }
    Ok(identity)
}

/// Identifier for a host of this name: the UUID inside it, else a hash of it.
pub fn id_for(nqn: &str) -> Uuid {
    let inside = nqn.parse().ok().as_ref().and_then(uuid_inside);
    inside.unwrap_or_else(|| Uuid::new_v5(&MACHINE_NAMESPACE, nqn.as_bytes()))
}

/// Identity without options, and the warnings about it.
pub fn system_identity() -> Result<(HostIdentity, Vec<IdentityWarning>), Failure> {
    identity_from(None, None, |path| first_line(Path::new(path)))
}

/// Weakness of an identity that can be used.
#[derive(Debug, PartialEq, Eq)]
pub enum IdentityWarning {
    /// An identity that lasts until the next boot.
    Boot,
    /// A name that holds another identifier.
    Mismatch {
        /// Host NQN.
        nqn: Nqn,
        /// Host identifier.
        id: Uuid,
    },
}

impl fmt::Display for IdentityWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boot => write!(
                f,
                "this host has no machine id; its identity lasts until the next boot. Write a UUID \
                 into {ID_FILE} to keep it"
            ),
            Self::Mismatch { nqn, id } => write!(
                f,
                "host identifier {id} is not the UUID inside host NQN {nqn}; targets may take us \
                 for two hosts. Write one of them into both {NQN_FILE} and {ID_FILE}"
            ),
        }
    }
}

/// Identity and its warnings; `file` returns the first line of a file.
///
/// A given host identifier takes precedence over the UUID inside the name, as in nvme-cli: the
/// kernel's initiator on this host then has the same identity.
fn identity_from(
    nqn: Option<&str>,
    id: Option<Uuid>,
    file: impl Fn(&str) -> FirstLine,
) -> Result<(HostIdentity, Vec<IdentityWarning>), Failure> {
    let mut warnings = Vec::new();
    let nqn_given = nqn.is_some();
    let nqn = match nqn {
        Some(nqn) => Some(parse(nqn)?),
        None => file(NQN_FILE)?.map(|nqn| parse_nqn_file(&nqn)).transpose()?,
    };
    let inside = nqn.as_ref().and_then(uuid_inside);
    let id_file = || file(ID_FILE)?.map(|id| parse_id(&id)).transpose();
    let id = match (id, inside) {
        (Some(id), _) => Some(id),
        // The identifier on file belongs to the name on file.
        (None, Some(inside)) if nqn_given => Some(inside),
        (None, inside) => id_file()?.or(inside),
    };
    let id = match id {
        Some(id) => id,
        None => machine_id(&file, &mut warnings)?,
    };
    if let (Some(nqn), Some(inside)) = (&nqn, inside)
        && inside != id
    {
        warnings.push(IdentityWarning::Mismatch { nqn: nqn.clone(), id });
    }
    let nqn = nqn.unwrap_or_else(|| Nqn::from_host_id(id));
    Ok((HostIdentity { nqn, id }, warnings))
}

/// Identifier made of the machine id or the boot id.
fn machine_id(
    file: &impl Fn(&str) -> FirstLine,
    warnings: &mut Vec<IdentityWarning>,
) -> Result<Uuid, Failure> {
    let made_of = |text: &str| Uuid::new_v5(&MACHINE_NAMESPACE, text.as_bytes());
    for path in MACHINE_FILES {
        match file(path) {
            Ok(Some(line)) if !line.is_empty() && line != UNINITIALIZED => {
                return Ok(made_of(&line));
            }
            Err(failure) if path != PRODUCT_FILE => return Err(failure),
            _ => {}
        }
    }
    let Some(boot) = file(BOOT_FILE)? else {
        let text = format!(
            "nothing says who this host is; write a UUID into {ID_FILE}, or give \
                            --hostid"
        );
        return Err(Failure::usage(text));
    };
    warnings.push(IdentityWarning::Boot);
    Ok(made_of(&boot))
}

fn parse(nqn: &str) -> Result<Nqn, Failure> {
    nqn.parse().map_err(|error| Failure::usage(format!("--hostnqn: {error}")))
}

/// Name on file. An error does not quote it.
fn parse_nqn_file(line: &str) -> Result<Nqn, Failure> {
    if line.is_empty() {
        return Err(Failure::usage(format!(
            "{NQN_FILE}:1: the line is blank; write a host NQN, as `nvme gen-hostnqn` makes one, \
             or remove the file"
        )));
    }
    let nqn = option_value::nqn(&format!("{NQN_FILE}:1"), line).map_err(Failure::usage)?;
    parse(&nqn)
}

fn parse_id(text: &str) -> Result<Uuid, Failure> {
    let id = text.parse().ok().filter(|id: &Uuid| !id.is_nil());
    let wrong = || {
        let reason = "a host identifier is a UUID that is not zero; `uuidgen` makes one";
        Failure::usage(format!("{ID_FILE}:1: {reason}"))
    };
    id.ok_or_else(wrong)
}

/// UUID inside the NQN, which by convention is the host identifier.
fn uuid_inside(nqn: &Nqn) -> Option<Uuid> {
    nqn.as_str().rsplit_once("uuid:").and_then(|(_, uuid)| uuid.parse().ok())
}

/// First line of a file. A link to a file that is missing is not a missing file.
fn first_line(path: &Path) -> FirstLine {
    let read = text_file::open(path).and_then(|(file, _)| text_file::read(file, BYTES_MAX));
    match read {
        Ok(text) => Ok(Some(text.lines().next().unwrap_or_default().trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => Ok(None),
        Err(error) => Err(Failure::usage(format!(
            "{}: {error}; without it this host would have another identity",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NAMED: &str = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-0000-000000000001";

    fn nothing(_: &str) -> FirstLine {
        Ok(None)
    }

    /// An identity without warnings.
    fn without_warnings(
        nqn: Option<&str>,
        id: Option<Uuid>,
        file: impl Fn(&str) -> FirstLine,
    ) -> HostIdentity {
        let (identity, warnings) = identity_from(nqn, id, file).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        identity
    }

    #[test]
    fn the_id_is_the_one_in_the_name() {
        let identity = without_warnings(Some(NAMED), None, nothing);
        assert_eq!(identity.id, Uuid::from_u128(1));
        assert_eq!(identity.nqn.as_str(), NAMED);
        // The identifier on file belongs to another name.
        let files = |path: &str| Ok((path == ID_FILE).then(|| Uuid::from_u128(2).to_string()));
        assert_eq!(without_warnings(Some(NAMED), None, files).id, Uuid::from_u128(1));
    }

    #[test]
    fn the_files_of_nvme_cli_come_before_the_machine_id() {
        let files = |path: &str| match path {
            NQN_FILE => Ok(Some("nqn.x".to_owned())),
            ID_FILE => Ok(Some(Uuid::from_u128(2).to_string())),
            _ => Ok(Some("machine".to_owned())),
        };
        let identity = without_warnings(None, None, files);
        assert_eq!((identity.nqn.as_str(), identity.id), ("nqn.x", Uuid::from_u128(2)));
    }

    #[test]
    fn files_that_disagree_are_told_and_the_id_on_file_counts() {
        let files = |path: &str| match path {
            NQN_FILE => Ok(Some(NAMED.to_owned())),
            _ => Ok(Some(Uuid::from_u128(2).to_string())),
        };
        let (identity, warnings) = identity_from(None, None, files).unwrap();
        assert_eq!((identity.nqn.as_str(), identity.id), (NAMED, Uuid::from_u128(2)));
        assert!(warnings[0].to_string().contains("two hosts"), "{warnings:?}");
        let (_, warnings) = identity_from(Some(NAMED), Some(Uuid::from_u128(3)), nothing).unwrap();
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn an_id_on_file_that_is_none_is_an_error() {
        for wrong in ["", "x", "00000000-0000-0000-0000-000000000000"] {
            let files = |path: &str| Ok((path == ID_FILE).then(|| wrong.to_owned()));
            let error = identity_from(None, None, files).unwrap_err();
            assert!(error.to_string().contains("/etc/nvme/hostid:1"), "{error}");
        }
    }

    #[test]
    fn without_files_it_is_made_of_the_machine_id() {
        for machine_file in MACHINE_FILES {
            let files = |path: &str| Ok((path == machine_file).then(|| "machine".to_owned()));
            let identity = without_warnings(None, None, files);
            assert_eq!(identity, without_warnings(None, None, files));
            assert_eq!(identity, HostIdentity::from_id(identity.id));
            assert!(!identity.nqn.as_str().contains("machine"));
        }
    }

    /// An identity of another host, or a new one, would take its place.
    #[test]
    fn an_identity_that_cannot_be_read_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let below = |path: &str| root.path().join(path.trim_start_matches('/'));
        let system = || identity_from(None, None, |path| first_line(&below(path)));
        for path in [NQN_FILE, ID_FILE, MACHINE_FILES[0], BOOT_FILE] {
            fs::create_dir_all(below(path).parent().unwrap()).unwrap();
        }
        fs::write(below(MACHINE_FILES[0]), "machine\n").unwrap();
        assert!(system().is_ok());
        for path in [NQN_FILE, ID_FILE, MACHINE_FILES[0]] {
            let identity = below(path);
            let _ = fs::remove_file(&identity);
            let refused = |what: &str| {
                let failure = system().unwrap_err();
                assert_eq!(failure.exit_code(), 2, "{path}, {what}");
                assert!(failure.to_string().contains(path), "{what}: {failure}");
                let _ = fs::remove_file(&identity);
            };
            fs::write(&identity, b"nqn.\xff\n").unwrap();
            refused("not UTF-8");
            std::os::unix::fs::symlink("/nowhere/identity", &identity).unwrap();
            refused("a dangling link");
            std::os::unix::fs::symlink("/dev/zero", &identity).unwrap();
            refused("a device");
            fs::write(&identity, "x".repeat(BYTES_MAX + 1)).unwrap();
            refused("too large");
            if path != MACHINE_FILES[0] {
                fs::write(&identity, "\nnqn.second\n").unwrap();
                refused("the first line is blank");
                fs::write(&identity, "").unwrap();
                refused("empty");
                fs::write(&identity, "DHHC-1:00:c2VjcmV0:\n").unwrap();
                assert!(!system().unwrap_err().to_string().contains("DHHC"));
                fs::remove_file(&identity).unwrap();
            }
            fs::create_dir(&identity).unwrap();
            refused("a folder");
            fs::remove_dir(&identity).unwrap();
        }
        // A machine id that is not yet made is that of many machines.
        fs::write(below(BOOT_FILE), "boot\n").unwrap();
        for unmade in ["", "uninitialized\n"] {
            fs::write(below(MACHINE_FILES[0]), unmade).unwrap();
            assert_eq!(system().unwrap().1, [IdentityWarning::Boot]);
        }
    }

    #[test]
    fn an_unreadable_file_is_an_error_for_users_but_that_of_the_board() {
        let unreadable = |which: &'static str| {
            move |path: &str| match path {
                _ if path == which => Err(Failure::usage("permission denied")),
                BOOT_FILE => Ok(Some("boot".to_owned())),
                _ => Ok(None),
            }
        };
        for path in [NQN_FILE, ID_FILE, MACHINE_FILES[0], MACHINE_FILES[1]] {
            assert!(identity_from(None, None, unreadable(path)).is_err(), "{path}");
        }
        let (_, warnings) = identity_from(None, None, unreadable(PRODUCT_FILE)).unwrap();
        assert_eq!(warnings, [IdentityWarning::Boot]);
    }

    #[test]
    fn without_a_machine_id_it_lasts_until_the_next_boot() {
        let booted = |id: &'static str| {
            let files = move |path: &str| Ok((path == BOOT_FILE).then(|| id.to_owned()));
            let (identity, warnings) = identity_from(None, None, files).unwrap();
            assert_eq!(warnings, [IdentityWarning::Boot]);
            identity
        };
        assert_eq!(booted("one"), booted("one"));
        assert_ne!(booted("one"), booted("two"));
        assert_eq!(identity_from(None, None, nothing).unwrap_err().exit_code(), 2);
        let id = Uuid::from_u128(7);
        assert_eq!(without_warnings(None, Some(id), nothing), HostIdentity::from_id(id));
    }

    #[test]
    fn every_name_has_an_id_of_its_own() {
        assert_eq!(id_for(NAMED), Uuid::from_u128(1));
        assert_eq!(id_for("nqn.x"), id_for("nqn.x"));
        assert_ne!(id_for("nqn.x"), id_for("nqn.y"));
    }

    #[test]
    fn a_wrong_name_is_a_usage_error() {
        assert_eq!(identity_from(Some("my host"), None, nothing).unwrap_err().exit_code(), 2);
    }
}
