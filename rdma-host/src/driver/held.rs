//! Commands that wait for a connection.

use std::collections::VecDeque;

use super::command::{Command, Execution};

/// A command that waits.
pub(super) struct HeldCommand {
    pub(super) command: Command,
    /// When it was first submitted.
    pub(super) started: u64,
    /// Whether it was sent on a connection that is lost since.
    pub(super) execution: Execution,
    /// How often it was sent.
    pub(super) sends: u8,
}

/// The commands of one poller that wait, as many as it had room for when it was last connected.
#[derive(Default)]
pub(super) struct Held {
    commands: VecDeque<HeldCommand>,
    capacity: usize,
}

impl Held {
    /// Lets so many wait. They take memory once they do: that is seldom.
    pub(super) fn resize(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    pub(super) fn push(&mut self, command: HeldCommand) {
        self.commands.push_back(command);
    }

    pub(super) fn pop(&mut self) -> Option<HeldCommand> {
        self.commands.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    /// How many more may wait.
    pub(super) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.commands.len())
    }
}
