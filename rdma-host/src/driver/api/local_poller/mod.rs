//! Poller of the futures and tasks of its own thread.

mod namespace;
mod requests;
mod slots;
mod tasks;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use verbs::{Provider, RdmaCore};

pub use self::namespace::LocalNamespace;
use self::{
    requests::{LocalRequests, LocalShared},
    tasks::{CurrentTask, LocalTask, LocalTasks, WokenTasks},
};
use crate::{
    driver::{
        data_path::{poller::Poller, statistics::Statistics, wait::Waiter},
        runtime::{AsyncDescriptor, RuntimeId},
    },
    error::Error,
    wire::NamespaceInfo,
};

/// Poller whose commands are submitted by futures on its own thread: nothing is sent to another
/// thread, locked or allocated for a command. It is neither `Send` nor `Sync`, as little as its
/// [`LocalNamespace`]s and their futures.
///
/// Futures make progress while the poller is driven, by [`run_until`](Self::run_until): in turns it
/// polls the future and the tasks of the poller, rings the doorbells of what they have submitted,
/// and polls for completions. Tasks of another executor on the same thread, such as tokio's
/// `LocalSet`, use the poller while it is driven by one of them.
///
/// Dropping it closes its queues: requests that have not completed fail with [`Error::Closed`].
///
/// ```no_run
/// use rdma_host::wire::NamespaceId;
/// use rdma_host::{ConnectOptions, Controller, LocalPoller, WaitMode, Waiter};
///
/// # async fn local(options: &ConnectOptions) -> Result<(), Box<dyn std::error::Error>> {
/// let (controller, mut pollers) = Controller::connect(options).polled(1).await?;
/// let info = controller.identify_namespace(NamespaceId(1)).await?;
/// let buffer = controller.allocate(4096)?;
/// // On the thread that is to drive it:
/// let poller = LocalPoller::new(pollers.remove(0), Waiter::new(WaitMode::default()));
/// let namespace = poller.namespace(info);
/// let buffer = poller.run_until(namespace.read(0, buffer)).await?;
/// # drop(buffer);
/// # Ok(())
/// # }
/// ```
pub struct LocalPoller<P: Provider = RdmaCore> {
    shared: Rc<LocalShared<P>>,
    tasks: RefCell<LocalTasks>,
    /// Tasks that are to be added.
    spawned: RefCell<Vec<LocalTask>>,
    woken: Arc<WokenTasks>,
    /// Waker of the future that drives the poller.
    main: Waker,
    waiter: RefCell<Waiter>,
    /// Descriptor to sleep on, registered with a runtime.
    descriptor: RefCell<Option<(RuntimeId, AsyncDescriptor)>>,
    is_driven: Cell<bool>,
    lists: RefCell<TurnLists>,
}

/// Number of the future that drives the poller, among those of tasks.
const MAIN: u32 = 0;

/// Number of turns and completions after which other tasks of the runtime run.
const TURNS_MAX: usize = 1024;

/// Vectors that each turn uses again; empty between turns.
#[derive(Default)]
struct TurnLists {
    ready: Vec<u32>,
    wakers: Vec<Waker>,
}

impl<P: Provider> LocalPoller<P> {
    /// Creates the poller of the futures of this thread; `waiter` decides between spinning and
    /// sleeping when no command has completed.
    #[must_use]
    pub fn new(poller: Poller<P>, waiter: Waiter) -> Self {
        let woken = Arc::<WokenTasks>::default();
        let main = woken.waker(MAIN);
        let requests = RefCell::new(LocalRequests::new(poller));
        let current = Cell::new(CurrentTask::NONE);
        Self {
            shared: Rc::new(LocalShared { requests, current }),
            tasks: RefCell::new(LocalTasks::new(main.clone())),
            spawned: RefCell::default(),
            woken,
            main,
            waiter: RefCell::new(waiter),
            descriptor: RefCell::default(),
            is_driven: Cell::new(false),
            lists: RefCell::default(),
        }
    }

    /// Namespace whose operations are submitted to this poller. It was
    /// [identified](crate::Controller::identify_namespace) on the poller's controller.
    #[must_use]
    pub fn namespace(&self, info: NamespaceInfo) -> LocalNamespace<P> {
        LocalNamespace::new(info, &self.shared)
    }

    /// Adds a task, which is polled while the poller is driven. If it has not ended by then, it is
    /// dropped with the poller.
    pub fn spawn_local(&self, task: impl Future<Output = ()> + 'static) {
        self.spawned.borrow_mut().push(Box::pin(task));
        if let Some(driver) = self.take_driver() {
            driver.wake();
        }
    }

    /// Drives the poller until a future is ready; returns its output.
    ///
    /// The future may be polled by any executor; one of tokio's, with I/O enabled, where the
    /// [`Waiter`] sleeps, and while there is no connection. Other tasks of the executor run when
    /// there is nothing to do, and after some hundreds of commands.
    ///
    /// # Panics
    ///
    /// If the poller is driven already.
    pub async fn run_until<F: Future>(&self, future: F) -> F::Output {
        let _driving = Driving::new(&self.is_driven);
        let mut future = pin!(future);
        self.shared.requests.borrow_mut().slots.set_ready(MAIN);
        std::future::poll_fn(|context| self.drive(future.as_mut(), context)).await
    }

    /// Calls `read` with the statistics of the poller.
    pub fn with_statistics<T>(&self, read: impl FnOnce(&mut Statistics) -> T) -> T {
        read(self.shared.requests.borrow_mut().poller.statistics())
    }

    fn drive<F: Future>(
        &self,
        mut main: Pin<&mut F>,
        context: &mut Context<'_>,
    ) -> Poll<F::Output> {
        self.woken.driver.register(context.waker());
        drop(self.take_driver());
        let lists = &mut *self.lists.borrow_mut();
        let mut turns = 0;
        loop {
            let main_is_ready = self.poll_tasks(lists);
            let polled = !lists.ready.is_empty();
            lists.ready.clear();
            if main_is_ready && let Poll::Ready(output) = self.poll_main(main.as_mut()) {
                return Poll::Ready(output);
            }
            let completed = self.poll(lists);
            turns += 1 + completed;
            if completed > 0 {
                self.waiter.borrow_mut().busy();
            } else if !polled && !self.spins() && self.sleep(context).is_pending() {
                return Poll::Pending;
            }
            if turns > TURNS_MAX {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Polls the tasks that are ready; returns true if the future that drives the poller is.
    #[inline(always)]
    fn poll_tasks(&self, lists: &mut TurnLists) -> bool {
        self.shared.requests.borrow_mut().slots.swap_ready(&mut lists.ready);
        self.woken.take(&mut lists.ready);
        if !self.spawned.borrow().is_empty() {
            self.add_spawned(&mut lists.ready);
        }
        let mut main_is_ready = false;
        let mut tasks = self.tasks.borrow_mut();
        for &number in &lists.ready {
            main_is_ready |= number == MAIN;
            tasks.poll(number, &self.shared.current);
        }
        self.shared.current.set(CurrentTask::NONE);
        main_is_ready
    }

    #[cold]
    fn add_spawned(&self, ready: &mut Vec<u32>) {
        let mut tasks = self.tasks.borrow_mut();
        let spawned = self.spawned.take();
        ready.extend(spawned.into_iter().map(|task| tasks.add(task, &self.woken)));
    }

    fn poll_main<F: Future>(&self, main: Pin<&mut F>) -> Poll<F::Output> {
        self.shared.current.set(CurrentTask::new(MAIN, &self.main));
        let polled = main.poll(&mut Context::from_waker(&self.main));
        self.shared.current.set(CurrentTask::NONE);
        polled
    }

    /// Sends what was submitted, polls, and wakes the tasks of other executors; returns the number
    /// of requests that have completed.
    #[inline(always)]
    fn poll(&self, lists: &mut TurnLists) -> usize {
        let mut requests = self.shared.requests.borrow_mut();
        let completed = requests.poll();
        requests.slots.swap_wakers(&mut lists.wakers);
        drop(requests);
        lists.wakers.drain(..).for_each(Waker::wake);
        completed
    }

    /// Returns true if the poller is to be polled again at once.
    fn spins(&self) -> bool {
        self.shared.requests.borrow().poller.is_connected() && self.waiter.borrow_mut().spins()
    }

    /// Prepares for sleep; ready if there is something to do. The driver is woken by the poller's
    /// descriptor, by requests of other executors' tasks, and by the wakers of its own.
    fn sleep(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut requests = self.shared.requests.borrow_mut();
        if requests.has_failed() {
            drop(requests);
            return self.wait_for_requests(context);
        }
        let is_armed = requests.poller.arm().and_then(|is_armed| {
            let mut descriptor = self.descriptor.borrow_mut();
            let runtime = RuntimeId::current();
            if descriptor.as_ref().is_none_or(|(registered, _)| *registered != runtime) {
                let own = AsyncDescriptor::new(requests.poller.event_descriptor()?)?;
                *descriptor = Some((runtime, own));
            }
            let (_, descriptor) = descriptor.as_ref().expect("it was made above");
            let is_readable = match descriptor.poll_ready(context) {
                Poll::Ready(ready) => ready.map(|()| true)?,
                Poll::Pending => false,
            };
            Ok(is_armed && !is_readable)
        });
        match is_armed {
            Ok(true) => {
                drop(requests);
                self.wait_for_requests(context)
            }
            Ok(false) => Poll::Ready(()),
            Err(error) => {
                requests.fail(error);
                Poll::Ready(())
            }
        }
    }

    /// Has requests wake the driver.
    fn wait_for_requests(&self, context: &mut Context<'_>) -> Poll<()> {
        let waker = context.waker().clone();
        let before = self.shared.requests.borrow_mut().driver.replace(waker);
        drop(before);
        Poll::Pending
    }

    fn take_driver(&self) -> Option<Waker> {
        self.shared.requests.borrow_mut().driver.take()
    }
}

impl<P: Provider> Drop for LocalPoller<P> {
    fn drop(&mut self) {
        // Tasks that are dropped use the poller.
        self.spawned.take();
        drop(std::mem::replace(self.tasks.get_mut(), LocalTasks::new(self.main.clone())));
        let mut wakers = Vec::new();
        let mut requests = self.shared.requests.borrow_mut();
        requests.fail(Error::Closed);
        requests.slots.swap_wakers(&mut wakers);
        drop(requests);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Driving of a poller, by one future at a time.
struct Driving<'a>(&'a Cell<bool>);

impl<'a> Driving<'a> {
    fn new(is_driven: &'a Cell<bool>) -> Self {
        assert!(!is_driven.replace(true), "a poller is driven by one future at a time");
        Self(is_driven)
    }
}

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
