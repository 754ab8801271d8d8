//! The private folder of one run.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::{Error, Result, kernel::remove_folder, run::paths, run::spec::name};

/// Holds everything of one run; gone when dropped, or by the reaper's hand when we are killed.
#[derive(Debug)]
pub(crate) struct RunDir {
    pub(crate) path: PathBuf,
}

impl RunDir {
    /// A fresh folder, with a link to the program that will be the guest's init.
    pub(crate) fn create(program: &Path) -> Result<Self> {
        if paths::is_covered(program) {
            let reason = "the guest has its own file system there; install soft-roce elsewhere";
            return Err(Error::Path { path: program.into(), reason });
        }
        let base = paths::private_base();
        let folder = tempfile::Builder::new().prefix("soft-roce-").tempdir_in(&base);
        let path = folder.map_err(Error::io("create a folder in", base))?.keep();
        let init = path.join(name::INIT);
        let created = Self { path };
        symlink(program, &init).map_err(Error::io("create", init))?;
        Ok(created)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // The reaper may have been faster.
        let _ = remove_folder(&self.path);
    }
}
