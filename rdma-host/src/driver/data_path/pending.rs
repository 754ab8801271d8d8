//! Pending commands of a poller.

use std::collections::VecDeque;

use crate::driver::data_path::command::{Command, ExecutionStatus};

/// Command that waits for room in a queue, or for a connection.
pub(crate) struct PendingCommand {
    pub(crate) command: Command,
    /// Clock reading of the first submission.
    pub(crate) started: u64,
    /// Number of times that it was sent, on connections that were lost.
    pub(crate) sends: u8,
}

impl PendingCommand {
    pub(crate) fn execution(&self) -> ExecutionStatus {
        ExecutionStatus::without_response(self.sends)
    }
}

/// Pending commands of one poller, first in, first out: at most as many as its last queues had
/// room for.
#[derive(Default)]
pub(crate) struct PendingCommands {
    commands: VecDeque<PendingCommand>,
    capacity: usize,
}

impl PendingCommands {
    /// Sets the capacity. Memory is allocated when commands are added, which is rare.
    pub(crate) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity.max(self.commands.len());
    }

    pub(crate) fn push(&mut self, command: PendingCommand) {
        debug_assert!(self.commands.len() < self.capacity, "no more than there was room for");
        self.commands.push_back(command);
    }

    pub(crate) fn pop(&mut self) -> Option<PendingCommand> {
        self.commands.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.commands.len()
    }

    /// Number of commands that can be added.
    pub(crate) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.commands.len())
    }
}
