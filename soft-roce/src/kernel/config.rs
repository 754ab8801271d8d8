//! The kernel's configuration: our options over the smallest one, and a proof that they stuck.

use std::{fs, path::Path};

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The options that make a kernel the test bed.
pub(crate) const OPTIONS: &str = include_str!("../../uml.config");

/// Changes when a kernel has to be built anew although its source did not change.
const RECIPE: &str = "1";

/// Names the configuration in the cache.
pub(crate) fn hash() -> String {
    hash_of(OPTIONS)
}

/// Appends our options to the tree's `.config`; `olddefconfig` settles the rest.
pub(crate) fn append(tree: &Path) -> Result<()> {
    let path = tree.join(".config");
    let smallest = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    fs::write(&path, smallest + OPTIONS).map_err(Error::io("write", &path))
}

/// Fails, with their names, when options that we asked for are not on.
pub(crate) fn verify(tree: &Path) -> Result<()> {
    let path = tree.join(".config");
    let settled = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let lost = lost(OPTIONS, &settled);
    if lost.is_empty() { Ok(()) } else { Err(Error::Configuration(lost)) }
}

fn hash_of(options: &str) -> String {
    let digest = Sha256::new().chain_update(RECIPE).chain_update(options).finalize();
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn lost(options: &str, settled: &str) -> Vec<String> {
    let asked = options.lines().filter(|line| line.ends_with("=y"));
    let is_on = |option: &&str| settled.lines().any(|line| line == *option);
    asked.filter(|option| !is_on(option)).map(|o| o.trim_end_matches("=y").to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_follows_the_options() {
        assert_eq!(hash().len(), 12);
        assert_eq!(hash_of("A=y\n"), hash_of("A=y\n"));
        assert_ne!(hash_of("A=y\n"), hash_of("A=n\n"));
    }

    #[test]
    fn lost_options_are_named() {
        let settled = "CONFIG_NET=y\n# CONFIG_RDMA_RXE is not set\nCONFIG_NR=8\n";
        let asked = "CONFIG_NET=y\nCONFIG_RDMA_RXE=y\n# CONFIG_X is not set\nCONFIG_SSL=n\n";
        assert_eq!(lost(asked, settled), ["CONFIG_RDMA_RXE"]);
    }
}
