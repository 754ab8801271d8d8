//! Identification of a namespace, over the admin queue.

use crate::{
    driver::connect::authenticate::CommandChannel,
    error::Error,
    proto::{IdentifyNamespace, IdentifyNamespaceAction},
    wire::{NamespaceId, NamespaceInfo, Version},
};

/// Identifies a namespace.
pub(crate) async fn identify_namespace(
    channel: &mut impl CommandChannel,
    version: Version,
    id: NamespaceId,
) -> Result<NamespaceInfo, Error> {
    let mut identify = IdentifyNamespace::new(id, version);
    loop {
        match identify.action() {
            IdentifyNamespaceAction::Done(info) => return Ok(info),
            IdentifyNamespaceAction::Execute(command) => {
                let (response, data) = channel.execute(command).await?;
                identify.handle(response, &data)?;
            }
        }
    }
}
