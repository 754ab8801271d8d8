//! Tasks and threads.

use std::{io, panic, pin::Pin, thread};

use tokio::{sync::oneshot, task::JoinHandle};

use super::current;
use crate::error::Error;

/// Task without an output.
pub type BoxTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Output of a task or a call, to be awaited. Dropping it detaches the task.
pub(crate) enum Task<T> {
    Tokio(JoinHandle<T>),
    Entered(oneshot::Receiver<T>),
}

impl<T> Task<T> {
    /// Waits for the output; a panic of the task goes on here.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the runtime was shut down before the task ended.
    pub(crate) async fn output(self) -> Result<T, Error> {
        match self {
            Self::Tokio(handle) => handle.await.map_err(|error| match error.try_into_panic() {
                Ok(payload) => panic::resume_unwind(payload),
                Err(_) => Error::Closed,
            }),
            Self::Entered(output) => output.await.map_err(|_| Error::Closed),
        }
    }
}

/// Runs a future as a task of the current runtime.
pub(crate) fn spawn<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> Task<T> {
    let Some(runtime) = current() else { return Task::Tokio(tokio::spawn(future)) };
    let (sender, output) = oneshot::channel();
    // Futures of the driver are large, and each move copies one.
    let future = Box::pin(future);
    // Without a receiver the task is detached.
    runtime.spawn(Box::pin(async move { drop(sender.send(future.await)) }));
    Task::Entered(output)
}

/// Makes a call that takes long, on another thread.
pub(crate) fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Task<T> {
    match current() {
        Some(_) => spawn(async move { call() }),
        None => Task::Tokio(tokio::task::spawn_blocking(call)),
    }
}

/// Makes a call that may block for minutes, on a thread of its own.
pub(crate) fn start_thread(
    name: &str,
    call: impl FnOnce() + Send + 'static,
) -> Result<(), io::Error> {
    match current() {
        Some(_) => drop(spawn(async move { call() })),
        None => drop(thread::Builder::new().name(name.to_owned()).spawn(call)?),
    }
    Ok(())
}
