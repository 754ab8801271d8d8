//! Signals that end a command which stays connected.

use std::sync::{Arc, atomic::AtomicBool};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// SIGINT and SIGTERM, caught from [`catch`](Self::catch) to the end of the program: a signal that
/// arrives while the program does something else is found by the next [`received`](Self::received).
/// A second signal ends the program at once, with status 128 + N, also where the first can't be
/// handled, for instance in a write to a pipe that is full.
///
/// Made once, before the command connects; all other code is passed a reference.
/// SIGHUP keeps its default action, so that `nohup` works.
pub(crate) struct ShutdownSignal {
    interrupt: Signal,
    terminate: Signal,
}

impl ShutdownSignal {
    /// Installs the handlers. Must be called in a runtime with I/O enabled.
    pub(crate) fn catch() -> Result<Self, Failure> {
        let failed = |error| Failure::failed(format!("cannot catch signals: {error}"));
        let seen = Arc::new(AtomicBool::new(false));
        for number in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag down, and raises it.
            flag::register_conditional_shutdown(number, 128 + number, Arc::clone(&seen))
                .and_then(|_| flag::register(number, Arc::clone(&seen)))
                .map_err(failed)?;
        }
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    /// Waits for the first signal; returns at once if one has arrived since [`catch`](Self::catch).
    pub(crate) async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    /// Nothing else in this program of tests raises a signal: a second one would end it.
    #[tokio::test]
    async fn a_signal_that_arrives_before_the_wait_is_not_lost() {
        let mut shutdown = ShutdownSignal::catch().unwrap();
        let nothing = tokio::time::timeout(Duration::from_millis(1), shutdown.received()).await;
        assert!(nothing.is_err(), "no signal was sent");
        kill_process(getpid(), Signal::TERM).unwrap();
        tokio::time::timeout(Duration::from_secs(30), shutdown.received()).await.expect("it came");
    }
}
