//! Asynchronous events of a device (`ibv_async_event`).

use std::fmt;

/// Something that happened to a device, or to what was made on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DeviceEvent {
    /// Kind of the event.
    pub kind: DeviceEventKind,
    /// Object it happened to.
    pub subject: EventSubject,
}

/// Object that a device event is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EventSubject {
    /// A completion queue, by its [number](crate::CompletionQueue::number).
    CompletionQueue(u32),
    /// The device as a whole.
    Device,
    /// A port, by its number from 1.
    Port(u32),
    /// A queue pair, by its [number](crate::QueuePair::number).
    QueuePair(u32),
}

/// Kind of a device event, by the numbers of `enum ibv_event_type`. Unknown numbers are kept.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct DeviceEventKind(pub u32);

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        impl DeviceEventKind {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// A completion queue overran, or failed otherwise: completions are lost.
    COMPLETION_QUEUE_ERROR = 0;
    /// A queue pair failed.
    QUEUE_PAIR_FATAL = 1;
    /// A queue pair refused a request of its peer as invalid.
    QUEUE_PAIR_REQUEST_ERROR = 2;
    /// A queue pair refused a request of its peer that its memory does not allow.
    QUEUE_PAIR_ACCESS_ERROR = 3;
    /// A message came before the connection was known to be established.
    COMMUNICATION_ESTABLISHED = 4;
    /// A send queue is drained.
    SEND_QUEUE_DRAINED = 5;
    /// The device failed, or was removed: drop everything made from it.
    DEVICE_FATAL = 8;
    /// A port can be used.
    PORT_ACTIVE = 9;
    /// A port cannot be used any more.
    PORT_ERROR = 10;
    /// A port has another local id.
    LOCAL_ID_CHANGE = 11;
    /// A port's partition keys changed.
    PARTITION_KEY_CHANGE = 12;
    /// A port has another subnet manager.
    SUBNET_MANAGER_CHANGE = 13;
    /// The subnet manager asks for renewed registration.
    CLIENT_REREGISTER = 17;
    /// A port's addresses changed.
    ADDRESS_CHANGE = 18;
}

impl fmt::Debug for DeviceEventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "DeviceEventKind({})", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_kind_is_kept() {
        assert_eq!(format!("{:?}", DeviceEventKind(77)), "DeviceEventKind(77)");
        assert_eq!(format!("{:?}", DeviceEventKind::PORT_ERROR), "PORT_ERROR");
    }
}
