//! Results of tasks.

use tokio::task::JoinError;

use crate::error::Error;

/// Output of a task that was joined; a panic of the task goes on here.
///
/// # Errors
///
/// [`Error::Closed`] if the runtime was shut down before the task ended.
pub(crate) fn output<T>(joined: Result<T, JoinError>) -> Result<T, Error> {
    joined.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Error::Closed,
    })
}
