//! Lookup of a subsystem in a configuration, for commands that have one target.

use std::path::Path;

use rdma_host::{config::AuthenticationOptions, wire::Nqn};

use super::{Configuration, Connection, EndpointKind, GivenOptions};
use crate::{failure::Failure, program};

/// Connection to a subsystem over RDMA, of the configuration in `file` or in /etc/nvme; of several
/// paths to the subsystem, the first. `name` is its NQN, or what follows the last colon in it.
///
/// # Errors
///
/// A usage error if no subsystem, or several, have this name.
pub fn configured_connection(file: Option<&Path>, name: &str) -> Result<Connection, Failure> {
    let configuration = Configuration::load_with_warnings(file)?;
    configuration.check_secrecy()?;
    let mut found = configuration.connections()?;
    found.retain(|one| one.is_subsystem() && is_named(&one.subsystem, name));
    if found.iter().any(|one| one.subsystem == name) {
        found.retain(|one| one.subsystem == name);
    }
    let mut names: Vec<_> = found.iter().map(|one| one.subsystem.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    match names.as_slice() {
        [] => Err(Failure::usage(format!(
            "the configuration has no subsystem @{name} over RDMA; `nvmf config show` lists all"
        ))),
        [_] => Ok(found.swap_remove(0)),
        several => Err(Failure::usage(format!(
            "@{name} stands for {}; give a whole NQN",
            several.join(" and ")
        ))),
    }
}

/// Authentication options for a subsystem that was named by its address: those of the command line,
/// with the secrets that the configuration has for the subsystem and this host.
///
/// # Errors
///
/// When the configuration asks for encryption of this connection, or the one in `file` can't be
/// read. One in /etc/nvme that can't is warned of.
pub fn configured_authentication(
    file: Option<&Path>,
    subsystem: &Nqn,
    host: &Nqn,
    given: &GivenOptions,
) -> Result<AuthenticationOptions, Failure> {
    let connections =
        Configuration::load_or_default(file).and_then(|loaded| Ok((loaded.connections()?, loaded)));
    let (connections, configuration) = match connections {
        Ok(loaded) => loaded,
        Err(failure) if file.is_none() => {
            program::warn(format_args!("{failure}; secrets of the configuration are not used"));
            return Ok(given.authentication.clone());
        }
        Err(failure) => return Err(failure),
    };
    let is_of_host = |one: &Connection| match &one.hostnqn {
        Some(nqn) => nqn == host.as_str(),
        None => given.hostnqn.is_none(),
    };
    let mut of_subsystem = connections
        .iter()
        .filter(|one| one.is_subsystem() && one.subsystem == subsystem.as_str() && is_of_host(one));
    for connection in of_subsystem.clone() {
        connection.check_encryption().map_err(|failure| failure.context(connection.place()))?;
    }
    match of_subsystem.find(|one| one.parameters.has_secret()) {
        Some(connection) => {
            configuration.check_secrecy()?;
            connection.authentication(given)
        }
        None => Ok(given.authentication.clone()),
    }
}

fn is_named(nqn: &str, name: &str) -> bool {
    nqn == name || nqn.rsplit_once(':').is_some_and(|(_, last)| last == name)
}

impl Connection {
    /// True for a subsystem over RDMA.
    fn is_subsystem(&self) -> bool {
        self.kind == EndpointKind::Subsystem && self.address.transport.eq_ignore_ascii_case("rdma")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subsystem_is_named_by_its_nqn_or_the_end_of_it() {
        assert!(is_named("nqn.2014-08.org.example:disk", "disk"));
        assert!(is_named("nqn.2014-08.org.example:disk", "nqn.2014-08.org.example:disk"));
        assert!(is_named("nvmet-test", "nvmet-test"));
        for other in ["isk", "example:disk", "", "nqn"] {
            assert!(!is_named("nqn.2014-08.org.example:disk", other), "{other}");
        }
    }
}
