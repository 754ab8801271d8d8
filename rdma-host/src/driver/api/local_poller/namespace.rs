//! Namespace of a local poller, and the futures of its operations.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use verbs::{Buffer, Provider, RdmaCore};

use super::{
    requests::{LocalCompletion, LocalShared},
    slots::NONE,
};
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
    shared: Rc<LocalShared<P>>,
}

impl<P: Provider> Clone for LocalNamespace<P> {
    fn clone(&self) -> Self {
        Self { namespace: self.namespace.clone(), shared: Rc::clone(&self.shared) }
    }
}

impl<P: Provider> LocalNamespace<P> {
    pub(super) fn new(info: NamespaceInfo, shared: &Rc<LocalShared<P>>) -> Self {
        let requests = shared.requests.borrow();
        let (registry, live) = requests.poller.controller().expect("a poller has a controller");
        let namespace = Namespace::new(info, Arc::default(), Arc::clone(live), registry);
        Self { namespace, shared: Rc::clone(shared) }
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

    fn begin(&self, command: Command) -> LocalCompletion<'_, P> {
        LocalCompletion::new(&self.shared, command)
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
    lba: u64,
    direction: Direction,
    /// Slot of the command, if one is enough, while it is in flight or waits for room; else
    /// [`NONE`].
    slot: u32,
    /// Buffer of a transfer that has not begun.
    unsent: Option<Buffer>,
    /// Transfer by several commands.
    parts: Option<PartsTransfer<'namespace>>,
}

type PartsTransfer<'a> = Pin<Box<dyn Future<Output = Result<Buffer, TransferError>> + 'a>>;

impl<'namespace, P: Provider> LocalTransfer<'namespace, P> {
    #[inline(always)]
    fn new(
        namespace: &'namespace LocalNamespace<P>,
        direction: Direction,
        lba: u64,
        buffer: Buffer,
    ) -> Self {
        Self { namespace, lba, direction, slot: NONE, unsent: Some(buffer), parts: None }
    }

    /// Submits the command, if one is enough.
    #[inline(always)]
    fn begin(&mut self, buffer: Buffer, waker: &Waker) -> Result<(), TransferError> {
        let Self { namespace: local, direction, lba, .. } = *self;
        let (namespace, bytes) = (&local.namespace, buffer.len() as u64);
        if let Err(error) = namespace.check_transfer(lba, bytes) {
            return Err(TransferError::unsent(error, buffer));
        }
        if bytes > namespace.transfer_bytes_max() {
            self.parts = Some(Box::pin(local.transfer_parts(direction, lba, buffer)));
        } else {
            let mut command = namespace.command(direction, lba, buffer);
            self.slot = local.shared.submit(&mut command, Some(waker));
        }
        Ok(())
    }

    #[cold]
    fn poll_parts(&mut self, context: &mut Context<'_>) -> Poll<Result<Buffer, TransferError>> {
        let parts = self.parts.as_mut().expect("a transfer that has ended is not polled again");
        let ended = parts.as_mut().poll(context);
        if ended.is_ready() {
            self.parts = None;
        }
        ended
    }
}

impl<P: Provider> Future for LocalTransfer<'_, P> {
    type Output = Result<Buffer, TransferError>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(buffer) = self.unsent.take() {
            if let Err(error) = self.begin(buffer, context.waker()) {
                return Poll::Ready(Err(error));
            }
            if self.slot != NONE {
                return Poll::Pending;
            }
        }
        if self.slot != NONE {
            let shared = &self.namespace.shared;
            let Poll::Ready(done) = shared.poll_buffer(self.slot, context.waker()) else {
                return Poll::Pending;
            };
            self.slot = NONE;
            match done {
                Ok(buffer) => return Poll::Ready(Ok(buffer)),
                // It may have to be sent in parts.
                Err(done) => {
                    let Self { namespace, direction, lba, .. } = *self;
                    self.parts = Some(Box::pin(namespace.finish_part(direction, lba, done)));
                }
            }
        }
        self.poll_parts(context)
    }
}

impl<P: Provider> Drop for LocalTransfer<'_, P> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.slot != NONE {
            self.namespace.shared.abandon(self.slot);
        }
    }
}
