//! Memory windows: a peer's access to part of a buffer, for one connection and a limited time.

use std::{any::Any, fmt, ops::Range, sync::Arc};

use crate::{
    Access, Buffer, Error, RemoteKey,
    memory::{Keys, Region},
    provider::BindWindow,
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
///        '------------> Window -- bind --> bound, in the queue pair; its key is told to the peer
///                        ^                  |           |
///                        |   the peer sends |           | local_invalidate
///                        |  with invalidate v           v
///                        '--- reclaim ---- invalid, after the completion
/// ```
///
/// A window cannot be bound while it is bound: the queue pair has it.
///
/// ```compile_fail,E0382
/// # fn twice(queue_pair: &mut verbs::QueuePair, window: verbs::Window, to: verbs::BindInfo<'_>) {
/// queue_pair.bind(window, to.clone());
/// queue_pair.bind(window, to); // moved into the first
/// # }
/// ```
pub struct Window {
    // Fields drop in order: the device's window before the memory it is bound to.
    _registration: Box<dyn Any + Send + Sync>,
    number: u32,
    key: RemoteKey,
    domain: u64,
    memory: Option<Arc<Region>>,
}

impl Window {
    pub(crate) fn new(_registration: Box<dyn Any + Send + Sync>, keys: Keys, domain: u64) -> Self {
        let Keys { local: number, remote: key } = keys;
        Self { _registration, number, key, domain, memory: None }
    }

    /// Bind request for the device; the window does not change yet.
    pub(crate) fn request(&self, domain: u64, to: BindInfo<'_>) -> Result<BindWindow, Error> {
        let BindInfo { buffer, range, access } = to;
        if self.domain != domain {
            return Err(Error::Misuse("the window is of another protection domain"));
        }
        if buffer.domain() != domain {
            return Err(Error::Misuse("the buffer is of another protection domain"));
        }
        if range.is_empty() || range.end > buffer.len() {
            return Err(Error::Misuse("a window covers at least one byte, and all of the buffer"));
        }
        if !access.is_remote() {
            return Err(Error::Misuse("a window allows REMOTE_READ, REMOTE_WRITE or both"));
        }
        if !buffer.access().contains(Access::BIND) {
            return Err(Error::Misuse("a buffer for windows must be registered with BIND"));
        }
        if access.contains(Access::LOCAL_WRITE) && !buffer.access().contains(Access::LOCAL_WRITE) {
            return Err(Error::Misuse(
                "a window that may be written needs a buffer registered with LOCAL_WRITE",
            ));
        }
        Ok(BindWindow {
            window: self.number,
            key: self.next_key(),
            memory: buffer.local_key(),
            address: buffer.address() + range.start as u64,
            length: range.len() as u64,
            access,
        })
    }

    /// The low 8 bits are ours to choose, so that an old key is not the new one.
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

/// Hash table of the windows that a queue pair has bound, by their numbers: the upper bits of their
/// keys, which never change.
///
/// A window's row is at its number, or behind it where that is taken (linear probing); a window
/// that is bound again finds its row again. Half of the rows are free. A device assigns numbers in
/// turn, so most windows are at their own. A peer cannot make it slow: the numbers are those of
/// this side's device, and a number that the peer sends is only looked up.
#[derive(Debug)]
pub(crate) struct BoundWindows {
    /// A power of two.
    rows: Box<[Row]>,
    /// Number of rows that belong to a window.
    known: usize,
}

#[derive(Debug)]
struct Row {
    /// The window's key, whether it is bound or not; nothing in a row that is free.
    key: Option<RemoteKey>,
    state: State,
    window: Option<Window>,
}

#[derive(Debug, Eq, PartialEq)]
enum State {
    /// The peer may use the key.
    Valid,
    /// This side has queued its invalidation.
    Invalidating,
    /// The key is invalid.
    Invalid,
}

impl BoundWindows {
    pub(crate) fn new() -> Self {
        Self { rows: Self::free(1), known: 0 }
    }

    fn free(rows: usize) -> Box<[Row]> {
        let row = |_| Row { key: None, state: State::Invalid, window: None };
        (0..rows).map(row).collect()
    }

    /// Makes room for this number of windows at a time: binding them allocates nothing then.
    pub(crate) fn reserve(&mut self, count: usize) {
        let length = (2 * count).next_power_of_two();
        if length > self.rows.len() {
            self.renew(length);
        }
    }

    /// Replaces the table by one of this length, without the windows that are not bound.
    fn renew(&mut self, length: usize) {
        let before = std::mem::replace(&mut self.rows, Self::free(length));
        self.known = 0;
        for row in before {
            if let (Some(key), Some(_)) = (row.key, &row.window) {
                let place = self.place(key);
                self.rows[place] = row;
                self.known += 1;
            }
        }
    }

    /// The row of the window that has a key, or a free one.
    #[inline]
    fn place(&self, RemoteKey(key): RemoteKey) -> usize {
        let mask = self.rows.len() - 1;
        let mut at = (key >> KEY_BITS) as usize & mask;
        while let Some(RemoteKey(other)) = self.rows[at].key
            && (other ^ key) >> KEY_BITS != 0
        {
            at = (at + 1) & mask;
        }
        at
    }

    /// The row of the window that is bound with just this key.
    #[inline]
    fn find(&mut self, key: RemoteKey) -> Option<&mut Row> {
        let place = self.place(key);
        Some(&mut self.rows[place]).filter(|row| row.key == Some(key) && row.window.is_some())
    }

    /// Returns true if the key is of a window here, valid or not.
    pub(crate) fn contains(&self, key: RemoteKey) -> bool {
        let row = &self.rows[self.place(key)];
        row.key == Some(key) && row.window.is_some()
    }

    /// Takes in a window that was just bound as `request` says.
    pub(crate) fn insert(&mut self, mut window: Window, request: &BindWindow, buffer: &Buffer) {
        window.key = request.key;
        window.memory = Some(buffer.region());
        self.hold(window, State::Valid);
    }

    fn hold(&mut self, window: Window, state: State) {
        let mut place = self.place(window.key);
        if self.rows[place].key.is_none() {
            if 2 * (self.known + 1) > self.rows.len() {
                let bound = self.rows.iter().filter(|row| row.window.is_some()).count();
                self.renew((4 * (bound + 1)).next_power_of_two().max(self.rows.len()));
                place = self.place(window.key);
            }
            self.known += 1;
        }
        debug_assert!(2 * self.known <= self.rows.len(), "half of the rows are free");
        self.rows[place] = Row { key: Some(window.key), state, window: Some(window) };
    }

    /// Notes that this side queues the invalidation of a key.
    pub(crate) fn begin_invalidation(&mut self, key: RemoteKey) -> Result<(), Error> {
        match self.find(key) {
            Some(row) if row.state == State::Valid => {
                row.state = State::Invalidating;
                Ok(())
            }
            _ => Err(Error::Misuse("the key is of no window that is bound to this queue pair")),
        }
    }

    /// Takes back what `begin_invalidation` noted, since nothing was asked for after all.
    pub(crate) fn cancel_invalidation(&mut self, key: RemoteKey) {
        if let Some(row) = self.find(key) {
            row.state = State::Valid;
        }
    }

    /// Notes that a key is invalid, if it is of a window here.
    #[inline]
    pub(crate) fn invalidated(&mut self, key: RemoteKey) {
        if let Some(row) = self.find(key) {
            row.state = State::Invalid;
        }
    }

    /// Returns the window whose key is invalid.
    #[inline]
    pub(crate) fn reclaim(&mut self, key: RemoteKey) -> Option<Window> {
        let row = self.find(key).filter(|row| row.state == State::Invalid)?;
        let mut window = row.window.take()?;
        window.memory = None;
        Some(window)
    }
}

/// A window that was not bound.
#[derive(Debug)]
pub struct BindError {
    /// Error of the bind.
    pub error: Error,
    /// The window, as it was given.
    pub window: Window,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bind refused: {}", self.error)
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl From<BindError> for Error {
    fn from(refused: BindError) -> Self {
        refused.error
    }
}

/// The bits of a window's key that change with each bind.
const KEY_MASK: u32 = (1 << KEY_BITS) - 1;
const KEY_BITS: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn window(key: u32) -> Window {
        Window::new(Box::new(()), Keys { local: 3, remote: RemoteKey(key) }, 1)
    }

    #[test]
    fn only_the_low_bits_of_a_key_change() {
        assert_eq!(window(0x2e3).next_key(), RemoteKey(0x2e4));
        assert_eq!(window(0x2ff).next_key(), RemoteKey(0x200));
        assert_eq!(window(0xffff_ffff).next_key(), RemoteKey(0xffff_ff00));
    }

    #[test]
    fn a_table_with_room_does_not_grow() {
        let mut windows = BoundWindows::new();
        windows.reserve(100);
        let room = windows.rows.len();
        let turns = if cfg!(miri) { 1000 } else { 100_000_u32 };
        for turn in 0..turns {
            let key = |turn: u32| RemoteKey(((turn % 100) << 8) | ((turn / 100) & KEY_MASK));
            windows.hold(window(key(turn).0), State::Invalid);
            if turn >= 99 {
                assert!(windows.contains(key(turn - 99)));
                assert!(windows.reclaim(key(turn - 99)).is_some());
            }
        }
        assert_eq!(windows.rows.len(), room);
    }

    #[test]
    fn a_table_without_room_grows_and_keeps_what_is_bound() {
        let mut windows = BoundWindows::new();
        let keys = (1..=100).map(|number| RemoteKey((number * 7) << KEY_BITS));
        for key in keys.clone() {
            windows.hold(window(key.0), State::Invalid);
        }
        for key in keys {
            assert!(!windows.contains(RemoteKey(key.0 + 1)), "another key of the same window");
            assert!(windows.reclaim(key).is_some());
            assert!(!windows.contains(key));
        }
        let room = windows.rows.len();
        for number in 1000..100_000 {
            let key = RemoteKey(number << KEY_BITS);
            windows.hold(window(key.0), State::Invalid);
            windows.reclaim(key).expect("it is bound");
        }
        assert_eq!(windows.rows.len(), room, "windows that are gone take no room");
    }

    #[test]
    fn a_window_comes_back_when_its_key_is_out_of_use() {
        let mut windows = BoundWindows::new();
        let key = RemoteKey(0x201);
        windows.hold(window(0x201), State::Valid);
        assert!(windows.reclaim(key).is_none(), "it is in use");
        windows.invalidated(RemoteKey(0x202));
        assert!(windows.reclaim(key).is_none(), "another key was invalidated");
        assert!(windows.begin_invalidation(RemoteKey(0x200)).is_err(), "a stale key");
        windows.begin_invalidation(key).expect("it is in use");
        assert!(windows.begin_invalidation(key).is_err(), "it was asked for already");
        assert!(windows.reclaim(key).is_none(), "that is not done yet");
        windows.invalidated(key);
        assert!(windows.reclaim(key).is_some());
        assert!(windows.reclaim(key).is_none(), "only once");
    }
}
