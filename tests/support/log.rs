//! Events of `tracing`, as text.

use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::{filter::LevelFilter, util::SubscriberInitExt};

/// Log for a test to read.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Text that a subscriber of this thread writes while the test runs.
///
/// # Panics
///
/// When the events are not UTF-8.
#[must_use]
pub fn log_of(level: LevelFilter, test: impl FnOnce()) -> String {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_max_level(level);
    let guard = subscriber.with_writer(move || writer.clone()).set_default();
    test();
    drop(guard);
    let text = log.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    String::from_utf8(text).expect("UTF-8")
}
