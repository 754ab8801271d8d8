//! What keeps secrets in this process.
//!
//! Once a secret is to be read, this process leaves no core dump, and other processes of the same
//! user can neither attach to it nor read its memory. Root can. Pages that hold secrets may be
//! swapped out; where that matters, encrypt the swap space. Secrets are wiped when they are no
//! longer needed, which is when the process ends or the command has failed.

use rustix::process::{DumpableBehavior, Resource, Rlimit, setrlimit};

/// Forbids core dumps and looking in. Does what is possible: neither call fails on Linux unless
/// something forbids it, and a secret is needed all the same.
pub(crate) fn protect() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!("core dumps cannot be forbidden: {error}");
    }
    let behavior = DumpableBehavior::NotDumpable;
    if let Err(error) = rustix::process::set_dumpable_behavior(behavior) {
        tracing::warn!("the process cannot be shut to others: {error}");
    }
}
