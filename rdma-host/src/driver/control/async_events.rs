//! The task that finds out what an event is about, and tells those who want to know.

use std::{sync::Arc, time::SystemTime};

use tokio::sync::{broadcast, mpsc};
use verbs::Provider;

use crate::{
    driver::{
        connect::admin_queue::AdminClient,
        control::{
            controller_event::{Detail, Fate, Notice},
            identify_namespace::inspect,
            log_pages::LogPages,
            shared::Shared,
        },
    },
    error::{Error, Misuse},
    proto::Negotiated,
    wire::{AsyncEvent, AsyncEventKind, ChangedNamespaceList, NamespaceId},
};

/// Serves one controller, through all its connections.
pub(crate) struct Herald<P: Provider> {
    pub(crate) admin: AdminClient,
    pub(crate) shared: Arc<Shared<P>>,
    pub(crate) events: mpsc::Receiver<AsyncEvent>,
    /// The only one, so that the notices end with the task.
    pub(crate) notices: broadcast::Sender<Notice>,
}

impl<P: Provider> Herald<P> {
    /// Serves until no more events can come.
    pub(crate) async fn run(mut self) {
        while let Some(event) = self.events.recv().await {
            let at = SystemTime::now();
            let detail = self.detail(event.kind()).await.unwrap_or_else(Detail::Unknown);
            let notice = Notice { at, event, detail };
            tracing::info!("{notice}");
            // Nobody need be watching.
            let _ = self.notices.send(notice);
        }
    }

    /// Reads what explains the event, which also lets the next one of its kind come.
    async fn detail(&self, event: AsyncEventKind) -> Result<Detail, Error> {
        let negotiated = self.negotiated().ok_or(Error::Closed)?;
        let log = LogPages { admin: &self.admin, negotiated: &negotiated };
        Ok(match event {
            AsyncEventKind::NamespaceAttributeChanged => {
                let changed = log.changed().await?;
                Detail::Namespaces(self.fates(changed, &negotiated).await)
            }
            AsyncEventKind::AnaChange => Detail::Ana(log.ana().await?),
            AsyncEventKind::FirmwareActivationStarting => Detail::Firmware(log.firmware().await?),
            AsyncEventKind::Error(_) => Detail::Errors(log.errors().await?),
            AsyncEventKind::Health(_) => Detail::Health(log.health().await?),
            _ => Detail::Nothing,
        })
    }

    /// Looks at those that changed and are in use.
    async fn fates(
        &self,
        changed: ChangedNamespaceList,
        negotiated: &Negotiated,
    ) -> Vec<(NamespaceId, Fate)> {
        let used = self.shared.registry.ids();
        let ids = match changed {
            ChangedNamespaceList::These(ids) => ids,
            ChangedNamespaceList::TooMany => used.clone(),
        };
        let mut fates = Vec::with_capacity(ids.len());
        for id in ids {
            let fate = match used.contains(&id) {
                true => self.fate(id, negotiated).await,
                false => Fate::Unused,
            };
            fates.push((id, fate));
        }
        fates
    }

    async fn fate(&self, id: NamespaceId, negotiated: &Negotiated) -> Fate {
        match inspect(&self.admin, negotiated.version, id).await {
            Ok(info) => match self.shared.registry.compare(info) {
                true => Fate::Same(info),
                false => Fate::Replaced(info),
            },
            Err(Error::Misuse(Misuse::NoNamespace(_))) => Fate::Gone,
            Err(error) => Fate::Unknown(error),
        }
    }

    fn negotiated(&self) -> Option<Arc<Negotiated>> {
        let present = self.shared.present.lock();
        present.as_ref().map(|present| Arc::clone(&present.negotiated))
    }
}
