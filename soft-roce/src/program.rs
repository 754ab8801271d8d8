//! The `soft-roce` program itself: it is also the reaper and the guest's init.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// Names the program for callers that are not it.
pub const PROGRAM_VARIABLE: &str = "SOFT_ROCE_PROGRAM";

const NAME: &str = "soft-roce";

/// The program: named by [`PROGRAM_VARIABLE`], or this one, or one beside it or on the path.
pub(crate) fn own() -> Result<PathBuf> {
    let named = env::var_os(PROGRAM_VARIABLE).map(PathBuf::from);
    let here = env::current_exe().ok();
    let mut known: Vec<PathBuf> = named.into_iter().chain(here.clone()).collect();
    // A test program lies in `deps`, one folder below the programs.
    let above = here.iter().flat_map(|path| path.ancestors().skip(1).take(2));
    known.extend(above.map(|folder| folder.join(NAME)));
    let path = env::var_os("PATH").unwrap_or_default();
    known.extend(env::split_paths(&path).map(|folder| folder.join(NAME)));
    let is_program = |path: &PathBuf| path.file_name() == Some(NAME.as_ref()) && path.is_file();
    let found = known.into_iter().find(is_program).ok_or(Error::NoProgram)?;
    canonical(&found)
}

fn canonical(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(Error::io("find", path))
}
