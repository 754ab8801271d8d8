//! Memory windows: a peer's access to part of a buffer, for one connection and a limited time.

use std::{any::Any, fmt, ops::Range, sync::Arc};

use crate::{
    Access, Buffer, Error, RemoteKey,
    memory::{Keys, Region, Registration},
};

/// A memory window of type 2, which is not bound to anything.
///
/// A registration's own [key](Buffer::remote_key) reaches all of the registration, over every
/// connection of the domain, as long as the registration lives. A window lets a peer reach part
/// of a buffer, over one connection, until the key is invalidated, by the peer's
/// [send](crate::QueuePair::send_with_invalidate) or by
/// [this side](crate::QueuePair::local_invalidate):
///
/// ```text
///   ProtectionDomain::window
///        '--> Window -- add_window --> free -- bind --> bound; its key is told to the peer
///                                       ^                |           |
///                                       | the peer sends |           | local_invalidate
///                                       | with invalidate v          v
///                                       '------------- after the completion
/// ```
///
/// A queue pair keeps the windows that it was given, each at an index, and binds one again and
/// again. A window that is bound cannot be bound.
pub struct Window {
    registration: Box<dyn Registration>,
    number: u32,
    key: RemoteKey,
    domain: u64,
}

impl Window {
    pub(crate) fn new(registration: Box<dyn Registration>, keys: Keys, domain: u64) -> Self {
        let Keys { local: number, remote: key } = keys;
        Self { registration, number, key, domain }
    }

    /// The low 8 bits are ours to choose, so that an old key is not the new one.
    #[inline]
    fn next_key(&self) -> RemoteKey {
        let RemoteKey(key) = self.key;
        RemoteKey(key & !KEY_MASK | key.wrapping_add(1) & KEY_MASK)
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Window").field(&self.number).finish()
    }
}

/// Range to bind a window to (`ibv_mw_bind_info`).
#[derive(Debug)]
pub struct BindInfo<'a> {
    /// Registered with [`Access::BIND`].
    pub buffer: &'a Buffer,
    /// Range of it, in bytes.
    pub range: Range<usize>,
    /// Access of the peer: [`Access::REMOTE_READ`], [`Access::REMOTE_WRITE`] or both.
    pub access: Access,
}

impl Clone for BindInfo<'_> {
    fn clone(&self) -> Self {
        Self { range: self.range.clone(), ..*self }
    }
}

/// Bind of a memory window to a range of registered memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BindWindow {
    /// The window's index in the batch's [`WindowTable`], which has what was registered for both.
    pub index: usize,
    /// The window's [local number](Keys::local).
    pub window: u32,
    /// The key it gets: that of before, with other low 8 bits.
    pub key: RemoteKey,
    /// The registration's local key; its access has [`Access::BIND`].
    pub memory: u32,
    /// Address of the range, by which the peer names it too.
    pub address: u64,
    /// Length of the range; never 0.
    pub length: u64,
    /// Access of the peer: [`Access::REMOTE_READ`], [`Access::REMOTE_WRITE`] or both.
    pub access: Access,
}

/// The windows of a queue pair, by index.
#[derive(Default)]
pub struct WindowTable {
    rows: Vec<Row>,
}

struct Row {
    // Fields drop in order: the device's window before the memory it is bound to.
    window: Window,
    memory: Option<Arc<Region>>,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The key is invalid.
    Free,
    /// The peer may use the key.
    Valid,
    /// This side has queued the key's invalidation.
    Invalidating,
}

impl WindowTable {
    /// Adds a window, which is free; returns its index.
    pub(crate) fn add(&mut self, window: Window, domain: u64) -> Result<usize, Error> {
        if window.domain != domain {
            return Err(Error::Misuse("the window is of another protection domain"));
        }
        self.rows.push(Row { window, memory: None, state: State::Free });
        Ok(self.rows.len() - 1)
    }

    /// Checks a bind; returns the key that the window gets by it. The window does not change yet.
    #[inline]
    pub(crate) fn check(
        &self,
        index: usize,
        domain: u64,
        to: &BindInfo<'_>,
    ) -> Result<RemoteKey, Error> {
        let refused = match self.rows.get(index) {
            None => NO_WINDOW,
            Some(Row { state: State::Valid | State::Invalidating, .. }) => "the window is bound",
            Some(Row { window, .. }) => match refuse(to, domain) {
                None => return Ok(window.next_key()),
                Some(refused) => refused,
            },
        };
        Err(Error::Misuse(refused))
    }

    /// Notes that a window is queued to be bound, and returns the request for the device.
    ///
    /// # Panics
    ///
    /// If there is no such window; [`check`](Self::check) was to be called before.
    #[inline]
    pub(crate) fn begin(&mut self, index: usize, to: &BindInfo<'_>) -> BindWindow {
        let BindInfo { buffer, ref range, access } = *to;
        let Row { window, memory, state } = &mut self.rows[index];
        window.key = window.next_key();
        *memory = Some(buffer.region());
        *state = State::Valid;
        BindWindow {
            index,
            window: window.number,
            key: window.key,
            memory: buffer.local_key(),
            address: buffer.address() + range.start as u64,
            length: range.len() as u64,
            access,
        }
    }

    /// Notes that this side queues the invalidation of a window's key, which it returns.
    pub(crate) fn begin_invalidation(&mut self, index: usize) -> Result<RemoteKey, Error> {
        match self.rows.get_mut(index) {
            Some(row) if row.state == State::Valid => {
                row.state = State::Invalidating;
                Ok(row.window.key)
            }
            Some(_) => Err(Error::Misuse("the window is not bound, or is being invalidated")),
            None => Err(Error::Misuse(NO_WINDOW)),
        }
    }

    /// Takes back what `begin_invalidation` noted, since nothing was asked for after all.
    pub(crate) fn cancel_invalidation(&mut self, index: usize) {
        if let Some(row) = self.rows.get_mut(index) {
            row.state = State::Valid;
        }
    }

    /// Notes that a key is invalid; returns false if it is the key of no window here, bound or
    /// free. The window at the index `likely` is looked at first.
    #[inline]
    pub(crate) fn invalidated(&mut self, key: RemoteKey, likely: usize) -> bool {
        match self.rows.get_mut(likely) {
            Some(row) if row.window.key == key => {
                row.free();
                true
            }
            _ => self.invalidated_elsewhere(key),
        }
    }

    #[cold]
    fn invalidated_elsewhere(&mut self, key: RemoteKey) -> bool {
        let row = self.rows.iter_mut().find(|row| row.window.key == key);
        row.map(Row::free).is_some()
    }

    /// Returns true if a window may be bound to memory: its key is not known to be invalid.
    pub(crate) fn is_bound(&self, index: usize) -> bool {
        self.rows.get(index).is_some_and(|row| row.state != State::Free)
    }

    /// Registrations of the window of a bind and of its memory, those of the innermost provider;
    /// `None` unless the window is here, and bound as the request says or about to be.
    #[inline]
    pub fn registrations(&mut self, bind: &BindWindow) -> Option<(&dyn Any, &dyn Any)> {
        let Row { window, memory, .. } = self.rows.get_mut(bind.index)?;
        let memory = memory.as_ref().filter(|memory| memory.keys.local == bind.memory)?;
        if window.key != bind.key {
            return None;
        }
        Some((window.registration.innermost(), memory.registration.innermost()))
    }
}

impl fmt::Debug for WindowTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.rows.iter().map(|row| &row.window)).finish()
    }
}

impl Row {
    #[inline]
    fn free(&mut self) {
        self.state = State::Free;
        self.memory = None;
    }
}

impl BindWindow {
    /// Key that the window has until then.
    pub(crate) fn replaced_key(&self) -> RemoteKey {
        let RemoteKey(key) = self.key;
        RemoteKey(key & !KEY_MASK | key.wrapping_sub(1) & KEY_MASK)
    }
}

/// Reason why a window cannot be bound to a range, if there is one.
#[inline]
fn refuse(to: &BindInfo<'_>, domain: u64) -> Option<&'static str> {
    let BindInfo { buffer, ref range, access } = *to;
    let writes = access.contains(Access::LOCAL_WRITE);
    if buffer.domain() != domain {
        Some("the buffer is of another protection domain")
    } else if range.is_empty() || range.end > buffer.len() {
        Some("a window covers at least one byte, and all of the buffer")
    } else if !access.is_remote() {
        Some("a window allows REMOTE_READ, REMOTE_WRITE or both")
    } else if !buffer.access().contains(Access::BIND) {
        Some("a buffer for windows must be registered with BIND")
    } else if writes && !buffer.access().contains(Access::LOCAL_WRITE) {
        Some("a window that may be written needs a buffer registered with LOCAL_WRITE")
    } else {
        None
    }
}

const NO_WINDOW: &str = "the queue pair has no window of this index";

/// The bits of a window's key that change with each bind.
const KEY_MASK: u32 = 0xff;

#[cfg(test)]
mod tests {
    use super::*;

    fn window(key: u32) -> Window {
        Window::new(Box::new(()), Keys { local: key >> 8, remote: RemoteKey(key) }, 1)
    }

    /// Table of a window that is bound with this key.
    fn bound(key: u32) -> WindowTable {
        let mut windows = WindowTable::default();
        windows.add(window(key), 1).expect("it is of the domain");
        windows.rows[0].state = State::Valid;
        windows
    }

    #[test]
    fn only_the_low_bits_of_a_key_change() {
        for (before, after) in [(0x2e3, 0x2e4), (0x2ff, 0x200), (0xffff_ffff, 0xffff_ff00)] {
            assert_eq!(window(before).next_key(), RemoteKey(after));
            let bind = BindWindow {
                index: 0,
                window: 0,
                key: RemoteKey(after),
                memory: 0,
                address: 0,
                length: 1,
                access: Access::REMOTE_READ,
            };
            assert_eq!(bind.replaced_key(), RemoteKey(before));
        }
    }

    #[test]
    fn a_window_is_free_when_its_key_is_invalid() {
        let (mut windows, key) = (bound(0x201), RemoteKey(0x201));
        assert!(!windows.invalidated(RemoteKey(0x202), 0));
        assert!(windows.is_bound(0), "another key was invalidated");
        assert_eq!(windows.begin_invalidation(0).expect("it is bound"), key);
        assert!(windows.begin_invalidation(0).is_err(), "it was asked for already");
        assert!(windows.is_bound(0), "that is not done yet");
        assert!(windows.invalidated(key, 0));
        assert!(!windows.is_bound(0));
        assert!(windows.begin_invalidation(0).is_err(), "it is free");
        assert!(windows.begin_invalidation(1).is_err(), "there is none");
    }

    #[test]
    fn a_key_is_found_wherever_its_window_is() {
        let mut windows = bound(0x201);
        windows.add(window(0x303), 1).expect("it is of the domain");
        windows.rows[1].state = State::Valid;
        assert!(windows.invalidated(RemoteKey(0x303), 0));
        assert!(windows.is_bound(0) && !windows.is_bound(1));
        assert!(windows.invalidated(RemoteKey(0x201), 7));
        assert!(!windows.is_bound(0));
    }

    #[test]
    fn a_window_of_another_domain_is_not_added() {
        assert!(matches!(WindowTable::default().add(window(0x201), 2), Err(Error::Misuse(_))));
    }
}
