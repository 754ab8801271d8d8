//! Reservation notification log page (Base 5.1.12.1.32).

use super::{LogError, LogPage};
use crate::wire::NamespaceId;

/// Notification that a reservation has changed, by another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservationNotification {
    /// Number of the notification, from 1; 0 if there is none.
    pub count: u64,
    /// Change.
    pub kind: ReservationNotificationKind,
    /// Number of notifications left after this one was read; 255 for more.
    pub left: u8,
    /// Namespace of the reservation.
    pub namespace: NamespaceId,
}

/// Change of a reservation (Base figure 288).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservationNotificationKind(pub u8);

impl ReservationNotificationKind {
    /// There is no notification.
    pub const NONE: Self = Self(0);
    /// The registration of this host was preempted.
    pub const REGISTRATION_PREEMPTED: Self = Self(1);
    /// The reservation was released.
    pub const RESERVATION_RELEASED: Self = Self(2);
    /// The reservation was preempted.
    pub const RESERVATION_PREEMPTED: Self = Self(3);
}

impl std::fmt::Display for ReservationNotificationKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::NONE => f.write_str("none"),
            Self::REGISTRATION_PREEMPTED => f.write_str("registration preempted"),
            Self::RESERVATION_RELEASED => f.write_str("reservation released"),
            Self::RESERVATION_PREEMPTED => f.write_str("reservation preempted"),
            Self(number) => write!(f, "notification {number:#04x}"),
        }
    }
}

impl ReservationNotification {
    /// Size of the page in bytes.
    pub const SIZE: usize = 64;

    /// Decodes the page.
    ///
    /// # Errors
    ///
    /// When it is shorter than 64 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let page = bytes.first_chunk::<{ Self::SIZE }>().ok_or(LogError::Length {
            page: LogPage::RESERVATION_NOTIFICATION,
            bytes: bytes.len(),
            least: Self::SIZE,
        })?;
        let [count @ .., kind, left, _, _, a, b, c, d] =
            *page.first_chunk::<16>().expect("it is shorter than the page");
        Ok(Self {
            count: u64::from_le_bytes(count),
            kind: ReservationNotificationKind(kind),
            left,
            namespace: NamespaceId(u32::from_le_bytes([a, b, c, d])),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_by_offset() {
        let mut bytes = [0; 64];
        bytes[..16].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 2, 3, 4, 9, 9, 5, 0, 0, 6]);
        let notification = ReservationNotification::parse(&bytes).unwrap();
        assert_eq!(notification.count, 0x0200_0000_0000_0001);
        assert_eq!((notification.kind.0, notification.left), (3, 4));
        assert_eq!(notification.namespace, NamespaceId(0x0600_0005));
        let names = [0, 1, 2, 3, 4].map(|kind| ReservationNotificationKind(kind).to_string());
        assert_eq!(
            names[1..4],
            ["registration preempted", "reservation released", "reservation preempted"]
        );
        assert_eq!((&*names[0], &*names[4]), ("none", "notification 0x04"));
        assert!(ReservationNotification::parse(&bytes[1..]).is_err());
    }
}
