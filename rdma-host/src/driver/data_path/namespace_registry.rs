//! The namespaces in use, so that a reconnect does not put others in their place unnoticed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use crate::wire::{NamespaceId, NamespaceInfo};

/// Namespaces that were identified on a controller.
#[derive(Default)]
pub(crate) struct NamespaceRegistry {
    known: Mutex<BTreeMap<NamespaceId, KnownNamespace>>,
}

struct KnownNamespace {
    info: NamespaceInfo,
    seen: Arc<NamespaceEntry>,
}

/// What may change of a namespace while it is in use.
#[derive(Debug)]
pub(crate) struct NamespaceEntry {
    blocks: AtomicU64,
    replaced: AtomicBool,
}

impl NamespaceEntry {
    /// Its size.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    /// Whether another namespace is in its place.
    pub(crate) fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Relaxed)
    }
}

impl NamespaceRegistry {
    /// Somebody has looked at the namespace, and knows what it is now.
    pub(crate) fn insert(&self, info: NamespaceInfo) -> Arc<NamespaceEntry> {
        let mut known = self.known.lock();
        if let Some(same) = known.get_mut(&info.id).filter(|known| known.is(&info)) {
            same.update(info);
            return Arc::clone(&same.seen);
        }
        let blocks = AtomicU64::new(info.blocks);
        let seen = Arc::new(NamespaceEntry { blocks, replaced: AtomicBool::new(false) });
        let new = KnownNamespace { info, seen: Arc::clone(&seen) };
        if let Some(old) = known.insert(info.id, new) {
            old.seen.replaced.store(true, Ordering::Relaxed);
        }
        seen
    }

    pub(crate) fn ids(&self) -> Vec<NamespaceId> {
        self.known.lock().keys().copied().collect()
    }

    /// After a reconnect or a change the namespace looks like this; it may have grown, but must
    /// be the same one. Says whether it is.
    pub(crate) fn compare(&self, now: NamespaceInfo) -> bool {
        let mut all = self.known.lock();
        let Some(known) = all.get_mut(&now.id) else { return true };
        let same = known.is(&now);
        match same {
            true => known.update(now),
            false => known.seen.replaced.store(true, Ordering::Relaxed),
        }
        same
    }

    /// Whether commands for the namespace would reach another one than was identified.
    pub(crate) fn is_replaced(&self, id: NamespaceId) -> bool {
        self.known.lock().get(&id).is_some_and(|known| known.seen.is_replaced())
    }

    pub(crate) fn replaced(&self) -> Vec<NamespaceId> {
        let known = self.known.lock();
        known.iter().filter(|(_, known)| known.seen.is_replaced()).map(|(&id, _)| id).collect()
    }
}

impl KnownNamespace {
    fn is(&self, info: &NamespaceInfo) -> bool {
        self.info.is_same_as(info) && !self.seen.is_replaced()
    }

    fn update(&mut self, info: NamespaceInfo) {
        self.info = info;
        self.seen.blocks.store(info.blocks, Ordering::Relaxed);
    }
}
