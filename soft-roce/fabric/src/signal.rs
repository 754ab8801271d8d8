//! File descriptor that is readable while an event is pending.

use std::{
    collections::BTreeMap,
    fmt, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use rustix::event::{EventfdFlags, eventfd};

/// Eventfd, on which programs sleep as they do on the file descriptor of a device. A signal that
/// wakes tasks itself never writes to it.
pub(super) struct Signal {
    /// Taken only by the drop.
    fd: Option<OwnedFd>,
    watched: Option<Mutex<Watched>>,
}

/// State of a signal that wakes tasks.
#[derive(Default)]
struct Watched {
    raised: bool,
    /// Number of times that it was raised.
    raises: u64,
    /// True if it is of several objects, of which one does not know if another is ready.
    is_shared: bool,
    wakers: Vec<Waker>,
}

/// Descriptors of dropped signals that were never written to, for later ones: a simulation makes no
/// system calls then.
static UNUSED: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

impl Signal {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { fd: Some(make_eventfd()?), watched: None })
    }

    /// Creates a signal that wakes the tasks that poll its [`Readiness`].
    fn watched(is_shared: bool) -> io::Result<Self> {
        let unused = lock(&UNUSED).pop();
        let fd = unused.map_or_else(make_eventfd, Ok)?;
        let watched = Watched { is_shared, ..Watched::default() };
        Ok(Self { fd: Some(fd), watched: Some(Mutex::new(watched)) })
    }

    pub(super) fn raise(&self) {
        match &self.watched {
            Some(watched) => {
                let mut watched = lock(watched);
                watched.raised = true;
                watched.raises += 1;
                watched.wakers.drain(..).for_each(Waker::wake);
            }
            // Fails only if the counter is full, and then the signal is raised.
            None => drop(rustix::io::write(self, &1_u64.to_ne_bytes())),
        }
    }

    pub(super) fn clear(&self) {
        match &self.watched {
            Some(watched) => {
                let mut watched = lock(watched);
                watched.raised &= watched.is_shared;
            }
            // Fails only if the counter is 0, and then the signal is cleared.
            None => drop(rustix::io::read(self, &mut [0; 8])),
        }
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("a signal has its descriptor until it is dropped").as_fd()
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signal({:?})", self.fd)
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        if self.watched.is_some() {
            lock(&UNUSED).extend(self.fd.take());
        }
    }
}

/// Signals of a fabric without file descriptors that become readable.
pub(super) struct Signals {
    by_descriptor: BTreeMap<RawFd, Weak<Signal>>,
    /// Maximum number of objects of a host that share a signal.
    objects_max: usize,
    /// Latest signal of each host, if they share.
    latest: BTreeMap<usize, Weak<Signal>>,
}

impl Signals {
    /// Signals, each of up to `objects_max` objects of a host.
    pub(super) fn new(objects_max: usize) -> Self {
        Self { by_descriptor: BTreeMap::new(), objects_max, latest: BTreeMap::new() }
    }

    /// Creates or shares the signal of an object of a host, whose index is given.
    pub(super) fn make(&mut self, host: usize) -> io::Result<Arc<Signal>> {
        let is_shared = self.objects_max > 1;
        // An object and its handle have a reference each.
        let has_room = |signal: &Arc<Signal>| Arc::strong_count(signal) < 2 * self.objects_max;
        if is_shared
            && let Some(signal) = self.latest.get(&host).and_then(Weak::upgrade).filter(has_room)
        {
            return Ok(signal);
        }
        let signal = Arc::new(Signal::watched(is_shared)?);
        self.by_descriptor.insert(signal.as_fd().as_raw_fd(), Arc::downgrade(&signal));
        if is_shared {
            self.latest.insert(host, Arc::downgrade(&signal));
        }
        Ok(signal)
    }

    pub(super) fn find(&self, fd: RawFd) -> Option<Arc<Signal>> {
        self.by_descriptor.get(&fd).and_then(Weak::upgrade)
    }
}

/// Readiness of an endpoint, domain or completion queue of a fabric in virtual time, in place of
/// that of its file descriptor. The object may be dropped first.
#[derive(Debug)]
pub struct Readiness {
    signal: Arc<Signal>,
    /// Number of times that the signal was raised, as of the latest poll that was ready.
    seen: Mutex<u64>,
}

impl Readiness {
    pub(super) fn new(signal: Arc<Signal>) -> Self {
        let watched = signal.watched.as_ref().map(lock);
        let seen = watched.map_or(0, |watched| watched.raises - u64::from(watched.raised));
        Self { signal, seen: Mutex::new(seen) }
    }

    /// Ready once for each time that something became readable, as an edge-triggered descriptor.
    pub fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut seen = lock(&self.seen);
        let watched = self.signal.watched.as_ref().expect("only a watched signal is found");
        let mut watched = lock(watched);
        if std::mem::replace(&mut *seen, watched.raises) != watched.raises {
            return Poll::Ready(());
        }
        if !watched.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            watched.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}

fn make_eventfd() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Locks; a thread that panicked while it held the lock has reported its failure.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
