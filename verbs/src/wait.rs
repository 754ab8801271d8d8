//! When whoever found no completion looks again, and when it may sleep.

use crate::{Completion, CompletionQueue, Error, Provider};

/// How to wait for completions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wait {
    /// Look again this many times, and then as [`Event`](Self::Event); a poll that finds nothing
    /// takes a fraction of a microsecond. A wake-up is paid only by whoever waits for long.
    Adaptive(u32),
    /// Sleep whenever there is nothing: no processor time, and a wake-up for each wait.
    Event,
    /// Look again, always: the least latency, and a processor used up.
    Poll,
}

/// Polls a completion queue in a [`Wait`] mode, and says when it is safe to sleep. It does not
/// sleep itself, so it serves threads and async runtimes alike.
///
/// ```no_run
/// use rustix::event::{PollFd, PollFlags, poll};
/// use verbs::{Completion, CompletionQueue, Found, Wait, Waiter};
///
/// # fn next(queue: &mut CompletionQueue) -> Result<(), Box<dyn std::error::Error>> {
/// let mut waiter = Waiter::new(Wait::Adaptive(1000));
/// let mut completions = [Completion::default(); 16];
/// let count = loop {
///     match waiter.poll(queue, &mut completions)? {
///         Found::Completions(count) => break count,
///         Found::Nothing => std::thread::yield_now(),
///         Found::Asleep => drop(poll(&mut [PollFd::new(queue, PollFlags::IN)], None)?),
///     }
/// };
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Waiter {
    mode: Wait,
    /// How often there was nothing, since there was something.
    empty: u32,
}

/// What a [`Waiter`] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    /// Nothing; sleep until the queue's file descriptor is readable. Whatever completes from now
    /// on makes it so. An event may be of a completion that was found before: then there is
    /// nothing once more.
    Asleep,
    /// So many completions.
    Completions(usize),
    /// Nothing; look again, and do not sleep: nothing would wake you.
    Nothing,
}

impl Waiter {
    /// A waiter in `mode`. Where there is a single processor, spinning keeps whoever completes
    /// the work from running: use [`Wait::Event`] there.
    pub const fn new(mode: Wait) -> Self {
        Self { mode, empty: 0 }
    }

    /// Moves completions into `out`, oldest first, or says how to go on without.
    ///
    /// # Errors
    ///
    /// As [`CompletionQueue::poll_or_arm`].
    #[inline]
    pub fn poll<P: Provider>(
        &mut self,
        queue: &mut CompletionQueue<P>,
        out: &mut [Completion],
    ) -> Result<Found, Error> {
        let sleeps = match self.mode {
            Wait::Adaptive(spins) => self.empty >= spins,
            Wait::Event => true,
            Wait::Poll => false,
        };
        let count = if sleeps { queue.poll_or_arm(out)? } else { queue.poll(out)? };
        Ok(match (count, sleeps) {
            (0, true) => Found::Asleep,
            (0, false) => {
                self.empty = self.empty.saturating_add(1);
                Found::Nothing
            }
            (count, _) => {
                self.empty = 0;
                Found::Completions(count)
            }
        })
    }
}
