//! The kernel's configuration: our options over the smallest one, and the key of what is built.

use std::{fs, path::Path};

use sha2::{Digest, Sha256};

use crate::{Error, Result, kernel::patch};

/// The options that make a kernel the test bed.
const OPTIONS: &str = include_str!("../../kernel/uml.config");

/// The line of [`OPTIONS`] after which options may be missing from a source.
const OPTIONAL: &str = "# Optional";

/// Changes when a kernel has to be built again although source, options and patches are the same.
const RECIPE: &str = "2";

/// The part of the cache's key that stands for our options and patches: 12 hexadecimal digits.
pub(crate) fn hash() -> String {
    hash_of([RECIPE, OPTIONS].into_iter().chain(patch::text()))
}

/// Appends our options to the tree's `.config`; `make olddefconfig` settles the rest.
pub(crate) fn append(tree: &Path) -> Result<()> {
    let path = tree.join(".config");
    let smallest = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    fs::write(&path, smallest + OPTIONS).map_err(Error::io("write", &path))
}

/// Returns the optional options that this source does not have.
///
/// # Errors
///
/// [`Error::Configuration`] with the other options that did not stay on.
pub(crate) fn verify(tree: &Path) -> Result<Vec<String>> {
    let path = tree.join(".config");
    let settled = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let (required, optional) = OPTIONS.split_once(OPTIONAL).unwrap_or((OPTIONS, ""));
    let lost = missing(required, &settled);
    if lost.is_empty() { Ok(missing(optional, &settled)) } else { Err(Error::Configuration(lost)) }
}

fn hash_of(parts: impl IntoIterator<Item = &'static str>) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// The options set to y in `options` that are not on in `settled`.
fn missing(options: &str, settled: &str) -> Vec<String> {
    let asked = options.lines().filter(|line| line.ends_with("=y"));
    let is_on = |option: &&str| settled.lines().any(|line| line == *option);
    asked.filter(|option| !is_on(option)).map(|o| o.trim_end_matches("=y").to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_follows_options_and_patches() {
        assert_eq!(hash().len(), 12);
        assert_eq!(hash_of(["A=y", "p"]), hash_of(["A=y", "p"]));
        assert_ne!(hash_of(["A=y", "p"]), hash_of(["A=y", "q"]));
        assert_ne!(hash_of(["A=y", "p"]), hash_of(["A=yp", ""]));
    }

    #[test]
    fn missing_options_are_named_and_optional_ones_forgiven() {
        let settled = "CONFIG_NET=y\n# CONFIG_RDMA_RXE is not set\nCONFIG_NR=8\n";
        let asked = "CONFIG_NET=y\nCONFIG_RDMA_RXE=y\n# CONFIG_X is not set\nCONFIG_SSL=n\n";
        assert_eq!(missing(asked, settled), ["CONFIG_RDMA_RXE"]);
        let tree = tempfile::tempdir().unwrap();
        let all = OPTIONS.split_once(OPTIONAL).unwrap().0;
        fs::write(tree.path().join(".config"), all).unwrap();
        assert!(verify(tree.path()).unwrap().contains(&"CONFIG_RDMA_SIW".to_owned()));
        fs::write(tree.path().join(".config"), "").unwrap();
        assert!(verify(tree.path()).unwrap_err().to_string().contains("CONFIG_RDMA_RXE"));
    }
}
