//! File descriptor of a poller, for event loops that are not those of tokio.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{Timespec, epoll},
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create,
        timerfd_settime,
    },
};
use verbs::Provider;

use super::{Idle, Poller};
use crate::{
    config::{IDLE_TIMEOUT, TICK},
    driver::{buffers::verbs_error, data_path::queue::Queue, runtime},
    error::Error,
};

/// Epoll instance that stays the same while queues come and go.
pub(super) struct EventDescriptor {
    epoll: OwnedFd,
    /// Expires every [`IDLE_TIMEOUT`]; it goes on once its expirations are read.
    timer: OwnedFd,
    /// Epoll instance of the descriptors of the present queues, within the other one.
    queues: Option<OwnedFd>,
}

/// Events of the descriptors that changed, by their kind.
const TIMER: u64 = 0;
const QUEUES: u64 = 1;
const COMPLETIONS: u64 = 2;
const CONNECTION: u64 = 3;

impl EventDescriptor {
    fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
        let this = Self { epoll, timer, queues: None };
        this.wake_within(IDLE_TIMEOUT)?;
        Ok(this)
    }

    /// Makes the descriptor readable after this time, and every [`IDLE_TIMEOUT`] from then on.
    fn wake_within(&self, limit: Duration) -> io::Result<()> {
        let timespec = |time: Duration| Timespec::try_from(time).map_err(io::Error::other);
        let it_value = timespec(limit.max(Duration::from_nanos(1)))?;
        let setting = Itimerspec { it_interval: timespec(IDLE_TIMEOUT)?, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting)?;
        Ok(())
    }

    /// Adds the descriptors of the queues.
    fn add<P: Provider>(
        &mut self,
        completions: BorrowedFd<'_>,
        queues: &[Queue<P>],
    ) -> io::Result<()> {
        let inner = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let readable = epoll::EventFlags::IN;
        epoll::add(&inner, completions, epoll::EventData::new_u64(COMPLETIONS), readable)?;
        for queue in queues {
            let connection = queue.endpoint().as_fd();
            epoll::add(&inner, connection, epoll::EventData::new_u64(CONNECTION), readable)?;
        }
        epoll::add(&self.epoll, &inner, epoll::EventData::new_u64(QUEUES), readable)?;
        self.queues = Some(inner);
        Ok(())
    }

    /// Takes the events of the timer, and tells what else there is. Allocates nothing: called for
    /// sleeps.
    fn take_events(&self) -> io::Result<Readable> {
        let mut events = [const { MaybeUninit::uninit() }; 2];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let (events, _) = epoll::wait(&self.epoll, &mut events, Some(&now))?;
        if events.iter().any(|event| event.data.u64() == TIMER) {
            // Fails only if they were read before.
            let _ = rustix::io::read(&self.timer, &mut [0; 8]);
        }
        let Some(queues) = &self.queues else { return Ok(Readable::default()) };
        if !events.iter().any(|event| event.data.u64() == QUEUES) {
            return Ok(Readable::default());
        }
        let mut of_queues = [const { MaybeUninit::uninit() }; EVENTS_MAX];
        let (of_queues, _) = epoll::wait(queues, &mut of_queues, Some(&now))?;
        let has = |kind| of_queues.iter().any(|event| event.data.u64() == kind);
        Ok(Readable { completions: has(COMPLETIONS), connection: has(CONNECTION) })
    }
}

/// Descriptors of queues that are readable.
#[derive(Clone, Copy, Default)]
struct Readable {
    completions: bool,
    connection: bool,
}

/// Maximum number of events of queues that are taken at once.
const EVENTS_MAX: usize = 8;

impl<P: Provider> Poller<P> {
    /// File descriptor that is readable when there is something to poll for, once the poller is
    /// [armed](Self::arm): for an event loop that is not tokio's. It is the same for the life of
    /// the poller, whatever becomes of the connection, and is never to be read.
    ///
    /// # Errors
    ///
    /// When the process has no room for three more descriptors.
    pub fn event_descriptor(&mut self) -> Result<BorrowedFd<'_>, Error> {
        let descriptor = match self.descriptor.take() {
            Some(descriptor) => descriptor,
            None => EventDescriptor::new().map_err(verbs_error)?,
        };
        Ok(self.descriptor.insert(descriptor).epoll.as_fd())
    }

    /// Prepares for sleep. Returns true if the caller may sleep until the
    /// [descriptor](Self::event_descriptor) is readable, and polls then: it becomes so at the next
    /// completion, when a connection changes, and after at most [`IDLE_TIMEOUT`] for what is due by
    /// the clock. Returns false if there are completions to [take](Self::take).
    ///
    /// # Errors
    ///
    /// As [`poll`](Self::poll).
    pub fn arm(&mut self) -> Result<bool, Error> {
        self.prepare(false)
    }

    /// Prepares for a sleep that ends before the next command is submitted, as [`arm`](Self::arm)
    /// does, but without the system calls that are not needed: nothing is asked of the device while
    /// no command is in flight, nor if the poller is prepared since a sleep that ended although the
    /// descriptor was not readable. `was_readable` says if it was since the last call.
    ///
    /// # Errors
    ///
    /// As [`poll`](Self::poll).
    pub fn arm_if_needed(&mut self, was_readable: bool) -> Result<bool, Error> {
        let is_idle = self.in_flight() == 0 && self.failed_work.is_none();
        let is_prepared = is_idle || self.is_armed && self.pending.is_empty();
        let watches = self.descriptor.as_ref().is_some_and(|known| known.queues.is_some());
        if was_readable || !is_prepared || !watches || !self.dirty.is_empty() {
            return self.prepare(is_idle);
        }
        self.tick.check_soon();
        Ok(self.done.is_empty())
    }

    /// Prepares for sleep, without an event of the next completion if no command is in flight.
    fn prepare(&mut self, is_idle: bool) -> Result<bool, Error> {
        self.poll()?;
        let armed = self.arm_connected(is_idle);
        match armed {
            Ok(armed) => Ok(armed && self.done.is_empty()),
            Err(error) => self.lose(error).map(|()| self.done.is_empty()),
        }
    }

    /// Takes the events of the descriptor, and arms the completion queue, unless nothing is in
    /// flight. Returns true if a connection has events.
    fn take_events_and_arm(&mut self, is_idle: bool) -> Result<bool, Error> {
        // A completion since the queue was armed has made its event, most likely; where there is
        // another event, too, it ends the next sleep. Without a completion the queue is armed.
        let mut readable = Readable { completions: true, connection: false };
        if is_idle
            && let Some(completion_queue) = &mut self.completion_queue
            && completion_queue.acknowledge().map_err(verbs_error)? > 0
        {
            self.is_armed = false;
            return Ok(false);
        }
        if let Some(descriptor) = &self.descriptor
            && (is_idle || self.is_armed)
        {
            readable = descriptor.take_events().map_err(verbs_error)?;
        }
        if readable.completions {
            self.completions(Idle::Arm, std::collections::VecDeque::push_back)?;
            self.is_armed = self.done.is_empty();
        }
        Ok(readable.connection)
    }

    fn arm_connected(&mut self, is_idle: bool) -> Result<bool, Error> {
        self.event_descriptor()?;
        let connection_changed = self.take_events_and_arm(is_idle)?;
        if !self.done.is_empty() {
            return Ok(false);
        }
        let descriptor = self.descriptor.as_mut().expect("it was made above");
        if let (Some(completion_queue), None) = (&self.completion_queue, &descriptor.queues) {
            descriptor.add(completion_queue.as_fd(), &self.queues).map_err(verbs_error)?;
        }
        self.tick.check_soon();
        let due = self.pending.next_due().map(|due| due.saturating_duration_since(runtime::now()));
        let tick = self.failed_work.as_ref().map(|_| TICK);
        if let Some(limit) = due.into_iter().chain(tick).min().filter(|limit| *limit < IDLE_TIMEOUT)
        {
            descriptor.wake_within(limit).map_err(verbs_error)?;
        }
        if connection_changed && self.completion_queue.is_some() {
            self.tick()?;
        }
        Ok(true)
    }

    /// Leaves the descriptors of the queues, which change or end.
    pub(super) fn forget_descriptors(&mut self) {
        self.is_armed = false;
        if let Some(descriptor) = &mut self.descriptor {
            descriptor.queues = None;
        }
    }
}
