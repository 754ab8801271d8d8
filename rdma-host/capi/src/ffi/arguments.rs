//! Texts, structures and arrays of C.
//!
//! # Safety
//!
//! The functions rely on the contract that the head of `ffi` states.

use std::{
    ffi::{CStr, c_char},
    mem::MaybeUninit,
    ptr::{self, NonNull},
};

use rdma_host::MemoryOwner;

use crate::error::CallError;

/// Memory of the program.
pub(super) struct ProgramMemory {
    pub(super) start: NonNull<u8>,
    pub(super) length: usize,
}

// SAFETY: it is an address and a length; nothing here reads or writes what is there.
unsafe impl Send for ProgramMemory {}
// SAFETY: as for `Send`: a shared `ProgramMemory` gives no access to the bytes either.
unsafe impl Sync for ProgramMemory {}
// SAFETY: the program keeps the memory mapped until it has freed the handle, by the contract of
// `nvmf_memory_register`, and no Rust object is there.
unsafe impl MemoryOwner for ProgramMemory {
    fn memory(&self) -> (NonNull<u8>, usize) {
        (self.start, self.length)
    }
}

/// Text of C.
pub(super) unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<&'a str, CallError> {
    if text.is_null() {
        return Err(null(name));
    }
    // SAFETY: the text ends with a zero, by the contract above.
    let bytes = unsafe { CStr::from_ptr(text) };
    bytes.to_str().map_err(|_| CallError::invalid(format!("{name} is not UTF-8")))
}

/// Elements of C; an array without elements may be null.
pub(super) unsafe fn array<'a, T>(
    start: *const T,
    count: usize,
    name: &str,
) -> Result<&'a [T], CallError> {
    if count == 0 {
        return Ok(&[]);
    }
    if start.is_null() || !start.is_aligned() || count > isize::MAX as usize / size_of::<T>() {
        return Err(null(name));
    }
    // SAFETY: there are as many elements, by the contract above, and the address was checked.
    Ok(unsafe { std::slice::from_raw_parts(start, count) })
}

/// Places of C for completions.
#[inline]
pub(super) unsafe fn places<'a, T>(
    start: *mut T,
    count: usize,
) -> Result<&'a mut [MaybeUninit<T>], CallError> {
    if count == 0 {
        return Ok(&mut []);
    }
    if start.is_null() || !start.is_aligned() || count > isize::MAX as usize / size_of::<T>() {
        return Err(null("the array"));
    }
    // SAFETY: there are as many places, by the contract above, and they need no content.
    Ok(unsafe { std::slice::from_raw_parts_mut(start.cast(), count) })
}

/// Writes a result to a place of C.
pub(super) unsafe fn put<T>(place: *mut T, value: T, name: &str) -> Result<(), CallError> {
    check_place(place, name)?;
    // SAFETY: the place was checked, and is one for a value of this type by the contract above.
    unsafe { place.write(value) };
    Ok(())
}

pub(super) fn check_place<T>(place: *mut T, name: &str) -> Result<(), CallError> {
    if place.is_null() || !place.is_aligned() { Err(null(name)) } else { Ok(()) }
}

/// Writes as much of a structure as the program knows; its first field is the size, here and there.
pub(super) unsafe fn put_sized<T: Copy>(place: *mut T, value: &T) -> Result<(), CallError> {
    check_place(place, "the structure")?;
    // SAFETY: the first field of the program's structure is its size, by the contract above.
    let known = unsafe { place.cast::<u64>().read() };
    if known < 8 {
        return Err(CallError::invalid("the field size is to be the size of the structure"));
    }
    let bytes = usize::try_from(known).unwrap_or(usize::MAX).min(size_of::<T>());
    let (from, to) = (ptr::from_ref(value).cast::<u8>(), place.cast::<u8>());
    // SAFETY: both have at least as many bytes; ours is on the stack, so that they are apart.
    unsafe { ptr::copy_nonoverlapping(from, to, bytes) };
    // SAFETY: as for the read above. The program learns how much was written.
    unsafe { place.cast::<u64>().write(bytes as u64) };
    Ok(())
}

#[cold]
pub(super) fn null(name: &str) -> CallError {
    CallError::caller(libc::EFAULT, format!("{name} is null, or no address of such a thing"))
}
