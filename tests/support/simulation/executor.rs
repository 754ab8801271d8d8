//! Executor of a simulation: one thread, virtual time, and an order of tasks that follows from the
//! seed. It is the driver's [`Runtime`].
//!
//! Each turn polls one of the tasks that are ready, or lets the next thing happen: an event of the
//! fabric, or the end of a sleep. While tasks are ready, which spin perhaps, time passes too, in
//! steps that grow until something happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
    io,
    os::fd::BorrowedFd,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant, SystemTime},
};

use quanta::{Clock, Mock};
use rdma_fabric::Fabric;
use rdma_host::runtime::{self, BoxTask, Readiness, Runtime};

use super::random::Random;

/// Turns of a run, after which it is taken for one that never ends.
const TURNS_MAX: u64 = 3_000_000;
/// Ready tasks of which the next one is drawn: of many, the oldest.
const DRAWN_MAX: usize = 64;

/// Shortest and longest step of time while tasks are ready.
const STEP_MIN: Duration = Duration::from_micros(1);
const STEP_MAX: Duration = Duration::from_millis(10);
/// Objects of one of many hosts that share a file descriptor.
const SHARING_MAX: usize = 64;
/// Longest step among many hosts, which have processors of their own.
const STEP_MAX_OF_MANY: Duration = Duration::from_micros(8);
/// Step of time in a loop that polls a device.
const SPIN_STEP: Duration = Duration::from_micros(20);

/// Tasks that are ready. In order, since tokio's channels wake tasks in an order of their own.
type ReadyTasks = Arc<Mutex<BTreeSet<usize>>>;

/// Simulation: a fabric, tasks, time and the transcript. Clones refer to the same one.
#[derive(Clone)]
pub struct World {
    shared: Arc<Shared>,
}

struct Shared {
    fabric: Fabric,
    start: Instant,
    clock: Clock,
    mock: Arc<Mock>,
    state: Mutex<State>,
    ready: ReadyTasks,
}

struct State {
    random: Random,
    tasks: BTreeMap<usize, Task>,
    next_task: usize,
    sleeps: BTreeMap<(Duration, u64), Waker>,
    next_sleep: u64,
    /// Step of time while tasks are ready.
    step: Duration,
    transcript: String,
    turns: u64,
    /// Time that has passed while tasks were ready.
    busy: Duration,
    step_max: Duration,
    turns_max: u64,
}

/// Task; its future is taken out while it is polled.
struct Task {
    future: Option<BoxTask>,
    waker: Arc<TaskWaker>,
}

struct TaskWaker {
    id: usize,
    is_ready: AtomicBool,
    ready: ReadyTasks,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.is_ready.swap(true, Ordering::Relaxed) {
            lock(&self.ready).insert(self.id);
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("fabric", &self.shared.fabric).finish_non_exhaustive()
    }
}

impl World {
    /// World in which all that is left open follows from this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(seed, Fabric::in_virtual_time)
    }

    fn with(seed: u64, fabric: impl FnOnce(u64) -> Fabric) -> Self {
        let (clock, mock) = Clock::mock();
        // A reading of 0 means none to the driver.
        mock.increment(1_000_000_000_u64);
        let mut random = Random::new(seed);
        let fabric = fabric(random.number());
        let state = State {
            random,
            tasks: BTreeMap::new(),
            next_task: 0,
            sleeps: BTreeMap::new(),
            next_sleep: 0,
            step: STEP_MIN,
            transcript: String::new(),
            turns: 0,
            busy: Duration::ZERO,
            step_max: STEP_MAX,
            turns_max: TURNS_MAX,
        };
        Self {
            shared: Arc::new(Shared {
                fabric,
                start: Instant::now(),
                clock,
                mock,
                state: Mutex::new(state),
                ready: Arc::default(),
            }),
        }
    }

    /// World of many hosts, each with processors of its own: little time passes while tasks are
    /// ready. A run may take any number of turns.
    #[must_use]
    pub fn of_many(seed: u64) -> Self {
        let world = Self::with(seed, |seed| Fabric::of_many_hosts(seed, SHARING_MAX));
        let mut state = lock(&world.shared.state);
        (state.step_max, state.turns_max) = (STEP_MAX_OF_MANY, u64::MAX);
        drop(state);
        world
    }

    /// Network of this world.
    #[must_use]
    pub fn fabric(&self) -> &Fabric {
        &self.shared.fabric
    }

    /// Virtual time since the start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.shared.fabric.now()
    }

    /// Virtual time that has passed while every task waited: the delays of tasks by others do not
    /// count.
    #[must_use]
    pub fn idle_time(&self) -> Duration {
        self.now() - lock(&self.shared.state).busy
    }

    /// Draws from the random numbers of the run.
    pub fn draw<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut lock(&self.shared.state).random)
    }

    /// Adds a line to the transcript.
    pub fn note(&self, line: fmt::Arguments<'_>) {
        let now = self.now().as_nanos();
        let mut state = lock(&self.shared.state);
        let (seconds, rest) = (now / 1_000_000_000, now % 1_000_000_000);
        writeln!(state.transcript, "{seconds:4}.{rest:09} {line}").expect("a string takes all");
    }

    /// Takes the transcript.
    #[must_use]
    pub fn take_transcript(&self) -> String {
        std::mem::take(&mut lock(&self.shared.state).transcript)
    }

    /// Number of turns so far.
    #[must_use]
    pub fn turns(&self) -> u64 {
        lock(&self.shared.state).turns
    }

    /// Runs a task beside the others.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.shared.spawn(Box::pin(task));
    }

    /// Waits for a virtual time.
    pub async fn sleep(&self, time: Duration) {
        Shared::sleep(&self.shared, self.now() + time).await;
    }

    /// Waits for a future; `None` if it is not ready within a virtual time.
    pub async fn timeout<F: Future>(&self, time: Duration, future: F) -> Option<F::Output> {
        let (mut future, mut sleep) = (pin!(future), pin!(self.sleep(time)));
        std::future::poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => sleep.as_mut().poll(context).map(|()| None),
        })
        .await
    }

    /// Runs `main` to its end, and all tasks beside it. Then drops them.
    ///
    /// # Panics
    ///
    /// When a task panics, and when nothing is left to happen or nothing ends.
    pub fn run<T: Send + 'static>(&self, main: impl Future<Output = T> + Send + 'static) -> T {
        let entered = runtime::enter(self.shared.clone());
        let output = Arc::new(Mutex::new(None));
        let place = output.clone();
        self.spawn(async move {
            let done = main.await;
            *lock(&place) = Some(done);
        });
        let done = loop {
            if let Some(done) = lock(&output).take() {
                break done;
            }
            self.turn();
        };
        self.drop_tasks();
        drop(entered);
        done
    }

    /// Drops what tasks are left, and lets the fabric deliver what that sends.
    pub fn drop_tasks(&self) {
        let entered = runtime::enter(self.shared.clone());
        loop {
            // A task that is dropped may start another one.
            let tasks = std::mem::take(&mut lock(&self.shared.state).tasks);
            if tasks.is_empty() {
                break;
            }
            drop(tasks);
        }
        lock(&self.shared.ready).clear();
        drop(entered);
    }

    fn turn(&self) {
        let Shared { state, ready, .. } = &*self.shared;
        let chosen = {
            let (mut state, mut ready) = (lock(state), lock(ready));
            state.turns += 1;
            assert!(state.turns < state.turns_max, "the run does not end");
            let passes = ready.is_empty() || state.random.once_in(8);
            let index = (!passes).then(|| state.random.index(ready.len().min(DRAWN_MAX)));
            let task = index.and_then(|index| ready.iter().nth(index).copied());
            task.filter(|task| ready.remove(task))
        };
        match chosen {
            Some(task) => self.poll(task),
            None => self.shared.pass(),
        }
    }

    fn poll(&self, id: usize) {
        let (mut future, waker) = {
            let mut state = lock(&self.shared.state);
            let Some(task) = state.tasks.get_mut(&id) else { return };
            task.waker.is_ready.store(false, Ordering::Relaxed);
            (task.future.take().expect("a task is polled once at a time"), task.waker.clone())
        };
        let waker = Waker::from(waker);
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        match polled {
            Poll::Pending => {
                let mut state = lock(&self.shared.state);
                state.tasks.get_mut(&id).expect("it is there until it ends").future = Some(future);
            }
            Poll::Ready(()) => {
                drop(future);
                drop(lock(&self.shared.state).tasks.remove(&id));
            }
        }
    }
}

impl Shared {
    /// Lets time pass: to the next event, but not far while tasks are ready.
    ///
    /// # Panics
    ///
    /// When a task waits for what never happens.
    fn pass(&self) {
        let is_idle = lock(&self.ready).is_empty();
        let now = self.fabric.now();
        let mut state = lock(&self.state);
        let sleep = state.sleeps.first_key_value().map(|(&(at, _), _)| at);
        let event = self.fabric.next_event();
        let next = sleep.into_iter().chain(event).min();
        let limit = now + state.step;
        let next = match next {
            None if is_idle => panic!("nothing is left to happen, and a task waits"),
            Some(next) if is_idle || next <= limit => {
                state.step = STEP_MIN;
                next
            }
            _ => {
                state.step = (state.step * 2).min(state.step_max);
                limit
            }
        };
        drop(state);
        self.advance(next);
    }

    /// Advances the clocks; of events at that time the fabric's are first.
    fn advance(&self, to: Duration) {
        let now = self.fabric.now();
        let is_busy = !lock(&self.ready).is_empty();
        self.fabric.advance(to.saturating_sub(now));
        self.mock.increment(to.saturating_sub(now));
        let mut state = lock(&self.state);
        if is_busy {
            state.busy += to.saturating_sub(now);
        }
        while let Some(entry) = state.sleeps.first_entry()
            && entry.key().0 <= to
        {
            entry.remove().wake();
        }
    }

    fn sleep(this: &Arc<Self>, deadline: Duration) -> Sleep {
        Sleep { shared: this.clone(), deadline, key: None }
    }
}

impl Runtime for Shared {
    fn now(&self) -> Instant {
        self.start + self.fabric.now()
    }

    fn system_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.fabric.now()
    }

    fn clock(&self) -> Clock {
        self.clock.clone()
    }

    fn sleep_until(self: Arc<Self>, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let deadline = deadline.saturating_duration_since(self.start);
        Box::pin(Sleep { shared: self, deadline, key: None })
    }

    fn spawn(&self, task: BoxTask) {
        let mut state = lock(&self.state);
        let id = state.next_task;
        state.next_task += 1;
        let (is_ready, ready) = (AtomicBool::new(true), self.ready.clone());
        let waker = Arc::new(TaskWaker { id, is_ready, ready });
        state.tasks.insert(id, Task { future: Some(task), waker });
        lock(&self.ready).insert(id);
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        let mut state = lock(&self.state);
        for chunk in buffer.chunks_mut(8) {
            let bytes = state.random.number().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    fn readiness(&self, fd: BorrowedFd<'_>) -> io::Result<Arc<dyn Readiness>> {
        let found = self.fabric.readiness(fd).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(Found(found)))
    }

    fn spin(&self) {
        self.advance(self.fabric.now() + SPIN_STEP);
    }

    fn processors(&self) -> usize {
        2
    }
}

/// Readiness of an object of the fabric.
struct Found(rdma_fabric::Readiness);

impl Readiness for Found {
    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(context).map(Ok)
    }
}

/// Future that is ready at a virtual time.
struct Sleep {
    shared: Arc<Shared>,
    deadline: Duration,
    key: Option<(Duration, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.shared.fabric.now() >= self.deadline {
            return Poll::Ready(());
        }
        let shared = self.shared.clone();
        let mut state = lock(&shared.state);
        let deadline = self.deadline;
        let key = *self.key.get_or_insert_with(|| {
            state.next_sleep += 1;
            (deadline, state.next_sleep)
        });
        state.sleeps.insert(key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            drop(lock(&self.shared.state).sleeps.remove(&key));
        }
    }
}

/// Locks; a task that panicked while it held the lock has ended the run.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
