//! Runtime: the only source of time, tasks, threads, readiness and randomness of the driver.
//!
//! It is tokio and the operating system, unless the calling thread has [entered](enter) another
//! one: a simulator, in which one seed decides what happens and when.

mod descriptor;
mod task;

use std::{
    cell::RefCell,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    marker::PhantomData,
    os::fd::BorrowedFd,
    pin::{Pin, pin},
    process,
    sync::Arc,
    task::{Context, Poll},
    thread,
    time::{Duration, Instant, SystemTime},
};

use futures_util::future::{Either, select};

pub use self::task::BoxTask;
pub(crate) use self::{
    descriptor::AsyncDescriptor,
    task::{blocking, spawn, start_thread},
};

/// Runtime in place of tokio and the operating system, for simulations in virtual time. All
/// instants that the driver compares are its own.
pub trait Runtime: Send + Sync {
    /// Current time.
    fn now(&self) -> Instant;

    /// Current time of day.
    fn system_time(&self) -> SystemTime;

    /// Clock of pollers, such as `quanta::Clock::mock` makes; it advances with [`now`](Self::now).
    fn clock(&self) -> quanta::Clock;

    /// Future that is ready at an instant.
    fn sleep_until(self: Arc<Self>, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Runs a task until it ends.
    fn spawn(&self, task: BoxTask);

    /// Fills a buffer with random bytes.
    fn fill_random(&self, buffer: &mut [u8]);

    /// Finds the channel of a device by its file descriptor, which the channel owns.
    ///
    /// # Errors
    ///
    /// When the runtime knows no such channel.
    fn readiness(&self, fd: BorrowedFd<'_>) -> io::Result<Arc<dyn Readiness>>;

    /// Called by loops that poll a device and found nothing: lets the device proceed.
    fn spin(&self);

    /// Number of processors.
    fn processors(&self) -> usize;
}

/// Readiness of a device's channel.
pub trait Readiness: Send + Sync {
    /// Ready once there is something to read: once for each time that the channel was signaled.
    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<dyn Runtime>>> = const { RefCell::new(None) };
}

/// Makes `runtime` that of the calling thread until the guard is dropped.
#[must_use = "the runtime is left when the guard is dropped"]
pub fn enter(runtime: Arc<dyn Runtime>) -> EnterGuard {
    let previous = CURRENT.replace(Some(runtime));
    EnterGuard { previous, not_send: PhantomData }
}

/// Guard of [`enter`]; dropping it restores the runtime that the thread had before.
pub struct EnterGuard {
    previous: Option<Arc<dyn Runtime>>,
    not_send: PhantomData<*const ()>,
}

impl Drop for EnterGuard {
    fn drop(&mut self) {
        CURRENT.set(self.previous.take());
    }
}

/// Entered runtime of the calling thread; `None` for tokio and the operating system.
fn current() -> Option<Arc<dyn Runtime>> {
    CURRENT.with_borrow(Option::clone)
}

/// Calls `entered` with the runtime of the calling thread if it has entered one.
fn with_current<T>(entered: impl FnOnce(&(dyn Runtime + 'static)) -> T) -> Option<T> {
    CURRENT.with_borrow(|current| current.as_deref().map(entered))
}

/// Current time. Tokio's is the system's, unless a test has paused it: deadlines by another clock
/// would have passed then, and every sleep would be over at once.
pub(crate) fn now() -> Instant {
    with_current(Runtime::now).unwrap_or_else(|| tokio::time::Instant::now().into_std())
}

/// Time since `earlier`; zero if that is later.
pub(crate) fn elapsed(earlier: Instant) -> Duration {
    now().saturating_duration_since(earlier)
}

pub(crate) fn system_time() -> SystemTime {
    with_current(Runtime::system_time).unwrap_or_else(SystemTime::now)
}

/// Clock for readings on the path of commands.
pub(crate) fn clock() -> quanta::Clock {
    with_current(Runtime::clock).unwrap_or_default()
}

pub(crate) async fn sleep(time: Duration) {
    sleep_until(after(time)).await;
}

/// Instant after a time from now; a time that no clock can represent is 30 years.
fn after(time: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    let now = now();
    now.checked_add(time).unwrap_or_else(|| now + FAR)
}

pub(crate) async fn sleep_until(deadline: Instant) {
    match current().map(|runtime| runtime.sleep_until(deadline)) {
        Some(sleep) => sleep.await,
        None => tokio::time::sleep_until(deadline.into()).await,
    }
}

/// Error of a future that was not ready in time.
#[derive(Debug)]
pub(crate) struct Elapsed;

pub(crate) async fn timeout<F: Future>(time: Duration, future: F) -> Result<F::Output, Elapsed> {
    timeout_at(after(time), future).await
}

pub(crate) async fn timeout_at<F: Future>(
    deadline: Instant,
    future: F,
) -> Result<F::Output, Elapsed> {
    match current().map(|runtime| runtime.sleep_until(deadline)) {
        Some(sleep) => match select(pin!(future), sleep).await {
            Either::Left((output, _)) => Ok(output),
            Either::Right(_) => Err(Elapsed),
        },
        None => tokio::time::timeout_at(deadline.into(), future).await.map_err(|_| Elapsed),
    }
}

pub(crate) fn fill_random(buffer: &mut [u8]) -> Result<(), getrandom::Error> {
    match with_current(|runtime| runtime.fill_random(buffer)) {
        Some(()) => Ok(()),
        None => getrandom::fill(buffer),
    }
}

pub(crate) fn random_u32() -> Result<u32, getrandom::Error> {
    let mut bytes = [0; 4];
    fill_random(&mut bytes).map(|()| u32::from_ne_bytes(bytes))
}

/// Number of this process: its process id, displaced by a number of the machine and of the process
/// id namespace. `None` in a simulation.
pub(crate) fn process_number() -> Option<u32> {
    let number = || {
        let mut hasher = DefaultHasher::new();
        // Without them process ids are compared as if of one machine.
        fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default().hash(&mut hasher);
        fs::read_link("/proc/self/ns/pid").unwrap_or_default().hash(&mut hasher);
        let [low @ .., _, _, _, _] = hasher.finish().to_le_bytes();
        u32::from_le_bytes(low).wrapping_add(process::id())
    };
    with_current(|_| ()).is_none().then(number)
}

/// Lets a device proceed in which a poll found nothing.
pub(crate) fn spin() {
    if with_current(Runtime::spin).is_none() {
        std::hint::spin_loop();
    }
}

/// Lets other threads run.
pub(crate) fn yield_thread() {
    if with_current(Runtime::spin).is_none() {
        thread::yield_now();
    }
}

pub(crate) fn processors() -> usize {
    let processors = || thread::available_parallelism().map_or(1, usize::from);
    with_current(Runtime::processors).unwrap_or_else(processors)
}

/// Identity of the runtime with which file descriptors are registered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RuntimeId {
    Entered,
    Tokio(tokio::runtime::Id),
}

impl RuntimeId {
    /// Identity of the current runtime.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub(crate) fn current() -> Self {
        match with_current(|_| ()) {
            Some(()) => Self::Entered,
            None => Self::Tokio(tokio::runtime::Handle::current().id()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokio's clock jumps to what is waited for: time has passed for the driver, too.
    #[test]
    fn a_paused_clock_is_that_of_the_driver() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let begin = now();
            let mut sleeps = 0;
            while elapsed(begin) < Duration::from_secs(60) {
                sleep(Duration::from_secs(1)).await;
                sleeps += 1;
            }
            assert_eq!(sleeps, 60);
        });
    }
}
