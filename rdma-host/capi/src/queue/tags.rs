//! Numbers of commands in flight, and what the program is told of each.

use rdma_host::{
    CommandCompletion, ExecutionStatus,
    error::{Error, Rejected},
};

use crate::{
    error::{Class, number_of, set_last},
    layout::nvmf_completion,
};

/// Table of the program's commands in flight; the number of each is the tag of its commands.
pub(super) struct Tags {
    tags: Vec<Tag>,
    /// Number that is free, the first of a list; beyond the table if there is none.
    free: usize,
    /// Number of commands in flight.
    used: usize,
}

/// Command of the program, which may be several of the queue.
struct Tag {
    completion: nvmf_completion,
    /// Number of commands of the queue that have not completed.
    parts: u32,
    /// Next number that is free, while this one is.
    next_free: usize,
}

/// Number of no command, beyond any table.
const NONE: usize = usize::MAX;

impl Tags {
    pub(super) const fn new() -> Self {
        Self { tags: Vec::new(), free: NONE, used: 0 }
    }

    /// Returns true if no command is in flight.
    pub(super) fn is_unused(&self) -> bool {
        self.used == 0
    }

    /// Number for a command of one part.
    #[inline(always)] // of each command
    pub(super) fn take(&mut self, user: u64) -> u64 {
        let number = self.free;
        let Some(tag) = self.tags.get_mut(number) else { return self.add(user) };
        self.free = tag.next_free;
        tag.completion = nvmf_completion { user, ..SUCCESS };
        tag.parts = 1;
        self.used += 1;
        number as u64
    }

    #[cold]
    fn add(&mut self, user: u64) -> u64 {
        let number = self.tags.len();
        let completion = nvmf_completion { user, ..SUCCESS };
        self.tags.push(Tag { completion, parts: 1, next_free: NONE });
        self.used += 1;
        number as u64
    }

    /// Sets the number of the parts of a command, none of which has completed.
    pub(super) fn set_parts(&mut self, number: u64, parts: u32) {
        self.tags[index(number)].parts = parts;
    }

    /// Frees the number of a command that was not submitted.
    pub(super) fn give(&mut self, number: u64) {
        let number = index(number);
        self.tags[number].next_free = self.free;
        self.free = number;
        self.used -= 1;
    }

    /// Notes that a part of a command has succeeded; calls a function with the completion of the
    /// program's command if it was the last one.
    #[inline(always)] // of each command
    pub(super) fn complete(&mut self, number: u64, function: impl FnOnce(nvmf_completion)) {
        let number = index(number);
        let tag = &mut self.tags[number];
        tag.parts -= 1;
        if tag.parts == 0 {
            function(tag.completion);
            tag.next_free = self.free;
            self.free = number;
            self.used -= 1;
        }
    }

    /// Notes the failure that a completion tells.
    pub(super) fn fail_part(&mut self, done: &CommandCompletion) {
        match &done.outcome {
            Err(error) => self.fail(done.user, error, done.execution),
            Ok(response) => {
                let status = response.status();
                let error = Rejected::Command { command: "command", status }.into();
                self.fail(done.user, &error, done.execution);
                self.tags[index(done.user)].completion.status = status.0;
            }
        }
    }

    /// Notes the first failure of a command.
    pub(super) fn fail(&mut self, number: u64, error: &Error, execution: ExecutionStatus) {
        let (errno, class) = number_of(error);
        // An argument that was wrong would have been refused before.
        let (errno, class) = match error {
            Error::Rejected(_) => (libc::EIO, Class::Failed),
            _ => (errno, class),
        };
        set_last(class, &error.to_string());
        let completion = &mut self.tags[index(number)].completion;
        if completion.result == 0 {
            completion.result = -errno;
            completion.execution = match execution {
                ExecutionStatus::Responded => 0,
                ExecutionStatus::NotSent => 1,
                ExecutionStatus::Unknown => 2,
            };
        }
    }
}

/// Completion of a command that succeeded.
const SUCCESS: nvmf_completion =
    nvmf_completion { user: 0, result: 0, status: 0, execution: 0, reserved: 0 };

#[inline]
fn index(number: u64) -> usize {
    usize::try_from(number).expect("a number of this table")
}
