//! Fused Compare and Write: one command of the poller's owner, which a queue gets as two.

use verbs::{Buffer, Provider};

use super::Poller;
use crate::{
    driver::data_path::{
        command::{Command, CommandCompletion, Data, ExecutionStatus, Submission},
        queue::UnseenKind,
    },
    error::{Error, Misuse, TargetMisbehaved},
    wire::{Cqe, Opcode},
};

/// Pairs of commands in flight; the index of a pair, twice, is the tag of its Compare, and one more
/// that of its Write.
#[derive(Default)]
pub(super) struct FusedPairs(Vec<Option<FusedPair>>);

/// Pair of commands, with the completions that have come.
struct FusedPair {
    /// Tag of the owner.
    user: u64,
    submission: Submission,
    compare: Option<CommandCompletion>,
    write: Option<CommandCompletion>,
}

impl FusedPairs {
    /// Adds a pair; returns the tag of its Compare.
    fn add(&mut self, user: u64, submission: Submission) -> u64 {
        let pair = FusedPair { user, submission, compare: None, write: None };
        let free = self.0.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.0.push(None);
            self.0.len() - 1
        });
        self.0[index] = Some(pair);
        2 * index as u64
    }

    fn remove(&mut self, tag: u64) -> Option<FusedPair> {
        self.0[index(tag)].take()
    }

    /// Stores the completion of one command; returns that of the pair once it has both.
    fn complete(
        &mut self,
        completion: CommandCompletion,
    ) -> Option<(Submission, CommandCompletion)> {
        let slot = &mut self.0[index(completion.user)];
        let pair = slot.as_mut().expect("a pair is kept until both of its commands have completed");
        let half = match completion.user % 2 {
            0 => &mut pair.compare,
            _ => &mut pair.write,
        };
        *half = Some(completion);
        match slot.take() {
            Some(FusedPair { user, submission, compare: Some(compare), write: Some(write) }) => {
                Some((submission, join(user, compare, write)))
            }
            pair => {
                *slot = pair;
                None
            }
        }
    }
}

fn index(tag: u64) -> usize {
    usize::try_from(tag / 2).expect("tags are made of indices")
}

/// Completion of a pair. Where the blocks differed nothing was written, whatever became of the
/// Write.
fn join(user: u64, compare: CommandCompletion, write: CommandCompletion) -> CommandCompletion {
    let has_failed = |response: &Cqe| !response.status().is_success();
    let (outcome, execution) = match (compare.outcome, write.outcome) {
        (Ok(compare), Ok(write)) if has_failed(&compare) && !has_failed(&write) => {
            (Err(TargetMisbehaved::FusedWrite(compare.status()).into()), ExecutionStatus::Unknown)
        }
        (Ok(compare), _) if has_failed(&compare) => (Ok(compare), ExecutionStatus::Responded),
        (Ok(_), Ok(write)) => (Ok(write), ExecutionStatus::Responded),
        (Err(error), _) | (_, Err(error)) => {
            let both = [compare.execution, write.execution];
            let not_sent = both.iter().all(|&one| one == ExecutionStatus::NotSent);
            let execution =
                if not_sent { ExecutionStatus::NotSent } else { ExecutionStatus::Unknown };
            (Err(error), execution)
        }
    };
    CommandCompletion { user, outcome, data: unsplit(compare.data, write.data), execution }
}

fn unsplit(front: Option<Buffer>, back: Option<Buffer>) -> Option<Buffer> {
    let (mut front, back) = (front?, back?);
    front.unsplit(back).ok().map(|()| front)
}

impl<P: Provider> Poller<P> {
    /// Returns true for a fused operation whose queue has room for one of its two commands.
    pub(super) fn lacks_room_for(&self, command: &Command, index: usize) -> bool {
        let queue = &self.queues[index];
        command.sqe.is_fused() && queue.depth() >= 2 && !queue.has_room_for(2)
    }

    /// Queues both commands of a fused operation on a queue with room for them.
    #[cold]
    pub(super) fn submit_fused(
        &mut self,
        index: usize,
        command: &mut Command,
        submission: Submission,
        started: u64,
    ) -> Result<(), Error> {
        let queue = &mut self.queues[index];
        let opcode = command.sqe.opcode();
        let refused = |reason| Err(Misuse::Passthrough { opcode, reason }.into());
        if opcode != Opcode::COMPARE {
            return refused("of a fused operation the first command is submitted, for both");
        }
        if queue.depth() < 2 {
            return refused("a fused operation takes two entries of a queue");
        }
        let data = std::mem::replace(&mut command.data, Data::None);
        let Data::ToController(mut front) = data else {
            command.data = data;
            return refused("a fused operation has the data of both commands");
        };
        let back = front.split_off(front.len() / 2);
        let tag = self.fused.add(command.user, submission);
        let half = |sqe, data, user| Command { sqe, data: Data::ToController(data), user };
        let mut compare = half(command.sqe, front, tag);
        let mut write = half(command.sqe.fused_write(), back, tag + 1);
        if let Err(error) = queue.submit_unseen(UnseenKind::Fused, &mut compare, started) {
            self.fused.remove(tag);
            let (front, back) = (compare.data.into_buffer(), write.data.into_buffer());
            command.data = unsplit(front, back).map_or(Data::None, Data::ToController);
            return Err(error);
        }
        let second = queue.submit_unseen(UnseenKind::Fused, &mut write, started);
        self.note_submitted(index);
        match second {
            Ok(()) => self.note_submitted(index),
            Err(error) => {
                // The first must not go without it: the connection ends, which completes the first.
                self.complete_fused(CommandCompletion::unsent(error.clone(), write));
                // The poller keeps the error.
                let _ = self.lose(error);
            }
        }
        Ok(())
    }

    /// Stores the completion of a command that the owner does not see.
    #[cold]
    pub(super) fn complete_unseen(&mut self, kind: UnseenKind, completion: CommandCompletion) {
        match kind {
            UnseenKind::Fused => self.complete_fused(completion),
            UnseenKind::Internal => self.complete_internal(completion),
            UnseenKind::Repeat => self.store(Submission::Repeat, completion),
        }
    }

    /// Stores the completion of one command of a pair, and with the other's that of the pair.
    pub(super) fn complete_fused(&mut self, completion: CommandCompletion) {
        if let Some((submission, completion)) = self.fused.complete(completion) {
            self.store(submission, completion);
        }
    }
}
