//! What keeps secrets in this process.
//!
//! Once a secret is to be read, this process leaves no core dump, and other processes of the same
//! user can neither attach to it nor read its memory. Root can. All of its memory stays out of the
//! swap space where it may lock as much as it likes, as processes that use RDMA often may; where
//! it may not, encrypt the swap space. Secrets are wiped when they are no longer needed, which is
//! when the process ends or the command has failed.
//!
//! That is all memory and not the pages of secrets alone, since a secret is copied as it is read,
//! decoded and hashed, and a page that was forgotten would be the one that leaks.

use rustix::{
    mm::MlockAllFlags,
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit},
    thread::CapabilitySet,
};

/// Forbids core dumps, looking in and, where it may, swapping out. Does what is possible: no call
/// fails on Linux unless something forbids it, and a secret is needed all the same.
pub(crate) fn protect() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!("core dumps cannot be forbidden: {error}");
    }
    let behavior = DumpableBehavior::NotDumpable;
    if let Err(error) = rustix::process::set_dumpable_behavior(behavior) {
        tracing::warn!("the process cannot be shut to others: {error}");
    }
    // With a limit, memory that is needed later would be refused.
    if may_lock_everything() {
        // What is touched, not what is reserved.
        let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
        if let Err(error) = rustix::mm::mlockall(all) {
            tracing::warn!("memory cannot be kept from being swapped out: {error}");
        }
    }
}

fn may_lock_everything() -> bool {
    getrlimit(Resource::Memlock).current.is_none()
        || rustix::thread::capabilities(None)
            .is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
}
