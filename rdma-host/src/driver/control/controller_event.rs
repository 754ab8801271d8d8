//! Asynchronous events of a controller, as a stream.

use std::{fmt, time::SystemTime};

use crate::{
    error::Error,
    wire::{
        AnaLog, AsyncEvent, AsyncEventKind, ErrorLogEntry, FirmwareSlotLog, HealthLog, NamespaceId,
        NamespaceInfo, ReservationNotification,
    },
};

/// Asynchronous event, with its log page.
#[derive(Clone, Debug)]
pub struct ControllerEvent {
    /// Time of arrival.
    pub at: SystemTime,
    /// Event as it was sent, of unknown types too.
    pub event: AsyncEvent,
    /// Content of its log page.
    pub detail: EventDetail,
}

/// Content of the log page of an event.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EventDetail {
    /// Asymmetric Namespace Access log page (LID 0Ch).
    Ana(AnaLog),
    /// Error Information log page (LID 01h), the latest entry first.
    Errors(Vec<ErrorLogEntry>),
    /// Firmware Slot Information log page (LID 03h).
    Firmware(FirmwareSlotLog),
    /// SMART / Health Information log page (LID 02h).
    Health(HealthLog),
    /// Namespaces of the Changed Attached Namespace List log page (LID 04h), each with its change.
    Namespaces(Vec<(NamespaceId, NamespaceChange)>),
    /// Reservation Notification log page (LID 80h): the oldest notification. There is an event for
    /// each.
    Reservation(ReservationNotification),
    /// The event type has no log page that is known.
    Nothing,
    /// Reading the log page failed.
    Unknown(Error),
}

/// Change of a namespace.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NamespaceChange {
    /// The namespace is new, or is back after it was gone.
    Added(NamespaceInfo),
    /// The namespace does not exist any more.
    Gone,
    /// Another namespace has this id now: commands to handles of the old one are refused.
    Replaced(NamespaceInfo),
    /// Same namespace, of another size.
    Resized {
        /// Size before, in blocks.
        before: u64,
        /// The namespace now.
        info: NamespaceInfo,
    },
    /// Same namespace of the same size, as far as is known: namespaces are compared with what was
    /// seen of them before, for subscribers of before the connect with the state at its time.
    Same(NamespaceInfo),
    /// Identifying the namespace failed.
    Unknown(Error),
}

impl fmt::Display for ControllerEvent {
    /// `namespace attribute changed: 1 has 4096 blocks, 3 is gone`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.event.kind(), self.detail)?;
        match self.event.kind() {
            AsyncEventKind::Other { .. } => write!(f, ", see {}", self.event.log_page()),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for EventDetail {
    /// Suffix to the name of the event: nothing, or a colon and the content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ana(log) => {
                let groups = log.groups.iter();
                list(f, groups.map(|group| format!("group {} is {}", group.id, group.state)))
            }
            Self::Errors(entries) => {
                list(f, entries.iter().take(1).map(|entry| entry.status.to_string()))
            }
            Self::Firmware(slots) => {
                let active = Some(slots.active).filter(|&slot| slot != 0);
                list(f, active.map(|slot| format!("slot {slot} runs")).into_iter())
            }
            Self::Health(health) => {
                let warning = health.critical_warning;
                list(f, [format!("critical warnings {warning:#04x}")].into_iter())
            }
            Self::Namespaces(all) => list(f, all.iter().map(|(id, fate)| format!("{id} {fate}"))),
            Self::Reservation(log) => {
                list(f, [format!("{}, namespace {}", log.kind, log.namespace)].into_iter())
            }
            Self::Nothing => Ok(()),
            Self::Unknown(error) => write!(f, ": {error}"),
        }
    }
}

impl fmt::Display for NamespaceChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(info) => write!(f, "is new, with {} blocks", info.blocks),
            Self::Gone => f.write_str("is gone"),
            Self::Replaced(_) => f.write_str("is another one now"),
            Self::Resized { before, info } => {
                write!(f, "has {} blocks now, {before} before", info.blocks)
            }
            Self::Same(info) => write!(f, "has {} blocks", info.blocks),
            Self::Unknown(error) => write!(f, "can't be identified ({error})"),
        }
    }
}

impl NamespaceChange {
    /// The namespace, if it could be identified.
    #[must_use]
    pub fn info(&self) -> Option<&NamespaceInfo> {
        match self {
            Self::Added(info)
            | Self::Replaced(info)
            | Self::Resized { info, .. }
            | Self::Same(info) => Some(info),
            Self::Gone | Self::Unknown(_) => None,
        }
    }
}

/// A colon and the items, if there are any.
fn list(f: &mut fmt::Formatter<'_>, items: impl Iterator<Item = String>) -> fmt::Result {
    let items: Vec<_> = items.collect();
    if items.is_empty() { Ok(()) } else { write!(f, ": {}", items.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::MetadataFormat;

    #[test]
    fn a_notice_is_one_line() {
        let info = NamespaceInfo {
            id: NamespaceId(5),
            blocks: 4096,
            block_size: 512,
            metadata: MetadataFormat::default(),
            nguid: None,
            eui64: None,
            uuid: None,
            command_set: 0,
            ana_group: 0,
        };
        let detail = EventDetail::Namespaces(vec![
            (NamespaceId(3), NamespaceChange::Gone),
            (NamespaceId(4), NamespaceChange::Unknown(Error::Closed)),
            (NamespaceId(5), NamespaceChange::Added(info)),
            (NamespaceId(6), NamespaceChange::Resized { before: 2048, info }),
        ]);
        for (event, detail, expected) in [
            (
                0x0004_0002,
                detail,
                "namespace attribute changed: 3 is gone, 4 can't be identified (the controller \
                 was closed), 5 is new, with 4096 blocks, 6 has 4096 blocks now, 2048 before",
            ),
            (0x0004_0002, EventDetail::Namespaces(Vec::new()), "namespace attribute changed"),
            (
                0x0003_0102,
                EventDetail::Unknown(Error::Reset),
                "firmware activation starting: the \
             controller was reset",
            ),
            (0x00c7_2a07, EventDetail::Nothing, "vendor specific event 0x2a, see log page 0xc7"),
        ] {
            let notice =
                ControllerEvent { at: SystemTime::UNIX_EPOCH, event: AsyncEvent(event), detail };
            assert_eq!(notice.to_string(), expected);
        }
    }
}
