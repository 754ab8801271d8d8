//! Checks of a target file, before anything is changed.

use std::{collections::HashSet, fmt::Display, hash::Hash};

use super::{
    Backing, NullBlk, Port, Subsystem, Target, configfs::is_attribute, default_namespaces,
};

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
    target.subsystems.iter().try_for_each(|subsystem| passthru(target, subsystem))?;
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

fn passthru(target: &Target, subsystem: &Subsystem) -> Checked {
    let Some(passthru) = &subsystem.passthru else { return Ok(()) };
    let told = |reason: String| Err(format!("subsystem {}: passthru: {reason}", subsystem.nqn));
    if subsystem.namespaces != default_namespaces() {
        return told("its namespaces are those of the controller; leave `namespaces` out".into());
    }
    let other = &passthru.subsystem;
    match target.subsystems.iter().find(|one| one.nqn == *other) {
        None => told(format!("no subsystem {other} in this file")),
        Some(one) if one.passthru.is_some() => told(format!("{other} passes its commands on too")),
        Some(_) if target.port_of(other).is_none() => told(format!("no port has {other}")),
        Some(_) => Ok(()),
    }
}

fn backing(backing: &Backing) -> Checked {
    match backing {
        Backing::NullBlk(NullBlk { size, block_size, extra, .. }) => {
            if *size == 0 || size % (1 << 20) != 0 {
                return Err("null_blk: size is in whole MiB".into());
            }
            extra.iter().try_for_each(|(name, value)| attribute(name, value))?;
            zones(size >> 20, extra)?;
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

/// Checks the zones of a device of `size` MiB: what the kernel's driver or its target would refuse
/// without a reason, or change.
fn zones(size: u64, extra: &toml::Table) -> Checked {
    /// Size of a zone in MiB, if it is not set.
    const ZONE_SIZE: u64 = 256;
    let told = |reason: String| Err(format!("null_blk: extra: {reason}"));
    let number = |name: &str| extra.get(name).map(number);
    if number("zoned").unwrap_or(0) == 0 {
        let is_of_zones = |name: &&String| name.starts_with("zone_");
        return match extra.keys().find(is_of_zones) {
            Some(name) => told(format!("{name}: only with zoned = true")),
            None => Ok(()),
        };
    }
    let zone = number("zone_size").unwrap_or(ZONE_SIZE);
    if !zone.is_power_of_two() || !size.is_multiple_of(zone) {
        return told(format!(
            "zone_size {zone}: a power of two of MiB that divides the {size} MiB of the device"
        ));
    }
    if number("zone_capacity").is_some_and(|capacity| capacity > zone) {
        return told(format!("zone_capacity: at most zone_size, {zone}"));
    }
    if number("zone_nr_conv").is_some_and(|count| count > 0) {
        return told("zone_nr_conv: a zoned namespace has no conventional zones".into());
    }
    for name in ["zone_max_active", "zone_max_open"] {
        if number(name).is_some_and(|count| count >= size / zone) {
            return told(format!("{name}: fewer than the {} zones", size / zone));
        }
    }
    match (number("zone_max_open"), number("zone_max_active")) {
        (Some(open), Some(active)) if active > 0 && open > active => {
            told(format!("zone_max_open: at most zone_max_active, {active}"))
        }
        _ => Ok(()),
    }
}

/// Number that the kernel reads from a value; 0 where it is none.
fn number(value: &toml::Value) -> u64 {
    match value {
        toml::Value::Boolean(is_set) => u64::from(*is_set),
        toml::Value::Integer(number) => u64::try_from(*number).unwrap_or(0),
        toml::Value::String(text) => text.trim().parse().unwrap_or(0),
        _ => 0,
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
