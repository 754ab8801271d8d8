//! Reads and writes of a run, each in a task.

use std::time::Duration;

use rdma_fabric::Host;
use rdma_host::{
    Command, CommandCompletion, Controller, Error, ExecutionStatus, Namespace, wire::NamespaceId,
};
use tokio::sync::{mpsc, oneshot};
use verbs::Buffer;

use super::{AT_REST, Client};
use crate::{
    history::{Mismatch, Outcome, fill},
    script::{Step, Transfer},
    target::BLOCK,
};

/// True while the host sends a write again without proof that the first is over.
const LATE_REPEATS_ARE_COUNTED: bool = true;
/// Buffers at rest that are kept.
const AT_REST_MAX: usize = 6;

/// Path of the I/O.
pub(super) enum Io {
    Namespace(Namespace),
    Pollers(mpsc::UnboundedSender<PolledRequest>),
}

/// Command for a poller, and the sender of its completion.
pub(super) struct PolledRequest {
    pub(super) command: Command,
    pub(super) reply: oneshot::Sender<CommandCompletion>,
}

/// Result of one call: the buffers that came back, and the error.
struct Ended {
    buffers: Vec<Buffer>,
    failure: Option<(ExecutionStatus, Error)>,
}

impl Client {
    /// Starts a read, write or flush; refused ones are not started.
    pub(super) fn start_io(&self, step: Step, controller: &Controller<Host>, io: &Io) {
        let (transfer, is_write) = match step {
            Step::Write(transfer) => (transfer, true),
            Step::Read(transfer) => (transfer, false),
            _ => return self.start_flush(io),
        };
        let transfer = match io {
            Io::Namespace(_) => transfer,
            // A command through a poller is not split.
            Io::Pollers(_) => Transfer { blocks: transfer.blocks.min(4), ..transfer },
        };
        let bytes = usize::try_from(transfer.blocks).expect("few") * BLOCK;
        let Ok(mut buffer) = controller.allocate(bytes) else { return };
        let blocks = transfer.lba..transfer.lba + transfer.blocks;
        let (stamp, began) = if is_write {
            let stamp = self.lock().history.begin_write(blocks);
            let mut content = vec![0; bytes];
            fill(transfer.lba, stamp, &mut content);
            buffer.copy_in(0, &content);
            (stamp, 0)
        } else {
            buffer.copy_in(0, &vec![AT_REST; bytes]);
            (0, self.lock().history.begin_read())
        };
        let number = self.begin_io();
        let what = if is_write { "write" } else { "read" };
        self.world
            .note(format_args!("host: {what} {number} begins: {transfer:?}, stamp {stamp:#x}"));
        let future = call(io, transfer, is_write, buffer);
        let client = self.clone();
        self.world.spawn(async move {
            let limit = transfer.dropped_after.unwrap_or(Duration::MAX / 4);
            let ended = client.world.timeout(limit, future).await;
            client.end_io(number, transfer, is_write.then_some(stamp), began, ended);
        });
    }

    fn start_flush(&self, io: &Io) {
        let number = self.begin_io();
        self.world.note(format_args!("host: flush {number} begins"));
        let client = self.clone();
        let future: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = match io {
            Io::Namespace(namespace) => {
                let namespace = namespace.clone();
                Box::pin(async move { drop(namespace.flush().await) })
            }
            Io::Pollers(sender) => {
                let done = submit(sender, Command::flush(NamespaceId(1)));
                Box::pin(async move { drop(done.await) })
            }
        };
        self.world.spawn(async move {
            future.await;
            client.world.note(format_args!("host: flush {number} ends"));
            let mut shared = client.lock();
            shared.begun.remove(&number);
            shared.outstanding -= 1;
        });
    }

    fn begin_io(&self) -> u64 {
        let now = self.world.now();
        let mut shared = self.lock();
        shared.outstanding += 1;
        shared.started += 1;
        let number = shared.started;
        shared.begun.insert(number, now);
        number
    }

    /// Checks the result of a call; `None` is one that was dropped.
    fn end_io(
        &self,
        number: u64,
        transfer: Transfer,
        stamp: Option<u64>,
        began: u64,
        ended: Option<Ended>,
    ) {
        self.check_wait("an I/O ended");
        self.lock().begun.remove(&number);
        let failure = ended.as_ref().and_then(|ended| ended.failure.as_ref());
        let outcome = match (&ended, failure) {
            (None, _) => Outcome::Unknown,
            (Some(_), None) => Outcome::Done,
            (_, Some((ExecutionStatus::NotSent, _))) => Outcome::NotSent,
            (_, Some(_)) => Outcome::Unknown,
        };
        match failure {
            Some((execution, error)) => {
                self.world.note(format_args!("host: {number} ends: {execution:?}: {error}"));
            }
            None => self.world.note(format_args!("host: {number} ends: {outcome:?}")),
        }
        self.count(&format!("I/O {outcome:?}"));
        match stamp {
            Some(stamp) => self.lock().history.end_write(stamp, outcome),
            None if outcome == Outcome::Done => {
                let mut content = Vec::new();
                for buffer in &ended.as_ref().expect("it is done").buffers {
                    let at = content.len();
                    content.resize(at + buffer.len(), 0);
                    buffer.copy_out(0, &mut content[at..]);
                }
                for (block, content) in (transfer.lba..).zip(content.chunks_exact(BLOCK)) {
                    let checked = self.lock().history.end_read(began, block, content);
                    if let Err(Mismatch { stamp, reason }) = checked {
                        self.report_mismatch(number, stamp.map(|stamp| (stamp, block)), &reason);
                    }
                }
            }
            None => {}
        }
        for mut buffer in ended.into_iter().flat_map(|ended| ended.buffers) {
            buffer.copy_in(0, &vec![AT_REST; buffer.len()]);
            self.lock().at_rest.push(buffer);
        }
        self.check_rest(AT_REST_MAX);
        self.lock().outstanding -= 1;
    }
}

impl Client {
    /// Reports a read of what the block cannot have. A write that the target has executed more than
    /// once is counted, while the host has no fence: its repeat was done before it landed.
    fn report_mismatch(&self, read: u64, write: Option<(u64, u64)>, reason: &str) {
        let is_repeat = self.target.change(|target| {
            write.is_some_and(|write| target.applied.get(&write).is_some_and(|count| *count > 1))
        });
        if is_repeat && LATE_REPEATS_ARE_COUNTED {
            self.world.note(format_args!("LATE REPEAT: read {read}: {reason}"));
            self.count("late repeats");
        } else {
            self.violation(format!("read {read}: {reason}"));
        }
    }
}

type Call = std::pin::Pin<Box<dyn Future<Output = Ended> + Send>>;

/// Calls the API; nothing is sent before the future is polled.
fn call(io: &Io, transfer: Transfer, is_write: bool, buffer: Buffer) -> Call {
    match io {
        Io::Namespace(namespace) if transfer.is_vectored => {
            Box::pin(call_vectored(namespace.clone(), transfer, is_write, buffer))
        }
        Io::Namespace(namespace) => {
            let namespace = namespace.clone();
            Box::pin(async move {
                let done = if is_write {
                    namespace.write(transfer.lba, buffer).await
                } else {
                    namespace.read(transfer.lba, buffer).await
                };
                match done {
                    Ok(buffer) => Ended { buffers: vec![buffer], failure: None },
                    Err(failed) => Ended {
                        buffers: failed.buffer.into_iter().collect(),
                        failure: Some((failed.execution, failed.error)),
                    },
                }
            })
        }
        Io::Pollers(sender) => {
            let blocks = u32::try_from(transfer.blocks).expect("few");
            let command = if is_write {
                Command::write(NamespaceId(1), transfer.lba, blocks, buffer)
            } else {
                Command::read(NamespaceId(1), transfer.lba, blocks, buffer)
            };
            let sender = sender.clone();
            Box::pin(async move {
                let Ok(done) = submit(&sender, command).await else {
                    let failure = Some((ExecutionStatus::Unknown, Error::Closed));
                    return Ended { buffers: Vec::new(), failure };
                };
                let execution = done.execution;
                let (outcome, buffer) = done.into_result("a command");
                let failure = outcome.err().map(|error| (execution, error));
                Ended { buffers: buffer.into_iter().collect(), failure }
            })
        }
    }
}

async fn call_vectored(
    namespace: Namespace,
    transfer: Transfer,
    is_write: bool,
    mut buffer: Buffer,
) -> Ended {
    let mut buffers = Vec::new();
    while buffer.len() > BLOCK {
        let rest = buffer.split_off(BLOCK);
        buffers.push(std::mem::replace(&mut buffer, rest));
    }
    buffers.push(buffer);
    let done = if is_write {
        namespace.write_vectored(transfer.lba, buffers).await
    } else {
        namespace.read_vectored(transfer.lba, buffers).await
    };
    match done {
        Ok(buffers) => Ended { buffers, failure: None },
        Err(failed) => Ended {
            buffers: failed.buffers.into_iter().flatten().collect(),
            failure: Some((failed.execution, failed.error)),
        },
    }
}

fn submit(
    sender: &mpsc::UnboundedSender<PolledRequest>,
    command: Command,
) -> oneshot::Receiver<CommandCompletion> {
    let (reply, done) = oneshot::channel();
    // Without a receiver the pollers have ended, and the reply with them.
    let _ = sender.send(PolledRequest { command, reply });
    done
}
