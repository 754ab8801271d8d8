//! Writes of a lost path behind the fence, where the controller of the other path resets the lost
//! one (Cross-Controller Reset).

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rdma_fabric::Host;
use rdma_host::{
    Error, ExecutionStatus, FenceOptions, PathId, PathPolicy, Subsystem, SubsystemNamespace,
    TransferError,
};
use tests::target::{Answer, ReceivedCommand};
use tokio::task::JoinHandle;
use verbs::Buffer;

use super::{Ports, WRITE, both, connect_options, run, until};

/// CIU and CIRN of the controllers of the first port.
const UNIQUIFIER: u8 = 0x5a;
const RANDOM: u64 = 0x0102_0304_0506_0708;
/// Controllers of the two ports.
const FIRST: u16 = 7;
const SECOND: u16 = 0x40;
/// Status codes of the command.
const IN_PROGRESS: u16 = 0x13f;
const LOG_FULL: u16 = 0x140;
const LIMIT_EXCEEDED: u16 = 0x141;
const INVALID_FIELD: u16 = 0x4002;

/// Time for which a write waits behind the fence.
const LONG: Duration = Duration::from_secs(40);

/// Entries of the log page: controller, CIU, status.
type Entry = (u16, u8, u8);

/// Answer of the second port's controller to a Cross-Controller Reset.
#[derive(Clone, Copy)]
enum Reset {
    /// Reset that is done when the answer comes.
    Immediate,
    /// Reset that begins, and has an entry in the log page.
    Begun,
    /// Refusal with this status.
    Refused(u16),
}

/// State of the second port's controller.
struct Resets {
    /// Answers to the command, in order; the last one is that to all later ones.
    answers: Vec<Reset>,
    log: Vec<Entry>,
    /// Number of commands received.
    commands: usize,
    /// Number of log pages sent.
    logs: usize,
}

/// The two ports of a subsystem, the second of which resets controllers of the first one; with a
/// write of `A` to block 7 that the first one has received, and keeps.
struct LostWrite {
    ports: Ports,
    subsystem: Subsystem<Host>,
    namespace: SubsystemNamespace,
    write: JoinHandle<Result<Buffer, TransferError>>,
    /// Has the first port execute the write.
    gate: Arc<AtomicBool>,
    resets: Arc<Mutex<Resets>>,
}

fn lock(resets: &Mutex<Resets>) -> MutexGuard<'_, Resets> {
    resets.lock().unwrap_or_else(PoisonError::into_inner)
}

fn identify(answer: &mut Answer) {
    answer.data[135] = UNIQUIFIER;
    answer.data[136..144].copy_from_slice(&RANDOM.to_le_bytes());
    answer.data[1807] = 2;
}

/// Answers of the second port's controller.
fn answer_second(resets: &Mutex<Resets>, seen: ReceivedCommand, answer: &mut Answer) {
    if seen.is_fabrics(0x01) && seen.queue == 0 && seen.sqe[42..44] == [0, 0] {
        answer.messages = vec![seen.response(0, SECOND.into())];
        return;
    }
    if seen.is_identify_controller() {
        return identify(answer);
    }
    let mut resets = lock(resets);
    match (seen.queue, seen.sqe[0], seen.sqe[40]) {
        (0, 0x38, _) => {
            let impacted = u16::from_le_bytes([seen.sqe[40], seen.sqe[41]]);
            let old = (FIRST, UNIQUIFIER, RANDOM);
            assert_eq!((impacted, seen.sqe[42], seen.u64_at(48)), old);
            let next = resets.commands.min(resets.answers.len() - 1);
            resets.commands += 1;
            let (status, result) = match resets.answers[next] {
                Reset::Immediate => (0, 1),
                Reset::Begun => {
                    resets.log.push((impacted, UNIQUIFIER, 0));
                    (0, 0)
                }
                Reset::Refused(status) => (status, 0),
            };
            answer.messages = vec![seen.response(status, result)];
        }
        (0, 0x02, 0x1e) => {
            let mut page = vec![0; seen.keyed().0];
            page[0] = u8::try_from(resets.log.len()).expect("a few");
            for (entry, (controller, uniquifier, status)) in
                page[8..].chunks_exact_mut(8).zip(&resets.log)
            {
                entry[..2].copy_from_slice(&controller.to_le_bytes());
                (entry[2], entry[6]) = (*uniquifier, *status);
            }
            answer.data = page;
            resets.logs += 1;
            // RMC.
            if seen.sqe[41] & 1 != 0 {
                resets.log.retain(|&(.., status)| status == 0);
            }
        }
        _ => {}
    }
}

impl LostWrite {
    /// Writes, and closes the first port.
    async fn begin(answers: &[Reset], log: &[Entry], timeout: Duration) -> Self {
        let ports = Ports::of_model("another");
        let (answers, log) = (answers.to_vec(), log.to_vec());
        let resets = Resets { answers, log, commands: 0, logs: 0 };
        let resets = Arc::new(Mutex::new(resets));
        let [gate, received] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let (mut held, seen_it) = (Some(Arc::clone(&gate)), Arc::clone(&received));
        ports.ports[0].answer(move |seen, answer| {
            if seen.is_identify_controller() {
                identify(answer);
            } else if seen.is_write()
                && let Some(gate) = held.take()
            {
                answer.execute = Some(gate);
                seen_it.store(true, Ordering::Relaxed);
            }
        });
        let of_second = Arc::clone(&resets);
        ports.ports[1].answer(move |seen, answer| answer_second(&of_second, seen, answer));

        let fence = FenceOptions::default().timeout(timeout);
        let options = both(connect_options().fence(fence)).policy(PathPolicy::Preferred(PathId(0)));
        let (subsystem, namespace) = ports.connect(&options).await;
        let mut buffer = subsystem.allocate(512).expect("memory");
        buffer.fill(b'A');
        let writer = namespace.clone();
        let write = tokio::spawn(async move { writer.write(7, buffer).await });
        until(|| received.load(Ordering::Relaxed)).await;
        ports.ports[0].close();
        Self { ports, subsystem, namespace, write, gate, resets }
    }

    fn resets(&self) -> MutexGuard<'_, Resets> {
        lock(&self.resets)
    }

    /// Number of writes that the second port has received.
    fn repeated(&self) -> usize {
        self.ports.ports[1].count(WRITE)
    }

    /// Has the first port execute the write at last, while nothing has proved its end.
    async fn execute_late(&self) {
        assert_eq!(self.repeated(), 0, "the repetition waits");
        self.gate.store(true, Ordering::Relaxed);
        assert_eq!(self.read().await, b'A', "it is executed late");
        assert_eq!(self.repeated(), 0, "the repetition waits");
    }

    /// First byte of the block.
    async fn read(&self) -> u8 {
        let mut buffer = self.subsystem.allocate(512).expect("memory");
        for _ in 0..4 {
            buffer = self.namespace.read(7, buffer).await.expect("a read does not wait");
        }
        let mut read = [0];
        buffer.copy_out(0, &mut read);
        read[0]
    }

    /// The write is answered, and so is another one to its block.
    async fn finish(self) {
        let Self { subsystem, namespace, write, .. } = self;
        let mut buffer = write.await.expect("no panic").expect("it is sent again");
        buffer.fill(b'B');
        let buffer = namespace.write(7, buffer).await.expect("it is answered");
        let buffer = namespace.read(7, buffer).await.expect("it is read");
        let mut read = [0];
        buffer.copy_out(0, &mut read);
        assert_eq!(read, *b"B");
        subsystem.shutdown().await;
    }
}

#[test]
fn a_controller_that_was_reset_at_once_opens_the_fence() {
    run(async {
        let lost = LostWrite::begin(&[Reset::Immediate], &[], LONG).await;
        let resets = Arc::clone(&lost.resets);
        lost.finish().await;
        assert_eq!(lock(&resets).commands, 1);
    });
}

/// The answer says only that it has begun: the log page tells when it has succeeded.
#[test]
fn a_reset_that_has_begun_opens_the_fence_once_the_log_page_says_that_it_succeeded() {
    run(async {
        let lost = LostWrite::begin(&[Reset::Begun], &[], LONG).await;
        until(|| lost.resets().commands == 1 && lost.resets().logs >= 4).await;
        lost.execute_late().await;
        lost.resets().log[0].2 = 1;
        lost.finish().await;
    });
}

/// An entry of an earlier reset of a controller of the same ids proves nothing of this one.
#[test]
fn an_old_entry_of_the_log_page_does_not_open_the_fence() {
    run(async {
        let lost = LostWrite::begin(&[Reset::Begun], &[(FIRST, UNIQUIFIER, 1)], LONG).await;
        until(|| lost.resets().commands == 1 && lost.resets().logs >= 5).await;
        assert_eq!(lost.resets().log, [(FIRST, UNIQUIFIER, 0)]);
        lost.execute_late().await;
        lost.resets().log[0].2 = 1;
        lost.finish().await;
    });
}

#[test]
fn a_reset_that_is_refused_or_fails_is_tried_again() {
    run(async {
        let refusals = [IN_PROGRESS, LOG_FULL, LIMIT_EXCEEDED].map(Reset::Refused);
        let answers = [&refusals[..], &[Reset::Begun, Reset::Immediate]].concat();
        let lost = LostWrite::begin(&answers, &[], LONG).await;
        until(|| lost.resets().commands == 4).await;
        lost.execute_late().await;
        lost.resets().log[0].2 = 2;
        let resets = Arc::clone(&lost.resets);
        lost.finish().await;
        assert_eq!(lock(&resets).commands, 5);
    });
}

/// A controller that does not know the command is asked once, and the write fails in time.
#[test]
fn a_reset_that_is_refused_for_good_is_not_tried_again() {
    run(async {
        let lost =
            LostWrite::begin(&[Reset::Refused(INVALID_FIELD)], &[], Duration::from_secs(3)).await;
        until(|| lost.resets().commands == 1).await;
        lost.execute_late().await;
        let failed = lost.write.await.expect("no panic").expect_err("nothing proves its end");
        assert!(matches!(failed.error, Error::Fenced(_)), "{failed}");
        assert_eq!(failed.execution, ExecutionStatus::Unknown, "{failed}");
        assert_eq!(lock(&lost.resets).commands, 1);
        lost.subsystem.shutdown().await;
    });
}
