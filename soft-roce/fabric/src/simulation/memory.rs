//! Registered memory, memory windows and their keys, with the access checks of a device.

use std::{collections::BTreeMap, sync::Arc};

use verbs::{
    Access, RemoteKey,
    memory::Mapping,
    provider::{BindWindow, Keys, Sge},
};

use crate::simulation::{DomainId, PairId};

/// Registered memory and windows, by index. A key consists of the index and eight bits that
/// distinguish its uses.
#[derive(Default)]
pub(crate) struct Memory {
    regions: BTreeMap<u32, Region>,
    windows: BTreeMap<u32, Window>,
    indices: u32,
}

/// Memory region.
struct Region {
    domain: DomainId,
    mapping: Arc<Mapping>,
    keys: Keys,
}

/// Memory window of type 2.
struct Window {
    domain: DomainId,
    keys: Keys,
    binding: Option<Binding>,
}

/// Memory that a window gives access to.
struct Binding {
    pair: PairId,
    region: u32,
    address: u64,
    length: u64,
    access: Access,
}

/// Range of memory that has passed the access check.
pub(crate) struct MemoryRange {
    mapping: Arc<Mapping>,
    offset: usize,
    length: usize,
}

/// Remote access requested by a peer.
pub(crate) struct AccessRequest {
    pub(crate) domain: DomainId,
    pub(crate) pair: PairId,
    pub(crate) key: RemoteKey,
    pub(crate) address: u64,
    pub(crate) length: usize,
    pub(crate) access: Access,
}

impl Memory {
    /// Registers memory; `salt` randomizes its keys.
    pub(crate) fn register(&mut self, domain: DomainId, mapping: Arc<Mapping>, salt: u64) -> Keys {
        let (index, keys) = self.keys(salt);
        self.regions.insert(index, Region { domain, mapping, keys });
        keys
    }

    pub(crate) fn make_window(&mut self, domain: DomainId, salt: u64) -> Keys {
        let (index, keys) = self.keys(salt);
        self.windows.insert(index, Window { domain, keys, binding: None });
        keys
    }

    /// Removes a registration or a window.
    pub(crate) fn deregister(&mut self, keys: Keys) {
        self.regions.remove(&index(keys.local));
        self.windows.remove(&index(keys.local));
    }

    /// Number of registrations and windows.
    pub(crate) fn len(&self) -> usize {
        self.regions.len() + self.windows.len()
    }

    /// Binds a window for a queue pair; returns false if that is not allowed.
    pub(crate) fn bind(&mut self, domain: DomainId, pair: PairId, bind: &BindWindow) -> bool {
        let region = index(bind.memory);
        let allowed = self.regions.get(&region).is_some_and(|region| {
            region.keys.local == bind.memory
                && region.domain == domain
                && region.mapping.access().contains(Access::BIND | required_access(bind.access))
                && region.holds(bind.address, bind.length)
        });
        let Some(window) = self.windows.get_mut(&index(bind.window)) else { return false };
        let named = window.keys.local == bind.window && window.domain == domain;
        let renewed = index(bind.key.0) == index(bind.window) && bind.key != window.keys.remote;
        if !allowed || !named || !renewed || window.binding.is_some() || bind.length == 0 {
            return false;
        }
        let BindWindow { key, address, length, access, .. } = *bind;
        window.keys.remote = key;
        window.binding = Some(Binding { pair, region, address, length, access });
        true
    }

    /// Invalidates a window's key; returns false unless it is bound to this queue pair.
    pub(crate) fn invalidate(&mut self, pair: PairId, key: RemoteKey) -> bool {
        let Some(window) = self.windows.get_mut(&index(key.0)) else { return false };
        let bound = window.binding.as_ref().is_some_and(|binding| binding.pair == pair);
        if !bound || window.keys.remote != key {
            return false;
        }
        window.binding = None;
        true
    }

    /// Returns the memory of a local segment, if its key allows the access.
    pub(crate) fn local(&self, domain: DomainId, sge: &Sge, access: Access) -> Option<MemoryRange> {
        let region = self.regions.get(&index(sge.local_key))?;
        let named = region.keys.local == sge.local_key && region.domain == domain;
        let allowed = named && region.mapping.access().contains(access);
        allowed.then(|| region.range(sge.address, sge.length as usize)).flatten()
    }

    /// Returns the memory of a remote access, if its key allows it.
    pub(crate) fn remote(&self, request: &AccessRequest) -> Option<MemoryRange> {
        match self.regions.get(&index(request.key.0)) {
            Some(region) => {
                let named = region.keys.remote == request.key && region.domain == request.domain;
                let allowed = named && region.mapping.access().contains(request.access);
                allowed.then(|| region.range(request.address, request.length)).flatten()
            }
            None => self.through_window(request),
        }
    }

    fn through_window(&self, request: &AccessRequest) -> Option<MemoryRange> {
        let window = self.windows.get(&index(request.key.0))?;
        let binding = window.binding.as_ref()?;
        let start = request.address.checked_sub(binding.address)?;
        let within = start.checked_add(request.length as u64)? <= binding.length;
        let named = window.keys.remote == request.key && binding.pair == request.pair;
        let allowed = named && within && binding.access.contains(request.access);
        let region = self.regions.get(&binding.region)?;
        allowed.then(|| region.range(request.address, request.length)).flatten()
    }

    fn keys(&mut self, salt: u64) -> (u32, Keys) {
        self.indices = (self.indices + 1) & 0x00FF_FFFF;
        let [local, remote, ..] = salt.to_le_bytes();
        // Local and remote key differ, so that using one for the other is detected.
        let remote = if local == remote { !remote } else { remote };
        let key = |salt: u8| self.indices << 8 | u32::from(salt);
        (self.indices, Keys { local: key(local), remote: RemoteKey(key(remote)) })
    }
}

impl Region {
    fn holds(&self, address: u64, length: u64) -> bool {
        usize::try_from(length).is_ok_and(|length| self.range(address, length).is_some())
    }

    fn range(&self, address: u64, length: usize) -> Option<MemoryRange> {
        let offset = usize::try_from(address.checked_sub(self.mapping.address())?).ok()?;
        let end = offset.checked_add(length)?;
        let mapping = self.mapping.clone();
        (end <= mapping.len()).then_some(MemoryRange { mapping, offset, length })
    }
}

impl MemoryRange {
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Appends the bytes to `out`.
    pub(crate) fn read(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + self.length, 0);
        self.mapping.device_read(self.offset, &mut out[start..]);
    }

    /// Writes as many bytes as fit; returns the rest.
    pub(crate) fn write<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let (fitting, rest) = bytes.split_at(bytes.len().min(self.length));
        self.mapping.device_write(self.offset, fitting);
        rest
    }
}

/// Access that a region must allow so that a window with `access` can be bound to it: local write
/// for remote write.
fn required_access(access: Access) -> Access {
    if access.contains(Access::REMOTE_WRITE) { Access::LOCAL_WRITE } else { Access::NONE }
}

fn index(key: u32) -> u32 {
    key >> 8
}
