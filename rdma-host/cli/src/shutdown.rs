//! Handlers of the signals that end a command early.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use signal_hook::{consts::SIGTERM, flag};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use crate::{failure::Failure, output, termination_signal::TerminationSignal};

/// SIGINT and SIGTERM, caught from [`catch`](Self::catch) to the end of the program: a signal that
/// arrives while the program does something else is found by the next [`received`](Self::received).
/// A second signal ends the program at once, with status 128 + N, also where the first can't be
/// handled, for instance in a write to a pipe that is full.
///
/// Caught once, before the command connects; all other code has a clone or a reference.
/// SIGHUP keeps its default action, so that `nohup` works.
#[derive(Clone)]
pub(crate) struct ShutdownSignal {
    /// Number of the first signal; 0 before.
    number: Arc<AtomicUsize>,
    arrived: Arc<Notify>,
}

/// Runtime of a command that a signal ends early.
pub(crate) struct InterruptibleRuntime {
    pub(crate) runtime: Runtime,
    pub(crate) shutdown: ShutdownSignal,
}

impl ShutdownSignal {
    /// Installs the handlers. Must be called in a runtime with I/O enabled, which then lives as
    /// long as the program.
    pub(crate) fn catch() -> Result<Self, Failure> {
        let failed = |error| Failure::failed(format!("cannot catch signals: {error}"));
        let seen = Arc::new(AtomicBool::new(false));
        let number = Arc::new(AtomicUsize::new(0));
        for signal in [TerminationSignal::Interrupt, TerminationSignal::Terminate] {
            let signal = signal.number();
            let value = usize::try_from(signal).expect("signal numbers are positive");
            // In this order: the first signal finds the flag down, and raises it.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&seen))
                .and_then(|_| flag::register(signal, Arc::clone(&seen)))
                .and_then(|_| flag::register_usize(signal, Arc::clone(&number), value))
                .map_err(failed)?;
        }
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let arrived = Arc::new(Notify::new());
        let notify = Arc::clone(&arrived);
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            notify.notify_waiters();
        });
        Ok(Self { number, arrived })
    }

    /// First signal since [`catch`](Self::catch), if there was one. Cheap enough for each turn of a
    /// polling loop.
    #[inline]
    pub(crate) fn get(&self) -> Option<TerminationSignal> {
        match self.number.load(Ordering::Relaxed) {
            0 => None,
            number if number == SIGTERM as usize => Some(TerminationSignal::Terminate),
            _ => Some(TerminationSignal::Interrupt),
        }
    }

    /// Waits for the first signal; returns at once if one has arrived since [`catch`](Self::catch).
    pub(crate) async fn received(&self) -> TerminationSignal {
        loop {
            let arrived = self.arrived.notified();
            if let Some(signal) = self.get() {
                return signal;
            }
            arrived.await;
        }
    }
}

impl InterruptibleRuntime {
    /// Starts the runtime and catches signals from here on.
    pub(crate) fn new() -> Result<Self, Failure> {
        let runtime = runtime()?;
        let shutdown = {
            let _context = runtime.enter();
            ShutdownSignal::catch()?
        };
        Ok(Self { runtime, shutdown })
    }

    /// Runs a future to its end, or until a signal arrives.
    pub(crate) fn run<T, E: Into<Failure>>(
        &self,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        self.runtime.block_on(async {
            tokio::select! {
                output = future => output.map_err(Into::into),
                signal = self.shutdown.received() => Err(Failure::interrupted(signal)),
            }
        })
    }
}

/// Runtime for the control plane and the async API.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start worker threads: {error}")))
}

/// Says that a signal ended a command which stays connected until then: that is no failure.
pub(crate) fn print_end(signal: TerminationSignal) {
    output::print_message(format_args!("nvmf: ended by {signal}"));
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    /// Nothing else in this program of tests raises a signal: a second one would end it.
    #[tokio::test]
    async fn a_signal_that_arrives_before_the_wait_is_not_lost() {
        let shutdown = ShutdownSignal::catch().unwrap();
        let nothing = tokio::time::timeout(Duration::from_millis(1), shutdown.received()).await;
        assert!(nothing.is_err() && shutdown.get().is_none(), "no signal was sent");
        kill_process(getpid(), Signal::TERM).unwrap();
        // The signal may be delivered to another thread, which has to run first.
        let deadline = Instant::now() + Duration::from_secs(30);
        while shutdown.get().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(shutdown.get(), Some(TerminationSignal::Terminate));
        let received = tokio::time::timeout(Duration::from_secs(30), shutdown.received()).await;
        assert_eq!(received.expect("it came"), TerminationSignal::Terminate);
    }
}
