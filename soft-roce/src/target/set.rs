//! Changes of a target while it is in use, by which tests cause faults.

use std::path::{Component, Path};

use super::{
    TargetRoot,
    backing::BackingDevice,
    configfs::{Node, child, is_attribute, names},
    up::{Record, full_hash},
};
use crate::{Error, Result};

/// Usage of `set`, for error messages.
const WORDS: &str = "namespace NQN NSID ATTRIBUTE VALUE, ana PORT GROUP STATE, \
                     subsystem NQN ATTRIBUTE VALUE, host NQN ATTRIBUTE VALUE, \
                     port ID ATTRIBUTE VALUE, backing NQN NSID ATTRIBUTE VALUE, or PATH VALUE";

/// Prefixes of the kernel's attribute names that may be left out.
const PREFIXES: [&str; 6] = ["", "attr_", "param_", "addr_", "device_", "dhchap_"];

impl TargetRoot {
    /// Sets what the words name: `subsystem NQN qid_max 1`, `ana 1 2 optimized`, and so on.
    ///
    /// # Errors
    ///
    /// Words that name nothing, or the kernel's refusal.
    pub fn set(&self, words: &[&str]) -> Result<()> {
        match *words {
            ["namespace", nqn, nsid, attribute, value] => {
                let node = self.namespace(nqn, number("NSID", nsid)?)?;
                assign(&node, attribute, value)
            }
            ["ana", port, group, state] => {
                let port = number("PORT", port)?;
                self.port(port)?.expect()?;
                let node = self.ana_group(port, number("GROUP", group)?)?;
                node.create()?;
                node.set("ana_state", state)
            }
            ["subsystem", nqn, attribute, value] => assign(&self.subsystem(nqn)?, attribute, value),
            ["host", nqn, attribute, value] => assign(&self.host(nqn)?, attribute, value),
            ["port", id, attribute, value] => {
                assign(&self.port(number("ID", id)?)?, attribute, value)
            }
            ["backing", nqn, nsid, attribute, value] => {
                assign(&self.backing_of(nqn, number("NSID", nsid)?)?, attribute, value)
            }
            [path, value] => self.set_path(path, value),
            _ => Err(Error::Usage(format!("set what? One of: {WORDS}"))),
        }
    }

    /// Links a subsystem to a port; the first one opens the port.
    ///
    /// # Errors
    ///
    /// An object that is not there, or the kernel's refusal.
    pub fn link(&self, port: u16, nqn: &str) -> Result<()> {
        let subsystem = self.subsystem(nqn)?;
        self.port(port)?.expect()?.link("subsystems", subsystem.expect()?)
    }

    /// Removes a subsystem from a port, which ends its controllers; the last one closes the port.
    ///
    /// # Errors
    ///
    /// An object that is not there, or the kernel's refusal.
    pub fn unlink(&self, port: u16, nqn: &str) -> Result<()> {
        self.port(port)?.expect()?.unlink("subsystems", nqn)
    }

    /// Lets a host use a subsystem.
    ///
    /// # Errors
    ///
    /// A subsystem that is not there, or the kernel's refusal.
    pub fn allow(&self, nqn: &str, host: &str) -> Result<()> {
        let host = self.host(host)?;
        let subsystem = self.subsystem(nqn)?;
        subsystem.expect()?;
        host.create()?;
        subsystem.link("allowed_hosts", &host)
    }

    /// No longer lets a host use a subsystem.
    ///
    /// # Errors
    ///
    /// A subsystem that is not there, or the kernel's refusal.
    pub fn disallow(&self, nqn: &str, host: &str) -> Result<()> {
        self.subsystem(nqn)?.expect()?.unlink("allowed_hosts", host)
    }

    /// Makes one controller of a subsystem, or all, report a fatal status.
    ///
    /// # Errors
    ///
    /// When there is no such controller, or the kernel cannot make one fail.
    pub fn fatal(&self, nqn: &str, controller: Option<u16>) -> Result<()> {
        let debug = self.debug.join("nvmet");
        let folder = child(&debug, nqn)?;
        if !debug.is_dir() {
            let text = "this kernel cannot make a controller fail (NVME_TARGET_DEBUGFS is off); \
                        unlink the subsystem from its port and link it again";
            return Err(Error::Usage(text.into()));
        }
        let known = names(&folder).into_iter().filter(|name| name.starts_with("ctrl"));
        let wanted = |name: &String| controller.is_none_or(|id| *name == format!("ctrl{id}"));
        let chosen: Vec<_> = known.filter(wanted).collect();
        if chosen.is_empty() {
            let text = format!("subsystem {nqn}: no such controller is connected");
            return Err(Error::Usage(text));
        }
        chosen.iter().try_for_each(|name| {
            let object = format!("subsystem {nqn}: {name}");
            Node { path: folder.join(name), object }.set("state", "fatal")
        })
    }

    fn set_path(&self, path: &str, value: &str) -> Result<()> {
        let path = Path::new(path);
        let whole = self.nvmet()?.join(path);
        let inside = whole.starts_with(&self.config) || whole.starts_with(&self.debug);
        let climbs = path.components().any(|part| part == Component::ParentDir);
        let (Some(folder), Some(name)) = (whole.parent(), whole.file_name()) else {
            return Err(Error::Usage(format!("set what? One of: {WORDS}")));
        };
        if !inside || climbs {
            let reason = "is not below the kernel's config or debug folder";
            return Err(Error::Path { path: path.into(), reason });
        }
        let object = folder.display().to_string();
        Node { path: folder.into(), object }.set(&name.to_string_lossy(), value)
    }

    fn backing_of(&self, nqn: &str, nsid: u32) -> Result<Node> {
        let namespace = self.namespace(nqn, nsid)?;
        let device = namespace.expect()?.get("device_path");
        let record = Record::load(self);
        let mut made = record.backings.iter();
        match made.find(|made| made.device() == Path::new(&device)) {
            Some(BackingDevice::NullBlk(name)) => self.null_blk(name),
            _ => Err(Error::Usage(format!(
                "{}: its backing has no attributes; only a null_blk has",
                namespace.object
            ))),
        }
    }
}

fn assign(node: &Node, attribute: &str, value: &str) -> Result<()> {
    node.expect()?;
    if !is_attribute(attribute) {
        // The error of `set` names the object.
        return node.set(attribute, value);
    }
    let known = PREFIXES.map(|prefix| format!("{prefix}{attribute}"));
    let name = known.iter().find(|name| node.path.join(name).exists()).unwrap_or(&known[0]);
    let value = if name == "dhchap_hash" { full_hash(value) } else { value.into() };
    node.set(name, &value)
}

fn number<T: std::str::FromStr>(what: &str, text: &str) -> Result<T> {
    let wrong = |_| Error::Usage(format!("{what} is a number, not {text:?}; set {WORDS}"));
    text.parse().map_err(wrong)
}
