//! Host and its RDMA devices, as the kernel describes them.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use crate::secret_text;

/// Options with a secret as their value.
const SECRET_OPTIONS: [&str; 4] = ["--dhchap-secret", "--dhchap-ctrl-secret", "-S", "-C"];

/// Folder of RDMA devices.
const DEVICES: &str = "/sys/class/infiniband";

/// RDMA device, by its files in `/sys/class/infiniband`.
pub(crate) struct Device {
    folder: PathBuf,
}

/// Port of an RDMA device.
pub(crate) struct Port {
    folder: PathBuf,
}

impl Device {
    pub(crate) fn new(name: &str) -> Self {
        Self { folder: Path::new(DEVICES).join(name) }
    }

    /// Every device of this host, in the order of their names.
    pub(crate) fn all() -> Vec<Self> {
        files(Path::new(DEVICES)).into_iter().map(|folder| Self { folder }).collect()
    }

    pub(crate) fn name(&self) -> String {
        file_name(&self.folder)
    }

    /// True if the device is a program of the kernel, as rxe and siw are: sending happens within
    /// the doorbell's call, and reception on this host's processors.
    pub(crate) fn is_software(&self) -> bool {
        let path = fs::canonicalize(&self.folder);
        path.is_ok_and(|path| path.starts_with("/sys/devices/virtual"))
    }

    pub(crate) fn firmware(&self) -> Option<String> {
        text_of(&self.folder.join("fw_ver"))
    }

    pub(crate) fn ports(&self) -> Vec<Port> {
        files(&self.folder.join("ports")).into_iter().map(|folder| Port { folder }).collect()
    }

    /// First port that is active, or the first one.
    pub(crate) fn port(&self) -> Option<Port> {
        let mut ports = self.ports();
        let is_active = |port: &Port| port.state().is_some_and(|state| state.contains("ACTIVE"));
        let index = ports.iter().position(is_active).unwrap_or_default();
        (!ports.is_empty()).then(|| ports.swap_remove(index))
    }
}

impl Port {
    pub(crate) fn number(&self) -> String {
        file_name(&self.folder)
    }

    /// State, as in "4: ACTIVE".
    pub(crate) fn state(&self) -> Option<String> {
        text_of(&self.folder.join("state"))
    }

    /// Link layer: "InfiniBand" or "Ethernet".
    pub(crate) fn link_layer(&self) -> Option<String> {
        text_of(&self.folder.join("link_layer"))
    }

    /// Speed, as in "100 Gb/sec (4X EDR)".
    pub(crate) fn speed(&self) -> Option<String> {
        text_of(&self.folder.join("rate"))
    }

    /// Type of the GIDs, as in "RoCE v2"; all of them if there are several.
    pub(crate) fn gid_types(&self) -> Option<String> {
        // Entries without a GID can't be read.
        let types = files(&self.folder.join("gid_attrs/types"));
        let types: BTreeSet<_> = types.iter().filter_map(|path| text_of(path)).collect();
        (!types.is_empty()).then(|| Vec::from_iter(types).join(", "))
    }

    /// Name of the network interface.
    pub(crate) fn netdev(&self) -> Option<String> {
        files(&self.folder.join("gid_attrs/ndevs")).iter().find_map(|path| text_of(path))
    }

    /// MTU of the network interface, in bytes.
    pub(crate) fn netdev_mtu(&self) -> Option<u32> {
        text_of(&Path::new("/sys/class/net").join(self.netdev()?).join("mtu"))?.parse().ok()
    }
}

/// Name of the distribution, as in "Debian GNU/Linux 12 (bookworm)".
pub(crate) fn distribution() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches('"').to_owned())
}

/// File of the libibverbs that this process uses; its name ends with the version of rdma-core.
pub(crate) fn libibverbs() -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    paths.map(PathBuf::from).find(|path| file_name(path).starts_with("libibverbs.so"))
}

/// Name of the first processor.
pub(crate) fn cpu_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Frequency governor of the processors; all of them if they differ.
pub(crate) fn cpu_governor() -> Option<String> {
    let processors = files(Path::new("/sys/devices/system/cpu"));
    let governor = |path: &PathBuf| text_of(&path.join("cpufreq/scaling_governor"));
    let governors: BTreeSet<_> = processors.iter().filter_map(governor).collect();
    (!governors.is_empty()).then(|| Vec::from_iter(governors).join(", "))
}

/// Name of this host.
pub(crate) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Name, release and machine of the running kernel.
pub(crate) fn kernel() -> String {
    let uname = rustix::system::uname();
    let words = [uname.sysname(), uname.release(), uname.machine()];
    words.map(|word| word.to_string_lossy().into_owned()).join(" ")
}

/// Command line of this program, without secrets.
pub(crate) fn command_line() -> String {
    shown_words(&std::env::args_os().collect::<Vec<_>>())
}

fn without_secrets(words: impl Iterator<Item = String>) -> String {
    let mut value_is_secret = false;
    let words = words.map(|word| {
        let is_secret = std::mem::replace(&mut value_is_secret, false);
        let option = SECRET_OPTIONS.into_iter().find(|option| word.starts_with(option));
        value_is_secret = SECRET_OPTIONS.contains(&&*word);
        match option.map(|option| (option, &word[option.len()..])) {
            _ if is_secret || secret_text::may_be_secret(&word) => "***".to_owned(),
            // --dhchap-secret=SECRET and -SSECRET; --dhchap-secret-file is another option.
            Some((option, value)) if value.starts_with('=') => format!("{option}=***"),
            Some((option, value)) if option.len() == 2 && !value.is_empty() => {
                format!("{option}***")
            }
            _ if word.contains(' ') => format!("'{word}'"),
            _ => word,
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Words of a command line, without secrets.
pub(crate) fn shown_words(words: &[OsString]) -> String {
    without_secrets(words.iter().map(|word| word.to_string_lossy().into_owned()))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Text of a small file of the kernel; none if it can't be read, or is empty.
fn text_of(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Files in a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_has_no_secrets() {
        let shown = |line: &str| without_secrets(line.split(' ').map(str::to_owned));
        for line in [
            "nvmf bench --dhchap-secret DHHC-1:00:x: -n nqn",
            "nvmf bench --dhchap-secret=DHHC-1:00:x: -n nqn",
            "nvmf bench --dhchap-secret x -n nqn",
            "nvmf bench --dhchap-ctrl-secret=x -n nqn",
            "nvmf bench -Sx -n nqn",
            "nvmf bench -C x -n nqn",
            "nvmf bench nvmf-rdma://h/nqn?dhchap-secret=DHHC-1:00:x: -n nqn",
        ] {
            let shown = shown(line);
            assert!(!shown.contains('x') && shown.contains("***"), "{shown}");
            assert!(shown.ends_with(" -n nqn"), "{shown}");
        }
        let line = "nvmf bench --dhchap-secret-file x --bs 4K:70,64K:30";
        assert_eq!(shown(line), line);
    }
}
