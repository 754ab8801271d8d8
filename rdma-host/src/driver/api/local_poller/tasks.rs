//! Tasks of a poller, polled on its thread.

use std::{
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

/// Task without a result, and its waker.
pub(super) struct LocalTask {
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Waker,
}

/// Tasks, by their numbers. The first number is that of the future that drives the poller, which is
/// not among them.
pub(super) struct LocalTasks {
    /// `None` of a task that has ended, or is being polled.
    tasks: Vec<Option<LocalTask>>,
    /// Numbers of tasks that have ended.
    free: Vec<u32>,
}

/// Tasks that were woken by their wakers, from any thread.
#[derive(Default)]
pub(super) struct WokenTasks {
    /// True if there are any.
    has_woken: AtomicBool,
    woken: Mutex<Vec<Arc<TaskWaker>>>,
    /// Waker of the task in which the poller is driven.
    pub(super) driver: AtomicWaker,
}

struct TaskWaker {
    task: u32,
    /// True from being woken until the poller takes it.
    is_woken: AtomicBool,
    all: Weak<WokenTasks>,
}

impl LocalTask {
    pub(super) fn new(future: impl Future<Output = ()> + 'static, waker: Waker) -> Self {
        Self { future: Box::pin(future), waker }
    }

    /// Polls the task; returns true if it has ended.
    #[inline]
    pub(super) fn poll(&mut self) -> bool {
        self.future.as_mut().poll(&mut Context::from_waker(&self.waker)).is_ready()
    }
}

impl LocalTasks {
    pub(super) fn new() -> Self {
        Self { tasks: vec![None], free: Vec::new() }
    }

    /// Number of a task that has ended, to be used again.
    pub(super) fn reuse(&mut self) -> Option<u32> {
        self.free.pop()
    }

    pub(super) fn insert(&mut self, number: u32, task: LocalTask) {
        let index = number as usize;
        if index >= self.tasks.len() {
            self.tasks.resize_with(index + 1, || None);
        }
        self.tasks[index] = Some(task);
    }

    /// Takes a task to poll it, unless it has ended.
    #[inline]
    pub(super) fn take(&mut self, number: u32) -> Option<LocalTask> {
        self.tasks.get_mut(number as usize)?.take()
    }

    /// Notes that a task has ended.
    pub(super) fn end(&mut self, number: u32) {
        self.free.push(number);
    }
}

impl WokenTasks {
    /// Creates the waker of a task.
    pub(super) fn waker(self: &Arc<Self>, task: u32) -> Waker {
        let all = Arc::downgrade(self);
        Waker::from(Arc::new(TaskWaker { task, is_woken: AtomicBool::new(false), all }))
    }

    /// Adds the tasks that were woken to `ready`.
    #[inline]
    pub(super) fn take(&self, ready: &mut Vec<u32>) {
        if self.has_woken.load(Ordering::Acquire) {
            self.take_woken(ready);
        }
    }

    #[cold]
    fn take_woken(&self, ready: &mut Vec<u32>) {
        let mut woken = self.woken.lock();
        self.has_woken.store(false, Ordering::Relaxed);
        ready.extend(woken.drain(..).map(|waker| {
            waker.is_woken.store(false, Ordering::Release);
            waker.task
        }));
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_woken.swap(true, Ordering::AcqRel) {
            return;
        }
        let Some(all) = self.all.upgrade() else { return };
        let mut woken = all.woken.lock();
        woken.push(Arc::clone(self));
        all.has_woken.store(true, Ordering::Release);
        drop(woken);
        all.driver.wake();
    }
}
