//! Identifiers, each a type of its own.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// Queue identifier (QID): 0 is the admin queue, I/O queues count from 1 (Base 3.3.1).
    QueueId(u16)
);
id!(
    /// Command identifier (CID), unique on one queue among the commands in flight (Base 4.2.1).
    CommandId(u16)
);
id!(
    /// Controller identifier (CNTLID), assigned by Connect (Base 6.3).
    ControllerId(u16)
);
id!(
    /// Namespace identifier (NSID), from 1 (Base 2.1).
    NamespaceId(u32)
);
id!(
    /// Remote key (rkey) by which a controller may access a range of host memory (RDMA 3.2).
    RemoteKey(u32)
);

/// Instance of a controller: with the CNTLID, it tells the controller from others that had or will
/// have the same CNTLID (TP8028).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ControllerInstance {
    /// Controller Instance Uniquifier (CIU).
    pub uniquifier: u8,
    /// Controller Instance Random Number (CIRN); never 0, which says that it is not reported.
    pub random: u64,
}

impl ControllerInstance {
    /// Instance that Identify Controller reports, by its CIU and CIRN.
    pub(super) fn reported([uniquifier, random @ ..]: [u8; 9]) -> Option<Self> {
        let random = u64::from_le_bytes(random);
        (random != 0).then_some(Self { uniquifier, random })
    }
}

impl QueueId {
    /// The admin queue.
    pub const ADMIN: Self = Self(0);

    /// Returns true for the admin queue.
    #[must_use]
    pub fn is_admin(self) -> bool {
        self == Self::ADMIN
    }
}

impl NamespaceId {
    /// Broadcast value: all namespaces (Base 2.1).
    pub const BROADCAST: Self = Self(u32::MAX);
}

impl ControllerId {
    /// Value in the admin queue's Connect that lets the subsystem choose the controller (Base 6.3).
    pub const DYNAMIC: Self = Self(0xffff);

    /// Controller in the result of a Connect that succeeded (Base 6.3): its low half.
    #[must_use]
    pub fn of_connect_result(result: u32) -> Self {
        let [low, high, ..] = result.to_le_bytes();
        Self(u16::from_le_bytes([low, high]))
    }
}
