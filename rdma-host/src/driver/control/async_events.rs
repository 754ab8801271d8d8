//! Task that reads the log pages of asynchronous events and publishes both.

use std::{sync::Arc, time::SystemTime};

use tokio::sync::{broadcast, mpsc};
use verbs::Provider;

use crate::{
    driver::{
        connect::admin_queue::AdminClient,
        control::{
            controller_event::{ControllerEvent, EventDetail, NamespaceChange},
            identify_namespace::identify_namespace,
            log_pages::LogPages,
            shared::ControllerShared,
        },
    },
    error::{Error, Misuse},
    proto::Negotiated,
    wire::{AsyncEvent, AsyncEventKind, ChangedNamespaceList, NamespaceId},
};

/// Task of one controller, across its connections.
pub(crate) struct AsyncEventTask<P: Provider> {
    pub(crate) admin: AdminClient<P>,
    pub(crate) shared: Arc<ControllerShared<P>>,
    pub(crate) events: mpsc::Receiver<AsyncEvent>,
    /// Only sender, so that the streams of events end with the task.
    pub(crate) notices: broadcast::Sender<ControllerEvent>,
}

impl<P: Provider> AsyncEventTask<P> {
    /// Runs until the controller has ended.
    pub(crate) async fn run(mut self) {
        while let Some(event) = self.events.recv().await {
            let at = SystemTime::now();
            let detail = self.detail(event.kind()).await.unwrap_or_else(EventDetail::Unknown);
            let notice = ControllerEvent { at, event, detail };
            tracing::info!("{notice}");
            // There may be no subscribers.
            let _ = self.notices.send(notice);
        }
    }

    /// Reads the log page of an event, which also clears the event.
    async fn detail(&self, event: AsyncEventKind) -> Result<EventDetail, Error> {
        let negotiated = self.negotiated().ok_or(Error::Closed)?;
        let log = LogPages { admin: &self.admin, negotiated: &negotiated };
        Ok(match event {
            AsyncEventKind::NamespaceAttributeChanged => {
                let changed = log.changed().await?;
                EventDetail::Namespaces(self.changes(changed, &negotiated).await)
            }
            AsyncEventKind::AnaChange => EventDetail::Ana(log.ana().await?),
            AsyncEventKind::FirmwareActivationStarting => {
                EventDetail::Firmware(log.firmware().await?)
            }
            AsyncEventKind::Error(_) => EventDetail::Errors(log.errors().await?),
            AsyncEventKind::Health(_) => EventDetail::Health(log.health().await?),
            _ => EventDetail::Nothing,
        })
    }

    /// Identifies the namespaces that changed and are in use.
    async fn changes(
        &self,
        changed: ChangedNamespaceList,
        negotiated: &Negotiated,
    ) -> Vec<(NamespaceId, NamespaceChange)> {
        let used = self.shared.registry.ids();
        let ids = match changed {
            ChangedNamespaceList::These(ids) => ids,
            ChangedNamespaceList::TooMany => used.clone(),
        };
        let mut changes = Vec::with_capacity(ids.len());
        for id in ids {
            let change = match used.contains(&id) {
                true => self.change(id, negotiated).await,
                false => NamespaceChange::Unused,
            };
            changes.push((id, change));
        }
        changes
    }

    async fn change(&self, id: NamespaceId, negotiated: &Negotiated) -> NamespaceChange {
        match identify_namespace(&mut &self.admin, negotiated.version, id).await {
            Ok(info) => match self.shared.registry.compare(info) {
                true => NamespaceChange::Same(info),
                false => NamespaceChange::Replaced(info),
            },
            Err(Error::Misuse(Misuse::NoNamespace(_))) => NamespaceChange::Gone,
            Err(error) => NamespaceChange::Unknown(error),
        }
    }

    fn negotiated(&self) -> Option<Arc<Negotiated>> {
        self.shared.connection.latest().map(|connection| connection.negotiated())
    }
}
