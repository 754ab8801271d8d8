//! Identification of namespaces, over the admin queue.

use verbs::Provider;

use crate::{
    config::NAMESPACES_MAX,
    driver::{connect::authenticate::CommandChannel, data_path::admin_queue::client::AdminClient},
    error::{Error, TargetMisbehaved},
    proto::{IdentifyNamespace, IdentifyNamespaceAction, Transfer},
    wire::{Identify, NamespaceId, NamespaceInfo, NamespaceList, Version},
};

/// Reads the list of active namespaces.
pub(crate) async fn list_namespaces<P: Provider>(
    admin: &AdminClient<P>,
) -> Result<Vec<NamespaceId>, Error> {
    let mut all = Vec::new();
    loop {
        let after = all.last().copied().unwrap_or(NamespaceId(0));
        let (name, transfer) =
            ("Identify (active namespaces)", Transfer::FromController(Identify::SIZE));
        let (_, data) = admin.execute(name, Identify::active_namespaces(after), transfer).await?;
        let list = NamespaceList::parse(&data)?.0;
        let known = all.len();
        let complete = list.len() < NamespaceList::ENTRIES;
        all.extend(list.into_iter().skip_while(|&id| id <= after));
        if all.len() > NAMESPACES_MAX || (all.len() == known && !complete) {
            return Err(TargetMisbehaved::NamespaceList.into());
        }
        if complete {
            return Ok(all);
        }
    }
}

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
