//! Devices: which there are, what they can do, and keeping one open.
//!
//! # Safety
//!
//! This file exists to look into the structures that describe a device. It promises that a
//! [`DeviceContext`] keeps the context it names open: librdmacm closes a removed device's context
//! when the last id bound to it goes, and a [`DeviceContext`] has such an id.

#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_int},
    io,
    os::fd::BorrowedFd,
    path::Path,
    ptr::NonNull,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use parking_lot::Mutex;
use rdma_core_sys as c;

use super::{
    address::SocketAddress,
    attributes,
    cm_id::CmId,
    diagnosis,
    event_channel::{EventChannel, check, set_nonblocking},
    events::{Stream, Subscription},
    rxe_quirk,
};
use crate::{DeviceEvent, Error, Limits, TransportType};

/// One RDMA device of this machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeviceInfo {
    /// Name, such as `mlx5_0`.
    pub name: String,
    /// Globally unique identifier of the node.
    pub node_guid: u64,
    /// Ports.
    pub ports: Vec<PortInfo>,
    /// Limits, without those of a connection.
    pub limits: Limits,
    /// Completion vectors: interrupts, over which completion queues are spread.
    pub completion_vectors: u32,
}

/// One port of a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PortInfo {
    /// Number, from 1.
    pub number: u8,
    /// State of the link.
    pub state: PortState,
    /// The largest packet in use, in bytes; 0 if the device says something unknown.
    pub active_mtu: u32,
}

/// State of a port, by the numbers of `enum ibv_port_state`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PortState(pub u32);

impl PortState {
    /// There is no link.
    pub const DOWN: Self = Self(1);
    /// The link is there, and being set up.
    pub const INITIALIZING: Self = Self(2);
    /// Set up, and not in use yet.
    pub const ARMED: Self = Self(3);
    /// In use.
    pub const ACTIVE: Self = Self(4);
}

impl std::fmt::Display for PortState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::DOWN => f.write_str("down"),
            Self::INITIALIZING => f.write_str("initializing"),
            Self::ARMED => f.write_str("armed"),
            Self::ACTIVE => f.write_str("active"),
            Self(other) => write!(f, "state {other}"),
        }
    }
}

/// The RDMA devices of this machine; none is not an error.
///
/// # Errors
///
/// * [`Error::Permission`]: there is a device, but this user may not open it.
/// * [`Error::NoDevice`]: the kernel has a device, but its file is not there, as in a container
///   that was not given it.
/// * [`Error::OpenDevice`], [`Error::QueryDevice`]: anything else.
pub fn devices() -> Result<Vec<DeviceInfo>, Error> {
    let Some(list) = DeviceList::new()? else { return Ok(Vec::new()) };
    list.iter().map(|device| OpenDevice::new(device)?.describe()).collect()
}

/// Limits of the device of a bound id, with the MTU of its connection or port.
pub(super) fn limits(id: &CmId) -> Result<Limits, Error> {
    let context = id.context().ok_or(UNBOUND)?;
    // SAFETY: the id is bound and borrowed, so its device's context is open.
    let limits = unsafe { limits_of(context) }?;
    let is_iwarp = limits.transport == TransportType::Iwarp;
    // SAFETY: `with` gives a live id, of which one field is copied.
    let number = id.with(|id| unsafe { (*id).port_num });
    // SAFETY: the id is bound and borrowed, as above.
    let port = unsafe { attributes::query_port(context, number) };
    let of_path = id.with(|id| {
        // SAFETY: `with` gives a live id, of which one field is copied.
        let queue_pair = NonNull::new(unsafe { (*id).qp })?;
        // SAFETY: a queue pair is destroyed under the lock that `with` holds, which empties the
        // field.
        unsafe { attributes::query_path_mtu(queue_pair) }
    });
    let mtu = of_path.or(port.ok().map(|port| port.active_mtu)).map(bytes);
    Ok(Limits { path_mtu: mtu.filter(|&mtu| mtu > 0 && !is_iwarp), ..limits })
}

/// # Safety
///
/// The context is open.
unsafe fn limits_of(context: NonNull<c::ibv_context>) -> Result<Limits, Error> {
    // SAFETY: the caller's context is open during the call.
    let attributes = unsafe { attributes::query(context) }?;
    // SAFETY: as above; an open context points to its device.
    let device = unsafe { (*context.as_ptr()).device };
    // SAFETY: the device lives as long as its open context.
    let transport = match unsafe { (*device).transport_type } {
        c::IBV_TRANSPORT_IB => TransportType::InfiniBand,
        c::IBV_TRANSPORT_IWARP => TransportType::Iwarp,
        _ => TransportType::Other,
    };
    // SAFETY: the device lives as long as its open context.
    let name = unsafe { c::ibv_get_device_name(device) };
    // SAFETY: the name is a C string within the device.
    let device = unsafe { text(name) };
    // SAFETY: the device's plug-in ends the version with a NUL, or left the zeroes of `query`.
    let firmware = unsafe { text(attributes.fw_ver.as_ptr()) };
    Ok(Limits {
        path_mtu: None,
        numa_node: numa_node(&device),
        device,
        firmware,
        completion_queue_entries: attributes.max_cqe.max(0).cast_unsigned(),
        initiator_read_atomic: attributes.max_qp_init_rd_atom.max(0).cast_unsigned(),
        memory_region_bytes: attributes.max_mr_size,
        memory_regions: attributes.max_mr.max(0).cast_unsigned(),
        queue_pair_work_requests: attributes.max_qp_wr.max(0).cast_unsigned(),
        queue_pairs: attributes.max_qp.max(0).cast_unsigned(),
        read_atomic: attributes.max_qp_rd_atom.max(0).cast_unsigned(),
        send_sge: attributes.max_sge.max(0).cast_unsigned(),
        transport,
        windows: windows(&attributes),
    })
}

/// The NUMA node of a device, as sysfs says; a virtual one has none.
fn numa_node(device: &str) -> Option<u32> {
    let path = Path::new("/sys/class/infiniband").join(device).join("device/numa_node");
    // -1 where the system does not know, or has only one.
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Number of windows of type 2.
fn windows(attributes: &c::ibv_device_attr) -> u32 {
    let kinds = c::IBV_DEVICE_MEM_WINDOW_TYPE_2A | c::IBV_DEVICE_MEM_WINDOW_TYPE_2B;
    let some = attributes.device_cap_flags & kinds != 0;
    if some { attributes.max_mw.max(0).cast_unsigned() } else { 0 }
}

/// Number of the next completion queue of this process.
static NEXT_QUEUE: AtomicU32 = AtomicU32::new(0);

/// Vector of a queue, by its number, of a device that has `count` of them; 0 if it tells none.
fn vector(number: u32, count: c_int) -> c_int {
    let count = u32::try_from(count).unwrap_or_default().max(1);
    (number % count).cast_signed()
}

/// Keeps a device's context open without any connection, for what is made from it.
pub(super) struct DeviceContext {
    context: NonNull<c::ibv_context>,
    events: Stream,
    /// Bound to the device.
    _id: Arc<CmId>,
}

// SAFETY: a context is tied to no thread, and verbs calls on it may run at once.
unsafe impl Send for DeviceContext {}
// SAFETY: through a shared device context only the pointer can be read; verbs calls may run at
// once.
unsafe impl Sync for DeviceContext {}

impl DeviceContext {
    /// Open as long as `self`.
    pub(super) fn context(&self) -> *mut c::ibv_context {
        self.context.as_ptr()
    }

    /// Completion vector for the next completion queue: the number of an interrupt of the device,
    /// which the kernel gives to one processor. The queues of one process are spread over all, and
    /// begin at another one in each process.
    pub(super) fn next_vector(&self) -> c_int {
        // SAFETY: the context is open as long as `self`.
        let count = unsafe { self.context.as_ref() }.num_comp_vectors;
        let number = NEXT_QUEUE.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id());
        vector(number, count)
    }

    /// A share of the device's events.
    pub(super) fn subscribe(&self) -> io::Result<Arc<Subscription>> {
        set_nonblocking(self.event_file())?;
        // SAFETY: the context is open as long as `self`.
        self.events
            .subscribe(self.event_file(), || unsafe { attributes::active_ports(self.context) })
    }

    /// The next event of a share, if there is one.
    pub(super) fn event(&self, share: &Subscription) -> io::Result<Option<DeviceEvent>> {
        self.read_events()?;
        share.pop()
    }

    /// Returns true if all ports are down; an event that can't be read changes nothing.
    pub(super) fn is_port_down(&self) -> Option<bool> {
        let _ = self.read_events();
        self.events.is_port_down()
    }

    fn read_events(&self) -> io::Result<()> {
        let was_down = self.events.is_port_down();
        // SAFETY: the context is open as long as `self`; `subscribe` made its events not block.
        unsafe { self.events.distribute(self.context, self.event_file()) }?;
        if was_down == Some(true) && self.events.is_port_down() == Some(false) {
            rxe_quirk::release();
        }
        Ok(())
    }

    fn event_file(&self) -> BorrowedFd<'_> {
        // SAFETY: the context is open as long as `self`.
        let descriptor = unsafe { self.context.as_ref() }.async_fd;
        // SAFETY: the context owns the descriptor, and is open as long as the result.
        unsafe { BorrowedFd::borrow_raw(descriptor) }
    }

    pub(super) fn limits(&self) -> Result<Limits, Error> {
        // SAFETY: the context is open as long as `self`.
        unsafe { limits_of(self.context) }
    }

    pub(super) fn is_of(&self, context: NonNull<c::ibv_context>) -> bool {
        self.context == context
    }
}

/// Context of the device that an id is bound to; one for each device serves the process.
///
/// It has an id of its own, bound to the same local address, because holding the caller's would
/// keep a connection up that the caller has dropped.
pub(super) fn context_of(id: &Arc<CmId>) -> Result<Arc<DeviceContext>, Error> {
    let context = id.context().ok_or(UNBOUND)?;
    let mut open_devices = OPEN_DEVICES.lock();
    open_devices.retain(|device| device.strong_count() > 0);
    if let Some(device) =
        open_devices.iter().filter_map(Weak::upgrade).find(|device| device.is_of(context))
    {
        return Ok(device);
    }
    let bound = bind_another(id).ok().filter(|another| another.context() == Some(context));
    // Where binding another goes elsewhere, the caller's own id must do.
    let device = Arc::new(DeviceContext {
        context,
        events: Stream::default(),
        _id: bound.map_or_else(|| id.clone(), Arc::new),
    });
    open_devices.push(Arc::downgrade(&device));
    Ok(device)
}

fn bind_another(id: &CmId) -> io::Result<CmId> {
    // SAFETY: `with` gives a live id; the address is copied before the lock is released.
    let mut address = id
        .with(|id| SocketAddress::any_port_of(unsafe { &(*id).route.addr.src }))
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    let another = CmId::new(EventChannel::open()?)?;
    // SAFETY: the id is live, and the address lives during the call.
    check(another.with(|id| unsafe { c::rdma_bind_addr(id, address.pointer()) }))?;
    Ok(another)
}

/// The array that libibverbs makes of all devices.
struct DeviceList {
    first: NonNull<*mut c::ibv_device>,
    length: usize,
}

impl DeviceList {
    /// `None` when the kernel knows no RDMA at all.
    fn new() -> Result<Option<Self>, Error> {
        let mut count = 0;
        // SAFETY: the count is writable, and what is returned is checked before use.
        let first = unsafe { c::ibv_get_device_list(&raw mut count) };
        match NonNull::new(first) {
            Some(first) => {
                Ok(Some(Self { first, length: usize::try_from(count).unwrap_or_default() }))
            }
            None => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(None),
                error => Err(Error::QueryDevice(error)),
            },
        }
    }

    fn iter(&self) -> impl Iterator<Item = &c::ibv_device> {
        (0..self.length).map(|index| {
            let entry = self.first.as_ptr().wrapping_add(index);
            // SAFETY: the array has that many entries, and lives as long as `self`.
            let device = unsafe { entry.read() };
            // SAFETY: entries up to the count point to devices, which live as long as the array.
            unsafe { &*device }
        })
    }
}

impl Drop for DeviceList {
    fn drop(&mut self) {
        // SAFETY: libibverbs made the array, and contexts opened from it hold their device.
        unsafe { c::ibv_free_device_list(self.first.as_ptr()) };
    }
}

/// A device opened by itself, only to be looked at.
struct OpenDevice {
    context: NonNull<c::ibv_context>,
    name: String,
}

impl OpenDevice {
    fn new(device: &c::ibv_device) -> Result<Self, Error> {
        // SAFETY: libibverbs ends the name with a NUL within its array.
        let name = unsafe { text(device.name.as_ptr()) };
        // SAFETY: libibverbs ends this name, too, with a NUL within its array.
        let file = unsafe { text(device.dev_name.as_ptr()) };
        // SAFETY: the device is in a list that the caller holds.
        let context = unsafe { c::ibv_open_device((&raw const *device).cast_mut()) };
        let Some(context) = NonNull::new(context) else {
            let source = io::Error::last_os_error();
            let path = Path::new("/dev/infiniband").join(file);
            return Err(diagnosis::explain(&path, source)
                .unwrap_or_else(|source| Error::OpenDevice { name, source }));
        };
        Ok(Self { context, name })
    }

    fn describe(&self) -> Result<DeviceInfo, Error> {
        // SAFETY: the context is open as long as `self`.
        let attributes = unsafe { attributes::query(self.context) }?;
        // SAFETY: the context is open as long as `self`.
        let vectors = unsafe { self.context.as_ref() }.num_comp_vectors;
        let ports: Result<_, _> =
            (1..=attributes.phys_port_cnt).map(|number| self.port(number)).collect();
        Ok(DeviceInfo {
            name: self.name.clone(),
            node_guid: u64::from_be(attributes.node_guid),
            ports: ports?,
            // SAFETY: the context is open as long as `self`.
            limits: unsafe { limits_of(self.context) }?,
            completion_vectors: vectors.max(0).cast_unsigned(),
        })
    }

    fn port(&self, number: u8) -> Result<PortInfo, Error> {
        // SAFETY: the context is open as long as `self`.
        let port = unsafe { attributes::query_port(self.context, number) }?;
        let state = PortState(port.state.0);
        Ok(PortInfo { number, state, active_mtu: bytes(port.active_mtu) })
    }
}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        // SAFETY: this value opened the context, and nothing was made from it.
        unsafe { c::ibv_close_device(self.context.as_ptr()) };
    }
}

/// # Safety
///
/// The pointer is null, or to a C string.
unsafe fn text(pointer: *const libc::c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the caller promises a C string, and it is copied at once.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

fn bytes(mtu: c::ibv_mtu) -> u32 {
    match mtu {
        c::IBV_MTU_256 => 256,
        c::IBV_MTU_512 => 512,
        c::IBV_MTU_1024 => 1024,
        c::IBV_MTU_2048 => 2048,
        c::IBV_MTU_4096 => 4096,
        _ => 0,
    }
}

pub(super) const UNBOUND: Error = Error::Misuse(
    "the endpoint has no device: its address is not resolved yet, or is of none, as 127.0.0.1",
);

static OPEN_DEVICES: Mutex<Vec<Weak<DeviceContext>>> = Mutex::new(Vec::new());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_spread_over_all_vectors() {
        let vectors: Vec<_> = (u32::MAX - 2..=u32::MAX).map(|number| vector(number, 4)).collect();
        assert_eq!(vectors, [1, 2, 3]);
        assert_eq!([0, 1, 2, 3].map(|number| vector(number, 3)), [0, 1, 2, 0]);
        for unknown in [0, -1] {
            assert_eq!(vector(7, unknown), 0);
        }
    }
}
