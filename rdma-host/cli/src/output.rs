//! Standard output and standard error of all commands.
//!
//! A reader that has closed its pipe is no failure: the command ends without a message. Anything
//! else that keeps a result from being written, as a full disk, is a failure.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write},
};

use serde::Serialize;

use crate::failure::Failure;

/// Prints a result, or nothing if the reader has closed the pipe.
pub(crate) fn print_text(text: &str) -> Result<(), Failure> {
    try_print(text).map(drop)
}

/// Prints a result as JSON, as [`print_text`] does.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(Failure::failed)?;
    print_text(&format!("{text}\n"))
}

/// Prints a part of a result; returns false if the reader has closed the pipe, so that the rest
/// need not be made.
pub(crate) fn try_print(text: &str) -> Result<bool, Failure> {
    let mut output = io::stdout().lock();
    check(output.write_all(text.as_bytes()).and_then(|()| output.flush()))
}

/// Result of a write to standard output; false if the reader has closed the pipe.
pub(crate) fn check(written: io::Result<()>) -> Result<bool, Failure> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::failed(format!("standard output: {error}"))),
    }
}

/// Prints a line on standard error. There is no place to report that this failed.
pub(crate) fn print_message(message: impl Display) {
    let _ = writeln!(io::stderr(), "{message}");
}
