//! One processor per guest, unless the caller says otherwise: a guest switches between processes of
//! the host at every system call, and a switch to another processor may take most of the time.

use std::{fs::File, os::unix::fs::OpenOptionsExt, path::Path};

use rustix::{
    fs::{FlockOperation, flock},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

use crate::run::spec;

/// Largest number of guests on one processor; guests share one only when there are more guests
/// than processors.
const GUESTS_PER_CPU_MAX: usize = 64;

/// Processor of a guest; other guests prefer others while this exists.
#[derive(Debug)]
pub(crate) struct CpuSlot {
    pub(crate) cpu: usize,
    _lock: Option<File>,
}

/// Chooses the processor that the fewest guests of this user run on, by lock files in `folder`.
pub(crate) fn pick(folder: Option<&Path>) -> Option<CpuSlot> {
    let allowed = allowed();
    if let Some(folder) = folder.filter(|folder| std::fs::create_dir_all(folder).is_ok()) {
        for depth in 0..GUESTS_PER_CPU_MAX {
            // From the last down, because the first processor usually handles the interrupts.
            let mut free = allowed.iter().rev().filter_map(|&cpu| take(folder, cpu, depth));
            if let Some(place) = free.next() {
                return Some(place);
            }
        }
    }
    allowed.last().map(|&cpu| CpuSlot { cpu, _lock: None })
}

/// Restricts this process, and what it executes, to one processor.
pub(crate) fn pin(cpu: usize) -> std::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// Processors that this process may use.
pub(crate) fn allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
}

fn take(folder: &Path, cpu: usize, depth: usize) -> Option<CpuSlot> {
    // Private, so that no other user can hold the lock.
    let mut options = File::options();
    options.create(true).truncate(false).write(true).mode(spec::FILE_MODE);
    let file = options.open(folder.join(format!("{cpu}.{depth}"))).ok()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(CpuSlot { cpu, _lock: Some(file) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_spread_over_the_processors() {
        let folder = tempfile::tempdir().unwrap();
        let count = allowed().len();
        let places: Vec<_> = (0..2 * count).map(|_| pick(Some(folder.path())).unwrap()).collect();
        for cpu in allowed() {
            assert_eq!(places.iter().filter(|place| place.cpu == cpu).count(), 2);
        }
    }
}
