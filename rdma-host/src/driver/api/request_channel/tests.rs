use std::{
    pin::pin,
    sync::atomic::AtomicUsize,
    task::{Wake, Waker},
};

use super::*;
use crate::wire::{Cqe, NamespaceId};

/// Waker that counts its calls.
#[derive(Default)]
struct WakeCount(AtomicUsize);

impl Wake for WakeCount {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl WakeCount {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn flush() -> Command {
    Command::flush(NamespaceId(1))
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn poll_counted<F: Future>(future: Pin<&mut F>, count: &Arc<WakeCount>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(count.clone())))
}

fn send(sender: &RequestSender) -> RequestCompletion<'_> {
    sender.try_send(&mut flush(), None).expect("there is room")
}

/// Takes the next request, and returns its completion.
fn execute(receiver: &mut RequestReceiver) -> CommandCompletion {
    receiver.first().expect("a request");
    let request = receiver.pop().expect("the first one");
    CommandCompletion {
        user: request.command.user,
        outcome: Ok(Cqe::default()),
        data: None,
        execution: ExecutionStatus::Responded,
    }
}

fn is_answered(completion: Poll<CommandCompletion>) -> bool {
    matches!(completion, Poll::Ready(done) if done.execution == ExecutionStatus::Responded)
}

#[test]
fn a_future_gets_the_completion_of_its_request() {
    let (sender, mut receiver) = channel(2);
    let (mut first, mut second) = (pin!(send(&sender)), pin!(send(&sender)));
    let count = Arc::new(WakeCount::default());
    assert!(poll_counted(second.as_mut(), &count).is_pending());

    let executed = [execute(&mut receiver), execute(&mut receiver)];
    assert!(receiver.first().is_none());
    let [early, late] = executed;
    receiver.complete([late].into_iter());
    assert_eq!(count.get(), 1);
    assert!(poll(first.as_mut()).is_pending());
    assert!(is_answered(poll(second)));
    receiver.complete([early].into_iter());
    assert!(is_answered(poll(first)));
}

#[test]
fn completions_that_nobody_has_received_leave_room() {
    let (sender, mut receiver) = channel(2);
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(send(&sender));
        let executed = execute(&mut receiver);
        receiver.complete([executed].into_iter());
    }
    for completion in held {
        assert!(is_answered(poll(pin!(completion))));
    }
    assert_eq!(sender.shared.state.lock().free.len(), 100);
}

#[test]
fn a_request_without_a_future_is_executed_and_its_slot_used_again() {
    let (sender, mut receiver) = channel(1);
    for _ in 0..10 {
        drop(send(&sender));
        assert!(sender.try_send(&mut flush(), None).is_none());
        let executed = execute(&mut receiver);
        receiver.complete([executed].into_iter());
    }
    let received_late = send(&sender);
    let executed = execute(&mut receiver);
    receiver.complete([executed].into_iter());
    drop(received_late);
    let state = sender.shared.state.lock();
    assert_eq!((state.slots.len(), state.free.len(), state.open), (1, 1, 0));
}

#[test]
fn senders_wait_in_their_order_for_room() {
    let (sender, mut receiver) = channel(1);
    let in_flight = send(&sender);
    let count = Arc::new(WakeCount::default());
    let (mut first, mut second) = (pin!(sender.send(flush())), pin!(sender.send(flush())));
    assert!(poll_counted(first.as_mut(), &count).is_pending());
    assert!(poll(second.as_mut()).is_pending());

    let executed = execute(&mut receiver);
    receiver.complete([executed].into_iter());
    drop(in_flight);
    assert_eq!(count.get(), 1, "the first one is woken");
    let mut third = pin!(sender.send(flush()));
    assert!(poll(third.as_mut()).is_pending(), "others are first");
    assert!(poll(first).is_ready());
    assert!(poll(second.as_mut()).is_pending());
    assert!(poll(third.as_mut()).is_pending());

    let executed = execute(&mut receiver);
    receiver.complete([executed].into_iter());
    assert!(poll(third.as_mut()).is_pending());
    assert!(poll(second).is_ready());
    assert!(poll(third).is_pending());
}

#[test]
fn room_goes_to_the_next_sender_if_the_first_gives_up() {
    let (sender, mut receiver) = channel(1);
    let _in_flight = send(&sender);
    let mut first = Box::pin(sender.send(flush()));
    let mut second = pin!(sender.send(flush()));
    assert!(poll(first.as_mut()).is_pending());
    let count = Arc::new(WakeCount::default());
    assert!(poll_counted(second.as_mut(), &count).is_pending());
    let executed = execute(&mut receiver);
    receiver.complete([executed].into_iter());
    drop(first);
    assert_eq!(count.get(), 1);
    assert!(poll(second).is_ready());
    assert!(sender.shared.state.lock().waiting == 0);
}

#[test]
fn the_task_is_woken_by_a_request_and_by_the_end_of_the_sender() {
    let (sender, mut receiver) = channel(2);
    let count = Arc::new(WakeCount::default());
    assert!(poll_counted(pin!(receiver.ready()), &count).is_pending());
    drop(send(&sender));
    assert_eq!(count.get(), 1);
    assert!(poll(pin!(receiver.ready())).is_ready());
    let executed = execute(&mut receiver);
    receiver.complete([executed].into_iter());
    assert!(poll_counted(pin!(receiver.ready()), &count).is_pending());
    assert!(!receiver.is_closed());
    drop(sender);
    assert_eq!(count.get(), 2);
    assert!(poll(pin!(receiver.ready())).is_ready());
    assert!(receiver.first().is_none());
    assert!(receiver.is_closed());
}

#[test]
fn every_request_ends_with_its_receiver() {
    let (sender, mut receiver) = channel(2);
    let in_flight = send(&sender);
    execute(&mut receiver);
    let queued = send(&sender);
    let mut waiting = pin!(sender.send(flush()));
    assert!(poll(waiting.as_mut()).is_pending());
    drop(receiver);

    let execution = |completion| match poll(pin!(completion)) {
        Poll::Ready(CommandCompletion { outcome: Err(Error::Closed), execution, .. }) => execution,
        other => panic!("{other:?}"),
    };
    assert_eq!(execution(in_flight), ExecutionStatus::Unknown);
    assert_eq!(execution(queued), ExecutionStatus::NotSent);
    let Poll::Ready(waited) = poll(waiting) else { panic!("it was not woken") };
    assert_eq!(execution(waited), ExecutionStatus::NotSent);
    let count = Arc::new(WakeCount::default());
    let waker = Waker::from(count.clone());
    let later = (0..10).map(|_| sender.try_send(&mut flush(), Some(&waker)));
    let later: Vec<_> = later.collect::<Option<_>>().expect("what is refused needs no room");
    assert_eq!(count.get(), 10);
    for completion in later {
        assert_eq!(execution(completion), ExecutionStatus::NotSent);
    }
}

#[test]
fn a_forwarded_request_completes_where_it_came_from() {
    let (sender, mut receiver) = channel(2);
    let (peer, mut peer_receiver) = channel(1);
    let mut completion = pin!(send(&sender));
    let count = Arc::new(WakeCount::default());
    assert!(poll_counted(completion.as_mut(), &count).is_pending());
    receiver.first().expect("a request").sends = 1;
    let request = receiver.pop().expect("the first one");
    assert!(poll(pin!(peer.forward(request, &receiver))).is_ready());
    drop(receiver); // it does not end what is not its own
    assert!(poll_counted(completion.as_mut(), &count).is_pending());

    assert_eq!(peer_receiver.first().map(|request| request.sends), Some(1));
    let executed = execute(&mut peer_receiver);
    peer_receiver.complete([executed].into_iter());
    assert_eq!(count.get(), 1);
    assert!(is_answered(poll(completion)));
    assert_eq!(peer.shared.state.lock().free.len(), 1);
}

#[test]
fn a_forwarded_request_ends_with_the_other_receiver() {
    for sends in [0, 1] {
        let (sender, mut receiver) = channel(2);
        let (peer, peer_receiver) = channel(1);
        let requests = [send(&sender), send(&sender)];
        for _ in 0..2 {
            receiver.first().expect("a request").sends = sends;
        }
        let first = receiver.pop().expect("the first one");
        assert!(poll(pin!(peer.forward(first, &receiver))).is_ready());
        drop(peer_receiver);
        receiver.first().expect("a request").sends = sends;
        let second = receiver.pop().expect("the second one");
        assert!(poll(pin!(peer.forward(second, &receiver))).is_ready());
        for request in requests {
            let Poll::Ready(done) = poll(pin!(request)) else { panic!("it has no completion") };
            assert_eq!(done.execution, ExecutionStatus::without_response(sends));
        }
    }
}

#[test]
fn a_request_that_was_to_be_forwarded_ends_with_its_task() {
    let (sender, mut receiver) = channel(1);
    let (peer, _peer_receiver) = channel(1);
    let _in_flight = send(&peer);
    let completion = pin!(send(&sender));
    receiver.first().expect("a request");
    let request = receiver.pop().expect("the first one");
    let mut forwarding = Box::pin(peer.forward(request, &receiver));
    assert!(poll(forwarding.as_mut()).is_pending());
    drop(forwarding);
    drop(receiver);
    let Poll::Ready(done) = poll(completion) else { panic!("it has no completion") };
    assert_eq!(done.execution, ExecutionStatus::Unknown);
}

/// Requests of several threads that wait for room, some of them without a future: each is executed
/// once, and no thread sleeps for good.
#[test]
fn requests_of_several_threads_end() {
    const SENDERS: usize = 4;
    const REQUESTS: usize = 5_000;
    let (sender, mut receiver) = channel(3);
    let sender = Arc::new(sender);
    let threads: Vec<_> = (0..SENDERS)
        .map(|_| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                block_on(async move {
                    for number in 0..REQUESTS {
                        let completion = sender.send(flush()).await;
                        if number % 7 != 0 {
                            assert_eq!(completion.await.execution, ExecutionStatus::Responded);
                        }
                    }
                });
            })
        })
        .collect();
    drop(sender);
    let executed = block_on(async move {
        let mut executed = 0;
        while !receiver.is_closed() {
            while receiver.first().is_some() {
                let completion = execute(&mut receiver);
                receiver.complete([completion].into_iter());
                executed += 1;
            }
            if !receiver.is_closed() {
                receiver.ready().await;
            }
        }
        executed
    });
    assert_eq!(executed, SENDERS * REQUESTS);
    threads.into_iter().for_each(|thread| thread.join().expect("each request was answered"));
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}
