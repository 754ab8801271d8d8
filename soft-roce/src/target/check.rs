//! Checks of a target file, before anything is changed.

use std::{collections::HashSet, fmt::Display, hash::Hash};

use super::{Backing, NullBlk, Port, Subsystem, Target, configfs::is_attribute};

/// Bytes in the longest NVMe qualified name that the specification allows.
const NQN_LENGTH_MAX: usize = 223;

type Checked = Result<(), String>;

/// Returns the first contradiction.
pub(super) fn check(target: &Target) -> Checked {
    if target.subsystems.is_empty() {
        return Err("no [[subsystems]]: a target needs at least one".into());
    }
    unique("subsystem", target.subsystems.iter().map(|subsystem| &subsystem.nqn))?;
    unique("host", target.hosts.iter().map(|host| &host.nqn))?;
    let numbered = (1..).zip(&target.ports).map(|(position, port)| port.id.unwrap_or(position));
    unique("port", numbered)?;
    target.hosts.iter().try_for_each(|host| name("host", &host.nqn))?;
    target.subsystems.iter().try_for_each(subsystem)?;
    (1..).zip(&target.ports).try_for_each(|(position, port)| self::port(target, position, port))
}

fn subsystem(subsystem: &Subsystem) -> Checked {
    let nqn = &subsystem.nqn;
    name("subsystem", nqn)?;
    subsystem.hosts.iter().try_for_each(|host| name("host", host))?;
    if subsystem.allow_any_host == Some(true) && !subsystem.hosts.is_empty() {
        return Err(format!("subsystem {nqn}: allow_any_host and hosts exclude each other"));
    }
    unique(&format!("subsystem {nqn}: namespace"), subsystem.numbered().map(|(nsid, _)| nsid))?;
    for (nsid, namespace) in subsystem.numbered() {
        let told = |reason| format!("subsystem {nqn}: namespace {nsid}: {reason}");
        if nsid == 0 {
            return Err(told("nsid starts at 1".into()));
        }
        if namespace.ana_group.is_some_and(|group| !(1..=128).contains(&group)) {
            return Err(told("ana_group is 1 to 128".into()));
        }
        backing(&namespace.backing).map_err(told)?;
    }
    Ok(())
}

fn backing(backing: &Backing) -> Checked {
    match backing {
        Backing::NullBlk(NullBlk { size, block_size, extra, .. }) => {
            if *size == 0 || size % (1 << 20) != 0 {
                return Err("null_blk: size is in whole MiB".into());
            }
            extra.iter().try_for_each(|(name, value)| attribute(name, value))?;
            block(*block_size)
        }
        Backing::Ram(ram) if ram.size == 0 || ram.size % 4096 != 0 => {
            Err("ram: size is in blocks of 4096 bytes".into())
        }
        Backing::File(file) => file.block_size.map_or(Ok(()), block),
        Backing::Ram(_) => Ok(()),
    }
}

fn attribute(name: &str, value: &toml::Value) -> Checked {
    if !is_attribute(name) {
        return Err(format!("null_blk: extra: {name:?} is not the name of an attribute"));
    }
    match value {
        toml::Value::String(_) | toml::Value::Integer(_) | toml::Value::Boolean(_) => Ok(()),
        _ => Err(format!("null_blk: extra: {name}: the value is a text or a whole number")),
    }
}

fn block(size: u32) -> Checked {
    if [512, 1024, 2048, 4096].contains(&size) {
        return Ok(());
    }
    Err(format!("block_size {size}: must be 512, 1024, 2048 or 4096"))
}

fn port(target: &Target, position: u16, port: &Port) -> Checked {
    let id = port.id.unwrap_or(position);
    let known = |nqn: &&String| target.subsystems.iter().any(|one| one.nqn == **nqn);
    if let Some(nqn) = port.subsystems.iter().flatten().find(|nqn| !known(nqn)) {
        return Err(format!("port {id}: no subsystem {nqn} in this file"));
    }
    unique(&format!("port {id}: ANA group"), port.ana_groups.iter().map(|group| group.id))?;
    match port.ana_groups.iter().find(|group| !(1..=128).contains(&group.id)) {
        Some(group) => Err(format!("port {id}: ANA group {}: must be 1 to 128", group.id)),
        None => Ok(()),
    }
}

/// The rule for names of subsystems and hosts: what Linux accepts. The specification asks for more
/// (`nqn.` and a date), which neither Linux's target nor its host checks.
fn name(what: &str, nqn: &str) -> Checked {
    if nqn.is_empty() || nqn.len() > NQN_LENGTH_MAX {
        return Err(format!("{what} {nqn:?}: a name has 1 to {NQN_LENGTH_MAX} bytes"));
    }
    if nqn.starts_with('.') || nqn.contains('/') || nqn.contains(char::is_control) {
        return Err(format!("{what} {nqn:?}: the kernel cannot hold this name"));
    }
    Ok(())
}

fn unique<T: Copy + Display + Eq + Hash>(what: &str, all: impl Iterator<Item = T>) -> Checked {
    let mut seen = HashSet::new();
    for one in all {
        if !seen.insert(one) {
            return Err(format!("{what} {one}: given twice"));
        }
    }
    Ok(())
}
