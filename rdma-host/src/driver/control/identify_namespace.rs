//! Identification of a namespace, over the admin queue.

use verbs::Provider;

use crate::{
    driver::connect::admin_queue::{AdminClient, AdminQueue},
    error::Error,
    proto::{IdentifyNamespace, IdentifyNamespaceAction},
    wire::{NamespaceId, NamespaceInfo, Version},
};

/// Identifies a namespace, on whichever connection is live.
pub(crate) async fn identify_namespace<P: Provider>(
    admin: &AdminClient<P>,
    version: Version,
    id: NamespaceId,
) -> Result<NamespaceInfo, Error> {
    let mut identify = IdentifyNamespace::new(id, version);
    loop {
        match identify.action() {
            IdentifyNamespaceAction::Done(info) => return Ok(info),
            IdentifyNamespaceAction::Execute(command) => {
                let (response, data) = admin.answer(command).await?;
                identify.handle(response, &data)?;
            }
        }
    }
}

/// Identifies a namespace on an admin queue that serves no clients yet.
pub(crate) async fn identify_namespace_on<P: Provider>(
    admin: &mut AdminQueue<P>,
    version: Version,
    id: NamespaceId,
) -> Result<NamespaceInfo, Error> {
    let mut identify = IdentifyNamespace::new(id, version);
    loop {
        match identify.action() {
            IdentifyNamespaceAction::Done(info) => return Ok(info),
            IdentifyNamespaceAction::Execute(command) => {
                let (response, data) = admin.execute(command).await?;
                identify.handle(response, &data)?;
            }
        }
    }
}
