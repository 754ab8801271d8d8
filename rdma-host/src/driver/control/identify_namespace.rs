//! Looking at namespaces, over the admin queue.

use verbs::Provider;

use crate::{
    driver::connect::admin_queue::{AdminClient, AdminQueue},
    error::Error,
    proto::{IdentifyNamespace, IdentifyNamespaceAction},
    wire::{NamespaceId, NamespaceInfo, Version},
};

/// Asks through whichever connection there is.
pub(crate) async fn inspect<P: Provider>(
    admin: &AdminClient<P>,
    version: Version,
    id: NamespaceId,
) -> Result<NamespaceInfo, Error> {
    let mut inspection = IdentifyNamespace::new(id, version);
    loop {
        match inspection.action() {
            IdentifyNamespaceAction::Done(info) => return Ok(info),
            IdentifyNamespaceAction::Execute(command) => {
                let (response, data) = admin.answer(command).await?;
                inspection.handle(response, &data)?;
            }
        }
    }
}

/// Asks on a queue where nobody else is served.
pub(crate) async fn inspect_alone<P: Provider>(
    admin: &mut AdminQueue<P>,
    version: Version,
    id: NamespaceId,
) -> Result<NamespaceInfo, Error> {
    let mut inspection = IdentifyNamespace::new(id, version);
    loop {
        match inspection.action() {
            IdentifyNamespaceAction::Done(info) => return Ok(info),
            IdentifyNamespaceAction::Execute(command) => {
                let (response, data) = admin.execute(command).await?;
                inspection.handle(response, &data)?;
            }
        }
    }
}
