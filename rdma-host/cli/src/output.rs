//! Standard output and standard error of all commands.
//!
//! What comes from outside (a target, a file, an argument) may hold characters that a terminal does
//! not show as themselves. All text passes [`printable`], which shows them by their numbers.
//!
//! A reader that has closed its pipe is no failure: the command ends without a message. Anything
//! else that keeps a result from being written, as a full disk, is a failure.

use std::{
    borrow::Cow,
    fmt::{Display, Write as _},
    io::{self, ErrorKind, Write},
};

use rdma_host::wire::is_unprintable;
use serde::Serialize;

use crate::{failure::Failure, secret_text, terminal};

/// Prints a result, or nothing if the reader has closed the pipe. Lines that are longer than the
/// terminal is wide are broken at spaces.
pub(crate) fn print_text(text: &str) -> Result<(), Failure> {
    try_print_text(text).map(drop)
}

/// Prints a part of a result as [`print_text`] does; returns false as [`try_print`] does.
pub(crate) fn try_print_text(text: &str) -> Result<bool, Failure> {
    try_print(&terminal::fit(text, io::stdout()))
}

/// Prints a result as JSON, as [`print_text`] does.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(value).map_err(Failure::failed)?;
    text.push('\n');
    try_print(&text).map(drop)
}

/// Prints a result that is no text, as it is.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    check(output.write_all(bytes).and_then(|()| output.flush())).map(drop)
}

/// Prints a part of a result; returns false if the reader has closed the pipe, so that the rest
/// need not be made.
pub(crate) fn try_print(text: &str) -> Result<bool, Failure> {
    let mut output = io::stdout().lock();
    let text = printable(text, &LAYOUT);
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

/// Prints a line on standard error, without words that may be secrets. There is no place to report
/// that this failed.
pub(crate) fn print_message(message: impl Display) {
    let message = message_text(message);
    let _ = writeln!(io::stderr(), "{}", terminal::fit(&message, io::stderr()));
}

/// Line of a message, without words that may be secrets.
pub(crate) fn message_text(message: impl Display) -> String {
    printable(&secret_text::without_secrets(&message.to_string()), &[]).into_owned()
}

/// Prints a warning on standard error, as [`print_message`] does.
pub(crate) fn print_warning(text: &dyn Display) {
    print_message(format_args!("nvmf: warning: {text}"));
}

/// Standard error for the log, which is written one event a call.
pub(crate) struct LogOutput;

impl Write for LogOutput {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        io::stderr().write_all(printable(&text, &LAYOUT).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Control characters of text in several lines and columns.
const LAYOUT: [char; 2] = ['\n', '\t'];

/// Text with unprintable characters, apart from those of `layout`, as the escapes of JSON: in a
/// string of JSON they mean the same, and in text they can be read.
pub(crate) fn printable<'a>(text: &'a str, layout: &[char]) -> Cow<'a, str> {
    let is_escaped = |c: char| is_unprintable(c) && !layout.contains(&c);
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_escaped(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unprintable_characters_are_shown_by_their_numbers() {
        assert_eq!(printable("a\tb\nü", &LAYOUT), "a\tb\nü");
        assert_eq!(printable("a\nb\u{1b}[2J", &[]), "a\\u000ab\\u001b[2J");
        let text = "\u{202e}x\u{200b}\u{7f}\u{e0041}";
        let shown = printable(text, &LAYOUT);
        assert_eq!(shown, "\\u202ex\\u200b\\u007f\\udb40\\udc41");
        // In JSON the value is unchanged.
        let json = serde_json::to_string(text).unwrap();
        let read: String = serde_json::from_str(&printable(&json, &LAYOUT)).unwrap();
        assert_eq!(read, text);
    }
}
