//! `nvmf key`: DH-HMAC-CHAP secrets, interchangeable with nvme-cli's.

use std::{
    fs::File,
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use auth::{HashId, Secret};
use clap::Subcommand;
use zeroize::Zeroizing;

use crate::{
    failure::Failure,
    output, process_hardening, secret_text,
    secrets::{self, SecretText, unbuffered},
};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Check a secret from a file or standard input.
    Check {
        /// File with the secret, readable by its owner only; - for standard input.
        #[arg(default_value = "-")]
        file: PathBuf,

        /// Secret itself, as for nvme-cli; every user of this machine can see it: prefer a file.
        #[arg(short, long, value_name = "SECRET", conflicts_with = "file")]
        key: Option<SecretText>,
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
        Command::Check { file, key } => check(file, key.as_ref()),
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

fn check(file: &Path, key: Option<&SecretText>) -> Result<(), Failure> {
    let text = match key {
        Some(SecretText(text)) => {
            process_hardening::protect();
            secrets::warn_of_command_line("the secret", "a file");
            text.clone()
        }
        None => read(file)?,
    };
    let secret = secrets::parse(&text).map_err(Failure::failed)?;
    let hash = secret.hash();
    drop((secret, text));
    output::print_text(&format!("the secret is valid; transformation: {hash}\n"))
}

fn read(file: &Path) -> Result<Zeroizing<String>, Failure> {
    let opened = secrets::open_file(file).map_err(|reason| {
        let itself = if file.exists() { "" } else { "; a secret itself goes to -k" };
        Failure::usage(format!("{reason}{itself}"))
    })?;
    secrets::read_text(opened).map_err(|error| {
        Failure::usage(format!("cannot read {}: {error}", secret_text::shown_path(file)))
    })
}
