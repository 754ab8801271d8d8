//! Whether a controller lives: shared by all that serve it, ended once.

use std::sync::Arc;

use tokio::sync::watch;

use crate::error::Error;

/// The first error that ended a controller, for everyone to see.
#[derive(Clone)]
pub(super) struct Liveness(Arc<watch::Sender<Option<Error>>>);

impl Liveness {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Ends the controller, unless it has ended already; returns what ended it.
    pub(super) fn end(&self, error: Error) -> Error {
        self.0.send_if_modified(|cause| {
            let first = cause.is_none();
            if first {
                *cause = Some(error.clone());
            }
            first
        });
        self.cause().unwrap_or(error)
    }

    /// What ended it, if it has ended.
    pub(super) fn cause(&self) -> Option<Error> {
        self.0.borrow().clone()
    }

    /// Waits for the end.
    pub(super) async fn ended(&self) -> Error {
        let mut watcher = self.0.subscribe();
        let cause = watcher.wait_for(Option::is_some).await;
        cause.ok().and_then(|cause| cause.clone()).unwrap_or(Error::Closed)
    }
}
