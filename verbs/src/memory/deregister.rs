//! Memory of the caller, back from a buffer.

use std::sync::Arc;

use super::{Buffer, Region};
use crate::CallerMemory;

impl Buffer {
    /// Takes the registration back and returns the memory that was
    /// [registered](crate::ProtectionDomain::register), with whatever the device has written there.
    ///
    /// # Errors
    ///
    /// [`DeregisterError`], which hands the buffer back if there still is one.
    pub fn deregister<M: CallerMemory>(self) -> Result<M, DeregisterError> {
        let Self { region, offset, length } = self;
        let in_use = |region| DeregisterError::InUse(Self { region, offset, length });
        let all = offset == 0 && length == region.memory.length;
        if !all || !region.memory.is_callers() {
            return Err(in_use(region));
        }
        let Region { registration, memory, .. } = Arc::try_unwrap(region).map_err(in_use)?;
        drop(registration);
        // A registration that the device did not give up still holds the memory.
        let memory = Arc::try_unwrap(memory).map_err(|_| DeregisterError::Kept)?;
        Ok(M::from_vector(memory.into_vector()))
    }
}

/// Memory that did not come back.
#[derive(Debug, thiserror::Error)]
pub enum DeregisterError {
    /// Other parts of it are around, a window is bound to it, or it is none of the caller's.
    #[error(
        "the memory is in use, or was not the caller's: join its parts and reclaim its windows"
    )]
    InUse(Buffer),
    /// The device did not give it up. It is leaked, since it may still be written.
    #[error("the device did not give the memory up, so it is leaked")]
    Kept,
}
