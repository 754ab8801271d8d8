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
    tasks::{CurrentTask, LocalTasks, WokenTasks},
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
    let (user, execution) = (slot.into(), ExecutionStatus::Responded);
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
    let own = woken.waker(3);
    let current = CurrentTask::new(3, &own);
    assert_eq!(CurrentTask::NONE.number(&own), None, "no task is being polled");
    assert_eq!(current.number(&own), Some(3));
    assert_eq!(current.number(Waker::noop()), None, "a part of the task with a waker of its own");

    let slot = slots.begin(Owner::Task(3));
    assert!(slots.wakes(slot, &own, Some(3)) && !slots.wakes(slot, Waker::noop(), None));
    assert!(slots.receive(slot).is_pending());
    assert_eq!(ready(&mut slots), []);
    slots.complete(completion(slot));
    assert_eq!(ready(&mut slots), [3]);
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
    assert!(slots.wakes(slot, &first, None) && !slots.wakes(slot, &second, None));
    let before = slots.set_owner(slot, Owner::Waker(second));
    assert!(matches!(before, Owner::Waker(before) if before.will_wake(&first)));
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
    assert!(received.is_none() && matches!(waker, Owner::Waker(_)));
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
    let (polls, mut tasks) = (Rc::new(Cell::new(0)), LocalTasks::new(Waker::noop().clone()));
    let counted = Rc::clone(&polls);
    let task = std::future::poll_fn(move |_| {
        counted.set(counted.get() + 1);
        if counted.get() < 2 { Poll::Pending } else { Poll::Ready(()) }
    });
    let (woken, current) = (Arc::default(), Cell::new(CurrentTask::NONE));
    let number = tasks.add(Box::pin(task), &woken);
    assert_ne!(number, 0, "the number of the future that drives the poller");
    (0..3).for_each(|_| tasks.poll(number, &current));
    assert_eq!(polls.get(), 2, "it has ended");
    assert_eq!(tasks.add(Box::pin(async {}), &woken), number);
}
