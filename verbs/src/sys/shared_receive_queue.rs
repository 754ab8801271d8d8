//! Shared receive queues.

use std::{io, sync::Arc};

use super::domain::DomainInner;
use crate::{
    Error,
    provider::{PostError, ReceiveRequest},
};

/// A shared receive queue.
pub struct RawSharedReceiveQueue;

impl RawSharedReceiveQueue {
    pub(super) fn new(_: &Arc<DomainInner>, _: u32) -> Result<Self, Error> {
        Err(Error::Unsupported("shared receive queues"))
    }

    pub(super) fn post(&mut self, _: &[ReceiveRequest]) -> Result<(), PostError> {
        Err(PostError { accepted: 0, source: io::ErrorKind::Unsupported.into() })
    }
}
