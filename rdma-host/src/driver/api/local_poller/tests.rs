//! Slots and tasks, without a poller.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Poll, Wake, Waker},
};

use super::{
    slots::{LocalSlots, Owner},
    tasks::{LocalTask, LocalTasks, WokenTasks},
};
use crate::{
    driver::data_path::command::{CommandCompletion, ExecutionStatus},
    wire::Cqe,
};

/// Waker that counts its calls.
#[derive(Default)]
struct WakeCount(AtomicUsize);

impl Wake for WakeCount {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn completion(slot: u32) -> CommandCompletion {
    let (user, execution) = (slot.into(), ExecutionStatus::Answered);
    CommandCompletion { user, outcome: Ok(Cqe::default()), data: None, execution }
}

fn ready(slots: &mut LocalSlots) -> Vec<u32> {
    let mut ready = Vec::new();
    slots.swap_ready(&mut ready);
    ready
}

fn wakers(slots: &mut LocalSlots) -> Vec<Waker> {
    let mut wakers = Vec::new();
    slots.swap_wakers(&mut wakers);
    wakers
}

#[test]
fn a_task_is_ready_once_its_request_has_completed() {
    let (woken, mut slots) = (Arc::<WokenTasks>::default(), LocalSlots::new(1));
    let own = woken.waker(0);
    assert_eq!(slots.add_task_waker(own.clone()), 0);
    assert_eq!(slots.task_of(&own), None, "no task is being polled");
    slots.set_current(0);
    assert_eq!(slots.task_of(&own), Some(0));
    assert_eq!(slots.task_of(Waker::noop()), None, "a part of the task with a waker of its own");

    let slot = slots.begin(Owner::Task(0));
    assert!(slots.wakes(slot, &own) && !slots.wakes(slot, Waker::noop()));
    assert!(slots.receive(slot).is_pending());
    assert_eq!(ready(&mut slots), []);
    slots.complete(completion(slot));
    assert_eq!(ready(&mut slots), [0]);
    assert!(slots.receive_buffer(slot).is_ready());
    assert_eq!(slots.begin(Owner::Unpolled), slot, "the slot is used again");
}

#[test]
fn each_request_has_a_slot_and_is_received_by_its_own_future() {
    let mut slots = LocalSlots::new(2);
    let begun: Vec<_> = (0..5).map(|_| slots.begin(Owner::Unpolled)).collect();
    let mut distinct = begun.clone();
    distinct.sort_unstable();
    assert_eq!(distinct, [0, 1, 2, 3, 4]);
    for &slot in begun.iter().rev() {
        slots.complete(completion(slot));
        let Poll::Ready(received) = slots.receive(slot) else { panic!("it has completed") };
        assert_eq!(received.user, u64::from(slot));
    }
}

#[test]
fn a_waker_is_replaced_by_that_of_the_latest_poll() {
    let (counts, mut slots) = ([(); 2].map(|()| Arc::<WakeCount>::default()), LocalSlots::new(1));
    let [first, second] = counts.clone().map(Waker::from);
    let slot = slots.begin(Owner::Waker(first.clone()));
    assert!(slots.wakes(slot, &first) && !slots.wakes(slot, &second));
    let before = slots.set_waker(slot, second);
    assert!(before.is_some_and(|before| before.will_wake(&first)));
    slots.complete(completion(slot));
    wakers(&mut slots).into_iter().for_each(Waker::wake);
    assert_eq!(counts.map(|count| count.0.load(Ordering::Relaxed)), [0, 1]);
    assert!(slots.is_completed(slot));
}

#[test]
fn a_slot_without_a_future_is_free_once_its_request_has_completed() {
    let mut slots = LocalSlots::new(1);
    let in_flight = slots.begin(Owner::Waker(Waker::noop().clone()));
    let (received, waker) = slots.abandon(in_flight, true);
    assert!(received.is_none() && waker.is_some());
    assert_ne!(slots.begin(Owner::Unpolled), in_flight, "the command still uses it");
    slots.complete(completion(in_flight));
    assert!(wakers(&mut slots).is_empty() && ready(&mut slots).is_empty());
    assert_eq!(slots.begin(Owner::Task(0)), in_flight);

    slots.complete(completion(in_flight));
    let (received, _) = slots.abandon(in_flight, true);
    assert!(received.is_some(), "the future had not received it");
    let waiting = slots.begin(Owner::Unpolled);
    assert_eq!(waiting, in_flight);
    assert!(slots.abandon(waiting, false).0.is_none());
    assert_eq!(slots.begin(Owner::Unpolled), waiting, "the request was never submitted");
}

#[test]
fn tasks_are_woken_once_until_they_are_taken() {
    let woken = Arc::<WokenTasks>::default();
    let wakers = [7, 9].map(|task| woken.waker(task));
    let take = || {
        let mut ready = Vec::new();
        woken.take(&mut ready);
        ready
    };
    assert_eq!(take(), []);
    std::thread::scope(|scope| {
        scope.spawn(|| wakers[1].wake_by_ref());
    });
    wakers[0].wake_by_ref();
    wakers[1].wake_by_ref();
    assert_eq!(take(), [9, 7]);
    wakers[0].wake_by_ref();
    assert_eq!(take(), [7]);
    drop(woken);
    wakers.into_iter().for_each(Waker::wake); // of a poller that is no more
}

#[test]
fn the_number_of_a_task_that_has_ended_is_used_again() {
    let (polls, mut tasks) = (Rc::new(Cell::new(0)), LocalTasks::new());
    let counted = Rc::clone(&polls);
    let task = std::future::poll_fn(move |_| {
        counted.set(counted.get() + 1);
        if counted.get() < 2 { Poll::Pending } else { Poll::Ready(()) }
    });
    assert_eq!(tasks.reuse(), None);
    tasks.insert(1, LocalTask::new(task, Waker::noop().clone()));
    let mut task = tasks.take(1).expect("it was inserted");
    assert!(tasks.take(1).is_none() && !task.poll());
    tasks.insert(1, task);
    assert!(tasks.take(1).expect("it was put back").poll());
    tasks.end(1);
    assert!(tasks.take(1).is_none());
    assert_eq!((polls.get(), tasks.reuse()), (2, Some(1)));
}
