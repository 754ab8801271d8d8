//! Pollers of any RDMA provider.

use std::{collections::VecDeque, mem::MaybeUninit, os::fd::BorrowedFd, slice, sync::Arc};

use rdma_host::{
    Buffer, Command, CommandCompletion, Controller, Error, OperationStatistics, Poller, SubmitError,
};
use verbs::Provider;

use super::tags::Tags;
use crate::layout::{nvmf_completion, nvmf_operation, nvmf_statistics};

/// Calls of a poller, whatever its RDMA provider is.
pub(super) trait PollerCalls: Send {
    fn submit(&mut self, command: Command) -> Result<(), SubmitError>;
    fn ring_doorbells(&mut self) -> Result<(), Error>;
    /// Polls once. After an error, too, the completions are found.
    fn poll(&mut self, found: &mut Completions<'_>) -> Result<(), Error>;
    fn arm(&mut self) -> Result<bool, Error>;
    fn event_descriptor(&mut self) -> Result<BorrowedFd<'_>, Error>;
    fn room(&self) -> usize;
    fn depth(&self) -> usize;
    /// Memory that the controller reaches.
    fn allocate(&self, bytes: usize) -> Result<Buffer, Error>;
    fn statistics(&mut self) -> nvmf_statistics;
}

/// Poller of one provider.
pub(super) struct ProviderPoller<P: Provider> {
    pub(super) poller: Poller<P>,
    pub(super) controller: Arc<Controller<P>>,
}

/// Completions of one poll.
pub(super) struct Completions<'a> {
    pub(super) tags: &'a mut Tags,
    /// Places of the program that are left.
    pub(super) places: slice::IterMut<'a, MaybeUninit<nvmf_completion>>,
    /// Completions for which there is none.
    pub(super) ready: &'a mut VecDeque<nvmf_completion>,
}

impl<P: Provider> PollerCalls for ProviderPoller<P> {
    #[inline]
    fn submit(&mut self, command: Command) -> Result<(), SubmitError> {
        self.poller.submit(command)
    }

    fn ring_doorbells(&mut self) -> Result<(), Error> {
        self.poller.ring_doorbells()
    }

    fn poll(&mut self, found: &mut Completions<'_>) -> Result<(), Error> {
        let polled = self.poller.poll_with(|done| found.add(done));
        if polled.is_err() {
            while let Some(done) = self.poller.take() {
                found.add(done);
            }
        }
        polled.map(drop)
    }

    fn arm(&mut self) -> Result<bool, Error> {
        self.poller.arm()
    }

    fn event_descriptor(&mut self) -> Result<BorrowedFd<'_>, Error> {
        self.poller.event_descriptor()
    }

    fn room(&self) -> usize {
        self.poller.room()
    }

    fn depth(&self) -> usize {
        self.poller.depth()
    }

    fn allocate(&self, bytes: usize) -> Result<Buffer, Error> {
        self.controller.allocate(bytes)
    }

    fn statistics(&mut self) -> nvmf_statistics {
        let statistics = self.poller.statistics();
        nvmf_statistics {
            size: size_of::<nvmf_statistics>() as u64,
            read: operation(&statistics.read),
            write: operation(&statistics.write),
            other: operation(&statistics.other),
            doorbells: statistics.device.doorbells,
            completions: statistics.device.completions,
            empty_polls: statistics.device.empty_polls,
        }
    }
}

impl Completions<'_> {
    /// Notes the completion of a command of the poller.
    #[inline(always)] // of each command
    fn add(&mut self, done: CommandCompletion) {
        match done {
            CommandCompletion { user, outcome: Ok(response), data, .. }
                if response.status().is_success() =>
            {
                drop(data);
                self.complete(user);
            }
            failed => self.fail(failed),
        }
    }

    #[inline(always)] // of each command
    fn complete(&mut self, number: u64) {
        let Self { tags, places, ready } = self;
        tags.complete(number, |completion| match places.next() {
            Some(place) => {
                place.write(completion);
            }
            None => keep(ready, completion),
        });
    }

    #[cold]
    fn fail(&mut self, done: CommandCompletion) {
        self.tags.fail_part(&done);
        self.complete(done.user);
    }
}

#[cold]
fn keep(ready: &mut VecDeque<nvmf_completion>, completion: nvmf_completion) {
    ready.push_back(completion);
}

fn operation(operation: &OperationStatistics) -> nvmf_operation {
    let latency = &operation.latency_ns;
    let some = !latency.is_empty();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few seconds")]
    let mean = latency.mean() as u64;
    nvmf_operation {
        completed: operation.completed,
        failed: operation.failed,
        retried: operation.retried,
        bytes: operation.bytes,
        latency_min_ns: if some { latency.min() } else { 0 },
        latency_mean_ns: mean,
        latency_p50_ns: latency.value_at_quantile(0.5),
        latency_p99_ns: latency.value_at_quantile(0.99),
        latency_p999_ns: latency.value_at_quantile(0.999),
        latency_max_ns: latency.max(),
    }
}
