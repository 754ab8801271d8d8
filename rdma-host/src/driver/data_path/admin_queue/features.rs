//! Features that are set before a controller is live: asynchronous events and retry delays.

use std::time::Duration;

use verbs::Provider;

use crate::{
    driver::data_path::admin_queue::queue::AdminQueue,
    error::{Error, Incompatible, Rejected},
    proto::{Execute, Transfer},
    wire::{AsyncEventMask, GetFeatures, HostBehavior, QueueId, SetFeatures},
};

/// Asynchronous events of an I/O controller that are handled, beside errors and health, which need
/// not be enabled.
const IO_EVENTS: [AsyncEventMask; 3] = [
    AsyncEventMask::NAMESPACE_ATTRIBUTE,
    AsyncEventMask::FIRMWARE_ACTIVATION,
    AsyncEventMask::ANA_CHANGE,
];

/// Enables the asynchronous events that an I/O controller supports. A refusal is not an error: the
/// controller then reports fewer events.
pub(crate) async fn enable_events<P: Provider>(
    admin: &mut AdminQueue<P>,
    supported: AsyncEventMask,
) -> Result<(), Error> {
    let wanted = IO_EVENTS.into_iter().fold(AsyncEventMask(0), |all, one| all | (one & supported));
    if wanted == AsyncEventMask(0) {
        return Ok(());
    }
    let command = |sqe, name| {
        let transfer = Transfer::None;
        Execute { queue: QueueId::ADMIN, sqe, transfer, name }
    };
    // Events that are enabled already stay so: health warnings among them.
    let get = command(GetFeatures::async_events(), "Get Features (events)");
    let (response, _) = admin.execute(get).await?;
    let enabled = if response.status().is_success() {
        AsyncEventMask(response.result_dword())
    } else {
        AsyncEventMask(0)
    };
    let set = command(SetFeatures::async_events(enabled | wanted), "Set Features (events)");
    let (response, _) = admin.execute(set).await?;
    if !response.status().is_success() {
        let status = response.status();
        tracing::info!(%status, "the controller will not tell of changes");
    }
    Ok(())
}

/// Announces to a controller that has retry delays that this host heeds them, as Linux does. A
/// refusal is not an error: the controller then names none.
pub(crate) async fn enable_retry_delays<P: Provider>(
    admin: &mut AdminQueue<P>,
    delays: [Duration; 3],
) -> Result<(), Error> {
    if delays[0].is_zero() {
        return Ok(());
    }
    let behavior = HostBehavior { retry_delays: true }.to_bytes().to_vec();
    let set = Execute {
        queue: QueueId::ADMIN,
        sqe: SetFeatures::host_behavior(),
        transfer: Transfer::ToController(behavior),
        name: "Set Features (Host Behavior Support)",
    };
    let (response, _) = admin.execute(set).await?;
    let status = response.status();
    if !status.is_success() {
        tracing::info!(%status, "the controller names no retry delays");
    }
    Ok(())
}

/// Enables the discovery log change event of a discovery controller.
///
/// # Errors
///
/// When the controller does not support it or refuses: the log could not be watched.
pub(crate) async fn enable_discovery_events<P: Provider>(
    admin: &mut AdminQueue<P>,
    supported: AsyncEventMask,
) -> Result<(), Error> {
    let events = AsyncEventMask::DISCOVERY_LOG_CHANGE;
    if !supported.contains(events) {
        return Err(Incompatible::NoDiscoveryEvents.into());
    }
    let command = "Set Features (Asynchronous Event Configuration)";
    let set = Execute {
        queue: QueueId::ADMIN,
        sqe: SetFeatures::async_events(events),
        transfer: Transfer::None,
        name: command,
    };
    let (response, _) = admin.execute(set).await?;
    match response.status() {
        status if status.is_success() => Ok(()),
        status => Err(Rejected::Command { command, status }.into()),
    }
}
