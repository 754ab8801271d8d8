//! Width of help.

use std::io;

use rustix::{
    fd::{AsFd, BorrowedFd},
    termios,
};

/// Least width that is believed.
pub const WIDTH_MIN: u16 = 40;
/// Width of help on a wider terminal, or on none.
const HELP_WIDTH: u16 = 100;

/// Width of help in columns, for [`clap::Command::term_width`]: that of the terminal, or of
/// `COLUMNS` if there is none; 40 to 100.
#[must_use]
pub fn help_width() -> usize {
    let of = |stream: BorrowedFd<'_>| termios::tcgetwinsize(stream).ok().map(|size| size.ws_col);
    let terminal = [io::stdout().as_fd(), io::stderr().as_fd(), io::stdin().as_fd()]
        .into_iter()
        .find_map(of)
        .filter(|&columns| columns > 0);
    help_width_of(terminal, std::env::var("COLUMNS").ok().as_deref())
}

fn help_width_of(terminal: Option<u16>, columns: Option<&str>) -> usize {
    let columns = || columns?.trim().parse().ok().filter(|&columns| columns > 0);
    terminal.or_else(columns).unwrap_or(HELP_WIDTH).clamp(WIDTH_MIN, HELP_WIDTH).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_has_a_width_that_can_be_read() {
        for (terminal, columns, width) in [
            (None, None, 100),
            (None, Some("1"), 40),
            (None, Some("0"), 100),
            (None, Some("-5"), 100),
            (None, Some("72"), 72),
            (None, Some("65535"), 100),
            (None, Some("99999999999"), 100),
            (None, Some("wide"), 100),
            (Some(80), Some("1"), 80),
            (Some(1), None, 40),
            (Some(300), None, 100),
        ] {
            assert_eq!(help_width_of(terminal, columns), width, "{terminal:?} {columns:?}");
        }
    }
}
