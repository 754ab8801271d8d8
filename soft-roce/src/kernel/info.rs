//! A built kernel's description, kept beside it in the cache.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, Result, kernel::patch::Patched};

/// The description's file name in an entry of the cache.
pub(crate) const FILE: &str = "kernel.json";

/// Description of a kernel: its source, patches and configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelInfo {
    /// The source's version; the same version means the same source.
    pub version: String,
    /// The hash of our options and patches, see [`crate::kernel::cache::Cache::entry`].
    pub recipe: String,
    /// Our changes to the source.
    pub patched: Patched,
    /// Optional parts of the configuration that the source does not have.
    pub missing_options: Vec<String>,
}

impl KernelInfo {
    /// Reads the description from an entry of the cache, or another file in the same form.
    ///
    /// # Errors
    ///
    /// When there is none, or it makes no sense.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read(path).map_err(Error::io("read", path))?;
        serde_json::from_slice(&text).map_err(|error| Error::io("read", path)(error.into()))
    }

    pub(crate) fn store(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).expect("strings always have a JSON form");
        fs::write(path, text).map_err(Error::io("write", path))
    }

    /// Features that this kernel lacks, one line each, for messages.
    #[must_use]
    pub fn limits(&self) -> Vec<String> {
        let mut limits = Vec::new();
        let checksums = self.patched.not_for_this_source.iter().any(|name| name.contains("checks"));
        if checksums {
            limits.push("checksums are slow: the patch for them is not for this source".into());
        }
        if !self.missing_options.is_empty() {
            limits.push(format!("the source has no {}", self.missing_options.join(", ")));
        }
        limits
    }
}

/// The SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match io::Read::read(&mut file, &mut buffer).map_err(Error::io("read", path))? {
            0 => break,
            count => digest.update(&buffer[..count]),
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
