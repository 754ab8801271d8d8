//! Identification of all namespaces of a controller.

use std::{
    time::{Duration, Instant},
    vec,
};

use verbs::Provider;

use crate::{
    driver::{
        control::identify_namespace::{identify_namespace, list_namespaces},
        data_path::admin_queue::client::AdminClient,
        runtime,
    },
    error::Error,
    wire::{NamespaceId, NamespaceInfo, Version},
};

/// Identification of the active namespaces of a controller, one after the other, within a time for
/// all of them.
pub struct NamespaceWalk<P: Provider> {
    admin: AdminClient<P>,
    version: Version,
    ids: vec::IntoIter<NamespaceId>,
    timeout: Duration,
    deadline: Instant,
    /// True once the time is over.
    is_over: bool,
}

impl<P: Provider> NamespaceWalk<P> {
    pub(super) async fn new(
        admin: AdminClient<P>,
        version: Version,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let deadline = runtime::now() + timeout;
        let step = "the list of namespaces";
        let listed = runtime::timeout(timeout, list_namespaces(&admin)).await;
        let ids = listed.unwrap_or(Err(Error::Timeout { step, after: timeout }))?.into_iter();
        Ok(Self { admin, version, ids, timeout, deadline, is_over: false })
    }

    /// Namespaces that are left.
    #[must_use]
    pub fn remaining(&self) -> &[NamespaceId] {
        self.ids.as_slice()
    }

    /// Identifies the next namespace; `None` after the last. The error of one says nothing of the
    /// others, unless it is the timeout of all: then it is the last, and
    /// [`remaining`](Self::remaining) are left.
    pub async fn next(&mut self) -> Option<(NamespaceId, Result<NamespaceInfo, Error>)> {
        let (admin, version) = (self.admin.clone(), self.version);
        self.next_by(async move |id| identify_namespace(&mut &admin, version, id).await).await
    }

    /// Identifies the next namespace as [`next`](Self::next), by `identify`, as over several paths.
    pub async fn next_by(
        &mut self,
        identify: impl AsyncFnOnce(NamespaceId) -> Result<NamespaceInfo, Error>,
    ) -> Option<(NamespaceId, Result<NamespaceInfo, Error>)> {
        let id = *self.remaining().first().filter(|_| !self.is_over)?;
        let identified = runtime::timeout_at(self.deadline, identify(id)).await;
        self.is_over = identified.is_err();
        if !self.is_over {
            self.ids.next();
        }
        let (step, after) = ("the identification of all namespaces", self.timeout);
        Some((id, identified.unwrap_or(Err(Error::Timeout { step, after }))))
    }
}
