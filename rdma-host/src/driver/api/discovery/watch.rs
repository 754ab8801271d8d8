//! Watch of a discovery log, across reconnects.

use std::{sync::Arc, time::Duration};

use verbs::{Provider, RdmaCore};

use super::read_log;
use crate::{
    config::{ConnectOptions, DISCOVERY_KEEP_ALIVE},
    driver::{
        api::{connecting::Connecting, controller::Controller},
        connect::context::Purpose,
        control::{
            state_change::StateChange,
            subscription::{ControllerEvents, StateChanges},
        },
    },
    error::{Error, GaveUp, GiveUpReason},
    proto::{DiscoveryLog, LifecycleState},
    wire::AsyncEventKind,
};

/// Watch of a discovery controller's log.
///
/// A task of the current runtime keeps the connection alive, and makes it again as the options'
/// `reconnect` says. The log is read by [`next`](Self::next), so a slow reader sees the latest one
/// only. Dropping it disconnects in the background.
pub struct DiscoveryWatch<P: Provider = RdmaCore> {
    controller: Controller<P>,
    changes: StateChanges,
    events: ControllerEvents,
    /// True if the log may have changed since it was read on this connection.
    stale: bool,
    /// Latest log of this connection.
    latest: Option<Arc<DiscoveryLog>>,
    /// Maximum number of attempts to reconnect; `None` for unlimited.
    attempts_max: Option<u32>,
    /// Number of connections in a row whose log could not be read: each is an attempt, though the
    /// controller was live.
    failed_reads: u32,
    /// Cause of the end, if that was the log.
    ended: Option<Error>,
}

/// Event of a watched discovery controller.
#[derive(Clone, Debug)]
pub enum DiscoveryEvent {
    /// The watch has ended.
    Ended(Error),
    /// The log, new or changed.
    Log(Arc<DiscoveryLog>),
    /// The connection was lost, or an attempt to make it again failed; another attempt follows.
    Lost {
        /// Cause of the loss or failure.
        cause: Error,
        /// Number of the next attempt, from 1.
        attempt: u32,
        /// Maximum number of attempts; `None` if unlimited.
        max: Option<u32>,
        /// Time until the next attempt.
        delay: Duration,
    },
}

impl DiscoveryWatch {
    /// Connects over the system's RDMA devices. A keep-alive time of zero in the options becomes
    /// [`DISCOVERY_KEEP_ALIVE`], since the connection is mostly idle.
    ///
    /// # Errors
    ///
    /// As [`DiscoveryController::connect`](crate::DiscoveryController::connect), and when the
    /// controller does not support the discovery log change event. Later errors are events.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, Error> {
        Self::connect_over(&Arc::new(RdmaCore::new()), options).await
    }
}

impl<P: Provider> DiscoveryWatch<P> {
    /// Connects as [`connect`](DiscoveryWatch::connect), over any RDMA provider.
    ///
    /// # Errors
    ///
    /// As [`connect`](DiscoveryWatch::connect).
    pub async fn connect_over(provider: &Arc<P>, options: &ConnectOptions) -> Result<Self, Error> {
        let mut options = options.clone();
        if options.keep_alive.is_zero() {
            options.keep_alive = DISCOVERY_KEEP_ALIVE;
        }
        let purpose = Purpose::Discovery { events: true };
        let connecting = Connecting::new(provider, &options, purpose, None);
        // The changes include that to the live state.
        let (changes, events) = (connecting.changes(), connecting.events());
        let controller = connecting.await?;
        Ok(Self {
            controller,
            changes,
            events,
            stale: false,
            latest: None,
            attempts_max: options.reconnect.attempts_max(),
            failed_reads: 0,
            ended: None,
        })
    }

    /// Waits for the next event: the log after each connect and each change of it, and losses of
    /// the connection. Cancel-safe. After [`DiscoveryEvent::Ended`] it returns the same event
    /// again.
    pub async fn next(&mut self) -> DiscoveryEvent {
        loop {
            if let Some(error) = &self.ended {
                return DiscoveryEvent::Ended(error.clone());
            }
            tokio::select! {
                biased;
                change = self.changes.next() => {
                    let Some(change) = change else {
                        return DiscoveryEvent::Ended(self.controller.failed().await);
                    };
                    if let Some(event) = self.handle_change(change) {
                        return event;
                    }
                }
                log = read_log(&self.controller, false), if self.stale => {
                    self.stale = false;
                    match log.map(Arc::new) {
                        Ok(log) => {
                            self.failed_reads = 0;
                            if self.latest.as_ref() != Some(&log) {
                                self.latest = Some(Arc::clone(&log));
                                return DiscoveryEvent::Log(log);
                            }
                        }
                        Err(error) => self.handle_unread_log(error),
                    }
                }
                // Not while the log is read: it would be read from the start for each event.
                Some(event) = self.events.next(), if !self.stale => {
                    self.stale = event.event.kind() == AsyncEventKind::DiscoveryLogChange;
                }
            }
        }
    }

    /// Makes another connection if the log could not be read, as far as attempts are left.
    fn handle_unread_log(&mut self, error: Error) {
        if self.attempts_max.is_some_and(|max| self.failed_reads >= max) {
            let (cause, attempts) = (Box::new(error), self.failed_reads);
            let reason = GiveUpReason::Exhausted;
            self.ended = Some(Error::GaveUp(Arc::new(GaveUp { cause, attempts, reason })));
        } else {
            self.failed_reads += 1;
            self.controller.fail_connection(error);
        }
    }

    fn handle_change(&mut self, change: StateChange) -> Option<DiscoveryEvent> {
        let StateChange { state, cause, attempt, attempts_max, next, .. } = change;
        self.stale = state == LifecycleState::Live;
        self.latest = None;
        let cause = cause.filter(|_| state == LifecycleState::Waiting)?;
        let (attempt, delay) = (attempt + 1, next.unwrap_or_default());
        Some(DiscoveryEvent::Lost { cause, attempt, max: attempts_max, delay })
    }

    /// Shuts the controller down and disconnects, within a second.
    pub async fn shutdown(self) {
        self.controller.shutdown().await;
    }
}
