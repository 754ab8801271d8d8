//! The NVMe target: what a target file may say.
//!
//! One `[[subsystems]]` with a name is a whole file; everything else has a default.

mod backing;
mod check;
mod configfs;
mod down;
mod set;
mod show;
mod up;

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

pub use configfs::TargetRoot;
pub use show::{Controller, NamespaceState, PortState, State, SubsystemState};

use crate::{Error, Result, run::ADDRESS, size};

/// The port that RDMA targets listen on.
pub const SERVICE: u16 = 4420;

/// A target: subsystems, the hosts that may use them, and the ports they are reached at.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The hosts with something to be said about them; others need no entry.
    #[serde(default)]
    pub hosts: Vec<Host>,
    /// The subsystems.
    pub subsystems: Vec<Subsystem>,
    /// The ports; one, at the bed's address, when the file has none.
    #[serde(default = "default_ports")]
    pub ports: Vec<Port>,
}

/// A host that authenticates.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name.
    pub nqn: String,
    /// The secret that the host proves to know.
    pub dhchap_key: Option<String>,
    /// The secret that the controller proves to know in turn.
    pub dhchap_ctrl_key: Option<String>,
    /// `sha256`, `sha384` or `sha512`.
    pub dhchap_hash: Option<String>,
    /// `null`, or `ffdhe2048` and its larger kin.
    pub dhchap_dhgroup: Option<String>,
}

/// A subsystem.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subsystem {
    /// Its name.
    pub nqn: String,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// Its firmware revision.
    pub firmware: Option<String>,
    /// The NVMe version it claims, for example `1.4`.
    pub version: Option<String>,
    /// Whether every host may connect; yes, unless `hosts` names some.
    pub allow_any_host: Option<bool>,
    /// The hosts that may connect.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// The highest queue id: 1 allows one I/O queue.
    pub qid_max: Option<u16>,
    /// The lowest controller id.
    pub cntlid_min: Option<u16>,
    /// The highest controller id.
    pub cntlid_max: Option<u16>,
    /// The namespaces; one of 256 MiB when the file has none.
    #[serde(default = "default_namespaces")]
    pub namespaces: Vec<Namespace>,
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// Its number; by default its place in the list, from 1.
    pub nsid: Option<u32>,
    /// What holds the data.
    #[serde(default)]
    pub backing: Backing,
    /// Its UUID.
    pub uuid: Option<String>,
    /// Its NGUID.
    pub nguid: Option<String>,
    /// Its ANA group; 1 by default.
    pub ana_group: Option<u32>,
    /// Whether it can be used from the start; yes by default.
    pub enable: Option<bool>,
}

/// What holds a namespace's data.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Backing {
    /// A regular file.
    File(FileBacking),
    /// The kernel's null block device, which can remember what is written.
    NullBlk(NullBlk),
    /// A file in memory: blocks of 4,096 bytes.
    Ram(Ram),
}

/// A file of the machine.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileBacking {
    /// The file, from the target file's folder; created when it is not there and `size` is given.
    pub path: PathBuf,
    /// Its size.
    #[serde(default, deserialize_with = "optional_size")]
    pub size: Option<u64>,
    /// Whether the page cache is used; yes by default, since not every file system can do without.
    pub buffered_io: Option<bool>,
    /// The size of a block, by a loop device; without it the file system decides.
    pub block_size: Option<u32>,
}

/// A null block device.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NullBlk {
    /// Its size, in whole MiB.
    #[serde(deserialize_with = "size_text")]
    pub size: u64,
    /// The size of a block: 512, 1024, 2048 or 4096.
    pub block_size: u32,
    /// Whether it keeps what is written; yes by default.
    pub memory_backed: bool,
    /// How long each command takes, in nanoseconds; at once without it.
    pub completion_nsec: Option<u64>,
    /// Further attributes, by the names of the kernel's `nullb` folder.
    pub extra: toml::Table,
}

/// A file in memory.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ram {
    /// Its size.
    #[serde(deserialize_with = "size_text")]
    pub size: u64,
}

/// Where hosts reach the target.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Its number; by default its place in the list, from 1.
    pub id: Option<u16>,
    /// The address; the bed's own by default.
    pub address: Option<IpAddr>,
    /// The port number; 4420 by default.
    pub service: Option<u16>,
    /// How much data a command may carry with it; the kernel decides without it.
    pub inline_data_size: Option<i32>,
    /// The largest queue; the kernel decides without it.
    pub max_queue_size: Option<i32>,
    /// The largest transfer, as a power of two of 4 KiB pages; not every kernel has it.
    pub mdts: Option<u8>,
    /// The state of ANA groups at this port; group 1 is optimized.
    #[serde(default)]
    pub ana_groups: Vec<AnaGroup>,
    /// The subsystems at this port; all by default.
    pub subsystems: Option<Vec<String>>,
    /// Where its discovery log sends hosts for more.
    #[serde(default)]
    pub referrals: Vec<Referral>,
}

/// Another discovery subsystem that a port's discovery log names.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Referral {
    /// The address; the bed's own by default.
    pub address: Option<IpAddr>,
    /// The port number; 4420 by default.
    pub service: Option<u16>,
}

/// An ANA group at a port.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnaGroup {
    /// Its number, 1 to 128.
    pub id: u32,
    /// Its state there.
    pub state: AnaState,
}

/// What a path through a port is worth for a group's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnaState {
    /// On the way to another state.
    Change,
    /// Not now.
    Inaccessible,
    /// Works, at a cost.
    NonOptimized,
    /// Works best.
    Optimized,
    /// Never again.
    PersistentLoss,
}

impl Target {
    /// Reads and checks a target file.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or says something that makes no sense; the error says where.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        let mut target =
            Self::parse(&text).map_err(|reason| Error::TargetFile { path: path.into(), reason })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        target.resolve_files(folder);
        Ok(target)
    }

    /// Understands and checks the text of a target file.
    ///
    /// # Errors
    ///
    /// What is wrong, in one line.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let target: Self = toml::from_str(text).map_err(|error| one_line(text, &error))?;
        check::check(&target)?;
        Ok(target)
    }

    fn resolve_files(&mut self, folder: &Path) {
        for namespace in self.subsystems.iter_mut().flat_map(|s| &mut s.namespaces) {
            if let Backing::File(file) = &mut namespace.backing {
                file.path = folder.join(&file.path);
            }
        }
    }
}

impl Subsystem {
    /// Whether every host may connect.
    #[must_use]
    pub fn allows_any_host(&self) -> bool {
        self.allow_any_host.unwrap_or(self.hosts.is_empty())
    }

    /// The namespaces with their numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (u32, &Namespace)> {
        (1..).zip(&self.namespaces).map(|(place, one)| (one.nsid.unwrap_or(place), one))
    }
}

impl Port {
    /// Where it listens; in the bed unless the file says otherwise.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address.unwrap_or_else(bed_address)
    }
}

impl Referral {
    /// Where it leads; to the bed unless the file says otherwise.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address.unwrap_or_else(bed_address)
    }
}

impl Default for Backing {
    fn default() -> Self {
        Self::NullBlk(NullBlk::default())
    }
}

impl Default for NullBlk {
    fn default() -> Self {
        Self {
            size: 256 << 20,
            block_size: 512,
            memory_backed: true,
            completion_nsec: None,
            extra: toml::Table::new(),
        }
    }
}

impl AnaState {
    /// Its name in the kernel.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Inaccessible => "inaccessible",
            Self::NonOptimized => "non-optimized",
            Self::Optimized => "optimized",
            Self::PersistentLoss => "persistent-loss",
        }
    }
}

fn bed_address() -> IpAddr {
    ADDRESS.parse().expect("the bed's address is one")
}

fn default_ports() -> Vec<Port> {
    vec![Port::default()]
}

fn default_namespaces() -> Vec<Namespace> {
    vec![Namespace::default()]
}

fn size_text<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    size::parse(&text).map_err(D::Error::custom)
}

fn optional_size<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<u64>, D::Error> {
    size_text(from).map(Some)
}

fn one_line(text: &str, error: &toml::de::Error) -> String {
    let reason = error.message().replace('\n', " ");
    let Some(span) = error.span() else { return reason };
    let line = text[..span.start.min(text.len())].matches('\n').count() + 1;
    format!("line {line}: {reason}")
}

#[cfg(test)]
mod tests;
