//! Removal of a target.

use super::{
    TargetRoot,
    configfs::{Node, names},
    passthru,
    up::Record,
};
use crate::{Error, Result};

impl TargetRoot {
    /// Removes the objects that were made here; in a guest, all objects. Succeeds without any.
    ///
    /// # Errors
    ///
    /// The kernel's first refusal; all other objects have been removed.
    pub fn down(&self) -> Result<()> {
        let Ok(nvmet) = self.nvmet() else { return Ok(()) };
        let mut record = Record::load(self);
        if self.exclusive {
            record.subsystems = names(&nvmet.join("subsystems"));
            record.hosts = names(&nvmet.join("hosts"));
            let ports = names(&nvmet.join("ports"));
            record.ports = ports.iter().filter_map(|id| id.parse().ok()).collect();
        }
        record.remove(self)?;
        Record::default().store(self)
    }
}

impl Record {
    /// Removes all objects, in the order that the kernel asks for; goes on after a failure and
    /// returns the first.
    pub(super) fn remove(&self, root: &TargetRoot) -> Result<()> {
        let mut failures = Failures::default();
        // While the other subsystem is still there: its end is not a loss that is waited for.
        for nqn in &self.subsystems {
            failures.take(self.remove_passthru(root, nqn));
        }
        for controller in &self.controllers {
            failures.take(passthru::disconnect(controller));
        }
        for &id in &self.ports {
            failures.take(root.port(id).and_then(|port| remove_port(&port)));
        }
        for nqn in &self.subsystems {
            failures.take(root.subsystem(nqn).and_then(|node| remove_subsystem(&node)));
        }
        for nqn in &self.hosts {
            failures.take(root.host(nqn).and_then(|host| host.remove()));
        }
        for backing in &self.backings {
            failures.take(backing.remove(root));
        }
        failures.first.map_or(Ok(()), Err)
    }
}

impl Record {
    /// Ends the controllers of a subsystem whose commands pass through, and that they do so.
    fn remove_passthru(&self, root: &TargetRoot, nqn: &str) -> Result<()> {
        let node = root.passthru(nqn)?;
        if node.get("enable") != "1" {
            return Ok(());
        }
        for &id in &self.ports {
            let port = root.port(id)?;
            if port.list("subsystems").iter().any(|one| one == nqn) {
                port.unlink("subsystems", nqn)?;
            }
        }
        node.set("enable", "0")
    }
}

/// The first of several failures.
#[derive(Default)]
struct Failures {
    first: Option<Error>,
}

impl Failures {
    fn take(&mut self, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.first.get_or_insert(error);
        }
    }
}

fn remove_port(port: &Node) -> Result<()> {
    for nqn in port.list("subsystems") {
        port.unlink("subsystems", &nqn)?;
    }
    for group in port.list("ana_groups") {
        // Group 1 belongs to the port and goes with it.
        if group != "1" {
            port.below("ana_groups", &group).remove()?;
        }
    }
    for referral in port.list("referrals") {
        port.below("referrals", &referral).remove()?;
    }
    port.remove()
}

fn remove_subsystem(subsystem: &Node) -> Result<()> {
    for nsid in subsystem.list("namespaces") {
        let namespace = subsystem.below("namespaces", &nsid);
        if namespace.get("enable") == "1" {
            namespace.set("enable", "0")?;
        }
        namespace.remove()?;
    }
    for host in subsystem.list("allowed_hosts") {
        subsystem.unlink("allowed_hosts", &host)?;
    }
    subsystem.remove()
}

impl Node {
    fn below(&self, folder: &str, name: &str) -> Self {
        let object = format!("{}: {name} of {folder}", self.object);
        Self { path: self.path.join(folder).join(name), object }
    }
}
