//! A poller that is driven outside of tokio, by its file descriptor.

use std::{
    os::fd::{AsRawFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rdma_fabric::Host;
use rdma_host::{Command, CommandCompletion, Controller, Poller, SharedMemory, wire::NamespaceId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Bed, bogus, options, run};

const NAMESPACE: NamespaceId = NamespaceId(1);
const BLOCK: usize = 512;

/// Sleeps until the descriptor is readable.
fn sleep(descriptor: BorrowedFd<'_>) {
    let mut descriptors = [PollFd::new(&descriptor, PollFlags::IN)];
    // Against hanging for ever.
    let limit = Timespec { tv_sec: 30, tv_nsec: 0 };
    let count = poll(&mut descriptors, Some(&limit)).expect("a descriptor that is open");
    assert_eq!(count, 1, "nothing makes the descriptor readable");
}

/// Executes a command, asleep until it has completed.
fn execute(poller: &mut Poller<Host>, command: Command) -> CommandCompletion {
    poller.submit(command).expect("there is room");
    poller.ring_doorbells().expect("the controller goes on");
    loop {
        if let Some(completion) = poller.take() {
            return completion;
        }
        if poller.arm().expect("the controller goes on") {
            sleep(poller.event_descriptor().expect("it is there"));
        }
        poller.poll().expect("the controller goes on");
    }
}

fn succeed(poller: &mut Poller<Host>, command: Command) {
    let outcome = execute(poller, command).outcome.expect("an answer");
    assert!(outcome.status().is_success(), "{}", outcome.status());
}

/// Runs `test` on a thread of its own, beside the target.
async fn polled(
    bed: &Bed,
    test: impl FnOnce(Poller<Host>, SharedMemory) + Send + 'static,
) -> Controller<Host> {
    let connecting = Controller::connect_over(&bed.host, &options());
    let (controller, mut pollers) = connecting.polled(1).await.expect("an honest target");
    controller.identify_namespace(NAMESPACE).await.expect("it is there");
    let memory = controller.allocate_shared(4 * BLOCK).expect("there is memory");
    let poller = pollers.pop().expect("a poller was asked for");
    tokio::task::spawn_blocking(|| test(poller, memory)).await.expect("the test succeeds");
    controller
}

/// The descriptor serves one connection after the other.
#[test]
fn a_poller_sleeps_on_its_descriptor_through_a_loss() {
    run(async {
        let bed = Bed::new();
        let losses = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&losses);
        bed.answer(move |seen, answer| {
            if seen.is_io() && counted.fetch_add(1, Ordering::Relaxed) == 2 {
                bogus(answer);
            }
        });
        let controller = polled(&bed, |mut poller, memory| {
            let number = poller.event_descriptor().expect("descriptors are left").as_raw_fd();
            for _ in 0..5 {
                let part = memory.part(BLOCK, BLOCK).expect("within");
                succeed(&mut poller, Command::read(NAMESPACE, 0, 1, part));
            }
            assert_eq!(poller.event_descriptor().expect("it is there").as_raw_fd(), number);
        });
        controller.await.shutdown().await;
        assert_eq!(losses.load(Ordering::Relaxed), 6, "one of five reads was sent twice");
    });
}

/// Number of commands for each of which a poller sleeps. A sleep that no completion ends is ended
/// by the clock: with many of them the test takes longer than a test may.
const SLEEPS: usize = 4_000;

/// A poller asks its device for an event only where one can come, and misses none.
#[test]
fn a_poller_is_armed_where_something_can_happen() {
    run(async {
        let bed = Bed::new();
        let controller = polled(&bed, |mut poller, memory| {
            let (mut armed, mut was_readable) = (0, true);
            for _ in 0..SLEEPS {
                // Nothing is in flight.
                while !poller.arm_if_needed(was_readable).expect("the controller goes on") {}
                was_readable = false;
                let part = memory.part(0, BLOCK).expect("within");
                poller.submit(Command::read(NAMESPACE, 0, 1, part)).expect("there is room");
                poller.ring_doorbells().expect("the controller goes on");
                while poller.take().is_none() {
                    if poller.arm_if_needed(was_readable).expect("the controller goes on") {
                        sleep(poller.event_descriptor().expect("it is there"));
                        (armed, was_readable) = (armed + 1, true);
                    }
                    poller.poll().expect("the controller goes on");
                }
            }
            assert!(armed > SLEEPS / 2, "{armed} of {SLEEPS} commands took time");
        });
        controller.await.shutdown().await;
    });
}

/// Only the clock wakes a poller whose controller has ended meanwhile.
#[test]
fn the_end_of_the_controller_makes_the_descriptor_readable() {
    run(async {
        let bed = Bed::new();
        let connecting = Controller::connect_over(&bed.host, &options());
        let (controller, mut pollers) = connecting.polled(1).await.expect("an honest target");
        let mut poller = pollers.pop().expect("a poller was asked for");
        let (armed, is_armed) = std::sync::mpsc::channel();
        let sleeper = tokio::task::spawn_blocking(move || {
            while let Ok(asleep) = poller.arm() {
                let _ = armed.send(());
                if asleep {
                    sleep(poller.event_descriptor().expect("it is there"));
                }
            }
        });
        tokio::task::spawn_blocking(move || is_armed.recv().expect("it sleeps")).await.unwrap();
        controller.shutdown().await;
        sleeper.await.expect("it was woken");
    });
}

/// Bytes move between a namespace and memory that only has an address.
#[test]
fn shared_memory_is_read_into_and_written_from() {
    run(async {
        let bed = Bed::new();
        let (controller, namespace) = bed.connect(&options()).await;
        let mut buffer = controller.allocate(BLOCK).expect("there is memory");
        buffer.copy_in(0, &tests::noise(BLOCK, 3));
        namespace.write(8, buffer).await.expect("it is written");
        controller.shutdown().await;
        let controller = polled(&bed, |mut poller, memory| {
            let part = |offset, length| memory.part(offset, length).expect("within");
            succeed(&mut poller, Command::read(NAMESPACE, 7, 2, part(BLOCK, 2 * BLOCK)));
            // The second of the blocks that were read.
            let write = Command::write(NAMESPACE, 40, 1, part(2 * BLOCK, BLOCK));
            succeed(&mut poller, write.with_force_unit_access());
            let done = execute(&mut poller, Command::flush(NAMESPACE));
            assert!(done.data.is_none());
        });
        let controller = controller.await;
        controller.shutdown().await;
        let (controller, namespace) = bed.connect(&options()).await;
        let mut bytes = [[0; BLOCK]; 2];
        for (lba, bytes) in [8, 40].into_iter().zip(&mut bytes) {
            let buffer = controller.allocate(BLOCK).expect("there is memory");
            let buffer = namespace.read(lba, buffer).await.expect("it is read");
            buffer.copy_out(0, bytes);
        }
        assert_eq!(bytes[0], bytes[1]);
        assert!(bytes[0].iter().any(|&byte| byte != 0), "it is what was written first");
    });
}

/// Force Unit Access is a bit of the command (NVM 3.2.6).
#[test]
fn force_unit_access_reaches_the_target() {
    run(async {
        let bed = Bed::new();
        let seen = Arc::new(AtomicUsize::new(0));
        let forced = Arc::clone(&seen);
        bed.answer(move |command, _| {
            if command.is_io() && command.sqe[51] & 0x40 != 0 {
                forced.fetch_add(1, Ordering::Relaxed);
            }
        });
        let controller = polled(&bed, |mut poller, memory| {
            let write = || Command::write(NAMESPACE, 0, 1, memory.part(0, BLOCK).expect("within"));
            succeed(&mut poller, write());
            succeed(&mut poller, write().with_force_unit_access());
        });
        controller.await.shutdown().await;
        assert_eq!(seen.load(Ordering::Relaxed), 1);
    });
}
