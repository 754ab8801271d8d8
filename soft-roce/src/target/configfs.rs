//! The kernel's side of a target: folders, attributes and links, and the reason of each refusal.
//!
//! Names come from target files and from the command line. Each is checked where it becomes a part
//! of a path: see [`child`] and [`is_attribute`].

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{OpenOptionsExt, symlink},
    path::{Component, Path, PathBuf},
};

use rustix::{fs::OFlags, system::uname};

use crate::{Error, Result};

/// Folders of a kernel's target, and of the record of what was made in it.
#[derive(Clone, Debug)]
pub struct TargetRoot {
    /// Mount point of the kernel's configfs.
    pub(crate) config: PathBuf,
    /// Mount point of the kernel's debugfs.
    pub(crate) debug: PathBuf,
    /// This program's own folder, on a tmpfs.
    pub(crate) own: PathBuf,
    /// Every object of the target may be removed, as in a guest.
    pub(crate) exclusive: bool,
}

impl TargetRoot {
    /// The target of the guest in which this process runs.
    #[must_use]
    pub fn guest() -> Self {
        Self { exclusive: true, ..Self::native() }
    }

    /// The target of this machine's kernel, where other programs may have objects too.
    #[must_use]
    pub fn native() -> Self {
        Self {
            config: "/sys/kernel/config".into(),
            debug: "/sys/kernel/debug".into(),
            own: "/run/soft-roce".into(),
            exclusive: false,
        }
    }

    /// The target of the guest, if this process runs in one, else of this machine's kernel.
    #[must_use]
    pub fn here() -> Self {
        if std::env::var_os("SOFT_ROCE").is_some() { Self::guest() } else { Self::native() }
    }

    /// Folder of the target.
    pub(super) fn nvmet(&self) -> Result<PathBuf> {
        let path = self.config.join("nvmet");
        if path.is_dir() {
            return Ok(path);
        }
        let text = "this kernel has no NVMe target; call this inside `soft-roce run`, or after \
                    `soft-roce native up`";
        Err(Error::Usage(text.into()))
    }

    pub(super) fn subsystem(&self, nqn: &str) -> Result<Node> {
        let path = child(&self.nvmet()?.join("subsystems"), nqn)?;
        Ok(Node { path, object: format!("subsystem {nqn}") })
    }

    pub(super) fn namespace(&self, nqn: &str, nsid: u32) -> Result<Node> {
        let path = self.subsystem(nqn)?.path.join("namespaces").join(nsid.to_string());
        Ok(Node { path, object: format!("subsystem {nqn}: namespace {nsid}") })
    }

    pub(super) fn passthru(&self, nqn: &str) -> Result<Node> {
        let path = self.subsystem(nqn)?.path.join("passthru");
        Ok(Node { path, object: format!("subsystem {nqn}: passthru") })
    }

    pub(super) fn host(&self, nqn: &str) -> Result<Node> {
        let path = child(&self.nvmet()?.join("hosts"), nqn)?;
        Ok(Node { path, object: format!("host {nqn}") })
    }

    pub(super) fn port(&self, id: u16) -> Result<Node> {
        let path = self.nvmet()?.join("ports").join(id.to_string());
        Ok(Node { path, object: format!("port {id}") })
    }

    pub(super) fn ana_group(&self, port: u16, id: u32) -> Result<Node> {
        let path = self.port(port)?.path.join("ana_groups").join(id.to_string());
        Ok(Node { path, object: format!("port {port}: ANA group {id}") })
    }

    pub(super) fn referral(&self, port: u16, name: &str) -> Result<Node> {
        let path = child(&self.port(port)?.path.join("referrals"), name)?;
        Ok(Node { path, object: format!("port {port}: referral {name}") })
    }

    pub(super) fn null_blk(&self, name: &str) -> Result<Node> {
        let path = child(&self.config.join("nullb"), name)?;
        Ok(Node { path, object: format!("null_blk {name}") })
    }
}

/// Path of an object in `folder`: the name may not lead out of it.
pub(super) fn child(folder: &Path, name: &str) -> Result<PathBuf> {
    let mut parts = Path::new(name).components();
    let is_one = matches!(parts.next(), Some(Component::Normal(part)) if part == name);
    if is_one && !name.contains('\0') {
        return Ok(folder.join(name));
    }
    Err(Error::Usage(format!("{name:?} cannot be the name of an object of the target")))
}

/// Tells if a name is one that the kernel's attributes have: letters, digits and underscores.
pub(super) fn is_attribute(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// One object of the target, as a folder.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) path: PathBuf,
    pub(super) object: String,
}

impl Node {
    /// Creates the object; returns false when it exists already.
    pub(super) fn create(&self) -> Result<bool> {
        let log = KernelLog::now();
        match fs::create_dir(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(self.refused("creating", &self.path, (error, &log))),
        }
    }

    /// Removes the object; succeeds when it does not exist.
    pub(super) fn remove(&self) -> Result<()> {
        let log = KernelLog::now();
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.refused("removing", &self.path, (error, &log)))
            }
            _ => Ok(()),
        }
    }

    /// Fails when the object does not exist.
    pub(super) fn expect(&self) -> Result<&Self> {
        if self.path.is_dir() {
            return Ok(self);
        }
        Err(Error::Usage(format!("{}: not there; `soft-roce target show` lists all", self.object)))
    }

    /// Writes an attribute.
    pub(super) fn set(&self, attribute: &str, value: &str) -> Result<()> {
        if !is_attribute(attribute) {
            let object = &self.object;
            let text = format!("{object}: {attribute:?} is not the name of an attribute");
            return Err(Error::Usage(text));
        }
        let path = self.path.join(attribute);
        if !path.exists() {
            return Err(Error::AttributeMissing {
                object: self.object.clone(),
                attribute: attribute.into(),
                release: uname().release().to_string_lossy().into_owned(),
            });
        }
        let log = KernelLog::now();
        // A write of no bytes does not reach the kernel; a line end stands for the empty value.
        let text = if value.is_empty() { "\n" } else { value };
        let written = OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        let secret = attribute.ends_with("_key");
        written.map_err(|source| Error::Attribute {
            object: self.object.clone(),
            attribute: attribute.into(),
            value: if secret { "(a secret)".into() } else { value.into() },
            source,
            kernel: log.since(),
        })
    }

    /// Writes an attribute when there is a value.
    pub(super) fn set_some(&self, attribute: &str, value: Option<impl ToString>) -> Result<()> {
        value.map_or(Ok(()), |value| self.set(attribute, &value.to_string()))
    }

    /// Text of an attribute; empty when it cannot be read.
    pub(super) fn get(&self, attribute: &str) -> String {
        let text = fs::read_to_string(self.path.join(attribute)).unwrap_or_default();
        text.trim_end().to_owned()
    }

    /// Links another object into a folder of this one; succeeds when the link exists.
    pub(super) fn link(&self, folder: &str, other: &Self) -> Result<()> {
        let name = other.path.file_name().unwrap_or_default();
        let link = self.path.join(folder).join(name);
        let log = KernelLog::now();
        match symlink(&other.path, &link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(self.refused("linking", &link, (error, &log)))
            }
            _ => Ok(()),
        }
    }

    /// Removes such a link.
    pub(super) fn unlink(&self, folder: &str, name: &str) -> Result<()> {
        let link = child(&self.path.join(folder), name)?;
        let log = KernelLog::now();
        fs::remove_file(&link).map_err(|error| self.refused("unlinking", &link, (error, &log)))
    }

    /// Names in a folder of the object, in order.
    pub(super) fn list(&self, folder: &str) -> Vec<String> {
        names(&self.path.join(folder))
    }

    fn refused(&self, doing: &str, path: &Path, why: (io::Error, &KernelLog)) -> Error {
        let (source, log) = why;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Error::Attribute {
            object: self.object.clone(),
            attribute: doing.into(),
            value: name.into_owned(),
            source,
            kernel: log.since(),
        }
    }
}

/// Names in a folder, in order; none when it cannot be read.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    // Numbers by value, other names alphabetically.
    names.sort_by_key(|name| (name.parse::<u32>().unwrap_or(u32::MAX), name.clone()));
    names
}

/// Position in the kernel's log, for reading later what was logged after it.
struct KernelLog {
    file: Option<File>,
}

impl KernelLog {
    fn now() -> Self {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("the flag is small");
        let file = File::options().read(true).custom_flags(flags).open("/dev/kmsg").ok();
        let at_end = |mut file: File| file.seek(SeekFrom::End(0)).is_ok().then_some(file);
        Self { file: file.and_then(at_end) }
    }

    /// Messages that were logged since.
    fn since(&self) -> Vec<String> {
        let Some(mut file) = self.file.as_ref() else { return Vec::new() };
        let mut record = [0; 8192];
        let mut messages = Vec::new();
        // Each read returns one record: fields, a semicolon, the message, a line end.
        while let Ok(count @ 1..) = file.read(&mut record) {
            let text = String::from_utf8_lossy(&record[..count]);
            let message = text.split_once(';').map(|(_, message)| message);
            let first = message.and_then(|message| message.lines().next());
            messages.extend(first.map(str::to_owned));
        }
        messages
    }
}
