//! The task that finds out what an event is about, and tells those who want to know.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{broadcast, mpsc};
use verbs::Provider;

use super::admin::{Admin, AdminClient};
use super::inspect::inspect;
use super::log_pages::LogPages;
use super::notice::{Detail, Fate, Notice};
use super::supervisor::Shared;
use crate::error::{Error, Misuse};
use crate::proto::{Execute, Negotiated, Transfer};
use crate::wire::{
    AsyncEvent, AsyncEventKind, AsyncEventMask, ChangedNamespaceList, GetFeatures, NamespaceId,
    QueueId, SetFeatures,
};

/// The events that mean something to us, beside those of errors and health, which need not be
/// asked for.
const WANTED: [AsyncEventMask; 3] = [
    AsyncEventMask::NAMESPACE_ATTRIBUTE,
    AsyncEventMask::FIRMWARE_ACTIVATION,
    AsyncEventMask::ANA_CHANGE,
];

/// Has the controller tell the events it can tell. One that refuses tells fewer; that is no reason
/// to do without it.
pub(super) async fn enable_events<P: Provider>(
    admin: &mut Admin<P>,
    offered: AsyncEventMask,
) -> Result<(), Error> {
    let wanted = WANTED.into_iter().fold(AsyncEventMask(0), |all, one| all | (one & offered));
    if wanted == AsyncEventMask(0) {
        return Ok(());
    }
    let command = |sqe, name| {
        let transfer = Transfer::None;
        Execute { queue: QueueId::ADMIN, sqe, transfer, name }
    };
    // What is on already stays on: warnings of health among them.
    let get = command(GetFeatures::async_events(), "Get Features (events)");
    let (response, _) = admin.execute(get).await?;
    let before = match response.status().is_success() {
        true => AsyncEventMask(response.result_dword()),
        false => AsyncEventMask(0),
    };
    let set = command(SetFeatures::async_events(before | wanted), "Set Features (events)");
    let (response, _) = admin.execute(set).await?;
    if !response.status().is_success() {
        let status = response.status();
        tracing::info!(%status, "the controller will not tell of changes");
    }
    Ok(())
}

/// Serves one controller, through all its connections.
pub(super) struct Herald<P: Provider> {
    pub(super) admin: AdminClient,
    pub(super) shared: Arc<Shared<P>>,
    pub(super) events: mpsc::Receiver<AsyncEvent>,
    /// The only one, so that the notices end with the task.
    pub(super) notices: broadcast::Sender<Notice>,
}

impl<P: Provider> Herald<P> {
    /// Serves until no more events can come.
    pub(super) async fn run(mut self) {
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
