//! `nvmf key`: DH-HMAC-CHAP secrets, interchangeable with nvme-cli's.

use std::{
    fs::File,
    io::{ErrorKind, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use auth::{HashId, Secret};
use clap::Subcommand;
use zeroize::Zeroizing;

use crate::{failure::Failure, output, process_hardening, secrets};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Check a secret read from a file or standard input.
    Check {
        /// File with the secret; - for standard input.
        #[arg(default_value = "-")]
        file: PathBuf,
    },
    /// Make a random secret, and print it or write it to a file.
    Gen {
        /// Length of the secret, in bytes.
        #[arg(short = 'l', long, default_value = "32", value_parser = ["32", "48", "64"])]
        key_length: String,
        /// Hash that transforms the secret into a key: 0 none, 1 SHA-256, 2 SHA-384, 3 SHA-512.
        #[arg(short = 'm', long, default_value_t = 0,
              value_parser = clap::value_parser!(u8).range(0..=3))]
        hmac: u8,
        /// New file for the secret, readable by its owner only; existing files are not overwritten.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

pub(crate) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Check { file } => check(file),
        Command::Gen { key_length, hmac, output } => {
            generate(key_length, HashId(*hmac), output.as_deref())
        }
    }
}

fn generate(key_length: &str, hash: HashId, output: Option<&Path>) -> Result<(), Failure> {
    let length: usize = key_length.parse().map_err(Failure::usage)?;
    let (file, name) = match output {
        Some(path) => (create(path), path.display().to_string()),
        None => (unbuffered(std::io::stdout()), "standard output".to_owned()),
    };
    process_hardening::protect();
    let mut bytes = Zeroizing::new(vec![0; length]);
    getrandom::fill(&mut bytes).map_err(Failure::failed)?;
    let secret = Secret::from_bytes(hash, &bytes).map_err(Failure::failed)?;
    let text = secret.encode();
    let written = file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")
    });
    match written {
        Err(error) if output.is_none() && error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => {
            let exists = error.kind() == ErrorKind::AlreadyExists;
            let remedy = if exists { "; remove it first, or choose another name" } else { "" };
            Err(Failure::failed(format!("cannot write {name}: {error}{remedy}")))
        }
        Ok(()) => Ok(()),
    }
}

fn create(path: &Path) -> std::io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

fn check(file: &Path) -> Result<(), Failure> {
    let (opened, name) = if file.as_os_str() == "-" {
        (unbuffered(std::io::stdin()), "standard input".to_owned())
    } else {
        (File::open(file), file.display().to_string())
    };
    let text = opened.and_then(secrets::read_text);
    let text = text.map_err(|error| Failure::failed(format!("cannot read {name}: {error}")))?;
    let secret = Secret::parse(text.trim_end_matches('\n')).map_err(Failure::failed)?;
    let hash = secret.hash();
    drop((secret, text));
    output::print_text(&format!("the secret is valid; transformation: {hash}\n"))
}

/// Standard stream without the buffer of the standard library, which is not wiped.
fn unbuffered(stream: impl AsFd) -> std::io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}
