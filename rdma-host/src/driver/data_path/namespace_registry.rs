//! Namespaces in use, compared after a reconnect or a change: their ids may belong to others then.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{
    driver::data_path::live_summary::LiveSummary,
    error::Misuse,
    wire::{NamespaceId, NamespaceInfo},
};

/// Namespaces that were identified on a controller.
#[derive(Default)]
pub(crate) struct NamespaceRegistry {
    known: Mutex<BTreeMap<NamespaceId, KnownNamespace>>,
    /// Told whether a namespace is replaced.
    summary: Arc<LiveSummary>,
}

struct KnownNamespace {
    info: NamespaceInfo,
    entry: Arc<NamespaceEntry>,
}

/// Properties of a namespace that may change while it is in use.
#[derive(Debug)]
pub(crate) struct NamespaceEntry {
    blocks: AtomicU64,
    replaced: AtomicBool,
}

impl NamespaceEntry {
    /// Size in blocks.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    /// Returns true if the id belongs to another namespace now.
    pub(crate) fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Relaxed)
    }
}

impl NamespaceRegistry {
    /// Creates the registry of a controller, by what the path of each of its commands reads.
    pub(crate) fn new(summary: Arc<LiveSummary>) -> Self {
        Self { known: Mutex::default(), summary }
    }

    /// Adds a namespace that was identified. If it differs from the one of the same id, that one is
    /// replaced.
    pub(crate) fn insert(&self, info: NamespaceInfo) -> Arc<NamespaceEntry> {
        let mut known = self.known.lock();
        if let Some(same) = known.get_mut(&info.id).filter(|known| known.is(&info)) {
            same.update(info);
            return Arc::clone(&same.entry);
        }
        let blocks = AtomicU64::new(info.blocks);
        let entry = Arc::new(NamespaceEntry { blocks, replaced: AtomicBool::new(false) });
        let new = KnownNamespace { info, entry: Arc::clone(&entry) };
        if let Some(old) = known.insert(info.id, new) {
            old.entry.replaced.store(true, Ordering::Relaxed);
        }
        self.summary.set_replaced(known.values().any(|known| known.entry.is_replaced()));
        entry
    }

    pub(crate) fn ids(&self) -> Vec<NamespaceId> {
        self.known.lock().keys().copied().collect()
    }

    /// Latest identification of a namespace in use.
    pub(crate) fn latest(&self, id: NamespaceId) -> Result<NamespaceInfo, Misuse> {
        let known = self.known.lock();
        let known = known.get(&id).ok_or(Misuse::NoNamespace(id))?;
        if known.entry.is_replaced() {
            return Err(Misuse::NamespaceReplaced(id));
        }
        Ok(known.info)
    }

    /// Latest identification of a namespace, or of the one that was replaced.
    pub(crate) fn info(&self, id: NamespaceId) -> Option<NamespaceInfo> {
        self.known.lock().get(&id).map(|known| known.info)
    }

    /// Compares a namespace with the one of the same id, after a reconnect or a change. Returns
    /// false if they differ in more than the size.
    pub(crate) fn compare(&self, now: NamespaceInfo) -> bool {
        let mut all = self.known.lock();
        let Some(known) = all.get_mut(&now.id) else { return true };
        let same = known.is(&now);
        if same {
            known.update(now);
        } else {
            known.entry.replaced.store(true, Ordering::Relaxed);
            self.summary.set_replaced(true);
        }
        same
    }

    /// Returns true if the id belongs to another namespace than the one that was identified.
    pub(crate) fn is_replaced(&self, id: NamespaceId) -> bool {
        self.known.lock().get(&id).is_some_and(|known| known.entry.is_replaced())
    }
}

impl KnownNamespace {
    fn is(&self, info: &NamespaceInfo) -> bool {
        self.info.is_same_as(info) && !self.entry.is_replaced()
    }

    fn update(&mut self, info: NamespaceInfo) {
        self.info = info;
        self.entry.blocks.store(info.blocks, Ordering::Relaxed);
    }
}
