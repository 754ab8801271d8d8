//! The user's terminal during an interactive session.

use std::{
    fs::File,
    io::{self, IsTerminal},
    os::{
        fd::AsFd,
        unix::{ffi::OsStringExt, fs::OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::OFlags,
    termios::{OptionalActions, Termios, tcgetattr, tcsetattr, ttyname},
};

/// The terminal that is our standard input, if it is one.
pub(crate) fn of_input() -> Option<PathBuf> {
    let input = io::stdin();
    let name = input.is_terminal().then(|| ttyname(input, Vec::new()))?;
    Some(std::ffi::OsString::from_vec(name.ok()?.into_bytes()).into())
}

/// Takes every cleverness from a terminal: bytes pass as they are.
pub(crate) fn make_raw(terminal: impl AsFd) -> io::Result<()> {
    let mut settings = tcgetattr(&terminal)?;
    settings.make_raw();
    Ok(tcsetattr(&terminal, OptionalActions::Now, &settings)?)
}

/// A terminal as it was; restored when dropped.
///
/// The reaper holds it, so that the terminal is whole again even when the caller is killed.
pub(crate) struct Saved {
    terminal: File,
    settings: Termios,
}

impl Saved {
    /// Remembers the terminal's settings; none when they cannot be read.
    pub(crate) fn of(terminal: &Path) -> Option<Self> {
        let flags = i32::try_from(OFlags::NOCTTY.bits()).expect("the flag is small");
        let opened = File::options().read(true).write(true).custom_flags(flags).open(terminal);
        let terminal = opened.ok()?;
        let settings = tcgetattr(&terminal).ok()?;
        Some(Self { terminal, settings })
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.settings);
    }
}
