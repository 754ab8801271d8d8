//! Files with what is known of each attached device, as long as the device is there.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use rdma_host::{
    ConnectOptions, Negotiated,
    wire::{ControllerId, NamespaceInfo},
};
use serde::{Deserialize, Serialize};

use super::device_name::DeviceName;

/// Folder of the files; of a user without privileges, that of XDG_RUNTIME_DIR.
const FOLDER: &str = "/run/nvmf";

/// Attached device.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Entry {
    /// Number of the block device.
    pub(super) id: u32,
    /// Name of the user's choice.
    #[serde(default)]
    pub(super) name: Option<DeviceName>,
    /// Process that serves it.
    pub(super) process: u32,
    pub(super) address: String,
    pub(super) subsystem: String,
    pub(super) host: String,
    pub(super) nsid: u32,
    /// Identifier of the namespace: UUID, NGUID or EUI64; none if it has none.
    pub(super) namespace: Option<String>,
    /// Size of the namespace in bytes; the device may not have followed it.
    #[serde(default)]
    pub(super) namespace_bytes: u64,
    /// Reason for which all requests fail, if they do.
    #[serde(default)]
    pub(super) failure: Option<String>,
    /// Controllers that may still execute its writes: the present one, and the one before it.
    pub(super) controllers: Vec<u16>,
}

impl Entry {
    pub(super) fn new(
        id: u32,
        options: &ConnectOptions,
        negotiated: &Negotiated,
        info: &NamespaceInfo,
    ) -> Self {
        Self {
            id,
            name: None,
            process: std::process::id(),
            address: options.address.to_string(),
            subsystem: options.subsystem.to_string(),
            host: options.host.nqn.to_string(),
            nsid: info.id.0,
            namespace: identifier(info),
            namespace_bytes: sectors(info) << 9,
            failure: None,
            controllers: vec![negotiated.controller.0],
        }
    }

    /// Notes another controller, after the connection was lost.
    pub(super) fn add_controller(&mut self, controller: ControllerId) {
        self.controllers.retain(|known| *known != controller.0);
        self.controllers.insert(0, controller.0);
        self.controllers.truncate(2);
    }

    /// Writes the file. It is complete or not there, whenever the process ends.
    pub(super) fn write(&self) -> io::Result<()> {
        let folder = folder();
        fs::create_dir_all(&folder)?;
        let (path, new) = (path_in(&folder, self.id), folder.join(format!("{}.new", self.id)));
        fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&new, &path)
    }

    /// Entry of a device, if there is one.
    pub(super) fn read(id: u32) -> Option<Self> {
        let found = folders().into_iter().find_map(|folder| fs::read(path_in(&folder, id)).ok());
        serde_json::from_slice(&found?).ok()
    }

    /// Removes the entry of a device, and the link of its name.
    pub(super) fn remove(id: u32) -> io::Result<()> {
        if let Some(name) = Self::read(id).and_then(|entry| entry.name) {
            name.unlink(id)?;
        }
        for folder in folders() {
            match fs::remove_file(path_in(&folder, id)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// All entries, by number.
    pub(super) fn all() -> Vec<Self> {
        let files = folders().into_iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
        let mut entries: Vec<Self> = files
            .filter_map(Result::ok)
            .filter_map(|file| number_of(&file.path()))
            .filter_map(Self::read)
            .collect();
        entries.sort_by_key(|entry| entry.id);
        entries.dedup_by_key(|entry| entry.id);
        entries
    }
}

/// Identifier of a namespace, the best that it has.
pub(super) fn identifier(info: &NamespaceInfo) -> Option<String> {
    let uuid = info.uuid.map(|id| format!("uuid.{id}"));
    let nguid = info.nguid.map(|id| format!("eui.{}", id.simple()));
    uuid.or(nguid).or(info.eui64.map(|id| format!("eui.{id}")))
}

/// Size of a namespace in sectors of 512 bytes.
pub(super) fn sectors(info: &NamespaceInfo) -> u64 {
    info.blocks.saturating_mul(u64::from(info.block_size >> 9)).min(u64::MAX >> 9)
}

/// Folder of this user.
fn folder() -> PathBuf {
    let user =
        std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !rustix::process::geteuid().is_root());
    user.map_or_else(|| PathBuf::from(FOLDER), |folder| PathBuf::from(folder).join("nvmf"))
}

fn folders() -> Vec<PathBuf> {
    let mut folders = vec![folder(), PathBuf::from(FOLDER)];
    folders.dedup();
    folders
}

fn path_in(folder: &Path, id: u32) -> PathBuf {
    folder.join(format!("ublkb{id}.json"))
}

fn number_of(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.strip_prefix("ublkb")?.strip_suffix(".json")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_their_names() {
        assert_eq!(number_of(&path_in(Path::new("/run/nvmf"), 12)), Some(12));
        for other in ["/run/nvmf/12.new", "/run/nvmf/ublkb.json", "/run/nvmf/ublkbx.json"] {
            assert_eq!(number_of(Path::new(other)), None, "{other}");
        }
    }
}
