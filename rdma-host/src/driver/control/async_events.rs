//! Task that reads the log pages of asynchronous events and publishes both.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::{broadcast, mpsc};
use verbs::Provider;

use crate::{
    config::{NAMESPACES_TIMEOUT, NAMESPACES_WATCHED_MAX},
    driver::{
        control::{
            active_namespaces::ActiveNamespaces,
            controller_event::{ControllerEvent, EventDetail, NamespaceChange},
            identify_namespace::{identify_namespace, list_namespaces},
            log_pages::LogPages,
            shared::ControllerShared,
        },
        data_path::{admin_queue::client::AdminClient, connection_state::ConnectionState},
        runtime,
    },
    error::{Error, Misuse},
    proto::Negotiated,
    wire::{AsyncEvent, AsyncEventKind, ChangedNamespaceList, NamespaceId, Version},
};

/// Task of one controller, across its connections.
pub(crate) struct AsyncEventTask<P: Provider> {
    pub(crate) admin: AdminClient<P>,
    pub(crate) shared: Arc<ControllerShared<P>>,
    pub(crate) events: mpsc::Receiver<AsyncEvent>,
    /// Only sender, so that the streams of events end with the task.
    pub(crate) notices: broadcast::Sender<ControllerEvent>,
    pub(crate) namespaces: ActiveNamespaces,
    /// True for a controller that has namespaces.
    pub(crate) has_namespaces: bool,
}

impl<P: Provider> AsyncEventTask<P> {
    /// Runs until the controller has ended.
    pub(crate) async fn run(mut self) {
        let mut connections = self.shared.connection.subscribe();
        loop {
            let event = tokio::select! {
                biased;
                event = self.events.recv() => event,
                _ = connections.changed(), if self.has_namespaces => {
                    let is_live =
                        matches!(*connections.borrow_and_update(), ConnectionState::Live(_));
                    if is_live && self.notices.receiver_count() > 0 {
                        self.note_namespaces().await;
                    }
                    continue;
                }
            };
            let Some(event) = event else { return };
            let at = runtime::system_time();
            let detail = self.detail(event.kind()).await.unwrap_or_else(EventDetail::Unknown);
            let notice = ControllerEvent { at, event, detail };
            tracing::info!("{notice}");
            // There may be no subscribers.
            let _ = self.notices.send(notice);
        }
    }

    /// Notes the namespaces of a new connection, for the report of later changes. If that fails,
    /// changes are told in less detail.
    async fn note_namespaces(&mut self) {
        let deadline = runtime::now() + NAMESPACES_TIMEOUT;
        let noted = runtime::timeout_at(deadline, async {
            let negotiated = self.negotiated().ok_or(Error::Closed)?;
            let mut all = Vec::new();
            for id in list_namespaces(&self.admin).await? {
                let info = if all.len() < NAMESPACES_WATCHED_MAX {
                    identify_namespace(&mut &self.admin, negotiated.version, id).await.ok()
                } else {
                    None
                };
                all.push((id, info));
            }
            Ok::<_, Error>(all)
        });
        match noted.await {
            Ok(Ok(all)) => self.namespaces.note_all(all),
            Ok(Err(error)) => tracing::info!(%error, "the namespaces can't be listed"),
            Err(_) => tracing::info!("the namespaces can't be listed in time"),
        }
    }

    /// Reads the log page of an event, which also clears the event.
    async fn detail(&mut self, event: AsyncEventKind) -> Result<EventDetail, Error> {
        let negotiated = self.negotiated().ok_or(Error::Closed)?;
        let log = LogPages { admin: &self.admin, negotiated: &negotiated };
        Ok(match event {
            AsyncEventKind::NamespaceAttributeChanged => {
                let changed = log.changed().await?;
                EventDetail::Namespaces(self.changes(changed, negotiated.version).await)
            }
            AsyncEventKind::AnaChange => EventDetail::Ana(log.ana().await?),
            AsyncEventKind::FirmwareActivationStarting => {
                EventDetail::Firmware(log.firmware().await?)
            }
            AsyncEventKind::Error(_) => EventDetail::Errors(log.errors().await?),
            AsyncEventKind::Health(_) => EventDetail::Health(log.health().await?),
            AsyncEventKind::ReservationLogAvailable => {
                EventDetail::Reservation(log.reservation_notification().await?)
            }
            _ => EventDetail::Nothing,
        })
    }

    /// Identifies the namespaces that changed, those in use first.
    async fn changes(
        &mut self,
        changed: ChangedNamespaceList,
        version: Version,
    ) -> Vec<(NamespaceId, NamespaceChange)> {
        let deadline = runtime::now() + NAMESPACES_TIMEOUT;
        let used = self.shared.registry.ids();
        let mut ids = match changed {
            ChangedNamespaceList::These(ids) => ids,
            ChangedNamespaceList::TooMany => {
                let all: BTreeSet<_> = used.iter().copied().chain(self.namespaces.ids()).collect();
                all.into_iter().collect()
            }
        };
        ids.sort_by_key(|id| !used.contains(id));
        let mut changes = Vec::with_capacity(ids.len());
        for id in ids {
            let after = NAMESPACES_TIMEOUT;
            let timeout = Error::Timeout { step: "the identification of all namespaces", after };
            let change = runtime::timeout_at(deadline, self.change(id, version)).await;
            changes.push((id, change.unwrap_or(NamespaceChange::Unknown(timeout))));
        }
        changes.sort_by_key(|&(id, _)| id);
        changes
    }

    async fn change(&mut self, id: NamespaceId, version: Version) -> NamespaceChange {
        match identify_namespace(&mut &self.admin, version, id).await {
            Ok(info) => {
                let used = self.shared.registry.info(id);
                let is_same = self.shared.registry.compare(info);
                let change = self.namespaces.note(info, used);
                if is_same { change } else { NamespaceChange::Replaced(info) }
            }
            Err(Error::Misuse(Misuse::NoNamespace(_))) => self.namespaces.note_gone(id),
            Err(error) => NamespaceChange::Unknown(error),
        }
    }

    fn negotiated(&self) -> Option<Arc<Negotiated>> {
        self.shared.connection.latest().map(|connection| connection.negotiated())
    }
}
