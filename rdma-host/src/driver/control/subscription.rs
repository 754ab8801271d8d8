//! Subscriptions to what a controller's tasks report.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::Stream;
use tokio::sync::broadcast;
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

use super::{controller_event::ControllerEvent, state_change::StateChange};
use crate::driver::data_path::fence::FenceChange;

/// State changes of a controller. The last one is to
/// [`LifecycleState::Dead`](crate::LifecycleState::Dead).
pub type StateChanges = Subscription<StateChange>;

/// Events of a controller: changes of namespaces and of their ANA states, firmware, errors, health.
pub type ControllerEvents = Subscription<ControllerEvent>;

/// Changes of the fence for writes after a loss of the connection.
pub type FenceChanges = Subscription<FenceChange>;

/// Stream of reports from the time of the subscription on, in order; it ends with the controller. A
/// subscriber that falls more than
/// [`STATE_CHANGE_BACKLOG`](crate::config::STATE_CHANGE_BACKLOG) behind misses the oldest.
pub struct Subscription<T>(BroadcastStream<T>);

impl<T: Clone + Send + 'static> Subscription<T> {
    /// Subscribes; the stream is empty if the sender is gone.
    pub(crate) fn of(sender: &broadcast::WeakSender<T>) -> Self {
        let receiver = sender.upgrade().map(|sender| sender.subscribe());
        Self(BroadcastStream::new(receiver.unwrap_or_else(|| broadcast::channel(1).1)))
    }

    /// Returns the next report; `None` once the controller has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<T> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl<T: Clone + Send + 'static> Stream for Subscription<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        loop {
            match ready!(Pin::new(&mut self.0).poll_next(context)) {
                Some(Ok(report)) => return Poll::Ready(Some(report)),
                Some(Err(BroadcastStreamRecvError::Lagged(missed))) => {
                    tracing::warn!(missed, "reports of the controller were not read in time");
                }
                None => return Poll::Ready(None),
            }
        }
    }
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}
