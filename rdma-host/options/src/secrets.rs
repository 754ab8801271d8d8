//! DH-HMAC-CHAP secrets from a file, a file descriptor, the kernel's keyring, or, with a warning,
//! the command line.

use std::{
    fs::{File, Metadata},
    io,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use auth::{Credentials, GroupId, HashId, Policy, Secret, SecretError};
use clap::Args;
use rdma_host::config::AuthenticationOptions;
use zeroize::Zeroizing;

use crate::{
    failure::Failure, keyring::KeyName, option_value::NONE, program, secret_text::shown_path,
    text_file,
};

/// Most bytes of a secret's text: more than any secret, less than a file given by mistake.
const TEXT_MAX: usize = 4096;

/// Authentication options; names as in nvme-cli, which takes secrets on the command line only.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Authentication")]
pub struct SecretArguments {
    /// Host secret (DHHC-1:…); every user of this machine can see it: prefer a file.
    #[arg(short = 'S', long, value_name = "SECRET")]
    dhchap_secret: Option<SecretText>,

    /// File with the host secret, readable by its owner only; - for standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "dhchap_secret")]
    dhchap_secret_file: Option<PathBuf>,

    /// File descriptor to read the host secret from.
    #[arg(long, value_name = "FD", conflicts_with_all = ["dhchap_secret", "dhchap_secret_file"])]
    dhchap_secret_fd: Option<u32>,

    /// Key with the host secret in the kernel's keyring: the description of a "user" key, or a
    /// serial number.
    #[arg(long, value_name = "KEY",
          conflicts_with_all = ["dhchap_secret", "dhchap_secret_file", "dhchap_secret_fd"])]
    dhchap_secret_key: Option<KeyName>,

    /// Controller secret, with which the controller must prove itself; prefer a file.
    #[arg(short = 'C', long, value_name = "SECRET")]
    dhchap_ctrl_secret: Option<SecretText>,

    /// File with the controller secret; - for standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "dhchap_ctrl_secret")]
    dhchap_ctrl_secret_file: Option<PathBuf>,

    /// File descriptor to read the controller secret from.
    #[arg(long, value_name = "FD",
          conflicts_with_all = ["dhchap_ctrl_secret", "dhchap_ctrl_secret_file"])]
    dhchap_ctrl_secret_fd: Option<u32>,

    /// Key with the controller secret in the kernel's keyring.
    #[arg(long, value_name = "KEY",
          conflicts_with_all = ["dhchap_ctrl_secret", "dhchap_ctrl_secret_file",
                                "dhchap_ctrl_secret_fd"])]
    dhchap_ctrl_secret_key: Option<KeyName>,

    /// Weakest hash to accept.
    #[arg(long, value_name = "HASH", default_value = "sha256", value_parser = hash)]
    dhchap_min_hash: HashId,

    /// Weakest DH group to accept.
    #[arg(long, value_name = "GROUP", default_value = "null", value_parser = group)]
    dhchap_min_group: GroupId,

    /// Go on without authentication if secrets are given but the target does not ask for it. Any
    /// host on the network can then pose as the target.
    #[arg(long)]
    dhchap_allow_unasked: bool,
}

/// Secret from the command line; wiped when dropped, and not shown by `Debug`.
#[derive(Clone)]
pub struct SecretText(pub Zeroizing<String>);

impl std::str::FromStr for SecretText {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

impl SecretArguments {
    /// Options for the library.
    pub fn options(&self) -> Result<AuthenticationOptions, Failure> {
        let host = SecretSource {
            label: "our secret",
            option: "--dhchap-secret-file",
            text: self.dhchap_secret.as_ref(),
            file: self.dhchap_secret_file.as_deref(),
            descriptor: self.dhchap_secret_fd,
            key: self.dhchap_secret_key.as_ref(),
        };
        let controller = SecretSource {
            label: "the controller's secret",
            option: "--dhchap-ctrl-secret-file",
            text: self.dhchap_ctrl_secret.as_ref(),
            file: self.dhchap_ctrl_secret_file.as_deref(),
            descriptor: self.dhchap_ctrl_secret_fd,
            key: self.dhchap_ctrl_secret_key.as_ref(),
        };
        let opened = (host.open()?, controller.open()?);
        let secrets = (host.secret(opened.0)?, controller.secret(opened.1)?);
        let credentials = credentials(secrets.0, secrets.1, "--dhchap-secret-file")?;
        let policy = Policy::new(self.dhchap_min_hash, self.dhchap_min_group);
        let mut policy = policy.map_err(Failure::usage)?;
        if self.dhchap_allow_unasked {
            policy = policy.danger_allow_unauthenticated();
        }
        Ok(AuthenticationOptions::default().credentials(credentials.map(Arc::new)).policy(policy))
    }
}

/// Options for one secret, of which at most one is given.
struct SecretSource<'a> {
    label: &'static str,
    option: &'static str,
    text: Option<&'a SecretText>,
    file: Option<&'a Path>,
    descriptor: Option<u32>,
    key: Option<&'a KeyName>,
}

/// Source that is open, or needs no opening.
enum OpenedSource<'a> {
    None,
    Text(&'a SecretText),
    File(File, PathBuf),
    Key(&'a KeyName),
}

impl<'a> SecretSource<'a> {
    /// Opens the source without reading it: once the first secret is read, /dev/fd may be closed to
    /// this process too.
    fn open(&self) -> Result<OpenedSource<'a>, Failure> {
        let label = self.label;
        match (self.text, self.file, self.descriptor, self.key) {
            (Some(text), ..) if text.0.as_str() == NONE => Ok(OpenedSource::None),
            (Some(text), ..) => Ok(OpenedSource::Text(text)),
            (_, Some(path), ..) => {
                let opened = open_file(path);
                let file = opened.map_err(|reason| Failure::usage(format!("{label}: {reason}")))?;
                Ok(OpenedSource::File(file, path.to_owned()))
            }
            (.., Some(descriptor), _) => {
                let path = PathBuf::from(format!("/dev/fd/{descriptor}"));
                let file = File::open(&path).map_err(|error| self.unreadable(&path, error))?;
                Ok(OpenedSource::File(file, path))
            }
            (.., Some(key)) => Ok(OpenedSource::Key(key)),
            _ => Ok(OpenedSource::None),
        }
    }

    fn secret(&self, opened: OpenedSource<'_>) -> Result<Option<Secret>, Failure> {
        let Self { label, option, .. } = *self;
        let text = match opened {
            OpenedSource::None => return Ok(None),
            OpenedSource::Text(SecretText(text)) => {
                program::protect();
                warn_of_command_line(label, option);
                text.clone()
            }
            OpenedSource::File(file, path) => {
                read_text(file).map_err(|error| self.unreadable(&path, error))?
            }
            OpenedSource::Key(key) => {
                program::protect();
                let read = key.read(TEXT_MAX);
                read.map_err(|error| Failure::usage(format!("{label}: {error}")))?
            }
        };
        parse(&text).map(Some).map_err(|error| Failure::usage(format!("{label}: {error}")))
    }

    fn unreadable(&self, path: &Path, error: impl std::fmt::Display) -> Failure {
        Failure::usage(format!("{}: cannot read {}: {error}", self.label, shown_path(path)))
    }
}

/// Credentials of the secrets that are given; `option` is the one that is missing for a controller
/// secret alone.
pub fn credentials(
    host: Option<Secret>,
    controller: Option<Secret>,
    option: &str,
) -> Result<Option<Credentials>, Failure> {
    match (host, controller) {
        (None, None) => Ok(None),
        (Some(host), None) => Ok(Some(Credentials::one_way(host))),
        (Some(host), Some(controller)) => {
            Credentials::two_way(host, controller).map(Some).map_err(Failure::usage)
        }
        (None, Some(_)) => Err(Failure::usage(format!(
            "the controller's secret is given, but not ours: only a host that proves itself can \
             ask the controller to; add {option}"
        ))),
    }
}

/// Warns that a secret is an argument.
pub fn warn_of_command_line(label: &str, option: &str) {
    program::warn(format_args!(
        "{label} is on the command line, where every user of this machine can see \
         it; use {option}"
    ));
}

/// Secret of a text, which in a file has a line end.
pub fn parse(text: &str) -> Result<Secret, SecretError> {
    Secret::parse(text.trim_end_matches(['\n', '\r']))
}

/// Opens a file with a secret without reading it: a regular file that no other user can read or has
/// written, or a stream that is asked for by its name.
pub fn open_file(path: &Path) -> Result<File, String> {
    let cannot = |error: io::Error| format!("cannot read {}: {error}", shown_path(path));
    if path.as_os_str() == "-" {
        return unbuffered(io::stdin()).map_err(cannot);
    }
    if ["/dev/stdin", "/dev/fd", "/proc/self/fd"].iter().any(|stream| path.starts_with(stream)) {
        return File::open(path).map_err(cannot);
    }
    let (file, metadata) = text_file::open(path).map_err(cannot)?;
    match exposure(path, &metadata) {
        Some(reason) => Err(reason),
        None => Ok(file),
    }
}

/// Reason for which the secrets in a file are not safe: another user may have written or can read
/// it.
pub fn exposure(path: &Path, metadata: &Metadata) -> Option<String> {
    let (path, mode, owner) = (path.display(), metadata.permissions().mode(), metadata.uid());
    if mode & 0o077 != 0 {
        let mode = mode & 0o777;
        return Some(format!("{path} may be read by others (mode {mode:03o}); chmod 600 {path}"));
    }
    let user = rustix::process::geteuid().as_raw();
    (owner != 0 && owner != user && Some(owner) != sudo_user()).then(|| {
        format!("{path} belongs to user {owner}, who may have put another secret there; chown it")
    })
}

/// User who runs this program by sudo as root.
fn sudo_user() -> Option<u32> {
    let user = std::env::var("SUDO_UID").ok()?.parse().ok()?;
    Some(user).filter(|_| rustix::process::geteuid().is_root())
}

/// Standard stream without the buffer of the standard library, which is not wiped.
pub fn unbuffered(stream: impl AsFd) -> io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}

/// Reads the text of a secret, leaving no copy of it in memory.
pub fn read_text(file: File) -> io::Result<Zeroizing<String>> {
    // The open file stays readable; except for root, /dev/fd can no longer be opened after this.
    program::protect();
    text_file::read(file, TEXT_MAX)
}

fn hash(text: &str) -> Result<HashId, String> {
    match text {
        "sha256" => Ok(HashId::SHA_256),
        "sha384" => Ok(HashId::SHA_384),
        "sha512" => Ok(HashId::SHA_512),
        _ => Err("one of sha256, sha384, sha512".to_owned()),
    }
}

fn group(text: &str) -> Result<GroupId, String> {
    match text {
        "null" => Ok(GroupId::NULL),
        "ffdhe2048" => Ok(GroupId::FFDHE_2048),
        "ffdhe3072" => Ok(GroupId::FFDHE_3072),
        "ffdhe4096" => Ok(GroupId::FFDHE_4096),
        "ffdhe6144" => Ok(GroupId::FFDHE_6144),
        "ffdhe8192" => Ok(GroupId::FFDHE_8192),
        _ => Err("one of null, ffdhe2048, ffdhe3072, ffdhe4096, ffdhe6144, ffdhe8192".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    const SECRET: &str = "DHHC-1:00:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:";

    #[test]
    fn a_secret_is_in_a_file_of_its_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, SECRET).unwrap();
        for (mode, allowed) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(open_file(&path).is_ok(), allowed, "{mode:o}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
            let error = open_file(&path).unwrap_err();
            assert!(error.contains("belongs to user 12345"), "{error}");
        }
        assert!(open_file(folder.path()).unwrap_err().contains("no file"));
        assert!(open_file(Path::new("/dev/zero")).unwrap_err().contains("no file"));
    }
}
