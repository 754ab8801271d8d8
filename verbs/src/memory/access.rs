//! Access to registered memory, and the keys that give it.

use std::{any::Any, ops::BitOr};

/// Agent that reads and writes registered memory besides the owner of a buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Agent {
    /// Hardware, or the kernel: outside of the program.
    Device,
    /// A thread of this process, which must use
    /// [`Mapping::device_read`](super::Mapping::device_read) and
    /// [`Mapping::device_write`](super::Mapping::device_write).
    Thread,
}

/// Access to registered memory, besides sending it.
///
/// [`REMOTE_WRITE`](Self::REMOTE_WRITE) implies [`LOCAL_WRITE`](Self::LOCAL_WRITE), as InfiniBand
/// demands.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Access(u8);

impl Access {
    /// Sending only.
    pub const NONE: Self = Self(0);
    /// Receives, and reads of the peer's memory, may write it.
    pub const LOCAL_WRITE: Self = Self(1);
    /// A peer may read it.
    pub const REMOTE_READ: Self = Self(2);
    /// A peer may write it.
    pub const REMOTE_WRITE: Self = Self(4 | Self::LOCAL_WRITE.0);
    /// A [`Window`](crate::Window) may be bound to it.
    pub const BIND: Self = Self(8);

    /// Returns true if all of `other` is allowed.
    #[inline]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns true for an access that a window can give: remote read, remote write or both.
    pub(crate) fn is_remote(self) -> bool {
        let all = Self::REMOTE_READ | Self::REMOTE_WRITE;
        all.contains(self) && ![Self::NONE, Self::LOCAL_WRITE].contains(&self)
    }
}

impl BitOr for Access {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The two keys of registered memory, or of a memory window.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// Names the memory in our own work requests; the window, when it is to be bound.
    pub local: u32,
    /// Names the memory for the peer. A window has its first key here, which reaches nothing;
    /// each bind gives it another, which differs in its low 8 bits only.
    pub remote: RemoteKey,
}

/// Registered memory, or a memory window.
pub trait Registration: Send + Sync + 'static {
    /// The registration of the provider that has made it: a provider that wraps another one passes
    /// this on to the registration that it wraps.
    fn innermost(&self) -> &dyn Any;
}

/// Registration of a provider that keeps nothing of it.
impl Registration for () {
    fn innermost(&self) -> &dyn Any {
        self
    }
}

/// The key by which a peer names registered memory.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RemoteKey(pub u32);

/// Address in a peer's memory, with a key: what the peer said of its buffer or window.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct RemoteAddress {
    /// [Address](super::Buffer::address) of the buffer, or within it.
    pub address: u64,
    /// Key of the registration or window.
    pub key: RemoteKey,
}
