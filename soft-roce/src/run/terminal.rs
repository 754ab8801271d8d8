//! The user's terminal while the program has a terminal of its own.

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

/// Path of the terminal that is this process's standard input.
pub(crate) fn of_input() -> Option<PathBuf> {
    let input = io::stdin();
    let name = input.is_terminal().then(|| ttyname(input, Vec::new()))?;
    Some(std::ffi::OsString::from_vec(name.ok()?.into_bytes()).into())
}

/// Sets a terminal to raw mode: bytes pass unchanged.
pub(crate) fn make_raw(terminal: impl AsFd) -> io::Result<()> {
    let mut settings = tcgetattr(&terminal)?;
    settings.make_raw();
    Ok(tcsetattr(&terminal, OptionalActions::Now, &settings)?)
}

/// Settings of a terminal, restored when dropped.
///
/// The reaper holds them, so that they are restored even when the caller is killed.
pub(crate) struct SavedSettings {
    terminal: File,
    settings: Termios,
}

impl SavedSettings {
    /// Reads the terminal's settings; `None` when they cannot be read.
    pub(crate) fn of(terminal: &Path) -> Option<Self> {
        let flags = i32::try_from(OFlags::NOCTTY.bits()).expect("the flag is small");
        let opened = File::options().read(true).write(true).custom_flags(flags).open(terminal);
        let terminal = opened.ok()?;
        let settings = tcgetattr(&terminal).ok()?;
        Some(Self { terminal, settings })
    }
}

impl Drop for SavedSettings {
    fn drop(&mut self) {
        // The terminal may have been closed.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.settings);
    }
}
