//! Fence and protection domain of controllers that are paths of one subsystem.

use std::sync::Arc;

use parking_lot::Mutex;
use verbs::{ProtectionDomain, Provider};

use crate::{config::FenceOptions, driver::data_path::fence::SharedFence};

/// Controllers that share the write fence and the protection domain, so that a buffer can be used
/// with each of them.
pub(crate) struct ControllerGroup<P: Provider> {
    pub(crate) fence: Arc<SharedFence>,
    /// Domain of the first connection.
    domain: Mutex<Option<ProtectionDomain<P>>>,
}

impl<P: Provider> ControllerGroup<P> {
    pub(crate) fn new(fence: FenceOptions) -> Self {
        Self { fence: Arc::new(SharedFence::new(fence)), domain: Mutex::new(None) }
    }

    /// Domain of the group; `create` makes it for the first connection.
    pub(crate) fn domain<E>(
        &self,
        create: impl FnOnce() -> Result<ProtectionDomain<P>, E>,
    ) -> Result<ProtectionDomain<P>, E> {
        let mut domain = self.domain.lock();
        if let Some(domain) = &*domain {
            return Ok(domain.clone());
        }
        Ok(domain.insert(create()?).clone())
    }
}
