//! Numbers that name things, each a type of its own.

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
    /// A queue of a controller: 0 is the admin queue, I/O queues count from 1 (Base 3.3.1).
    QueueId(u16)
);
id!(
    /// A command in flight on one queue (Base 4.2.1, CID).
    CommandId(u16)
);
id!(
    /// A controller of a subsystem, granted by Connect (Base 6.3, CNTLID).
    ControllerId(u16)
);
id!(
    /// A namespace of a subsystem, from 1 (Base 2.1).
    NamespaceId(u32)
);
id!(
    /// The key by which a controller may reach a range of our memory (RDMA 3.2).
    RemoteKey(u32)
);

impl QueueId {
    /// The admin queue.
    pub const ADMIN: Self = Self(0);

    /// Whether this is the admin queue.
    #[must_use]
    pub fn is_admin(self) -> bool {
        self == Self::ADMIN
    }
}

impl ControllerId {
    /// In an admin Connect: the target shall choose (Base 6.3).
    pub const DYNAMIC: Self = Self(0xffff);
}
