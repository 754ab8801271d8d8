//! Commands of the driver: making devices, taking them over, ending them.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::OpenOptionsExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::fs::Access;
use verbs::SharedMemory;
use zerocopy::IntoBytes;

use crate::{
    device::Device,
    error::Error,
    layout::{
        BUFFER_BYTES_MAX, BufferRegistration, ControlCommand, DEPTH_MAX, Info, Parameters,
        RawParameters, command, flag,
    },
    sys::ControlRing,
};

/// File of the driver.
const CONTROL: &str = "/dev/ublk-control";

/// Timeout of a command that waits for nothing.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout of the start of a device, for which the kernel reads its partition table, and of its
/// stop, for which requests in flight complete.
const START_TIMEOUT: Duration = Duration::from_secs(600);

/// Timeout of the deletion of a device, which waits until its daemon has closed it.
const DELETE_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for which the end of a device that may be open is awaited.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Timeout of the file of a new device, which udev makes and gives to its owner.
const FILE_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout until the driver has noticed that the daemon of a device is gone.
const QUIESCE_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval at which that is asked.
const RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// Number that lets the driver choose the device's.
const ANY: u32 = u32::MAX;

/// Driver of block devices in user space.
pub struct Control {
    file: File,
    ring: ControlRing,
}

/// Command, but for the device and the structure that it concerns.
#[derive(Clone, Copy)]
struct Call {
    name: &'static str,
    number: u32,
    data: u64,
    limit: Duration,
}

impl Call {
    const fn new(name: &'static str, number: u32) -> Self {
        Self { name, number, data: 0, limit: COMMAND_TIMEOUT }
    }

    const fn with_data(self, data: u64) -> Self {
        Self { data, ..self }
    }

    const fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }
}

/// Features of a driver; by default none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u64);

/// Fate of requests in flight when the daemon of a device ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Failure; new ones wait for the next daemon.
    Fail,
    /// The next daemon is given them again.
    Reissue,
}

/// Device to make.
#[derive(Clone, Copy, Debug)]
pub struct DeviceOptions {
    /// Number of the device; none for the first that is free.
    pub id: Option<u32>,
    /// Number of hardware queues.
    pub queues: u16,
    /// Most requests of a queue.
    pub depth: u16,
    /// Maximum data of a request in bytes.
    pub bytes_max: u32,
    /// Requests in flight at the end of the daemon.
    pub recovery: Recovery,
    /// True if the process that serves the device copies the data of requests, not the driver; for
    /// devices of privileged users.
    pub user_copy: bool,
    /// True if memory is [shared](Control::share) with the programs that use the device.
    pub shares_memory: bool,
    /// True for a device of a user without `CAP_SYS_ADMIN`.
    pub unprivileged: bool,
}

/// State of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceState {
    /// Device that was never started, or has been stopped.
    Dead,
    /// A daemon serves it.
    Live,
    /// Device without its daemon, whose requests wait for another one.
    Quiesced,
    /// Device without its daemon, whose requests fail.
    FailIo,
}

/// Properties of a device that the driver tells.
#[derive(Clone, Copy, Debug)]
pub struct DeviceInfo(Info);

impl Features {
    /// Stopping of devices that are not open.
    #[must_use]
    pub fn safe_stop(self) -> bool {
        self.0 & flag::SAFE_STOP != 0
    }

    /// Change of the size of a device: Linux 6.16.
    #[must_use]
    pub fn update_size(self) -> bool {
        self.0 & flag::UPDATE_SIZE != 0
    }

    /// Requests whose data is in memory shared with a program: Linux 7.1.
    #[must_use]
    pub fn shared_memory(self) -> bool {
        self.0 & flag::SHARED_MEMORY != 0
    }

    /// Copying of data by the process that serves a device: Linux 6.5.
    #[must_use]
    pub fn user_copy(self) -> bool {
        self.0 & flag::USER_COPY != 0
    }

    /// Copying of data by pages that the driver pins, as before Linux 6.19. Of a process that has
    /// been killed none can be pinned but by the fast path of some architectures: a read fails that
    /// such a process completes, although the next one could. (Of the features of Linux 7.0, the
    /// first after that change, one tells.)
    #[must_use]
    pub fn pins_pages(self) -> bool {
        self.0 & flag::BATCH_IO == 0
    }
}

impl DeviceInfo {
    /// Number of the device.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id
    }

    /// Number of hardware queues.
    #[must_use]
    pub fn queues(&self) -> u16 {
        self.0.queues
    }

    /// Most requests of a queue.
    #[must_use]
    pub fn depth(&self) -> u16 {
        self.0.depth
    }

    /// Maximum data of a request in bytes.
    #[must_use]
    pub fn bytes_max(&self) -> u32 {
        self.0.bytes_max
    }

    /// Process id of the daemon; `None` if there is none.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        u32::try_from(self.0.process).ok().filter(|id| *id != 0)
    }

    /// User and group that own the device.
    #[must_use]
    pub fn owner(&self) -> (u32, u32) {
        (self.0.owner, self.0.group)
    }

    /// State; of the future ones, which have no name here, `Dead`.
    #[must_use]
    pub fn state(&self) -> DeviceState {
        match self.0.state {
            1 => DeviceState::Live,
            2 => DeviceState::Quiesced,
            3 => DeviceState::FailIo,
            _ => DeviceState::Dead,
        }
    }

    /// True if memory can be [shared](Control::share) with the programs that use the device.
    #[must_use]
    pub fn shares_memory(&self) -> bool {
        self.0.flags & flag::SHARED_MEMORY != 0
    }

    fn user_copy(&self) -> bool {
        self.0.flags & flag::USER_COPY != 0
    }

    fn is_unprivileged(&self) -> bool {
        self.0.flags & flag::UNPRIVILEGED != 0
    }
}

impl Control {
    /// Opens the driver.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] if the kernel has none; [`Error::Open`] if its file may not be opened.
    pub fn open() -> Result<Self, Error> {
        let file = OpenOptions::new().read(true).write(true).open(CONTROL);
        let file = file.map_err(|source| match source.kind() {
            ErrorKind::NotFound => Error::Missing,
            _ => match source.raw_os_error() {
                Some(libc::ENODEV | libc::ENXIO) => Error::Missing,
                _ => Error::Open { path: CONTROL.to_owned(), source },
            },
        })?;
        Ok(Self { file, ring: ControlRing::new().map_err(Error::Ring)? })
    }

    /// Features of the driver.
    ///
    /// # Errors
    ///
    /// When the driver is older than Linux 6.5, or does not answer.
    pub fn features(&mut self) -> Result<Features, Error> {
        let mut features = 0_u64;
        let call = Call::new("GET_FEATURES", command::GET_FEATURES);
        self.call(call, ANY, features.as_mut_bytes(), 0)?;
        Ok(Features(features))
    }

    /// Makes a device; returns what became of it: the driver may lower the limits. That of a user
    /// without privileges is ready once udev has given its file to the user, which is awaited.
    ///
    /// # Errors
    ///
    /// When the driver refuses.
    pub fn add(&mut self, options: &DeviceOptions) -> Result<DeviceInfo, Error> {
        let DeviceOptions { id, queues, depth, bytes_max, recovery, user_copy, .. } = *options;
        let DeviceOptions { shares_memory, unprivileged, .. } = *options;
        let id = id.unwrap_or(ANY);
        let set = |condition: bool, bit: u64| if condition { bit } else { 0 };
        let mut info = Info {
            queues,
            depth: depth.min(DEPTH_MAX),
            bytes_max,
            id,
            flags: flag::IOCTL_ENCODE
                | flag::USER_RECOVERY
                | set(recovery == Recovery::Reissue, flag::USER_RECOVERY_REISSUE)
                | set(user_copy, flag::USER_COPY)
                | set(shares_memory, flag::SHARED_MEMORY)
                | set(unprivileged, flag::UNPRIVILEGED),
            ..Info::default()
        };
        self.call(Call::new("ADD_DEV", command::ADD), id, info.as_mut_bytes(), 0)?;
        let (path, deadline) = (character_device(info.id), Instant::now() + FILE_TIMEOUT);
        let access = Access::READ_OK | Access::WRITE_OK;
        while unprivileged && rustix::fs::access(&path, access).is_err() {
            if Instant::now() > deadline {
                let reason = "udev did not give it to its owner in time";
                let source = io::Error::new(ErrorKind::PermissionDenied, reason);
                return Err(Error::Open { path, source });
            }
            std::thread::sleep(RETRY_INTERVAL);
        }
        Ok(DeviceInfo(info))
    }

    /// Information about a device.
    ///
    /// # Errors
    ///
    /// When there is none with this number, or it is another user's.
    pub fn info(&mut self, id: u32) -> Result<DeviceInfo, Error> {
        let mut info = Info::default();
        let call = Call::new("GET_DEV_INFO2", command::GET_INFO);
        self.with_path(call, id, info.as_mut_bytes())?;
        Ok(DeviceInfo(info))
    }

    /// Sets the geometry of a device that was not started.
    ///
    /// # Errors
    ///
    /// When the driver refuses it.
    pub fn set_parameters(
        &mut self,
        device: &DeviceInfo,
        parameters: Parameters,
    ) -> Result<(), Error> {
        let mut raw = parameters.to_raw();
        let call = Call::new("SET_PARAMS", command::SET_PARAMETERS);
        self.of(call, device, raw.as_mut_bytes())
    }

    /// Geometry of a device.
    ///
    /// # Errors
    ///
    /// When the driver refuses.
    pub fn parameters(&mut self, device: &DeviceInfo) -> Result<Parameters, Error> {
        let mut raw = RawParameters { length: RawParameters::LENGTH, ..Default::default() };
        let call = Call::new("GET_PARAMS", command::GET_PARAMETERS);
        self.of(call, device, raw.as_mut_bytes())?;
        Ok(Parameters::from_raw(&raw))
    }

    /// Opens a device, to serve it: only one process can, and once.
    ///
    /// # Errors
    ///
    /// When another process has it open, or it does not become accessible in time.
    pub fn open_device(&mut self, id: u32) -> Result<Arc<Device>, Error> {
        let info = self.info(id)?;
        let path = character_device(id);
        let deadline = Instant::now() + FILE_TIMEOUT;
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let user_copy = info.user_copy();
        if user_copy {
            // io_uring then copies in the thread that submits, rather than in one of its own: the
            // driver never waits for anything there.
            options.custom_flags(libc::O_NONBLOCK);
        }
        let file = loop {
            match options.open(&path) {
                Ok(file) => break file,
                // udev has not made it yet, or not given it to its owner.
                Err(error) if may_change(&error) && Instant::now() < deadline => {
                    std::thread::sleep(RETRY_INTERVAL);
                }
                Err(source) => return Err(Error::Open { path, source }),
            }
        };
        let DeviceInfo(Info { queues, depth, bytes_max, .. }) = info;
        let has_shared = AtomicBool::new(false);
        Ok(Arc::new(Device { file, queues, depth, bytes_max, user_copy, has_shared }))
    }

    /// Starts a device all queues of which are served, by this process. The kernel reads from it
    /// before this returns.
    ///
    /// # Errors
    ///
    /// When the driver refuses.
    pub fn start(&mut self, device: &DeviceInfo) -> Result<(), Error> {
        let process = std::process::id().into();
        let call = Call::new("START_DEV", command::START).within(START_TIMEOUT);
        self.of(call.with_data(process), device, &mut [])
    }

    /// Begins to take over a device whose daemon is gone; [`end_recovery`](Self::end_recovery)
    /// follows, once all queues are served.
    ///
    /// # Errors
    ///
    /// When its daemon lives, or was never there.
    pub fn start_recovery(&mut self, device: &DeviceInfo) -> Result<(), Error> {
        let deadline = Instant::now() + QUIESCE_TIMEOUT;
        loop {
            let call = Call::new("START_USER_RECOVERY", command::START_RECOVERY);
            match self.of(call, device, &mut []) {
                // The driver has not noticed the end of the daemon, or is not done with it.
                Err(error) if error.errno() == Some(libc::EBUSY) && Instant::now() < deadline => {
                    std::thread::sleep(RETRY_INTERVAL);
                }
                outcome => return outcome,
            }
        }
    }

    /// Ends taking over: requests go to this process from here on.
    ///
    /// # Errors
    ///
    /// When the driver refuses.
    pub fn end_recovery(&mut self, device: &DeviceInfo) -> Result<(), Error> {
        let process = std::process::id().into();
        let call = Call::new("END_USER_RECOVERY", command::END_RECOVERY).within(START_TIMEOUT);
        self.of(call.with_data(process), device, &mut [])
    }

    /// Changes the size of a device, in sectors of 512 bytes, if the driver
    /// [can](Features::update_size).
    ///
    /// # Errors
    ///
    /// When the device was not started, or the driver cannot.
    pub fn resize(&mut self, device: &DeviceInfo, sectors: u64) -> Result<(), Error> {
        let call = Call::new("UPDATE_SIZE", command::UPDATE_SIZE).with_data(sectors);
        self.of(call, device, &mut [])
    }

    /// Most bytes of memory that can be shared.
    pub const SHARED_BYTES_MAX: u64 = BUFFER_BYTES_MAX;

    /// Shares memory, of whole pages, with the programs that use a device of this process:
    /// [requests](crate::Request::shared_offset) with data there are not copied. The memory that a
    /// process before this one shared is no longer. Waits for the requests of a started device,
    /// which its queues must serve meanwhile.
    ///
    /// # Errors
    ///
    /// When the device was not made for that, or the driver cannot pin the memory.
    pub fn share(
        &mut self,
        info: &DeviceInfo,
        device: &Device,
        memory: &SharedMemory,
    ) -> Result<(), Error> {
        let call = Call::new("UNREG_BUF", command::UNREGISTER_BUFFER).within(START_TIMEOUT);
        match self.of(call, info, &mut []) {
            Err(error) if error.errno() != Some(libc::ENOENT) => return Err(error),
            _ => {}
        }
        let (address, length) = (memory.address(), memory.len() as u64);
        let mut buffer = BufferRegistration { address, length, flags: 0, reserved: 0 };
        // No request has its data in such memory now; one of this memory may, before the driver
        // answers.
        device.has_shared.store(true, Ordering::Relaxed);
        let call = Call::new("REG_BUF", command::REGISTER_BUFFER).within(START_TIMEOUT);
        let shared = self.of(call, info, buffer.as_mut_bytes());
        device.has_shared.store(shared.is_ok(), Ordering::Relaxed);
        shared
    }

    /// Ends a device: its requests fail, though it may be open.
    ///
    /// # Errors
    ///
    /// When the driver refuses.
    pub fn stop(&mut self, device: &DeviceInfo) -> Result<(), Error> {
        let call = Call::new("STOP_DEV", command::STOP).within(START_TIMEOUT);
        self.of(call, device, &mut [])
    }

    /// Ends a device that is not open, if the driver [can](Features::safe_stop).
    ///
    /// # Errors
    ///
    /// When the device is open, or the driver refuses.
    pub fn try_stop(&mut self, device: &DeviceInfo) -> Result<(), Error> {
        let call = Call::new("TRY_STOP_DEV", command::TRY_STOP).within(START_TIMEOUT);
        self.of(call, device, &mut [])
    }

    /// Deletes a device that was stopped, once its daemon has closed it.
    ///
    /// # Errors
    ///
    /// When the daemon does not close it in time.
    pub fn delete(&mut self, device: &DeviceInfo) -> Result<(), Error> {
        let call = Call::new("DEL_DEV", command::DELETE).within(DELETE_TIMEOUT);
        self.of(call, device, &mut [])
    }

    /// Deletes a device that was stopped, once nothing has it open. Returns true if it is gone
    /// already; an old driver, and that of a user without privileges, is waited for as by
    /// [`delete`](Self::delete).
    ///
    /// # Errors
    ///
    /// When the driver refuses.
    pub fn delete_when_closed(&mut self, device: &DeviceInfo) -> Result<bool, Error> {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        let call = Call::new("DEL_DEV_ASYNC", command::DELETE_ASYNC);
        match self.of(call, device, &mut []) {
            Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
                self.delete(device)?;
            }
            outcome => outcome?,
        }
        while self.info(device.id()).is_ok() {
            if Instant::now() > deadline {
                return Ok(false);
            }
            std::thread::sleep(RETRY_INTERVAL);
        }
        Ok(true)
    }

    /// Command of a device; a user without privileges names its file.
    fn of(&mut self, call: Call, device: &DeviceInfo, bytes: &mut [u8]) -> Result<(), Error> {
        if device.is_unprivileged() {
            self.with_path(call, device.id(), bytes)
        } else {
            self.call(call, device.id(), bytes, 0)
        }
    }

    fn with_path(&mut self, call: Call, id: u32, bytes: &mut [u8]) -> Result<(), Error> {
        let path = character_device(id);
        let mut buffer = [path.as_bytes(), b"\0"].concat();
        let path_length = buffer.len();
        buffer.extend_from_slice(bytes);
        self.call(call, id, &mut buffer, path_length)?;
        bytes.copy_from_slice(&buffer[path_length..]);
        Ok(())
    }

    fn call(
        &mut self,
        call: Call,
        id: u32,
        bytes: &mut [u8],
        path_length: usize,
    ) -> Result<(), Error> {
        let Call { name: command, number, data, limit } = call;
        let length = |length| u16::try_from(length).expect("a path and a structure");
        let structure = ControlCommand {
            device: id,
            queue: u16::MAX,
            length: length(bytes.len()),
            address: 0,
            data,
            path_length: length(path_length),
            pad: 0,
            reserved: 0,
        };
        let result = self.ring.call(&self.file, number, structure, bytes, limit);
        match result.map_err(Error::Ring)? {
            Some(0..) => Ok(()),
            Some(errno) => {
                let source = io::Error::from_raw_os_error(-errno);
                Err(Error::Refused { command, id, source })
            }
            None => Err(Error::Timeout { command, id, limit }),
        }
    }
}

fn character_device(id: u32) -> String {
    format!("/dev/ublkc{id}")
}

fn may_change(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_tell_how_they_copy() {
        // Those before Linux 6.5, which tell nothing, then of 6.12 and of 7.3.
        for (features, user_copy, pins_pages) in
            [(0, false, true), (0x1fe, true, true), (0x1e_ffff, true, false)]
        {
            let features = Features(features);
            assert_eq!(features.user_copy(), user_copy, "{features:?}");
            assert_eq!(features.pins_pages(), pins_pages, "{features:?}");
        }
    }
}
