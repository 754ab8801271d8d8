//! The private folder of one run.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::{Error, Result, room, source::remove_folder, spec::name};

/// Holds everything of one run; gone when dropped, or by the guard's hand when we are killed.
#[derive(Debug)]
pub(crate) struct RunFolder {
    pub(crate) path: PathBuf,
}

impl RunFolder {
    /// A fresh folder, with a link to the program that will be the guest's init.
    pub(crate) fn create(program: &Path) -> Result<Self> {
        if room::is_covered(program) {
            let reason = "the guest has its own file system there; install soft-roce elsewhere";
            return Err(Error::Path { path: program.into(), reason });
        }
        let base = room::private_base();
        let folder = tempfile::Builder::new().prefix("soft-roce-").tempdir_in(&base);
        let path = folder.map_err(Error::io("create a folder in", base))?.keep();
        let init = path.join(name::INIT);
        let created = Self { path };
        symlink(program, &init).map_err(Error::io("create", init))?;
        Ok(created)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // The guard may have been faster.
        let _ = remove_folder(&self.path);
    }
}
