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
    requests::LocalRequests,
    slots::NONE,
    tasks::{LocalTask, LocalTasks, WokenTasks},
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
    requests: Rc<RefCell<LocalRequests<P>>>,
    tasks: RefCell<LocalTasks>,
    woken: Arc<WokenTasks>,
    /// Waker of the future that drives the poller.
    main: Waker,
    waiter: RefCell<Waiter>,
    /// Descriptor to sleep on, registered with a runtime.
    descriptor: RefCell<Option<(RuntimeId, AsyncDescriptor)>>,
    is_driven: Cell<bool>,
}

/// Number of the future that drives the poller, among those of tasks.
const MAIN: u32 = 0;

/// Number of turns and completions after which other tasks of the runtime run.
const TURNS_MAX: usize = 1024;

/// Vectors that each turn uses again.
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
        let mut requests = LocalRequests::new(poller);
        let woken = Arc::<WokenTasks>::default();
        let main = woken.waker(MAIN);
        requests.slots.add_task_waker(main.clone());
        Self {
            requests: Rc::new(RefCell::new(requests)),
            tasks: RefCell::new(LocalTasks::new()),
            woken,
            main,
            waiter: RefCell::new(waiter),
            descriptor: RefCell::default(),
            is_driven: Cell::new(false),
        }
    }

    /// Namespace whose operations are submitted to this poller. It was
    /// [identified](crate::Controller::identify_namespace) on the poller's controller.
    #[must_use]
    pub fn namespace(&self, info: NamespaceInfo) -> LocalNamespace<P> {
        LocalNamespace::new(info, &self.requests)
    }

    /// Adds a task, which is polled while the poller is driven. If it has not ended by then, it is
    /// dropped with the poller.
    pub fn spawn_local(&self, task: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        let mut requests = self.requests.borrow_mut();
        let slots = &mut requests.slots;
        let number = tasks.reuse().unwrap_or_else(|| {
            let number = slots.next_task();
            slots.add_task_waker(self.woken.waker(number))
        });
        tasks.insert(number, LocalTask::new(task, slots.task_waker(number)));
        slots.set_ready(number);
        let driver = requests.driver.take();
        drop((tasks, requests));
        if let Some(driver) = driver {
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
        let mut lists = TurnLists::default();
        self.requests.borrow_mut().slots.set_ready(MAIN);
        std::future::poll_fn(|context| self.drive(future.as_mut(), &mut lists, context)).await
    }

    /// Calls `read` with the statistics of the poller.
    pub fn with_statistics<T>(&self, read: impl FnOnce(&mut Statistics) -> T) -> T {
        read(self.requests.borrow_mut().poller.statistics())
    }

    fn drive<F: Future>(
        &self,
        mut main: Pin<&mut F>,
        lists: &mut TurnLists,
        context: &mut Context<'_>,
    ) -> Poll<F::Output> {
        self.woken.driver.register(context.waker());
        drop(self.take_driver());
        let mut turns = 0;
        loop {
            if self.poll_tasks(lists)
                && let Poll::Ready(output) = self.poll_main(main.as_mut())
            {
                return Poll::Ready(output);
            }
            let polled = !lists.ready.is_empty();
            lists.ready.clear();
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
        self.requests.borrow_mut().slots.swap_ready(&mut lists.ready);
        self.woken.take(&mut lists.ready);
        let mut main_is_ready = false;
        for &number in &lists.ready {
            if number == MAIN {
                main_is_ready = true;
                continue;
            }
            let Some(mut task) = self.tasks.borrow_mut().take(number) else { continue };
            self.requests.borrow_mut().slots.set_current(number);
            if task.poll() {
                drop(task);
                self.tasks.borrow_mut().end(number);
            } else {
                self.tasks.borrow_mut().insert(number, task);
            }
        }
        main_is_ready
    }

    fn poll_main<F: Future>(&self, main: Pin<&mut F>) -> Poll<F::Output> {
        self.requests.borrow_mut().slots.set_current(MAIN);
        main.poll(&mut Context::from_waker(&self.main))
    }

    /// Sends what was submitted, polls, and wakes the tasks of other executors; returns the number
    /// of requests that have completed.
    #[inline(always)]
    fn poll(&self, lists: &mut TurnLists) -> usize {
        let mut requests = self.requests.borrow_mut();
        requests.slots.set_current(NONE);
        let completed = requests.poll();
        requests.slots.swap_wakers(&mut lists.wakers);
        drop(requests);
        lists.wakers.drain(..).for_each(Waker::wake);
        completed
    }

    /// Returns true if the poller is to be polled again at once.
    fn spins(&self) -> bool {
        self.requests.borrow().poller.is_connected() && self.waiter.borrow_mut().spins()
    }

    /// Prepares for sleep; ready if there is something to do. The driver is woken by the poller's
    /// descriptor, by requests of other executors' tasks, and by the wakers of its own.
    fn sleep(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut requests = self.requests.borrow_mut();
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
        let before = self.requests.borrow_mut().driver.replace(waker);
        drop(before);
        Poll::Pending
    }

    fn take_driver(&self) -> Option<Waker> {
        self.requests.borrow_mut().driver.take()
    }
}

impl<P: Provider> Drop for LocalPoller<P> {
    fn drop(&mut self) {
        // Tasks that are dropped use the poller.
        drop(std::mem::replace(self.tasks.get_mut(), LocalTasks::new()));
        let mut wakers = Vec::new();
        let mut requests = self.requests.borrow_mut();
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
