//! DH-HMAC-CHAP secrets from a file, a file descriptor, the kernel's keyring, or, with a warning,
//! the command line.

use std::{
    fs::File,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use auth::{Credentials, GroupId, HashId, Policy, Secret};
use clap::Args;
use rdma_host::config::AuthenticationOptions;
use zeroize::Zeroizing;

use crate::{failure::Failure, keyring::KeyName, output, process_hardening};

/// Most bytes of a secret's text: more than any secret, less than a file given by mistake.
const TEXT_MAX: usize = 4096;

/// Authentication options; names as in nvme-cli, which takes secrets on the command line only.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Authentication")]
pub(crate) struct SecretArguments {
    /// Host secret (DHHC-1:…); every user of this machine can see it: prefer a file.
    #[arg(short = 'S', long, value_name = "SECRET")]
    dhchap_secret: Option<SecretText>,

    /// File with the host secret, readable by its owner only.
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

    /// File with the controller secret.
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
struct SecretText(Zeroizing<String>);

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
    pub(crate) fn options(&self) -> Result<AuthenticationOptions, Failure> {
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
        let credentials = match (host.secret(opened.0)?, controller.secret(opened.1)?) {
            (None, None) => None,
            (Some(host), None) => Some(Credentials::one_way(host)),
            (Some(host), Some(controller)) => {
                Some(Credentials::two_way(host, controller).map_err(Failure::usage)?)
            }
            (None, Some(_)) => {
                return Err(Failure::usage(
                    "the controller's secret is given, but not ours: only a host that proves \
                     itself can ask the controller to; add --dhchap-secret-file",
                ));
            }
        };
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
        let open = |path: PathBuf| match File::open(&path) {
            Ok(file) => Ok((file, path)),
            Err(error) => Err(self.unreadable(&path, error)),
        };
        match (self.text, self.file, self.descriptor, self.key) {
            (Some(text), ..) => Ok(OpenedSource::Text(text)),
            (_, Some(path), ..) => {
                let (file, path) = open(path.to_owned())?;
                self.check_mode(&file, &path)?;
                Ok(OpenedSource::File(file, path))
            }
            (.., Some(descriptor), _) => {
                let (file, path) = open(PathBuf::from(format!("/dev/fd/{descriptor}")))?;
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
                process_hardening::protect();
                output::print_message(format_args!(
                    "nvmf: warning: {label} is on the command line, where every user of this \
                     machine can see it; use {option}"
                ));
                text.clone()
            }
            OpenedSource::File(file, path) => {
                read_text(file).map_err(|error| self.unreadable(&path, error))?
            }
            OpenedSource::Key(key) => {
                process_hardening::protect();
                let read = key.read(TEXT_MAX);
                read.map_err(|error| Failure::usage(format!("{label}: {error}")))?
            }
        };
        let secret = Secret::parse(text.trim_end_matches('\n'));
        secret.map(Some).map_err(|error| Failure::usage(format!("{label}: {error}")))
    }

    /// Refuses a file that other users can read. Checks the open file, since the path may name
    /// another one by now.
    fn check_mode(&self, file: &File, path: &Path) -> Result<(), Failure> {
        let metadata = file.metadata().map_err(|error| self.unreadable(path, error))?;
        let mode = metadata.permissions().mode();
        if metadata.is_file() && mode & 0o077 != 0 {
            return Err(Failure::usage(format!(
                "{}: {} may be read by others (mode {:03o}); chmod 600 {}",
                self.label,
                path.display(),
                mode & 0o777,
                path.display()
            )));
        }
        Ok(())
    }

    fn unreadable(&self, path: &Path, error: impl std::fmt::Display) -> Failure {
        Failure::usage(format!("{}: cannot read {}: {error}", self.label, path.display()))
    }
}

/// Reads the text of a secret, leaving no copy of it in memory.
pub(crate) fn read_text(file: File) -> std::io::Result<Zeroizing<String>> {
    // The open file stays readable; except for root, /dev/fd can no longer be opened after this.
    process_hardening::protect();
    // Allocated once: growing would leave copies.
    let mut text = Zeroizing::new(String::with_capacity(TEXT_MAX));
    file.take(TEXT_MAX as u64).read_to_string(&mut text)?;
    Ok(text)
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
