//! Arguments and errors of the examples.

use std::{error::Error, process::ExitCode};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Returns the arguments, whose number is N.
pub(crate) fn arguments<const N: usize>(usage: &str) -> Result<[String; N]> {
    std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| usage.into())
}

/// Prints an error in one line, and returns the exit status.
pub(crate) fn exit(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
