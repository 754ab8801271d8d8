//! Set-up of a target: all of it or nothing.

use std::{fs, io::Write, net::IpAddr, os::unix::fs::DirBuilderExt};

use serde::{Deserialize, Serialize};

use super::{
    Host, Namespace, Passthru, Port, Referral, SERVICE, Subsystem, Target,
    backing::BackingDevice,
    configfs::{Node, TargetRoot, names},
    passthru,
};
use crate::{Error, Result, run::spec};

/// Record of the objects that were made, for their removal.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) backings: Vec<BackingDevice>,
    /// Controllers of the kernel's initiator.
    #[serde(default)]
    pub(super) controllers: Vec<String>,
    pub(super) hosts: Vec<String>,
    pub(super) ports: Vec<u16>,
    pub(super) subsystems: Vec<String>,
}

impl Record {
    pub(super) fn load(root: &TargetRoot) -> Self {
        let text = fs::read(root.own.join("target.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    pub(super) fn store(&self, root: &TargetRoot) -> Result<()> {
        let text = serde_json::to_vec(self).expect("a record always has a JSON form");
        // Private, because the record decides what `down` removes.
        let mut folder = fs::DirBuilder::new();
        let made = folder.recursive(true).mode(0o700).create(&root.own);
        made.map_err(Error::io("create", &root.own))?;
        let path = root.own.join("target.json");
        let _ = fs::remove_file(&path);
        let written = spec::create_private(&path).and_then(|mut file| file.write_all(&text));
        written.map_err(Error::io("write", &path))
    }

    fn merge(&mut self, other: Self) {
        self.backings.extend(other.backings);
        self.controllers.extend(other.controllers);
        self.hosts.extend(other.hosts);
        self.ports.extend(other.ports);
        self.subsystems.extend(other.subsystems);
    }
}

impl Target {
    /// Sets the target up; when the kernel refuses a part, all of it is removed again.
    ///
    /// # Errors
    ///
    /// What the kernel refused, with its reason.
    pub fn up(&self, root: &TargetRoot) -> Result<()> {
        root.nvmet()?;
        let mut maker = Maker { root, made: Record::default() };
        let outcome = maker.target(self);
        if let Err(error) = outcome {
            // The first error explains any that follow.
            let _ = maker.made.remove(root);
            return Err(error);
        }
        let mut record = Record::load(root);
        record.merge(maker.made);
        record.store(root)
    }
}

struct Maker<'a> {
    root: &'a TargetRoot,
    made: Record,
}

impl Maker<'_> {
    fn target(&mut self, target: &Target) -> Result<()> {
        target.hosts.iter().try_for_each(|host| self.host(host))?;
        target.subsystems.iter().try_for_each(|subsystem| self.subsystem(subsystem))?;
        // Ports last, so that a host that connects finds all objects.
        (1..).zip(&target.ports).try_for_each(|(at, port)| self.port(target, at, port))?;
        let mut all = target.subsystems.iter();
        all.try_for_each(|subsystem| match &subsystem.passthru {
            Some(passthru) => self.passthru(target, &subsystem.nqn, passthru),
            None => Ok(()),
        })
    }

    /// Connects the controller that the commands of a subsystem pass through to, and offers the
    /// subsystem at its ports.
    fn passthru(&mut self, target: &Target, nqn: &str, passthru: &Passthru) -> Result<()> {
        let other = &passthru.subsystem;
        let enabled = target.subsystems.iter().filter(|one| one.nqn == *other);
        let enabled = enabled.flat_map(|one| &one.namespaces);
        let namespaces = enabled.filter(|one| one.enable != Some(false)).count();
        let port = target.port_of(other).expect("a port has it: the file was checked");
        let controller = passthru::connect(other, port, namespaces)?;
        self.made.controllers.push(controller.clone());
        passthru.enable(self.root, nqn, &controller)?;
        let node = self.root.subsystem(nqn)?;
        for (at, port) in (1..).zip(&target.ports) {
            if port.subsystems.as_ref().is_none_or(|all| all.iter().any(|one| one == nqn)) {
                self.root.port(port.id.unwrap_or(at))?.link("subsystems", &node)?;
            }
        }
        Ok(())
    }

    fn host(&mut self, host: &Host) -> Result<()> {
        let node = self.named_host(&host.nqn)?;
        node.set_some("dhchap_hash", host.dhchap_hash.as_ref().map(|hash| full_hash(hash)))?;
        node.set_some("dhchap_dhgroup", host.dhchap_dhgroup.as_ref())?;
        node.set_some("dhchap_key", host.dhchap_key.as_ref())?;
        node.set_some("dhchap_ctrl_key", host.dhchap_ctrl_key.as_ref())
    }

    fn named_host(&mut self, nqn: &str) -> Result<Node> {
        let node = self.root.host(nqn)?;
        if node.create()? {
            self.made.hosts.push(nqn.into());
        }
        Ok(node)
    }

    fn subsystem(&mut self, subsystem: &Subsystem) -> Result<()> {
        let node = self.root.subsystem(&subsystem.nqn)?;
        if !node.create()? {
            let text = format!("{}: there already; `soft-roce target down` first", node.object);
            return Err(Error::Usage(text));
        }
        self.made.subsystems.push(subsystem.nqn.clone());
        node.set("attr_allow_any_host", if subsystem.allows_any_host() { "1" } else { "0" })?;
        node.set_some("attr_serial", subsystem.serial.as_ref())?;
        node.set_some("attr_model", subsystem.model.as_ref())?;
        node.set_some("attr_firmware", subsystem.firmware.as_ref())?;
        node.set_some("attr_version", subsystem.version.as_ref())?;
        // The kernel refuses a lower bound above the upper one.
        node.set_some("attr_cntlid_max", subsystem.cntlid_max)?;
        node.set_some("attr_cntlid_min", subsystem.cntlid_min)?;
        node.set_some("attr_qid_max", subsystem.qid_max)?;
        for host in &subsystem.hosts {
            let host = self.named_host(host)?;
            node.link("allowed_hosts", &host)?;
        }
        let nqn = &subsystem.nqn;
        subsystem.numbered().try_for_each(|(nsid, one)| self.namespace(nqn, nsid, one))
    }

    fn namespace(&mut self, nqn: &str, nsid: u32, namespace: &Namespace) -> Result<()> {
        let name = self.free_name();
        let made = namespace.backing.make(self.root, &name)?;
        let device = made.device();
        self.made.backings.push(made);
        let node = self.root.namespace(nqn, nsid)?;
        node.create()?;
        node.set("device_path", &device.to_string_lossy())?;
        node.set_some("buffered_io", namespace.backing.buffered_io().map(u8::from))?;
        node.set_some("device_uuid", namespace.uuid.as_ref())?;
        node.set_some("device_nguid", namespace.nguid.as_ref())?;
        node.set_some("ana_grpid", namespace.ana_group)?;
        if namespace.enable == Some(false) { Ok(()) } else { node.set("enable", "1") }
    }

    fn port(&mut self, target: &Target, at: u16, port: &Port) -> Result<()> {
        let id = port.id.unwrap_or(at);
        let node = self.root.port(id)?;
        if !node.create()? {
            let text = format!("{}: there already; `soft-roce target down` first", node.object);
            return Err(Error::Usage(text));
        }
        self.made.ports.push(id);
        set_address(&node, port.address(), port.service)?;
        node.set_some("param_inline_data_size", port.inline_data_size)?;
        node.set_some("param_max_queue_size", port.max_queue_size)?;
        node.set_some("param_mdts", port.mdts)?;
        for group in &port.ana_groups {
            let node = self.root.ana_group(id, group.id)?;
            node.create()?;
            node.set("ana_state", group.state.name())?;
        }
        let all = || target.subsystems.iter().map(|subsystem| subsystem.nqn.clone()).collect();
        for nqn in port.subsystems.clone().unwrap_or_else(all) {
            if !target.passes_through(&nqn) {
                node.link("subsystems", &self.root.subsystem(&nqn)?)?;
            }
        }
        (1..).zip(&port.referrals).try_for_each(|(number, one)| self.referral(id, number, one))
    }

    fn referral(&self, port: u16, number: u16, referral: &Referral) -> Result<()> {
        let node = self.root.referral(port, &number.to_string())?;
        node.create()?;
        set_address(&node, referral.address(), referral.service)?;
        node.set("addr_portid", &number.to_string())?;
        node.set("enable", "1")
    }

    /// Name that no backing device has yet; names of block devices are short.
    fn free_name(&self) -> String {
        let taken = [self.root.config.join("nullb"), self.root.own.join("ram")];
        let taken: Vec<_> = taken.iter().flat_map(|folder| names(folder)).collect();
        let numbers = (1..).map(|number: u32| format!("roce{number}"));
        let mut free = numbers.filter(|name| !taken.contains(name));
        free.next().expect("the numbers do not end")
    }
}

/// Sets the transport address of a port or a referral.
fn set_address(node: &Node, address: IpAddr, service: Option<u16>) -> Result<()> {
    node.set("addr_trtype", "rdma")?;
    node.set("addr_adrfam", if address.is_ipv4() { "ipv4" } else { "ipv6" })?;
    node.set("addr_traddr", &address.to_string())?;
    node.set("addr_trsvcid", &service.unwrap_or(SERVICE).to_string())
}

/// The kernel's name of the hash function's HMAC.
pub(super) fn full_hash(hash: &str) -> String {
    if hash.starts_with("hmac(") { hash.into() } else { format!("hmac({hash})") }
}
