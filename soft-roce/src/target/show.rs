//! State of the target.

use std::fmt;

use serde::Serialize;

use super::configfs::{Node, TargetRoot, names};
use crate::Result;

/// State of the target.
#[derive(Clone, Debug, Serialize)]
pub struct State {
    /// The subsystems.
    pub subsystems: Vec<SubsystemState>,
    /// The ports.
    pub ports: Vec<PortState>,
}

/// A subsystem.
#[derive(Clone, Debug, Serialize)]
pub struct SubsystemState {
    /// NQN of the subsystem.
    pub nqn: String,
    /// Every host may connect.
    pub allow_any_host: bool,
    /// The hosts that may connect.
    pub hosts: Vec<String>,
    /// The highest queue id.
    pub qid_max: String,
    /// The namespaces.
    pub namespaces: Vec<NamespaceState>,
    /// Device of the controller that its commands pass through to.
    pub passthru: Option<String>,
    /// Controllers that are connected; unknown where the kernel does not tell, because it was built
    /// without `NVME_TARGET_DEBUGFS`.
    pub controllers: Option<Vec<Controller>>,
}

/// A namespace.
#[derive(Clone, Debug, Serialize)]
pub struct NamespaceState {
    /// Namespace id.
    pub nsid: String,
    /// The namespace is enabled.
    pub enabled: bool,
    /// Path of the backing device.
    pub device: String,
    /// ANA group.
    pub ana_group: String,
}

/// A controller: the association of a host with a subsystem.
#[derive(Clone, Debug, Serialize)]
pub struct Controller {
    /// Name of the controller, `ctrl` and its number.
    pub name: String,
    /// The host.
    pub host: String,
    /// State of the controller.
    pub state: String,
}

/// A port.
#[derive(Clone, Debug, Serialize)]
pub struct PortState {
    /// Number of the port.
    pub id: String,
    /// IP address.
    pub address: String,
    /// The port number.
    pub service: String,
    /// Bytes of in-capsule data.
    pub inline_data_size: String,
    /// The largest queue.
    pub max_queue_size: String,
    /// ANA groups with their states.
    pub ana_groups: Vec<(String, String)>,
    /// The subsystems it offers.
    pub subsystems: Vec<String>,
}

impl TargetRoot {
    /// Reads the target's state.
    ///
    /// # Errors
    ///
    /// When this kernel has no target.
    pub fn state(&self) -> Result<State> {
        let nvmet = self.nvmet()?;
        let subsystems = names(&nvmet.join("subsystems"));
        let subsystems = subsystems.iter().map(|nqn| self.subsystem_state(nqn));
        let ports = names(&nvmet.join("ports"));
        let ports = ports
            .iter()
            .map(|id| port_state(&Node { path: nvmet.join("ports").join(id), object: id.clone() }));
        Ok(State { subsystems: subsystems.collect::<Result<_>>()?, ports: ports.collect() })
    }

    fn subsystem_state(&self, nqn: &str) -> Result<SubsystemState> {
        let node = self.subsystem(nqn)?;
        let namespaces = node.list("namespaces").into_iter().map(|nsid| {
            let path = node.path.join("namespaces").join(&nsid);
            namespace_state(&Node { path, object: nsid })
        });
        let debug = self.debug.join("nvmet");
        let controllers = debug.is_dir().then(|| {
            let debug = debug.join(nqn);
            let names = names(&debug).into_iter().filter(|name| name.starts_with("ctrl"));
            names.map(|name| controller(&Node { path: debug.join(&name), object: name })).collect()
        });
        let passthru = self.passthru(nqn)?;
        let passthru = (passthru.get("enable") == "1").then(|| passthru.get("device_path"));
        Ok(SubsystemState {
            passthru,
            nqn: nqn.into(),
            allow_any_host: node.get("attr_allow_any_host") == "1",
            hosts: node.list("allowed_hosts"),
            qid_max: node.get("attr_qid_max"),
            namespaces: namespaces.collect(),
            controllers,
        })
    }
}

fn namespace_state(node: &Node) -> NamespaceState {
    NamespaceState {
        nsid: node.object.clone(),
        enabled: node.get("enable") == "1",
        device: node.get("device_path"),
        ana_group: node.get("ana_grpid"),
    }
}

/// Not the host's address: reading that of a controller whose queues are just ending panics 6.12.
fn controller(node: &Node) -> Controller {
    Controller { name: node.object.clone(), host: node.get("hostnqn"), state: node.get("state") }
}

fn port_state(node: &Node) -> PortState {
    let group = |id: String| {
        let path = node.path.join("ana_groups").join(&id);
        let state = Node { path, object: id.clone() }.get("ana_state");
        (id, state)
    };
    PortState {
        id: node.object.clone(),
        address: node.get("addr_traddr"),
        service: node.get("addr_trsvcid"),
        inline_data_size: node.get("param_inline_data_size"),
        max_queue_size: node.get("param_max_queue_size"),
        ana_groups: node.list("ana_groups").into_iter().map(group).collect(),
        subsystems: node.list("subsystems"),
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.subsystems.is_empty() && self.ports.is_empty() {
            return writeln!(f, "no target is up");
        }
        self.subsystems.iter().try_for_each(|subsystem| subsystem.fmt(f))?;
        self.ports.iter().try_for_each(|port| port.fmt(f))
    }
}

impl fmt::Display for SubsystemState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = if self.allow_any_host { "any host".into() } else { self.hosts.join(" ") };
        let hosts = if hosts.is_empty() { "no host" } else { &hosts };
        writeln!(f, "subsystem {}  for {hosts}, qid_max {}", self.nqn, self.qid_max)?;
        for NamespaceState { nsid, enabled, device, ana_group } in &self.namespaces {
            let state = if *enabled { "enabled" } else { "disabled" };
            writeln!(f, "  namespace {nsid}  {state}, {device}, ANA group {ana_group}")?;
        }
        if let Some(device) = &self.passthru {
            writeln!(f, "  passes its commands through to {device}")?;
        }
        let Some(controllers) = &self.controllers else {
            return writeln!(f, "  controllers: unknown, this kernel lacks NVME_TARGET_DEBUGFS");
        };
        for Controller { name, host, state } in controllers {
            writeln!(f, "  {name}  {state}, {host}")?;
        }
        writeln!(f, "  controllers: {}", controllers.len())
    }
}

impl fmt::Display for PortState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, address, service, inline_data_size, max_queue_size, .. } = self;
        write!(f, "port {id}  {address} {service}, inline_data_size {inline_data_size}")?;
        writeln!(f, ", max_queue_size {max_queue_size}")?;
        for (id, state) in &self.ana_groups {
            writeln!(f, "  ANA group {id}  {state}")?;
        }
        self.subsystems.iter().try_for_each(|nqn| writeln!(f, "  offers {nqn}"))
    }
}
