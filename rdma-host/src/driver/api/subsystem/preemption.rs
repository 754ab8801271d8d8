//! Preempt-and-abort of a lost path, as a proof for the write fence.

use std::sync::Arc;

use uuid::Uuid;
use verbs::{Buffer, Provider};

use super::Subsystem;
use crate::{
    driver::{
        api::{controller::Controller, namespace::Namespace},
        runtime,
    },
    error::{Error, PathError},
    proto::PathId,
    wire::{
        AcquireAction, NamespaceId, Registrant, ReservationCommand, ReservationReport,
        ReservationType,
    },
};

/// Maximum number of registrants that are looked at.
const REGISTRANTS_MAX: usize = 1023;

impl<P: Provider> Subsystem<P> {
    /// Ends the writes of a lost path that may still be executed on a namespace: over a live path,
    /// by a Reservation Acquire that preempts the registration of the lost one and aborts its
    /// commands. Once the controller has answered it, the fence opens for these writes.
    ///
    /// Each path needs a host identifier of its own
    /// ([`host_ids`](super::SubsystemOptions::host_ids)) and a registration with a key of its own;
    /// a reservation that lets registrants alone write has to be held, so that what the target
    /// receives late is refused. The caller makes them before, by [`Namespace::reserve`] with the
    /// [controller](Self::controller) of each path. A path that was preempted has to register
    /// again before it can write. Type 5 (write exclusive, all registrants) is the one to use.
    ///
    /// Linux's target (7.3) may crash if it ends the controller of the lost path while the command
    /// waits: `FENCE.md` of this crate says when.
    ///
    /// The answer comes after the commands of the lost path, however long these take: the option
    /// [`io_timeout`](crate::ConnectOptions::io_timeout) has to allow that.
    ///
    /// # Errors
    ///
    /// [`PathError::SameHostId`] if the paths can't be told apart; [`PathError::Preemption`] if
    /// there is no other live path, no reservation or no registration, or if the lost path is still
    /// registered afterwards; else as [`Namespace::reserve`]. The fence stays closed then.
    pub async fn preempt_path(&self, path: PathId, namespace: NamespaceId) -> Result<(), Error> {
        let failed = |error| Error::Path(Arc::new(error));
        // A path that was never connected has sent nothing.
        let Some(lost) = self.controller(path) else { return Ok(()) };
        let host_id = host_id(&lost)?;
        let preemption = |reason| failed(PathError::Preemption { namespace, host_id, reason });
        let is_live = |&other: &PathId| other != path && self.table.is_live(other);
        let other = (0..self.controllers.len()).map(PathId).find(is_live);
        let other = other.and_then(|other| self.controller(other));
        let other = other.ok_or_else(|| preemption("no other path is live"))?;
        let own = self::host_id(&other)?;
        if own == host_id {
            return Err(failed(PathError::SameHostId(own)));
        }
        let sent_at = runtime::now();
        let buffer = other.allocate((1 + REGISTRANTS_MAX) * ReservationReport::ENTRY_SIZE)?;
        let on = other.namespace(namespace).await?;
        let (report, buffer) = read_report(&on, buffer).await?;
        let command = preempt(&report, own, host_id).map_err(preemption)?;
        let reserved = on.reserve(&command, false, buffer).await;
        let (report, _) = read_report(&on, reserved.map_err(|failed| failed.error)?).await?;
        check_preempted(&report, host_id).map_err(preemption)?;
        other.connection_watch().fence().preempted(host_id, namespace, sent_at);
        Ok(())
    }
}

/// Host identifier of the latest association of a controller.
fn host_id<P: Provider>(controller: &Controller<P>) -> Result<Uuid, Error> {
    let latest = controller.connection_watch().latest();
    latest.map(|connection| connection.association.host_id).ok_or(Error::Closed)
}

async fn read_report(
    namespace: &Namespace,
    buffer: Buffer,
) -> Result<(ReservationReport, Buffer), Error> {
    namespace.reservation_report(buffer).await.map_err(|failed| failed.error)
}

fn registrant(report: &ReservationReport, host_id: Uuid) -> Option<&Registrant> {
    report.registrants.iter().find(|one| one.host == host_id.into_bytes())
}

/// Command of host `own` that preempts host `other`, or why there is none.
fn preempt(
    report: &ReservationReport,
    own: Uuid,
    other: Uuid,
) -> Result<ReservationCommand, &'static str> {
    if report.reservation == ReservationType(0) {
        return Err("no reservation is held");
    }
    let own = registrant(report, own).ok_or("the live path is not registered")?;
    let other = registrant(report, other).ok_or("the path is not registered")?;
    if own.key == other.key {
        return Err("the live path has the same key; register a key for each path");
    }
    Ok(ReservationCommand::Acquire {
        action: AcquireAction::PreemptAndAbort,
        reservation: report.reservation,
        current_key: own.key,
        preempt_key: other.key,
    })
}

/// Checks that a host cannot write any more, after it was preempted.
fn check_preempted(report: &ReservationReport, host_id: Uuid) -> Result<(), &'static str> {
    match report.reservation {
        ReservationType(0) => Err("the reservation was released meanwhile"),
        _ if registrant(report, host_id).is_some() => {
            Err("the target answered, but has left it registered")
        }
        _ if usize::from(report.count) > report.registrants.len() => {
            Err("there are more registrants than are looked at")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "preemption/tests.rs"]
mod tests;
