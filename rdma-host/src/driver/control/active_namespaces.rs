//! Active namespaces of a controller, by which a change of one is told.

use std::collections::BTreeMap;

use crate::{
    driver::control::controller_event::NamespaceChange,
    wire::{NamespaceId, NamespaceInfo},
};

/// Namespaces as they were last seen.
#[derive(Default)]
pub(crate) struct ActiveNamespaces {
    known: BTreeMap<NamespaceId, KnownNamespace>,
    /// True if every namespace that is active is known.
    is_complete: bool,
}

#[derive(Clone, Copy)]
enum KnownNamespace {
    Active(NamespaceInfo),
    Gone,
    /// Active, but not identified.
    Unidentified,
}

impl ActiveNamespaces {
    /// Notes all active namespaces, each with its identification if there was one.
    pub(crate) fn note_all(&mut self, all: Vec<(NamespaceId, Option<NamespaceInfo>)>) {
        let known = all.into_iter().map(|(id, info)| {
            (id, info.map_or(KnownNamespace::Unidentified, KnownNamespace::Active))
        });
        self.known = known.collect();
        self.is_complete = true;
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = NamespaceId> {
        self.known.keys().copied()
    }

    /// Notes that a namespace is gone.
    pub(crate) fn note_gone(&mut self, id: NamespaceId) -> NamespaceChange {
        self.known.insert(id, KnownNamespace::Gone);
        NamespaceChange::Gone
    }

    /// Notes a namespace that was identified; returns its change. `used` is what is known of it
    /// because it is in use.
    pub(crate) fn note(
        &mut self,
        info: NamespaceInfo,
        used: Option<NamespaceInfo>,
    ) -> NamespaceChange {
        let before = match self.known.insert(info.id, KnownNamespace::Active(info)) {
            Some(KnownNamespace::Active(before)) => Some(before),
            Some(KnownNamespace::Gone) => return NamespaceChange::Added(info),
            Some(KnownNamespace::Unidentified) => used,
            None if self.is_complete => return NamespaceChange::Added(info),
            None => used,
        };
        match before {
            Some(before) if !before.is_same_as(&info) => NamespaceChange::Replaced(info),
            Some(NamespaceInfo { blocks: before, .. }) if before != info.blocks => {
                NamespaceChange::Resized { before, info }
            }
            _ => NamespaceChange::Same(info),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::MetadataFormat;

    fn namespace(id: u32, blocks: u64, name: u128) -> NamespaceInfo {
        NamespaceInfo {
            id: NamespaceId(id),
            blocks,
            block_size: 512,
            metadata: MetadataFormat::default(),
            nguid: None,
            eui64: None,
            uuid: Some(uuid::Uuid::from_u128(name)),
            command_set: 0,
            ana_group: 0,
        }
    }

    #[test]
    fn each_change_is_told_apart() {
        let mut active = ActiveNamespaces::default();
        let first = namespace(1, 8, 1);
        active.note_all(vec![(first.id, Some(first)), (NamespaceId(2), None)]);
        let told = |change: NamespaceChange| change.to_string();
        assert_eq!(told(active.note(first, None)), "has 8 blocks");
        assert_eq!(told(active.note(namespace(1, 9, 1), None)), "has 9 blocks now, 8 before");
        assert_eq!(told(active.note(namespace(1, 9, 7), None)), "is another one now");
        assert_eq!(told(active.note(namespace(2, 4, 2), None)), "has 4 blocks");
        assert_eq!(told(active.note(namespace(3, 4, 3), None)), "is new, with 4 blocks");
        assert_eq!(told(active.note_gone(NamespaceId(3))), "is gone");
        assert_eq!(told(active.note(namespace(3, 4, 3), None)), "is new, with 4 blocks");
    }

    #[test]
    fn without_a_list_only_namespaces_in_use_are_compared() {
        let mut active = ActiveNamespaces::default();
        let told = |change: NamespaceChange| change.to_string();
        assert_eq!(told(active.note(namespace(1, 8, 1), None)), "has 8 blocks");
        let used = Some(namespace(2, 8, 2));
        assert_eq!(told(active.note(namespace(2, 9, 2), used)), "has 9 blocks now, 8 before");
        assert_eq!(told(active.note_gone(NamespaceId(2))), "is gone");
        assert_eq!(told(active.note(namespace(2, 9, 2), used)), "is new, with 9 blocks");
    }
}
