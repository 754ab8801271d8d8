//! The NVMe target, and the format of target files.
//!
//! One `[[subsystems]]` with an `nqn` is a complete file; everything else has a default.

mod backing;
mod check;
mod configfs;
mod down;
mod passthru;
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

/// Default port number of targets.
pub const SERVICE: u16 = 4420;

/// A target: subsystems, hosts and ports.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Hosts that authenticate; others need no entry.
    #[serde(default)]
    pub hosts: Vec<Host>,
    /// The subsystems.
    pub subsystems: Vec<Subsystem>,
    /// The ports; one, at the guest's address, when the file has none.
    #[serde(default = "default_ports")]
    pub ports: Vec<Port>,
}

/// A host that authenticates.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// NVMe qualified name; any of 1 to 223 bytes that Linux accepts.
    pub nqn: String,
    /// Secret of the host, as DHHC-1 text.
    pub dhchap_key: Option<String>,
    /// Secret of the controller, for authentication in both directions.
    pub dhchap_ctrl_key: Option<String>,
    /// `sha256`, `sha384` or `sha512`.
    pub dhchap_hash: Option<String>,
    /// `null`, `ffdhe2048`, or a larger group.
    pub dhchap_dhgroup: Option<String>,
}

/// A subsystem.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subsystem {
    /// NVMe qualified name; any of 1 to 223 bytes that Linux accepts.
    pub nqn: String,
    /// Serial number.
    pub serial: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Firmware revision.
    pub firmware: Option<String>,
    /// NVMe version that it reports, for example `1.4`.
    pub version: Option<String>,
    /// Every host may connect; yes, unless `hosts` names some.
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
    /// Commands pass through to a controller of another subsystem; this one has no namespaces of
    /// its own then.
    pub passthru: Option<Passthru>,
}

/// Commands of a subsystem that pass through to a controller of another one: the kernel's own
/// initiator connects it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passthru {
    /// NQN of the other subsystem, of the same file.
    pub subsystem: String,
    /// Timeout of admin commands in seconds; the kernel's default without it.
    pub admin_timeout: Option<u32>,
    /// Timeout of I/O commands in seconds; the kernel's default without it.
    pub io_timeout: Option<u32>,
    /// Identifiers of namespaces are hidden; the kernel's default without it.
    pub clear_ids: Option<bool>,
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// Number; by default the position in the list, from 1.
    pub nsid: Option<u32>,
    /// Backing device.
    #[serde(default)]
    pub backing: Backing,
    /// UUID.
    pub uuid: Option<String>,
    /// NGUID.
    pub nguid: Option<String>,
    /// ANA group; 1 by default.
    pub ana_group: Option<u32>,
    /// The namespace is enabled; yes by default.
    pub enable: Option<bool>,
}

/// Backing device of a namespace.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Backing {
    /// A regular file.
    File(FileBacking),
    /// The kernel's null block device, which can keep what is written.
    NullBlk(NullBlk),
    /// A file in memory: blocks of 4,096 bytes.
    Ram(Ram),
}

/// A file of the machine.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileBacking {
    /// Path, relative to the target file's folder; created when it does not exist and `size` is
    /// given.
    pub path: PathBuf,
    /// Size of the file.
    #[serde(default, deserialize_with = "optional_size")]
    pub size: Option<u64>,
    /// The page cache is used; yes by default, because some file systems need it.
    pub buffered_io: Option<bool>,
    /// Size of a block, set by a loop device; the file system's by default.
    pub block_size: Option<u32>,
}

/// A null block device.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NullBlk {
    /// Size of the device, in whole MiB.
    #[serde(deserialize_with = "size_text")]
    pub size: u64,
    /// The size of a block: 512, 1024, 2048 or 4096.
    pub block_size: u32,
    /// The device keeps what is written; yes by default.
    pub memory_backed: bool,
    /// Time of each command in nanoseconds; none by default.
    pub completion_nsec: Option<u64>,
    /// Further attributes, by their names in the kernel's `nullb` folder: letters, digits and
    /// underscores; the values are text, whole numbers or booleans. With `zoned` the namespace is
    /// one of the Zoned Namespace command set; `zone_size` and `zone_capacity` are in MiB.
    pub extra: toml::Table,
}

/// A file in memory.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ram {
    /// Size of the file.
    #[serde(deserialize_with = "size_text")]
    pub size: u64,
}

/// A port of the target.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Number; by default the position in the list, from 1.
    pub id: Option<u16>,
    /// IP address; the guest's by default.
    pub address: Option<IpAddr>,
    /// The port number; 4420 by default.
    pub service: Option<u16>,
    /// Bytes of in-capsule data; the kernel's default without it.
    pub inline_data_size: Option<i32>,
    /// Largest queue size; the kernel's default without it.
    pub max_queue_size: Option<i32>,
    /// Largest transfer, as a power of two of 4 KiB pages; not every kernel has it.
    pub mdts: Option<u8>,
    /// States of ANA groups at this port; group 1 is optimized by default.
    #[serde(default)]
    pub ana_groups: Vec<AnaGroup>,
    /// Subsystems at this port; all by default.
    pub subsystems: Option<Vec<String>>,
    /// Referrals in its discovery log.
    #[serde(default)]
    pub referrals: Vec<Referral>,
}

/// Another discovery subsystem that a port's discovery log names.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Referral {
    /// IP address; the guest's by default.
    pub address: Option<IpAddr>,
    /// The port number; 4420 by default.
    pub service: Option<u16>,
}

/// An ANA group at a port.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnaGroup {
    /// Number of the port, 1 to 128.
    pub id: u32,
    /// State at that port.
    pub state: AnaState,
}

/// State of an ANA group at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnaState {
    /// ANA change.
    Change,
    /// ANA inaccessible.
    Inaccessible,
    /// ANA non-optimized.
    NonOptimized,
    /// ANA optimized.
    Optimized,
    /// ANA persistent loss.
    PersistentLoss,
}

impl Target {
    /// Reads and checks a target file.
    ///
    /// # Errors
    ///
    /// When it cannot be read or is invalid; the error names the line.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        let mut target =
            Self::parse(&text).map_err(|reason| Error::TargetFile { path: path.into(), reason })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        target.resolve_files(folder);
        Ok(target)
    }

    /// Parses and checks the text of a target file.
    ///
    /// # Errors
    ///
    /// The reason, in one line.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let mut target: Self = toml::from_str(text).map_err(|error| one_line(text, &error))?;
        check::check(&target)?;
        for subsystem in target.subsystems.iter_mut().filter(|one| one.passthru.is_some()) {
            subsystem.namespaces.clear();
        }
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
    /// Tells if every host may connect.
    #[must_use]
    pub fn allows_any_host(&self) -> bool {
        self.allow_any_host.unwrap_or(self.hosts.is_empty())
    }

    /// Namespaces with their numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (u32, &Namespace)> {
        (1..).zip(&self.namespaces).map(|(position, one)| (one.nsid.unwrap_or(position), one))
    }
}

impl Port {
    /// IP address, with its default.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address.unwrap_or_else(bed_address)
    }
}

impl Referral {
    /// IP address, with its default.
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
    /// Name in the kernel.
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
    ADDRESS.parse().expect("the guest's address is one")
}

fn default_ports() -> Vec<Port> {
    vec![Port::default()]
}

fn default_namespaces() -> Vec<Namespace> {
    vec![Namespace::default()]
}

fn size_text<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    let unquoted = |reason: String| reason.replacen(&format!("{text:?}"), "this", 1);
    size::parse(&text).map_err(|reason| D::Error::custom(unquoted(reason)))
}

fn optional_size<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<u64>, D::Error> {
    size_text(from).map(Some)
}

/// Fault and its line. A value that was not understood is left out: it may be a key.
fn one_line(text: &str, error: &toml::de::Error) -> String {
    let reason = without_value(&error.message().replace('\n', " "));
    let Some(span) = error.span() else { return reason };
    let line = text[..span.start.min(text.len())].matches('\n').count() + 1;
    format!("line {line}: {reason}")
}

/// Message of serde without the value or name that was not understood. What looks like the name of
/// a field stays.
fn without_value(message: &str) -> String {
    let kinds = [
        "unknown field `",
        "unknown variant `",
        "invalid type: string \"",
        "invalid value: string \"",
    ];
    let Some(kind) = kinds.into_iter().find(|kind| message.starts_with(kind)) else {
        return message.to_owned();
    };
    // The text may have quotation marks of its own; the names that would be valid follow it.
    let end = message.rfind(", expected").unwrap_or(message.len());
    let unknown = message[kind.len()..end.max(kind.len() + 1)].trim_end_matches(['`', '"']);
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    if unknown.len() <= NAME_LENGTH_MAX && unknown.chars().all(is_name) {
        return message.to_owned();
    }
    let (kind, quote) = kind.split_at(kind.len() - 1);
    format!("{kind}{quote}…{quote}{}", &message[end..])
}

/// Length of the longest name of a field that is shown though it is not known.
const NAME_LENGTH_MAX: usize = 32;

#[cfg(test)]
mod tests;
