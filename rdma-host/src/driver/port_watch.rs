//! Whether a device's port can be used.

use std::{fs, path::PathBuf};

use verbs::active_side::Event;

/// Looks at the ports of one device, where the system shows them.
///
/// A device has news only when all of its ports are down or one of them is active again: the CM
/// does not say which of several a connection uses.
#[derive(Clone, Debug, Default)]
pub(crate) struct PortWatch {
    ports: Vec<PathBuf>,
    seen: NamespaceEntry,
}

/// What was seen last; a device counts as active until then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum NamespaceEntry {
    #[default]
    Active,
    Down,
}

impl PortWatch {
    /// Watches the device of this name; one that the system does not show has no news.
    pub(crate) fn new(device: &str) -> Self {
        Self::of_folder(&PathBuf::from("/sys/class/infiniband").join(device))
    }

    pub(crate) fn of_folder(device: &std::path::Path) -> Self {
        let ports = fs::read_dir(device.join("ports")).into_iter().flatten().flatten();
        Self {
            ports: ports.map(|port| port.path().join("state")).collect(),
            seen: NamespaceEntry::Active,
        }
    }

    /// What has changed since the last look.
    pub(crate) fn news(&mut self) -> Option<Event> {
        let seen = self.look()?;
        if seen == std::mem::replace(&mut self.seen, seen) {
            return None;
        }
        Some(match seen {
            NamespaceEntry::Active => Event::PortActive,
            NamespaceEntry::Down => Event::PortDown,
        })
    }

    /// Whether all of its ports are down now; not where that can't be seen.
    pub(crate) fn is_down(&self) -> bool {
        self.look() == Some(NamespaceEntry::Down)
    }

    /// The state of the best port, as in `4: ACTIVE`; nothing when none can be read.
    fn look(&self) -> Option<NamespaceEntry> {
        let states = self.ports.iter().filter_map(|path| fs::read_to_string(path).ok());
        let each = states.map(|state| {
            if state.starts_with("4:") { NamespaceEntry::Active } else { NamespaceEntry::Down }
        });
        each.reduce(|one, other| if one == NamespaceEntry::Active { one } else { other })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_news_once() {
        let device = std::env::temp_dir().join(format!("nvmf-ports-{}", std::process::id()));
        let set = |port: &str, state: &str| {
            fs::create_dir_all(device.join("ports").join(port)).unwrap();
            fs::write(device.join("ports").join(port).join("state"), state).unwrap();
        };
        set("1", "4: ACTIVE\n");
        set("2", "1: DOWN\n");
        let mut watch = PortWatch::of_folder(&device);
        assert_eq!(watch.news(), None, "one port is enough");
        set("1", "1: DOWN\n");
        assert_eq!(watch.news(), Some(Event::PortDown));
        assert_eq!(watch.news(), None);
        set("2", "4: ACTIVE\n");
        assert_eq!(watch.news(), Some(Event::PortActive));
        fs::remove_dir_all(&device).unwrap();
        assert_eq!(watch.news(), None, "what can't be read is no news");
    }

    #[test]
    fn an_unknown_device_has_no_news() {
        assert_eq!(PortWatch::new("no such device").news(), None);
    }
}
