//! `nvmf key`: DH-HMAC-CHAP secrets, interchangeable with nvme-cli's.

use std::io::Read;
use std::path::PathBuf;

use auth::{HashId, Secret};
use clap::Subcommand;
use zeroize::{Zeroize, Zeroizing};

use crate::failure::Failure;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Check a secret read from a file or standard input.
    Check {
        /// The file with the secret; - for standard input.
        #[arg(default_value = "-")]
        file: PathBuf,
    },
    /// Make a random secret and print it.
    Gen {
        /// Bytes of the secret.
        #[arg(short = 'l', long, default_value = "32", value_parser = ["32", "48", "64"])]
        key_length: String,
        /// The hash that makes a key of the secret: 0 none, 1 SHA-256, 2 SHA-384, 3 SHA-512.
        #[arg(short = 'm', long, default_value_t = 0,
              value_parser = clap::value_parser!(u8).range(0..=3))]
        hmac: u8,
    },
}

pub(crate) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Check { file } => check(file),
        Command::Gen { key_length, hmac } => generate(key_length, HashId(*hmac)),
    }
}

fn generate(key_length: &str, hash: HashId) -> Result<(), Failure> {
    let length: usize = key_length.parse().map_err(Failure::usage)?;
    let mut bytes = Zeroizing::new(vec![0; length]);
    getrandom::fill(&mut bytes).map_err(Failure::failed)?;
    let secret = Secret::from_bytes(hash, &bytes).map_err(Failure::failed)?;
    println!("{}", secret.encode().as_str());
    Ok(())
}

fn check(file: &PathBuf) -> Result<(), Failure> {
    /// More than any secret, less than a mistaken disk image.
    const TEXT_MAX: u64 = 4096;
    let mut text = Zeroizing::new(String::new());
    let read = if file.as_os_str() == "-" {
        std::io::stdin().lock().take(TEXT_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|open| open.take(TEXT_MAX).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::failed(format!("cannot read {}: {error}", file.display())))?;
    let outcome = Secret::parse(text.trim_end_matches('\n'));
    text.zeroize();
    let secret = outcome.map_err(Failure::failed)?;
    println!("the secret is valid; transformation: {}", secret.hash());
    Ok(())
}
