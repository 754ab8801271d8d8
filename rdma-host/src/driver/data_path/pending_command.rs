//! Pending commands of a poller.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::driver::{
    data_path::command::{Command, ExecutionStatus, Submission},
    runtime,
};

/// Command that waits for room in a queue, for a connection, or for the time of its retry.
pub(crate) struct PendingCommand {
    pub(crate) command: Command,
    /// Clock reading of the first submission.
    pub(crate) started: u64,
    /// Number of times that it was sent, on connections that were lost, or with a status that
    /// allows a retry.
    pub(crate) sends: u8,
    /// Time since which it waits behind the write fence; `None` if it never did.
    pub(crate) fenced_since: Option<Instant>,
    /// True if it changes blocks, and was sent without a response: it may have been executed.
    pub(crate) is_without_response: bool,
    /// True if the owner of the poller sends it again.
    pub(crate) is_repeat: bool,
}

impl PendingCommand {
    /// Command that was sent `sends` times, for the first time at the clock reading `started`.
    pub(crate) fn new(command: Command, started: u64, sends: u8) -> Self {
        let (is_without_response, is_repeat) = (false, false);
        Self { command, started, sends, fenced_since: None, is_without_response, is_repeat }
    }

    pub(crate) fn execution(&self) -> ExecutionStatus {
        ExecutionStatus::without_response(self.sends)
    }

    pub(crate) fn submission(&self) -> Submission {
        if self.is_repeat {
            return Submission::Repeat;
        }
        Submission::First { sqe: self.command.sqe, started: self.started }
    }
}

/// Pending commands of one poller: at most as many as its last queues had room for.
#[derive(Default)]
pub(crate) struct PendingCommands {
    /// Commands to be sent as soon as possible, first in, first out.
    ready: VecDeque<PendingCommand>,
    /// Commands to be sent at a later time, by that.
    delayed: VecDeque<(Instant, PendingCommand)>,
    /// Writes behind the fence.
    fenced: VecDeque<PendingCommand>,
    /// Number of all, which each poll reads.
    len: usize,
    capacity: usize,
}

impl PendingCommands {
    /// Sets the capacity. Memory is allocated when commands are added, which is rare.
    pub(crate) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity.max(self.len);
    }

    pub(crate) fn push(&mut self, command: PendingCommand) {
        debug_assert!(self.len < self.capacity, "no more than there was room for");
        self.len += 1;
        self.ready.push_back(command);
    }

    /// Adds a command that is to be sent before all others.
    pub(crate) fn push_front(&mut self, command: PendingCommand) {
        self.len += 1;
        self.ready.push_front(command);
    }

    /// Adds a command that is to be sent after a delay.
    pub(crate) fn push_delayed(&mut self, command: PendingCommand, delay: Duration) {
        debug_assert!(self.len < self.capacity, "no more than there was room for");
        self.len += 1;
        let due = runtime::now() + delay;
        let at = self.delayed.partition_point(|&(other, _)| other <= due);
        self.delayed.insert(at, (due, command));
    }

    /// Adds a command that waits behind the fence.
    pub(crate) fn push_fenced(&mut self, command: PendingCommand) {
        self.len += 1;
        self.fenced.push_back(command);
    }

    /// Takes the oldest command: a ready, delayed or fenced one.
    pub(crate) fn pop(&mut self) -> Option<PendingCommand> {
        self.pop_ready().or_else(|| {
            let delayed = self.delayed.pop_front().map(|(_, command)| command);
            let command = delayed.or_else(|| self.fenced.pop_front())?;
            self.len -= 1;
            Some(command)
        })
    }

    /// Takes a command that has waited behind the fence for longer than `limit`.
    pub(crate) fn pop_fenced(&mut self, limit: Duration) -> Option<PendingCommand> {
        let is_overdue = |command: &PendingCommand| {
            command.fenced_since.is_some_and(|since| runtime::elapsed(since) > limit)
        };
        let index = self.fenced.iter().position(is_overdue)?;
        self.len -= 1;
        self.fenced.remove(index)
    }

    /// Makes the commands behind the fence ready.
    pub(crate) fn release_fenced(&mut self) {
        self.ready.append(&mut self.fenced);
    }

    /// Returns true if commands wait behind the fence.
    pub(crate) fn has_fenced(&self) -> bool {
        !self.fenced.is_empty()
    }

    /// Takes the oldest command that may be sent now.
    pub(crate) fn pop_ready(&mut self) -> Option<PendingCommand> {
        let command = self.ready.pop_front()?;
        self.len -= 1;
        Some(command)
    }

    /// Lets the delayed commands whose time has come be sent.
    pub(crate) fn release_due(&mut self) {
        if self.delayed.is_empty() {
            return;
        }
        let now = runtime::now();
        while let Some((_, command)) = self.delayed.pop_front_if(|&mut (due, _)| due <= now) {
            self.ready.push_back(command);
        }
    }

    /// Time at which the next delayed command is to be sent.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.delayed.front().map(|&(due, _)| due)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Number of commands that can be added.
    pub(crate) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::NamespaceId;

    #[test]
    fn ready_commands_are_taken_first_in_first_out() {
        let mut pending = PendingCommands::default();
        pending.set_capacity(3);
        for user in 1..=3 {
            let command = Command::flush(NamespaceId(1)).with_user(user);
            pending.push(PendingCommand::new(command, 0, 0));
        }
        let taken = std::iter::from_fn(|| pending.pop_ready());
        assert_eq!(taken.map(|taken| taken.command.user).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(pending.is_empty());
    }
}
