//! Namespace of a local poller, and the futures of its operations.

use std::{
    cell::RefCell,
    future::Future,
    mem,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use verbs::{Buffer, Provider, RdmaCore};

use super::requests::{LocalCompletion, LocalRequests};
use crate::{
    driver::{
        api::namespace::{Direction, JoinedParts, Namespace, PartOutcome, TransferError},
        data_path::command::{Command, CommandCompletion},
    },
    error::Error,
    wire::NamespaceInfo,
};

/// Namespace of a controller, whose operations are submitted to a
/// [`LocalPoller`](super::LocalPoller) on its thread. Clones share the poller.
///
/// Nothing is submitted before a future is polled. If the queues are full, it waits behind those
/// that wait already. Buffers are moved in and returned with the result. Dropping a future does not
/// stop a command that was submitted: the queue keeps the buffer until the command has completed.
pub struct LocalNamespace<P: Provider = RdmaCore> {
    /// Namespace without queues of its own.
    namespace: Namespace,
    requests: Rc<RefCell<LocalRequests<P>>>,
}

impl<P: Provider> Clone for LocalNamespace<P> {
    fn clone(&self) -> Self {
        Self { namespace: self.namespace.clone(), requests: Rc::clone(&self.requests) }
    }
}

impl<P: Provider> LocalNamespace<P> {
    pub(super) fn new(info: NamespaceInfo, requests: &Rc<RefCell<LocalRequests<P>>>) -> Self {
        let borrowed = requests.borrow();
        let (registry, live) = borrowed.poller.controller().expect("a poller has a controller");
        let namespace = Namespace::new(info, Arc::default(), Arc::clone(live), registry);
        Self { namespace, requests: Rc::clone(requests) }
    }

    /// Latest Identify Namespace data; the size may change.
    #[must_use]
    pub fn info(&self) -> NamespaceInfo {
        self.namespace.info()
    }

    /// Maximum data transfer of one command in bytes; larger transfers are split. A reconnect may
    /// change it.
    #[must_use]
    pub fn transfer_bytes_max(&self) -> u64 {
        self.namespace.transfer_bytes_max()
    }

    /// Reads from `lba` on into the whole buffer, as [`Namespace::read`].
    ///
    /// # Errors
    ///
    /// As [`Namespace::read`].
    pub fn read(
        &self,
        lba: u64,
        buffer: Buffer,
    ) -> impl Future<Output = Result<Buffer, TransferError>> + use<'_, P> {
        LocalTransfer::new(self, Direction::Read, lba, buffer)
    }

    /// Writes the whole buffer from `lba` on, as [`Namespace::write`].
    ///
    /// # Errors
    ///
    /// As [`Namespace::write`].
    pub fn write(
        &self,
        lba: u64,
        buffer: Buffer,
    ) -> impl Future<Output = Result<Buffer, TransferError>> + use<'_, P> {
        LocalTransfer::new(self, Direction::Write, lba, buffer)
    }

    /// Writes the whole buffer from `lba` on, with Force Unit Access, as
    /// [`Namespace::write_with_force_unit_access`].
    ///
    /// # Errors
    ///
    /// As [`Namespace::write`].
    pub fn write_with_force_unit_access(
        &self,
        lba: u64,
        buffer: Buffer,
    ) -> impl Future<Output = Result<Buffer, TransferError>> + use<'_, P> {
        LocalTransfer::new(self, Direction::ForcedWrite, lba, buffer)
    }

    /// Flushes completed writes to non-volatile media.
    ///
    /// # Errors
    ///
    /// When the controller refuses, or the connection is lost.
    pub async fn flush(&self) -> Result<(), Error> {
        let command = Command::flush(self.namespace.id());
        self.execute(command).await.into_result("Flush").0.map(drop)
    }

    /// Executes any command, such as a Write Zeroes or a deallocation, as
    /// [`Poller::submit`](crate::Poller::submit) does: its namespace, range and size are the
    /// caller's.
    pub async fn execute(&self, command: Command) -> CommandCompletion {
        let user = command.user;
        CommandCompletion { user, ..self.begin(command).await }
    }

    fn begin(&self, mut command: Command) -> LocalCompletion<'_, P> {
        LocalCompletion::new(&self.requests, &mut command, None)
    }

    /// Transfers a range that has been checked, with any number of commands.
    async fn transfer_parts(
        &self,
        direction: Direction,
        lba: u64,
        buffer: Buffer,
    ) -> Result<Buffer, TransferError> {
        let namespace = &self.namespace;
        // A zone takes its blocks in their order alone.
        let in_order = namespace.info().is_zoned() && direction.is_write();
        let (mut joined, mut begun) = (JoinedParts::default(), Vec::new());
        let (mut at, mut rest) = (lba, Some(buffer));
        while let Some(mut part) = rest.take() {
            let step = usize::try_from(namespace.transfer_bytes_max()).unwrap_or(usize::MAX);
            if part.len() > step {
                rest = Some(part.split_off(step));
            }
            let blocks = namespace.info().blocks_in(part.len());
            let completion = self.begin(namespace.command(direction, at, part));
            if in_order {
                let ended = self.finish_part(direction, at, completion.await).await;
                let has_failed = ended.is_err();
                joined.add(ended);
                if has_failed {
                    joined.add_buffer(rest);
                    break;
                }
            } else {
                begun.push((at, completion));
            }
            at += u64::from(blocks);
        }
        for (at, completion) in begun {
            joined.add(self.finish_part(direction, at, completion.await).await);
        }
        joined.into_result()
    }

    /// Result of one part, which is split again if it exceeds the maximum transfer of a new
    /// connection.
    async fn finish_part(
        &self,
        direction: Direction,
        lba: u64,
        done: CommandCompletion,
    ) -> Result<Buffer, TransferError> {
        match self.namespace.part_outcome(direction, done) {
            PartOutcome::Ended(ended) => ended,
            PartOutcome::TooLong { buffer, execution } => {
                let again = Box::pin(self.transfer_parts(direction, lba, buffer)).await;
                again.map_err(|failed| failed.after(execution))
            }
        }
    }
}

/// Transfer of a whole buffer. Nothing is submitted before it is polled.
struct LocalTransfer<'namespace, P: Provider> {
    namespace: &'namespace LocalNamespace<P>,
    direction: Direction,
    lba: u64,
    progress: Progress<'namespace, P>,
}

enum Progress<'namespace, P: Provider> {
    /// Buffer of a transfer that has not begun.
    Unsent(Buffer),
    /// One command, in flight or waiting for room.
    InFlight(LocalCompletion<'namespace, P>),
    /// Several commands.
    Slow(Pin<Box<dyn Future<Output = Result<Buffer, TransferError>> + 'namespace>>),
    Ended,
}

impl<'namespace, P: Provider> LocalTransfer<'namespace, P> {
    fn new(
        namespace: &'namespace LocalNamespace<P>,
        direction: Direction,
        lba: u64,
        buffer: Buffer,
    ) -> Self {
        Self { namespace, direction, lba, progress: Progress::Unsent(buffer) }
    }

    /// Submits the command, if one is enough.
    #[inline(always)]
    fn begin(
        &self,
        buffer: Buffer,
        waker: &Waker,
    ) -> Result<Progress<'namespace, P>, TransferError> {
        let Self { namespace: local, direction, lba, .. } = *self;
        let (namespace, bytes) = (&local.namespace, buffer.len() as u64);
        if let Err(error) = namespace.check_transfer(lba, bytes) {
            return Err(TransferError::unsent(error, buffer));
        }
        if bytes > namespace.transfer_bytes_max() {
            return Ok(Progress::Slow(Box::pin(local.transfer_parts(direction, lba, buffer))));
        }
        let mut command = namespace.command(direction, lba, buffer);
        let completion = LocalCompletion::new(&local.requests, &mut command, Some(waker));
        Ok(Progress::InFlight(completion))
    }
}

impl<P: Provider> Future for LocalTransfer<'_, P> {
    type Output = Result<Buffer, TransferError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Progress::Unsent(_) = self.progress
            && let Progress::Unsent(buffer) = mem::replace(&mut self.progress, Progress::Ended)
        {
            self.progress = match self.begin(buffer, context.waker()) {
                Ok(Progress::InFlight(completion)) => {
                    self.progress = Progress::InFlight(completion);
                    return Poll::Pending;
                }
                Ok(progress) => progress,
                Err(error) => return Poll::Ready(Err(error)),
            };
        }
        if let Progress::InFlight(completion) = &mut self.progress {
            let Poll::Ready(done) = completion.poll_buffer(context) else { return Poll::Pending };
            self.progress = Progress::Ended;
            match done {
                Ok(buffer) => return Poll::Ready(Ok(buffer)),
                // It may have to be sent in parts.
                Err(done) => {
                    let Self { namespace, direction, lba, .. } = *self;
                    self.progress =
                        Progress::Slow(Box::pin(namespace.finish_part(direction, lba, done)));
                }
            }
        }
        let Progress::Slow(transfer) = &mut self.progress else {
            panic!("a transfer that has ended is not polled again");
        };
        let ended = transfer.as_mut().poll(context);
        if ended.is_ready() {
            self.progress = Progress::Ended;
        }
        ended
    }
}
