//! Connections that a configuration describes: each path with all parameters that apply to it.
//!
//! A controller line takes precedence over its section, that over the section of the host, and that
//! over the defaults for its kind: of its own file, then of the main file (libnvme 3,
//! config-resolve.c).

use std::path::PathBuf;

use rdma_host::wire::Nqn;

use super::{Address, Configuration, Document, EndpointKind, Parameters};
use crate::failure::Failure;

/// Controller to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Kind of the subsystem.
    pub kind: EndpointKind,
    /// NQN of the subsystem.
    pub subsystem: String,
    /// Address of the controller.
    pub address: Address,
    /// Host NQN and identifier, if not the system's own.
    pub hostnqn: Option<String>,
    /// Host identifier, if not the system's own.
    pub hostid: Option<String>,
    /// Parameters of the connection.
    pub parameters: Parameters,
    /// File and line of the path.
    pub path: PathBuf,
    /// Line of the file that it is from.
    pub line: usize,
}

impl Configuration {
    /// All controllers, in the order of the files.
    pub fn connections(&self) -> Result<Vec<Connection>, Failure> {
        self.check_hosts().map_err(Failure::usage)?;
        let main = self.files.iter().find(|file| !file.drop_in);
        Ok(self.files.iter().flat_map(|file| file.connections(main)).collect())
    }

    /// Checks that each host has one name and one identifier, and shares neither with another:
    /// targets know hosts by both.
    fn check_hosts(&self) -> Result<(), String> {
        let hosts = self.files.iter().filter_map(|file| Some((file, file.host.as_ref()?)));
        let hosts: Vec<_> = hosts.collect();
        for (index, (file, host)) in hosts.iter().enumerate() {
            let says = |text: String| Err(format!("{}: {text}", file.path.display()));
            if file.drop_in && host.nqn.is_none() {
                return says("[Host] of a drop-in lacks hostnqn; name the host it is for".into());
            }
            for (other_file, other) in &hosts[..index] {
                if host == other {
                    continue;
                }
                let other_path = other_file.path.display();
                let same = |one: &Option<String>, two: &Option<String>| one.is_some() && one == two;
                if same(&host.nqn, &other.nqn) {
                    let nqn = host.nqn.as_deref().unwrap_or_default();
                    return says(format!(
                        "hostnqn {nqn} is used in {other_path} too; put all of a host's \
                         connections into one file, with one hostid"
                    ));
                }
                if same(&host.id, &other.id) && host.nqn.is_some() && other.nqn.is_some() {
                    let id = host.id.as_deref().unwrap_or_default();
                    return says(format!(
                        "hostid {id} is that of another host in {other_path}; `uuidgen` makes \
                         another"
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Document {
    fn connections(&self, main: Option<&Self>) -> Vec<Connection> {
        let base = |kind| {
            let mut base = Parameters::default();
            let main = main.filter(|main| main.path != self.path);
            for file in main.into_iter().chain([self]) {
                let defaults = match kind {
                    EndpointKind::Discovery => &file.discovery_defaults,
                    EndpointKind::Subsystem => &file.io_defaults,
                };
                defaults.iter().for_each(|defaults| base.overlay(defaults));
            }
            self.host.iter().for_each(|host| base.overlay(&host.parameters));
            base
        };
        let mut connections = Vec::new();
        for endpoint in &self.endpoints {
            for route in &endpoint.paths {
                let mut parameters = base(endpoint.kind);
                parameters.overlay(&endpoint.parameters);
                parameters.overlay(&route.parameters);
                let nqn = endpoint.nqn.as_deref().unwrap_or(Nqn::DISCOVERY);
                connections.push(Connection {
                    kind: endpoint.kind,
                    subsystem: nqn.to_owned(),
                    address: route.address.clone(),
                    hostnqn: self.host.as_ref().and_then(|host| host.nqn.clone()),
                    hostid: self.host.as_ref().and_then(|host| host.id.clone()),
                    parameters,
                    path: self.path.clone(),
                    line: route.line,
                });
            }
        }
        connections
    }
}
