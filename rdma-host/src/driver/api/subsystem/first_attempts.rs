//! First attempts to connect the paths of a subsystem, all at once.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use verbs::Provider;

use crate::{
    config::OTHER_PATHS_WAIT,
    driver::{api::controller::Controller, runtime},
    error::Error,
};

/// Outcome of an attempt.
pub(super) type Outcome<P> = Result<Controller<P>, Error>;

/// Attempt to connect a path, which runs while it is polled.
pub(super) type ConnectAttempt<P> = Pin<Box<dyn Future<Output = Outcome<P>> + Send>>;

/// First attempt of one path.
pub(super) enum FirstAttempt<P: Provider> {
    Running(ConnectAttempt<P>),
    Ended(Outcome<P>),
}

impl<P: Provider> FirstAttempt<P> {
    /// Controller, if the attempt has succeeded.
    pub(super) fn controller(&self) -> Option<&Controller<P>> {
        match self {
            Self::Ended(outcome) => outcome.as_ref().ok(),
            Self::Running(_) => None,
        }
    }

    /// Error, if the attempt has failed.
    pub(super) fn error(&self) -> Option<&Error> {
        match self {
            Self::Ended(outcome) => outcome.as_ref().err(),
            Self::Running(_) => None,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) {
        if let Self::Running(attempt) = self
            && let Poll::Ready(outcome) = attempt.as_mut().poll(context)
        {
            *self = Self::Ended(outcome);
        }
    }

    fn has_ended(&self) -> bool {
        matches!(self, Self::Ended(_))
    }
}

/// Waits until all attempts have ended; once one has succeeded, for [`OTHER_PATHS_WAIT`] at most.
pub(super) async fn wait<P: Provider>(attempts: &mut [FirstAttempt<P>]) {
    let all_ended = |attempts: &[FirstAttempt<P>]| attempts.iter().all(FirstAttempt::has_ended);
    let is_connected = |attempts: &[FirstAttempt<P>]| {
        all_ended(attempts) || attempts.iter().any(|attempt| attempt.controller().is_some())
    };
    until(attempts, is_connected).await;
    // Attempts that still run after that are the caller's.
    let _ = runtime::timeout(OTHER_PATHS_WAIT, until(attempts, all_ended)).await;
}

/// Goes on with all attempts until the condition holds.
async fn until<P: Provider>(
    attempts: &mut [FirstAttempt<P>],
    holds: impl Fn(&[FirstAttempt<P>]) -> bool,
) {
    poll_fn(|context| {
        attempts.iter_mut().for_each(|attempt| attempt.poll(context));
        if holds(attempts) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
