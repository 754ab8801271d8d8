//! Tables of objects, and handles, by which C names them.
//!
//! A handle is a number in the form of a pointer: the kind of object, its place in the table and a
//! generation. It points to nothing, and is looked up in each call: any other value, a handle of
//! another kind, of an object that was closed, or of the process that this one was forked from, is
//! an error.

use std::{
    ffi::c_int,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU32, Ordering},
};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::CallError;

/// Objects of one kind, at most `N` of them.
pub(crate) struct Table<T, const N: usize> {
    /// Number in each handle.
    kind: u64,
    /// Name for messages.
    name: &'static str,
    entries: [RwLock<Entry<T>>; N],
    /// Index from which a free entry is searched.
    next: AtomicU32,
}

/// Place for an object.
pub(crate) struct Entry<T> {
    /// Handle of the object that is here; [`NO_HANDLE`] for none.
    handle: u64,
    /// Number of forks that lie before the object.
    forks: u32,
    /// Number of objects that were here before, and part of the handle.
    generation: u32,
    /// None, too, after a panic in the middle of a call, which may have left it in any state.
    object: Option<T>,
}

/// Value that is no handle: no kind has this number.
const NO_HANDLE: u64 = 0;

/// Kinds, indices and generations within a handle.
const KIND_BITS: u32 = 4;
const INDEX_BITS: u32 = 12;
/// Generations end where addresses of programs do, so that no debugger takes a handle for an error.
const GENERATION_MASK: u32 = 0x3fff_ffff;

/// Number of forks that this process and its ancestors have made since the library was loaded.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Notes that this process is a child: objects of the parent have threads that are not here.
pub(crate) extern "C" fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

impl<T, const N: usize> Table<T, N> {
    pub(crate) const fn new(kind: u64, name: &'static str) -> Self {
        assert!(N <= 1 << INDEX_BITS && kind > 0 && kind < 1 << KIND_BITS);
        Self {
            kind,
            name,
            entries: [const { RwLock::new(Entry::EMPTY) }; N],
            next: AtomicU32::new(0),
        }
    }

    /// Adds an object; returns its handle.
    pub(crate) fn add(&self, object: T) -> Result<u64, CallError> {
        let first = self.next.fetch_add(1, Ordering::Relaxed) as usize;
        for index in (0..N).map(|step| (first + step) % N) {
            let Some(mut entry) = self.entries[index].try_write() else { continue };
            let forks = FORKS.load(Ordering::Relaxed);
            if entry.handle != NO_HANDLE && entry.forks == forks {
                continue;
            }
            // Dropping what the parent made would act on its connections.
            std::mem::forget(entry.object.take());
            entry.generation = (entry.generation + 1) & GENERATION_MASK;
            entry.forks = forks;
            let handle = self.handle(index, entry.generation);
            entry.put(handle, object);
            return Ok(handle);
        }
        let text = format!("there are {N} objects of the kind {} already", self.name);
        Err(CallError::caller(libc::EMFILE, text))
    }

    /// Takes an object out; its handle is invalid from now on. An error if it is in use.
    pub(crate) fn remove(&self, handle: u64) -> Result<T, CallError> {
        self.write(handle)?.take().ok_or_else(CallError::panicked)
    }

    /// Locks an object for a call of several threads at a time.
    #[inline(always)] // it is called for each command with data
    pub(crate) fn read(&self, handle: u64) -> Result<RwLockReadGuard<'_, Entry<T>>, CallError> {
        let Some(lock) = self.find(handle) else { return Err(self.no_object()) };
        let Some(entry) = lock.try_read() else { return Err(self.in_use()) };
        if !entry.is_of(handle) {
            return Err(self.no_object());
        }
        Ok(entry)
    }

    /// Locks an object for a call of one thread at a time.
    #[inline]
    pub(crate) fn write(&self, handle: u64) -> Result<RwLockWriteGuard<'_, Entry<T>>, CallError> {
        let Some(lock) = self.find(handle) else { return Err(self.no_object()) };
        let Some(entry) = lock.try_write() else { return Err(self.in_use()) };
        if !entry.is_of(handle) {
            return Err(self.no_object());
        }
        Ok(entry)
    }

    /// Returns true if the object is there, in use or not.
    pub(crate) fn is_there(&self, handle: u64) -> bool {
        !matches!(self.read(handle), Err(error) if error.number() == libc::EBADF)
    }

    #[inline]
    fn find(&self, handle: u64) -> Option<&RwLock<Entry<T>>> {
        let index = (handle >> KIND_BITS) & ((1 << INDEX_BITS) - 1);
        self.entries.get(usize::try_from(index).ok()?)
    }

    fn handle(&self, index: usize, generation: u32) -> u64 {
        u64::from(generation) << (KIND_BITS + INDEX_BITS) | (index as u64) << KIND_BITS | self.kind
    }

    #[cold]
    fn no_object(&self) -> CallError {
        let name = self.name;
        let text = format!(
            "this is no {name}, or one that was closed, or one of the process before a fork"
        );
        CallError::caller(libc::EBADF, text)
    }

    #[cold]
    fn in_use(&self) -> CallError {
        CallError::caller(libc::EBUSY, format!("another thread is using the {}", self.name))
    }
}

impl<T> Entry<T> {
    const EMPTY: Self = Self { handle: NO_HANDLE, forks: 0, generation: 0, object: None };

    #[inline]
    fn is_of(&self, handle: u64) -> bool {
        self.handle == handle && self.forks == FORKS.load(Ordering::Relaxed) && handle != NO_HANDLE
    }

    /// Object, which the tables hand out only if it is there.
    #[inline]
    pub(crate) fn get(&self) -> Result<&T, CallError> {
        self.object.as_ref().ok_or_else(CallError::panicked)
    }

    /// Calls a function that changes the object. After a panic in it the object serves no more.
    #[inline]
    pub(crate) fn change<R>(
        &mut self,
        function: impl FnOnce(&mut T) -> Result<R, CallError>,
    ) -> Result<R, CallError> {
        let Some(object) = self.object.as_mut() else { return Err(CallError::panicked()) };
        match catch_unwind(AssertUnwindSafe(|| function(object))) {
            Ok(outcome) => outcome,
            Err(_) => {
                // Its drop could panic, too.
                std::mem::forget(self.object.take());
                Err(CallError::panicked())
            }
        }
    }

    /// Puts an object here.
    pub(crate) fn put(&mut self, handle: u64, object: T) {
        self.handle = handle;
        self.object = Some(object);
    }

    /// Takes the object out; its handle is invalid from now on. None after a panic.
    pub(crate) fn take(&mut self) -> Option<T> {
        self.handle = NO_HANDLE;
        self.object.take()
    }
}

/// Handle in the form that C sees.
pub(crate) fn to_pointer<T>(handle: u64) -> *mut T {
    std::ptr::without_provenance_mut(usize::try_from(handle).expect("addresses have 64 bits"))
}

/// Result of a call for C: a number that is not negative, or the negative number of errno.
#[inline]
pub(crate) fn outcome(result: Result<c_int, CallError>) -> c_int {
    match result {
        Ok(number) => number,
        Err(error) => error.report(),
    }
}

/// Calls a function whose panic must not reach C.
pub(crate) fn call(function: impl FnOnce() -> Result<c_int, CallError>) -> c_int {
    let result = catch_unwind(AssertUnwindSafe(function));
    outcome(result.unwrap_or_else(|_| Err(CallError::panicked())))
}

#[cfg(test)]
mod tests {
    use super::*;

    static TABLE: Table<u8, 2> = Table::new(3, "number");
    static OTHER: Table<u8, 2> = Table::new(4, "other number");

    #[test]
    fn only_the_handle_of_an_object_names_it() {
        let first = TABLE.add(1).unwrap();
        let second = TABLE.add(2).unwrap();
        assert_eq!(TABLE.add(3).unwrap_err().number(), libc::EMFILE);
        assert_eq!(*TABLE.read(second).unwrap().get().unwrap(), 2);
        for wrong in [0, 1, u64::MAX, first + (1 << 16), first ^ 1, first + 0x40] {
            assert_eq!(TABLE.read(wrong).map(drop).unwrap_err().number(), libc::EBADF, "{wrong:x}");
        }
        assert!(OTHER.read(first).is_err());
        let held = TABLE.read(first).unwrap();
        assert!(TABLE.read(first).is_ok());
        assert_eq!(TABLE.write(first).map(drop).unwrap_err().number(), libc::EBUSY);
        drop(held);
        assert_eq!(TABLE.remove(first).unwrap(), 1);
        assert_eq!(TABLE.remove(first).unwrap_err().number(), libc::EBADF);
        let third = TABLE.add(3).unwrap();
        assert_ne!(third, first);
        assert!(TABLE.read(first).is_err());
        let broken =
            TABLE.write(third).unwrap().change(|_| -> Result<(), _> { panic!("on purpose") });
        assert_eq!(broken.unwrap_err().number(), libc::ENOTRECOVERABLE);
        assert!(TABLE.read(third).unwrap().get().is_err());
        // Of the table alone: other tests have objects too.
        FORKS.fetch_add(1, Ordering::Relaxed);
        assert_eq!(TABLE.read(second).map(drop).unwrap_err().number(), libc::EBADF);
        assert!(TABLE.add(4).is_ok());
    }
}
