//! Host and device that a result was measured on, as the kernel describes them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::secret_text;

/// Options with a secret as their value.
const SECRET_OPTIONS: [&str; 4] = ["--dhchap-secret", "--dhchap-ctrl-secret", "-S", "-C"];

/// RDMA device, by its files in `/sys/class/infiniband`.
pub(super) struct Device {
    folder: PathBuf,
}

impl Device {
    pub(super) fn new(name: &str) -> Self {
        Self { folder: Path::new("/sys/class/infiniband").join(name) }
    }

    /// True if the device is a program of the kernel, as rxe and siw are: sending happens within
    /// the doorbell's call, and reception on this host's processors.
    pub(super) fn is_software(&self) -> bool {
        let path = fs::canonicalize(&self.folder);
        path.is_ok_and(|path| path.starts_with("/sys/devices/virtual"))
    }

    pub(super) fn firmware(&self) -> Option<String> {
        text_of(&self.folder.join("fw_ver"))
    }

    /// Speed of the port, as in "100 Gb/sec (4X EDR)".
    pub(super) fn port_speed(&self) -> Option<String> {
        text_of(&self.port()?.join("rate"))
    }

    /// Type of the port's GIDs, as in "RoCE v2"; all of them if there are several.
    pub(super) fn gid_types(&self) -> Option<String> {
        // Entries without a GID can't be read.
        let types = files(&self.port()?.join("gid_attrs/types"));
        let types: BTreeSet<_> = types.iter().filter_map(|path| text_of(path)).collect();
        (!types.is_empty()).then(|| Vec::from_iter(types).join(", "))
    }

    /// MTU of the port's network interface, in bytes.
    pub(super) fn netdev_mtu(&self) -> Option<u32> {
        let names = files(&self.port()?.join("gid_attrs/ndevs"));
        let name = names.iter().find_map(|path| text_of(path))?;
        text_of(&Path::new("/sys/class/net").join(name).join("mtu"))?.parse().ok()
    }

    /// First port that is active, or the first one.
    fn port(&self) -> Option<PathBuf> {
        let ports = files(&self.folder.join("ports"));
        let is_active =
            |port: &&PathBuf| text_of(&port.join("state")).is_some_and(|it| it.contains("ACTIVE"));
        ports.iter().find(is_active).or(ports.first()).cloned()
    }
}

/// Name of the first processor.
pub(super) fn cpu_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Frequency governor of the processors; all of them if they differ.
pub(super) fn cpu_governor() -> Option<String> {
    let processors = files(Path::new("/sys/devices/system/cpu"));
    let governor = |path: &PathBuf| text_of(&path.join("cpufreq/scaling_governor"));
    let governors: BTreeSet<_> = processors.iter().filter_map(governor).collect();
    (!governors.is_empty()).then(|| Vec::from_iter(governors).join(", "))
}

/// Name of this host.
pub(super) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Name, release and machine of the running kernel.
pub(super) fn kernel() -> String {
    let uname = rustix::system::uname();
    let words = [uname.sysname(), uname.release(), uname.machine()];
    words.map(|word| word.to_string_lossy().into_owned()).join(" ")
}

/// Command line of this program, without secrets.
pub(super) fn command_line() -> String {
    without_secrets(std::env::args_os().map(|word| word.to_string_lossy().into_owned()))
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
