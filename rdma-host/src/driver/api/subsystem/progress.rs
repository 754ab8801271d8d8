//! Attempts of an operation on the paths of a subsystem, and what follows when one fails.

use std::time::{Duration, Instant};

use super::path_table::PathTable;
use crate::{
    config::RESENDS_MAX,
    driver::{data_path::command::ExecutionStatus, runtime},
    error::{Error, Misuse, Rejected},
    proto::{
        CommandClass, CommandRetry, Disposition, FailedResponse, PathDecision, PathFailure, PathId,
    },
    wire::{Cqe, NamespaceId, Opcode, Status},
};

/// Attempts that were made for an operation.
#[derive(Default)]
pub(super) struct Progress {
    /// Time of the first failure, or since which it is held.
    since: Option<Instant>,
    /// Number of times that it was sent without a response.
    sends: u8,
    /// Number of failures on paths that stayed usable.
    failures: u8,
    /// Number of retries after a status that is not of the path.
    pub(super) retries: u8,
    /// True if it may have been executed, in parts too.
    may_be_executed: bool,
    /// Path that another one is chosen after.
    pub(super) failed_on: Option<PathId>,
}

/// Attempt of an operation that failed.
pub(super) struct FailedAttempt<'a> {
    pub(super) path: PathId,
    /// Generation of the connection that it was made on.
    pub(super) generation: u64,
    /// Rules of the controller for statuses that are not of the path.
    pub(super) retry: CommandRetry,
    pub(super) namespace: NamespaceId,
    pub(super) class: CommandClass,
    pub(super) opcode: Opcode,
    pub(super) result: &'a Result<Cqe, Error>,
    pub(super) execution: ExecutionStatus,
}

impl FailedAttempt<'_> {
    /// Status of a response that says that the command failed.
    fn status(&self) -> Option<Status> {
        match self.result {
            Ok(response) => Some(response.status()).filter(|status| !status.is_success()),
            Err(Error::Rejected(Rejected::Command { status, .. })) => Some(*status),
            Err(_) => None,
        }
    }
}

impl Progress {
    /// End of the time for which the operation is held, which begins now at the latest; `None` for
    /// no end.
    pub(super) fn hold(&mut self, table: &PathTable) -> Option<Instant> {
        let since = *self.since.get_or_insert_with(runtime::now);
        table.hold_limit.map(|limit| since + limit)
    }

    /// Decides about an operation that failed on a path: the time after which it is sent again, or
    /// `None` if that is its end.
    pub(super) fn decide(
        &mut self,
        table: &PathTable,
        failed: &FailedAttempt<'_>,
    ) -> Option<Duration> {
        let &FailedAttempt { path, generation, namespace, opcode, result, execution, .. } = failed;
        let status = failed.status();
        let failure = match (result, status, execution) {
            (_, Some(status), _) => PathFailure::Response(status),
            (Err(Error::Misuse(Misuse::NamespaceReplaced(_))), ..) => {
                table.set_absent(path, namespace);
                PathFailure::NotSent
            }
            // The same on each path.
            (Err(Error::Misuse(_) | Error::Fenced(_)), ..) => return None,
            (.., ExecutionStatus::NotSent) => PathFailure::NotSent,
            _ => PathFailure::NoResponse,
        };
        let is_unusable = table.fail((path, generation), namespace, status);
        let since = *self.since.get_or_insert_with(runtime::now);
        self.note(path, failure, execution, is_unusable);
        let age = runtime::elapsed(since);
        if table.hold_limit.is_some_and(|limit| age >= limit) {
            return None;
        }
        let next = match (PathDecision::of(failed.class, failure, self.sends), failure) {
            (PathDecision::Complete, PathFailure::Response(status)) if table.resend => {
                let retries = self.retries;
                match failed.retry.decide(&FailedResponse { opcode, status, retries, age }) {
                    Disposition::Complete => None,
                    Disposition::Retry(delay) | Disposition::RetryPath(delay) => {
                        self.retries += 1;
                        self.failed_on = None;
                        Some(delay)
                    }
                }
            }
            (PathDecision::Complete, _) => None,
            (_, PathFailure::NoResponse) if !table.resend => None,
            _ => Some(Duration::ZERO).filter(|_| self.failures <= RESENDS_MAX),
        };
        let (subsystem, error) = (&table.subsystem, result.as_ref().err());
        tracing::debug!(
            %subsystem, %namespace, path = path.0, ?opcode, ?status, ?error, ?next,
            "a command failed on a path"
        );
        next
    }

    fn note(
        &mut self,
        path: PathId,
        failure: PathFailure,
        execution: ExecutionStatus,
        is_unusable: bool,
    ) {
        self.may_be_executed |= execution == ExecutionStatus::Unknown;
        self.sends = self.sends.saturating_add(u8::from(failure == PathFailure::NoResponse));
        self.failures = self.failures.saturating_add(u8::from(!is_unusable));
        self.failed_on = (!is_unusable).then_some(path);
    }

    /// Knowledge of the execution of an operation that ended with this of its last part.
    pub(super) fn execution(&self, last: ExecutionStatus) -> ExecutionStatus {
        if self.may_be_executed { ExecutionStatus::Unknown } else { last }
    }
}
