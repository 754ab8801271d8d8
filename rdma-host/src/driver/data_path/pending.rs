//! Commands that wait for a connection.

use std::collections::VecDeque;

use crate::driver::data_path::command::{Command, ExecutionStatus};

/// A command that waits.
pub(crate) struct PendingCommand {
    pub(crate) command: Command,
    /// When it was first submitted.
    pub(crate) started: u64,
    /// Whether it was sent on a connection that is lost since.
    pub(crate) execution: ExecutionStatus,
    /// How often it was sent.
    pub(crate) sends: u8,
}

/// The commands of one poller that wait, as many as it had room for when it was last connected.
#[derive(Default)]
pub(crate) struct PendingCommands {
    commands: VecDeque<PendingCommand>,
    capacity: usize,
}

impl PendingCommands {
    /// Lets so many wait. They take memory once they do: that is seldom.
    pub(crate) fn resize(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    pub(crate) fn push(&mut self, command: PendingCommand) {
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

    /// How many more may wait.
    pub(crate) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.commands.len())
    }
}
