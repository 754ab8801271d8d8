//! Reservation of space for the guest's memory.
//!
//! The kernel of a guest keeps the guest's memory in a file without a name, which grows as the
//! guest uses its memory. A file system that becomes full kills the guest by SIGBUS. So each run
//! records how much its guest may use, and a new one gets only what the others leave.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, StatVfsMountFlags, flock, statfs, statvfs};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    kernel::cache::Cache,
    machine::{qemu, spec::MachineSpec},
    run::dir::{self, PrivateDir},
    run::paths,
    run::spec,
};

/// Least memory with which a guest boots and can set up a small target.
pub const MEMORY_BYTES_MIN: u64 = 64 << 20;

/// File system type of a tmpfs.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// File with the record, in the run's folder for memory.
const RECORD: &str = "reserved";

/// Time to wait for other runs that are reserving memory.
const LOCK_DEADLINE: Duration = Duration::from_secs(2);

/// Record of a reservation.
#[derive(Debug, Serialize, Deserialize)]
struct Reservation {
    bytes: u64,
    /// Folder of the run, which names the guest's processes.
    run: PathBuf,
}

/// Folders that can take the guest's memory, the best first.
///
/// The host writes memory that lies on a disk to it as the memory changes; that works, slower. One
/// that is mounted noexec, as /dev/shm is in containers, is not used but named when none fits.
pub(crate) fn bases() -> Vec<PathBuf> {
    let shared = PathBuf::from("/dev/shm");
    let mut bases: Vec<_> = Some(shared).into_iter().filter(|folder| is_tmpfs(folder)).collect();
    bases.extend(paths::private_base());
    bases.push("/var/tmp".into());
    bases.extend(Cache::open().map(|cache| cache.root().to_path_buf()));
    bases.retain(|folder| paths::is_trusted(folder));
    bases.dedup();
    bases
}

/// Reserves memory for the guest of the run in `run`: a folder, where memory is a file.
pub(crate) fn reserve_for(
    machine: &MachineSpec,
    bytes: u64,
    run: &Path,
) -> Result<Option<PrivateDir>> {
    match machine {
        MachineSpec::Uml => reserve(bytes, run).map(Some),
        MachineSpec::Qemu(_) => qemu::check_memory(bytes).map(|()| None),
    }
}

/// Reserves memory for the guest of the run in `run`: a folder for its memory file.
fn reserve(bytes: u64, run: &Path) -> Result<PrivateDir> {
    let bases = bases();
    for base in &bases {
        if let Some(folder) = reserve_in(base, bytes, run)? {
            return Ok(folder);
        }
    }
    let found: Vec<_> = bases.iter().map(|base| describe(base)).collect();
    Err(Error::Memory { mib: bytes >> 20, found: found.join(", ") })
}

/// Folder in which a guest with this much memory would keep it, and whether that is a tmpfs.
pub(crate) fn find(bytes: u64) -> Option<(PathBuf, bool)> {
    let fits = |base: &PathBuf| !is_noexec(base) && unreserved(base) >= bytes;
    let folder = bases().into_iter().find(fits)?;
    let fast = is_tmpfs(&folder);
    Some((folder, fast))
}

fn reserve_in(base: &Path, bytes: u64, run: &Path) -> Result<Option<PrivateDir>> {
    let _lock = lock(base);
    if is_noexec(base) || unreserved(base) < bytes {
        return Ok(None);
    }
    let folder = PrivateDir::create(base)?;
    spec::store(folder.path(), RECORD, &Reservation { bytes, run: run.into() })?;
    Ok(Some(folder))
}

/// Takes a lock on the folder itself, which every user can take; gives up at the deadline.
fn lock(base: &Path) -> Option<File> {
    let folder = File::open(base).ok()?;
    let deadline = Instant::now() + LOCK_DEADLINE;
    while flock(&folder, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
    Some(folder)
}

fn describe(base: &Path) -> String {
    if is_noexec(base) {
        return format!("{}: mounted noexec", base.display());
    }
    let (free, left) = (free(base) >> 20, unreserved(base) >> 20);
    let text = format!("{}: {free} MiB free", base.display());
    if left == free { text } else { format!("{text}, {left} MiB not reserved by other guests") }
}

/// Bytes in `base` that are free and that no guest of this user may still use.
fn unreserved(base: &Path) -> u64 {
    let reserved: u64 = dir::live(base)
        .filter_map(|folder| {
            let reservation: Reservation = spec::load(&folder, RECORD).ok()?;
            Some(reservation.bytes.saturating_sub(used(&folder, &reservation.run)))
        })
        .sum();
    free(base).saturating_sub(reserved)
}

fn free(folder: &Path) -> u64 {
    statvfs(folder).map_or(0, |about| about.f_bavail * about.f_frsize)
}

/// Bytes that a guest's memory file has taken so far: what its kernel has open below the folder.
fn used(folder: &Path, run: &Path) -> u64 {
    let Some(kernel) = spec::load_session(run) else { return 0 };
    let descriptors = fs::read_dir(format!("/proc/{}/fd", kernel.as_raw_nonzero()));
    let below = |path: &PathBuf| fs::read_link(path).is_ok_and(|link| link.starts_with(folder));
    let files = descriptors.into_iter().flatten().flatten().map(|entry| entry.path());
    files
        .filter(below)
        .filter_map(|path| path.metadata().ok())
        .map(|file| file.blocks() * 512)
        .sum()
}

/// Tells if memory in this folder cannot be executed, as a guest's programs are.
fn is_noexec(folder: &Path) -> bool {
    statvfs(folder).is_ok_and(|about| about.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

fn is_tmpfs(folder: &Path) -> bool {
    #[allow(clippy::unnecessary_cast, reason = "the field's type differs between machines")]
    statfs(folder).is_ok_and(|about| about.f_type as i64 == TMPFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_memory_is_refused_with_what_is_free() {
        let run = tempfile::tempdir().unwrap();
        let error = reserve(u64::MAX, run.path()).unwrap_err().to_string();
        assert!(error.contains("--mem") && error.contains("MiB free"), "{error}");
    }

    #[test]
    fn folders_that_are_mounted_noexec_are_known() {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        // The last mount of a folder is the one that is seen.
        let mut options = std::collections::BTreeMap::new();
        for mount in mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()) {
            options.insert(mount[1].to_owned(), mount[3].split(',').any(|one| one == "noexec"));
        }
        for (folder, is_noexec) in options {
            if statvfs(Path::new(&folder)).is_ok() {
                assert_eq!(super::is_noexec(Path::new(&folder)), is_noexec, "{folder}");
            }
        }
    }

    #[test]
    fn a_reservation_leaves_less_until_it_is_dropped() {
        let base = tempfile::tempdir().unwrap();
        let run = tempfile::tempdir().unwrap();
        let half = free(base.path()) / 8 * 5;
        let first = reserve_in(base.path(), half, run.path()).unwrap().unwrap();
        assert!(reserve_in(base.path(), half, run.path()).unwrap().is_none());
        assert!(describe(base.path()).contains("not reserved"));
        drop(first);
        assert!(reserve_in(base.path(), half, run.path()).unwrap().is_some());
    }

    #[test]
    fn what_a_guest_has_used_is_not_counted_twice() {
        let (base, run) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let me = rustix::process::getpid();
        spec::store_session(run.path(), me).unwrap();
        let folder = reserve_in(base.path(), 1 << 20, run.path()).unwrap().unwrap();
        let file = folder.path().join("memory");
        let open = File::create(&file).unwrap();
        std::io::Write::write_all(&mut &open, &[1; 1 << 19]).unwrap();
        open.sync_all().unwrap();
        fs::remove_file(&file).unwrap();
        assert_eq!(used(folder.path(), run.path()), 1 << 19);
    }
}
