//! Hardening of a process that holds secrets.
//!
//! From before a secret is read, this process leaves no core dump, and other processes of the same
//! user can neither attach to it nor read its memory; root can. All of its memory is kept out of
//! the swap space if the limit of locked memory is off, as it often is for RDMA; otherwise, encrypt
//! the swap space. Secrets are wiped when they are no longer needed: when the process ends or the
//! command has failed.
//!
//! All memory is locked, not only the pages of secrets, since a secret is copied when it is read,
//! decoded and hashed, and a page that was left out would be the one that leaks.

use rustix::{
    mm::MlockAllFlags,
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit},
    thread::CapabilitySet,
};

/// Forbids core dumps, access by other processes and, if allowed, swapping out. A call that fails,
/// which on Linux takes a security policy, is logged: the command needs its secret all the same.
pub(crate) fn protect() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!("core dumps cannot be forbidden: {error}");
    }
    let behavior = DumpableBehavior::NotDumpable;
    if let Err(error) = rustix::process::set_dumpable_behavior(behavior) {
        tracing::warn!("the process cannot be shut to others: {error}");
    }
    // With a limit, later allocations would fail.
    if may_lock_everything() {
        // Pages that are touched, not those that are only reserved.
        let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
        if let Err(error) = rustix::mm::mlockall(all) {
            tracing::warn!("memory cannot be kept from being swapped out: {error}");
        }
    }
}

/// True if no limit of locked memory is in force.
pub(crate) fn may_lock_everything() -> bool {
    getrlimit(Resource::Memlock).current.is_none()
        || rustix::thread::capabilities(None)
            .is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
}
