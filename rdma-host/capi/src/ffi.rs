//! Functions of the interface, as `nvmf-rdma.h` declares and explains them.
//!
//! # Safety
//!
//! This file exists because C passes texts, structures and arrays by address. What it relies on is
//! the contract of the header, which no check can take the place of: an address that is not null is
//! of a text that ends with a zero, of a structure as large as its first field says, of an array of
//! as many elements as the call says, or of a place for one result; it stays so during the call.
//! Memory that was registered stays mapped, and is no Rust object, until it is freed. Null is
//! always checked. Handles are numbers, which are looked up and never read from.

#![expect(missing_docs, reason = "nvmf-rdma.h explains each function")]
#![expect(
    clippy::missing_safety_doc,
    clippy::missing_panics_doc,
    reason = "the contract of all functions is the one above, and panics end here"
)]

mod arguments;

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    mem::MaybeUninit,
    ptr::{self, NonNull},
    sync::Once,
    time::Duration,
};

use rdma_host::{
    Buffer, Command,
    wire::{BlockRange, NamespaceId},
};

use self::arguments::{ProgramMemory, array, check_place, null, places, put, put_sized, text};
use crate::{
    controller::{self, CONTROLLERS},
    error::{self, CallError},
    handle::{call, forked, outcome, to_pointer},
    layout::{
        nvmf_completion, nvmf_controller, nvmf_controller_info, nvmf_event, nvmf_memory,
        nvmf_namespace, nvmf_options, nvmf_queue, nvmf_range, nvmf_segment, nvmf_statistics,
    },
    memory, options,
    queue::{Extent, Other, Place, QUEUES, Queue},
};

/// Flag of a write: it completes once its blocks are on non-volatile media.
const FORCE_UNIT_ACCESS: u32 = 1;
/// Flag of Write Zeroes: the controller may deallocate the blocks.
const DEALLOCATE: u32 = 2;
/// Most parts of a vectored command.
const SEGMENTS_MAX: usize = 1024;

/// Number of a handle.
#[inline]
fn number<T>(handle: *mut T) -> u64 {
    handle.addr() as u64
}

/// Calls a function of a queue.
#[inline]
fn with_queue(
    queue: *mut nvmf_queue,
    function: impl FnOnce(&mut Queue) -> Result<c_int, CallError>,
) -> c_int {
    let result = QUEUES
        .write(number(queue))
        .and_then(|mut entry| entry.change(|queue| function(queue.get_mut())));
    outcome(result)
}

/// Makes or finds an object, and writes its handle to a place of C.
unsafe fn put_handle<T>(
    place: *mut *mut T,
    make: impl FnOnce() -> Result<u64, CallError>,
) -> c_int {
    const NAME: &str = "the place for the handle";
    call(|| {
        check_place(place, NAME)?;
        let handle = to_pointer(make()?);
        // SAFETY: the place is as the contract says.
        unsafe { put(place, handle, NAME) }.map(|()| 0)
    })
}

/// Number of something of which there are few.
fn count(count: usize) -> c_int {
    c_int::try_from(count).unwrap_or(c_int::MAX)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmf_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("a version has no zeroes"),
        };
    VERSION.as_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmf_error_text() -> *const c_char {
    error::with_last_text(CStr::as_ptr)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmf_error_class() -> c_int {
    error::last_class()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmf_options_create(
    target: *const c_char,
    created: *mut *mut nvmf_options,
) -> c_int {
    let make = || {
        let target = if target.is_null() {
            None
        } else {
            // SAFETY: the text is as the contract says.
            Some(unsafe { text(target, "the target") }?)
        };
        options::create(target)
    };
    // SAFETY: the place is as the contract says.
    unsafe { put_handle(created, make) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmf_options_set(
    options: *mut nvmf_options,
    name: *const c_char,
    value: *const c_char,
) -> c_int {
    call(|| {
        // SAFETY: the text is as the contract says.
        let name = unsafe { text(name, "the name of the option") }?;
        // SAFETY: the text is as the contract says.
        let value = unsafe { text(value, "the value of the option") }?;
        options::set(number(options), name, value).map(|()| 0)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmf_options_free(options: *mut nvmf_options) -> c_int {
    call(|| options::OPTIONS.remove(number(options)).map(|_| 0))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmf_connect(
    options: *mut nvmf_options,
    connected: *mut *mut nvmf_controller,
) -> c_int {
    let make = || {
        watch_forks();
        controller::connect(number(options), |builder| without_signals(|| builder.build()))
    };
    // SAFETY: the place is as the contract says.
    unsafe { put_handle(connected, make) }
}

/// Makes handles of this process invalid in processes that are forked from it.
fn watch_forks() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        // SAFETY: the function adds to an atomic number, which is allowed after a fork.
        unsafe { libc::pthread_atfork(None, None, Some(note_fork)) };
    });
}

unsafe extern "C" fn note_fork() {
    forked();
}

/// Calls a function that starts threads, in which no handler of the program is to run.
fn without_signals<T>(function: impl FnOnce() -> T) -> T {
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: the set is written by the call.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the call above has written the set, and this one writes the other.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    let result = function();
    // SAFETY: the set was written by the call above; it is that of this thread.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    result
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmf_disconnect(controller: *mut nvmf_controller) -> c_int {
    call(|| controller::disconnect(number(controller)).map(|()| 0))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmf_reset(controller: *mut nvmf_controller) -> c_int {
    call(|| {
        CONTROLLERS.read(number(controller))?.get()?.reset();
        Ok(0)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmf_controller_get(
    controller: *mut nvmf_controller,
    info: *mut nvmf_controller_info,
) -> c_int {
    call(|| {
        let found = CONTROLLERS.read(number(controller))?.get()?.info();
        // SAFETY: the structure is as the contract says.
        unsafe { put_sized(info, &found) }.map(|()| 0)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmf_namespace_list(
    controller: *mut nvmf_controller,
    nsids: *mut u32,
    max: usize,
) -> c_int {
    call(|| {
        // SAFETY: the array is as the contract says.
        let nsids = unsafe { places(nsids, max) }?;
        let found = CONTROLLERS.read(number(controller))?.get()?.namespaces()?;
        for (place, nsid) in nsids.iter_mut().zip(&found) {
            place.write(*nsid);
        }
        Ok(count(found.len()))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmf_namespace_get(
    controller: *mut nvmf_controller,
    nsid: u32,
    namespace: *mut nvmf_namespace,
) -> c_int {
    call(|| {
        check_place(namespace, "the structure")?;
        let found = CONTROLLERS.read(number(controller))?.get()?.namespace(nsid)?;
        // SAFETY: the structure is as the contract says.
        unsafe { put_sized(namespace, &found) }.map(|()| 0)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmf_event_next(
    controller: *mut nvmf_controller,
    event: *mut nvmf_event,
) -> c_int {
    call(|| {
        check_place(event, "the structure")?;
        let controller = CONTROLLERS.read(number(controller))?;
        let Some(found) = controller.get()?.next_event() else { return Ok(0) };
        // SAFETY: the structure is as the contract says.
        unsafe { put_sized(event, &found) }.map(|()| 1)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmf_event_fd(controller: *mut nvmf_controller) -> c_int {
    call(|| Ok(CONTROLLERS.read(number(controller))?.get()?.event_descriptor()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmf_memory_allocate(
    controller: *mut nvmf_controller,
    bytes: usize,
    allocated: *mut *mut nvmf_memory,
    address: *mut *mut c_void,
) -> c_int {
    let make = || {
        check_place(address, "the place for the address")?;
        let (memory, start) = CONTROLLERS.read(number(controller))?.get()?.allocate(bytes)?;
        let start = usize::try_from(start).expect("addresses have 64 bits");
        // SAFETY: the place is as the contract says.
        unsafe { put(address, ptr::with_exposed_provenance_mut(start), "the address") }?;
        Ok(memory)
    };
    // SAFETY: the place is as the contract says.
    unsafe { put_handle(allocated, make) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmf_memory_register(
    controller: *mut nvmf_controller,
    address: *mut c_void,
    bytes: usize,
    registered: *mut *mut nvmf_memory,
) -> c_int {
    let make = || {
        let start = NonNull::new(address.cast::<u8>()).ok_or_else(|| null("the address"))?;
        if start.addr().get().checked_add(bytes).is_none() {
            return Err(CallError::invalid("the memory is larger than the address space"));
        }
        let controller = CONTROLLERS.read(number(controller))?;
        controller.get()?.register(ProgramMemory { start, length: bytes })
    };
    // SAFETY: the place is as the contract says.
    unsafe { put_handle(registered, make) }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmf_memory_free(memory: *mut nvmf_memory) -> c_int {
    call(|| memory::free(number(memory)).map(|()| 0))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmf_queue_get(
    controller: *mut nvmf_controller,
    index: u32,
    queue: *mut *mut nvmf_queue,
) -> c_int {
    let find = || CONTROLLERS.read(number(controller))?.get()?.queue(index as usize);
    // SAFETY: the place is as the contract says.
    unsafe { put_handle(queue, find) }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmf_queue_own_thread(queue: *mut nvmf_queue, threads: u32) -> c_int {
    with_queue(queue, |queue| {
        queue.own_thread(threads as usize);
        Ok(0)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmf_read(
    queue: *mut nvmf_queue,
    nsid: u32,
    lba: u64,
    blocks: u32,
    memory: *mut nvmf_memory,
    offset: u64,
    user: u64,
) -> c_int {
    let extent = Extent { nsid, lba, blocks };
    let place = Place { memory: number(memory), offset };
    with_queue(queue, |queue| queue.transfer(Command::read, extent, place, user).map(|()| 0))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmf_write(
    queue: *mut nvmf_queue,
    nsid: u32,
    lba: u64,
    blocks: u32,
    memory: *mut nvmf_memory,
    offset: u64,
    flags: u32,
    user: u64,
) -> c_int {
    let extent = Extent { nsid, lba, blocks };
    let place = Place { memory: number(memory), offset };
    with_queue(queue, |queue| {
        check_flags(flags, FORCE_UNIT_ACCESS)?;
        queue.transfer(write(flags), extent, place, user).map(|()| 0)
    })
}

/// Function for a Write with flags.
fn write(flags: u32) -> impl Fn(NamespaceId, u64, u32, Buffer) -> Command {
    move |namespace, lba, blocks, buffer| {
        let command = Command::write(namespace, lba, blocks, buffer);
        if flags & FORCE_UNIT_ACCESS != 0 { command.with_force_unit_access() } else { command }
    }
}

#[inline]
fn check_flags(flags: u32, known: u32) -> Result<(), CallError> {
    if flags & !known == 0 { Ok(()) } else { Err(unknown_flags(flags & !known)) }
}

#[cold]
fn unknown_flags(flags: u32) -> CallError {
    CallError::invalid(format!("the flags {flags:#x} are not known for this command"))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmf_readv(
    queue: *mut nvmf_queue,
    nsid: u32,
    lba: u64,
    segments: *const nvmf_segment,
    segment_count: usize,
    user: u64,
) -> c_int {
    // SAFETY: the array is as the contract says.
    with_queue(queue, |queue| unsafe {
        transfer_segments(queue, Command::read, (nsid, lba), (segments, segment_count), user)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmf_writev(
    queue: *mut nvmf_queue,
    nsid: u32,
    lba: u64,
    segments: *const nvmf_segment,
    segment_count: usize,
    flags: u32,
    user: u64,
) -> c_int {
    with_queue(queue, |queue| {
        check_flags(flags, FORCE_UNIT_ACCESS)?;
        // SAFETY: the array is as the contract says.
        unsafe {
            transfer_segments(queue, write(flags), (nsid, lba), (segments, segment_count), user)
        }
    })
}

unsafe fn transfer_segments(
    queue: &mut Queue,
    command: impl Fn(NamespaceId, u64, u32, Buffer) -> Command,
    (nsid, first): (u32, u64),
    (segments, segment_count): (*const nvmf_segment, usize),
    user: u64,
) -> Result<c_int, CallError> {
    if segment_count > SEGMENTS_MAX {
        return Err(CallError::invalid(format!("at most {SEGMENTS_MAX} segments are possible")));
    }
    // SAFETY: the array is as the contract says.
    let segments = unsafe { array(segments, segment_count, "the array of segments") }?;
    let mut lba = first;
    let mut parts = Vec::with_capacity(segments.len());
    for segment in segments {
        let extent = Extent { nsid, lba, blocks: segment.blocks };
        let place = Place { memory: number(segment.memory), offset: segment.offset };
        parts.push((extent, place));
        lba = lba
            .checked_add(segment.blocks.into())
            .ok_or_else(|| CallError::invalid("the blocks are past the end of any namespace"))?;
    }
    queue.transfer_parts(command, &parts, user).map(|()| 0)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmf_flush(queue: *mut nvmf_queue, nsid: u32, user: u64) -> c_int {
    with_queue(queue, |queue| queue.submit(Other::Flush { nsid }, user).map(|()| 0))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmf_write_zeroes(
    queue: *mut nvmf_queue,
    nsid: u32,
    lba: u64,
    blocks: u32,
    flags: u32,
    user: u64,
) -> c_int {
    with_queue(queue, |queue| {
        check_flags(flags, FORCE_UNIT_ACCESS | DEALLOCATE)?;
        let (deallocate, forced) = (flags & DEALLOCATE != 0, flags & FORCE_UNIT_ACCESS != 0);
        let extent = Extent { nsid, lba, blocks };
        queue.submit(Other::WriteZeroes { extent, deallocate, forced }, user).map(|()| 0)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmf_dsm(
    queue: *mut nvmf_queue,
    nsid: u32,
    ranges: *const nvmf_range,
    range_count: usize,
    user: u64,
) -> c_int {
    with_queue(queue, |queue| {
        let count = range_count.min(BlockRange::COUNT_MAX + 1);
        // SAFETY: the array is as the contract says; no more of it is read than can be used.
        let ranges = unsafe { array(ranges, count, "the array of ranges") }?;
        let ranges = ranges.iter().map(|range| BlockRange { lba: range.lba, blocks: range.blocks });
        let ranges = &ranges.collect::<Vec<_>>();
        queue.submit(Other::Deallocate { nsid, ranges }, user).map(|()| 0)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmf_submit(queue: *mut nvmf_queue) -> c_int {
    with_queue(queue, |queue| queue.ring_doorbells().map(|()| 0))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmf_poll(
    queue: *mut nvmf_queue,
    completions: *mut nvmf_completion,
    max: usize,
) -> c_int {
    with_queue(queue, |queue| {
        // SAFETY: the array is as the contract says.
        let places = unsafe { places(completions, max) }?;
        queue.poll(places).map(count)
    })
}

/// Polls as [`nvmf_poll`] does, for programs in Rust that measure this library.
#[doc(hidden)]
pub fn poll(
    queue: *mut nvmf_queue,
    completions: &mut [MaybeUninit<nvmf_completion>],
) -> &[nvmf_completion] {
    let polled = with_queue(queue, |queue| queue.poll(completions).map(count));
    let polled = usize::try_from(polled).unwrap_or(0);
    // SAFETY: the call has written as many completions to the start of the slice.
    unsafe { std::slice::from_raw_parts(completions.as_ptr().cast(), polled) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmf_wait(
    queue: *mut nvmf_queue,
    completions: *mut nvmf_completion,
    min: usize,
    max: usize,
    timeout_ns: i64,
) -> c_int {
    with_queue(queue, |queue| {
        // SAFETY: the array is as the contract says.
        let places = unsafe { places(completions, max) }?;
        let limit = u64::try_from(timeout_ns).ok().map(Duration::from_nanos);
        queue.wait(places, min, limit).map(count)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmf_queue_fd(queue: *mut nvmf_queue) -> c_int {
    with_queue(queue, |queue| queue.descriptor())
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmf_arm(queue: *mut nvmf_queue) -> c_int {
    with_queue(queue, |queue| queue.arm().map(c_int::from))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmf_queue_room(queue: *mut nvmf_queue) -> c_int {
    with_queue(queue, |queue| Ok(count(queue.room())))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmf_statistics_get(
    queue: *mut nvmf_queue,
    statistics: *mut nvmf_statistics,
) -> c_int {
    with_queue(queue, |queue| {
        let found = queue.statistics();
        // SAFETY: the structure is as the contract says.
        unsafe { put_sized(statistics, &found) }.map(|()| 0)
    })
}
