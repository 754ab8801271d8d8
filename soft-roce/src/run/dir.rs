//! Private folders of a run, and the removal of those that a killed run left.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, geteuid, kill_process},
};

use crate::{
    Error, Result,
    folder::remove_folder,
    run::paths,
    run::process,
    run::spec::{self, LaunchSpec, name},
};

/// Prefix of the folders' names.
const PREFIX: &str = "soft-roce-run-";

/// Mode of the folders.
const FOLDER_MODE: u32 = 0o700;

/// Number of folders to try when another process removes each new one.
const ATTEMPTS_MAX: usize = 8;

/// Time to wait for killed processes of a dead run.
const KILL_DEADLINE: Duration = Duration::from_secs(2);

/// Folder of mode 0700 for one run; removed when dropped.
///
/// The supervisor and the reaper of a run each hold a shared lock on the folder's lock file, and
/// the host's kernel releases these locks however the processes end. So a folder whose lock can be
/// taken belongs to a run that is over, and a later run removes it.
#[derive(Debug)]
pub(crate) struct PrivateDir {
    path: PathBuf,
    _lock: File,
}

impl PrivateDir {
    /// Creates a folder in `base`.
    pub(crate) fn create(base: &Path) -> Result<Self> {
        let failed = || Error::io("create a folder in", base);
        for _ in 0..ATTEMPTS_MAX {
            let permissions = Permissions::from_mode(FOLDER_MODE);
            let mut builder = tempfile::Builder::new();
            let builder = builder.prefix(PREFIX).permissions(permissions);
            let path = builder.tempdir_in(base).map_err(failed())?.keep();
            if let Some(_lock) = hold(&path).map_err(failed())? {
                return Ok(Self { path, _lock });
            }
        }
        Err(failed()(io::Error::other("other runs keep removing it")))
    }

    /// Path of the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        // The reaper may have removed it already.
        let _ = remove_folder(&self.path);
    }
}

/// Takes a shared lock on the folder's lock file; `None` when a later run removed the folder
/// because it was not locked yet.
pub(crate) fn hold(folder: &Path) -> io::Result<Option<File>> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true).mode(spec::FILE_MODE);
    let lock = match options.open(folder.join(name::LOCK)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    flock(&lock, FlockOperation::LockShared)?;
    Ok((lock.metadata()?.nlink() > 0).then_some(lock))
}

/// Folder of one run's files, with a link to the program that is the guest's init.
#[derive(Debug)]
pub(crate) struct RunDir {
    folder: PrivateDir,
}

impl RunDir {
    pub(crate) fn create(program: &Path) -> Result<Self> {
        if paths::is_covered(program) {
            let reason = "the guest has its own file system there; install soft-roce elsewhere";
            return Err(Error::Path { path: program.into(), reason });
        }
        let folder = PrivateDir::create(&paths::private_base()?)?;
        let init = folder.path().join(name::INIT);
        symlink(program, &init).map_err(Error::io("create", init))?;
        // User-Mode Linux would make it with the caller's umask.
        let sockets = folder.path().join(name::UML);
        let made = DirBuilder::new().mode(FOLDER_MODE).create(&sockets);
        made.map_err(Error::io("create", sockets))?;
        Ok(Self { folder })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes the folders of this user's dead runs in `base`, and kills what is left of their guests.
///
/// What cannot be removed is left to a later run.
pub(crate) fn remove_dead(base: &Path) {
    own(base).for_each(|folder| remove_if_dead(&folder));
}

/// Folders of this user's live runs in `base`.
pub(crate) fn live(base: &Path) -> impl Iterator<Item = PathBuf> {
    own(base).filter(|folder| {
        let lock = File::open(folder.join(name::LOCK));
        lock.is_ok_and(|lock| flock(lock, FlockOperation::NonBlockingLockExclusive).is_err())
    })
}

/// Folders of this user's runs in `base`.
fn own(base: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    let has_prefix = |entry: &fs::DirEntry| {
        entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX))
    };
    entries.filter(has_prefix).map(|entry| entry.path()).filter(|folder| is_ours(folder))
}

fn is_ours(folder: &Path) -> bool {
    let Ok(metadata) = folder.symlink_metadata() else { return false };
    let is_private = metadata.mode() & 0o777 == FOLDER_MODE;
    metadata.is_dir() && is_private && metadata.uid() == geteuid().as_raw()
}

fn remove_if_dead(folder: &Path) {
    let Ok(lock) = File::open(folder.join(name::LOCK)) else {
        // Its run was killed before it made the lock; an empty folder is all that this removes.
        let _ = fs::remove_dir(folder);
        return;
    };
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
        kill_guest(folder);
        let _ = remove_folder(folder);
    }
}

/// Kills the processes of a guest whose reaper and supervisor are dead.
///
/// The kernel dies with its reaper, but the processes that run the guest's programs do not.
fn kill_guest(folder: &Path) {
    let Some(session) = spec::load_session(folder) else { return };
    let Ok(launch) = spec::load::<LaunchSpec>(folder, name::LAUNCH) else { return };
    let deadline = Instant::now() + KILL_DEADLINE;
    loop {
        let left: Vec<_> = process::all()
            .filter(|&pid| is_in(pid, session) && is_of_guest(pid, &launch.kernel))
            .collect();
        if left.is_empty() || Instant::now() >= deadline {
            return;
        }
        for &pid in &left {
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Tells if a process of that session has not ended.
fn is_in(pid: Pid, session: Pid) -> bool {
    let session = session.as_raw_nonzero().get();
    process::stat(pid).is_some_and(|stat| stat.session == session && stat.state != 'Z')
}

/// Tells if a process executes the guest's kernel program, or the kernel's stub for its programs,
/// which is a file without a name. A process id of the session may have been reused.
fn is_of_guest(pid: Pid, kernel: &Path) -> bool {
    let link = fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero()));
    link.is_ok_and(|program| program == kernel || program.starts_with("/memfd:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(base: &Path) -> Vec<String> {
        let entries = fs::read_dir(base).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn only_the_folders_of_dead_runs_are_removed() {
        let base = tempfile::tempdir().unwrap();
        let live = PrivateDir::create(base.path()).unwrap();
        let dead = PrivateDir::create(base.path()).unwrap();
        fs::write(dead.path().join("in.0"), "secret").unwrap();
        let PrivateDir { path, _lock } = &dead;
        let path = path.clone();
        drop(_lock.try_clone().unwrap());
        // As if its processes were killed: the lock is free, the folder is there.
        flock(_lock, FlockOperation::Unlock).unwrap();
        // A folder of the user's that only has such a name.
        let other = base.path().join("soft-roce-run-notes");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("text"), "mine").unwrap();
        remove_dead(base.path());
        assert!(live.path().exists() && other.join("text").exists());
        assert!(!path.exists(), "{:?}", names(base.path()));
    }

    #[test]
    fn a_folder_that_was_never_locked_goes_when_it_is_empty() {
        let base = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = base.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(FOLDER_MODE)).unwrap();
            path
        };
        let (empty, full) = (make("soft-roce-run-a"), make("soft-roce-run-b"));
        fs::write(full.join("x"), "").unwrap();
        remove_dead(base.path());
        assert!(!empty.exists() && full.exists());
    }

    #[test]
    fn a_creator_notices_that_its_folder_was_removed() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("soft-roce-run-a");
        assert!(hold(&folder).unwrap().is_none());
        fs::create_dir(&folder).unwrap();
        assert!(hold(&folder).unwrap().is_some());
    }
}
