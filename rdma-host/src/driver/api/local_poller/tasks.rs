//! Tasks of a poller, polled on its thread.

use std::{
    cell::Cell,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

/// Task without a result.
pub(super) type LocalTask = Pin<Box<dyn Future<Output = ()>>>;

/// Tasks, by their numbers.
pub(super) struct LocalTasks {
    tasks: Vec<NumberedTask>,
    /// Numbers of tasks that have ended.
    free: Vec<u32>,
}

struct NumberedTask {
    /// `None` once the task has ended.
    task: Option<LocalTask>,
    waker: Waker,
}

/// Task that is being polled.
#[derive(Clone, Copy)]
pub(super) struct CurrentTask {
    /// Identity of its waker; null for no task.
    waker: *const (),
    number: u32,
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

impl CurrentTask {
    /// No task.
    pub(super) const NONE: Self = Self { waker: std::ptr::null(), number: 0 };

    pub(super) fn new(number: u32, waker: &Waker) -> Self {
        Self { waker: waker.data(), number }
    }

    /// Number of the task if `waker` is its own. The data of its waker is referred to by none of
    /// another kind.
    #[inline(always)]
    pub(super) fn number(self, waker: &Waker) -> Option<u32> {
        std::ptr::eq(self.waker, waker.data()).then_some(self.number)
    }
}

impl LocalTasks {
    /// Creates the list of tasks; `main` is the waker of the first number, which is of no task.
    pub(super) fn new(main: Waker) -> Self {
        Self { tasks: vec![NumberedTask { task: None, waker: main }], free: Vec::new() }
    }

    /// Adds a task; returns its number.
    pub(super) fn add(&mut self, task: LocalTask, woken: &Arc<WokenTasks>) -> u32 {
        if let Some(number) = self.free.pop() {
            self.tasks[number as usize].task = Some(task);
            return number;
        }
        let number = u32::try_from(self.tasks.len()).expect("fewer than 2^32 tasks");
        self.tasks.push(NumberedTask { task: Some(task), waker: woken.waker(number) });
        number
    }

    /// Polls a task, unless it has ended; `current` is set to it.
    #[inline(always)]
    pub(super) fn poll(&mut self, number: u32, current: &Cell<CurrentTask>) {
        let NumberedTask { task: polled, waker } = &mut self.tasks[number as usize];
        let Some(task) = polled else { return };
        current.set(CurrentTask::new(number, waker));
        if task.as_mut().poll(&mut Context::from_waker(waker)).is_ready() {
            *polled = None;
            self.free.push(number);
        }
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
