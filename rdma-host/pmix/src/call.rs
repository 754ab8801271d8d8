//! Call of the library in a thread of its own, with a deadline for its end.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use crate::error::Error;

/// Call whose result is waited for. Dropping it leaves the call alone: its thread ends when the
/// library returns.
#[must_use = "the result tells whether the call was made"]
pub struct Call<T> {
    name: &'static str,
    limit: Duration,
    deadline: Instant,
    result: Receiver<Result<T, Error>>,
}

impl<T: Send + 'static> Call<T> {
    pub(crate) fn start(
        name: &'static str,
        limit: Duration,
        call: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Self {
        let (sender, result) = sync_channel(1);
        let run = move || {
            // Nothing waits for the result of a call that came too late.
            let _ = sender.send(call());
        };
        // Without a thread, the sender is dropped, and the call has failed.
        let _ = thread::Builder::new().name("pmix".to_owned()).spawn(run);
        Self { name, limit, deadline: Instant::now() + limit, result }
    }
}

impl<T> Call<T> {
    /// Waits for the result for `time` at most; nothing if there is none by then.
    pub fn poll(&self, time: Duration) -> Option<Result<T, Error>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let timed_out = || Err(Error::TimedOut { call: self.name, limit: self.limit });
        match self.result.recv_timeout(time.min(left)) {
            Ok(result) => Some(result),
            Err(RecvTimeoutError::Timeout) => (left <= time).then(timed_out),
            Err(RecvTimeoutError::Disconnected) => Some(timed_out()),
        }
    }

    /// Waits for the result until the deadline.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] if there is none by then, or the error of the library.
    pub fn wait(self) -> Result<T, Error> {
        loop {
            if let Some(result) = self.poll(self.limit) {
                return result;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_a_deadline() {
        let limit = Duration::from_millis(20);
        let timed_out = || Error::TimedOut { call: "PMIx_Fence", limit };
        let (keep, never) = sync_channel::<()>(1);
        let call = Call::start("PMIx_Fence", limit, move || {
            let _ = never.recv();
            Ok(7)
        });
        assert_eq!(call.poll(Duration::ZERO), None);
        assert_eq!(call.wait(), Err(timed_out()));
        drop(keep);
        let call = Call::start("PMIx_Fence", Duration::from_secs(60), || Ok(7));
        assert_eq!(call.wait(), Ok(7));
        let panics = Call::start("PMIx_Fence", limit, || -> Result<u8, Error> { panic!("a test") });
        assert_eq!(panics.wait(), Err(timed_out()));
    }
}
