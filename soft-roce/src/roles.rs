//! What the `soft-roce` program also is: guard, kernel, first process, session leader.
//!
//! These are called by the program itself only, so they have no place in its help.

use std::{
    convert::Infallible,
    ffi::OsString,
    fmt::Display,
    path::PathBuf,
    process::{ExitCode, Termination},
};

use super::{guard, guest, launch};

/// A part that the program plays behind the scenes.
#[derive(Debug)]
pub struct Role {
    part: Part,
}

#[derive(Debug)]
enum Part {
    /// Becomes the kernel.
    Enter { folder: PathBuf, cpu: Option<usize> },
    /// Watches over one.
    Guard { folder: PathBuf },
    /// Is the guest's first process.
    Guest { folder: PathBuf },
    /// Gives a program a terminal.
    Session { terminal: PathBuf, program: Vec<OsString> },
}

impl Role {
    /// The part that this command line gives, if it gives one.
    #[must_use]
    pub fn of(mut words: impl Iterator<Item = OsString>) -> Option<Self> {
        let name = words.nth(1)?;
        let mut path = || words.next().map(PathBuf::from);
        let part = match name.to_str()? {
            "enter" => {
                let folder = path()?;
                let cpu = words.next().and_then(|cpu| cpu.to_str()?.parse().ok());
                Part::Enter { folder, cpu }
            }
            "guard" => Part::Guard { folder: path()? },
            "guest" => Part::Guest { folder: path()? },
            "session" => Part::Session { terminal: path()?, program: words.collect() },
            _ => return None,
        };
        Some(Self { part })
    }

    /// Plays it to the end.
    #[must_use]
    pub fn play(self) -> ExitCode {
        match self.part {
            Part::Enter { folder, cpu } => ending(launch::execute(&folder, cpu)),
            Part::Guard { folder } => match guard::stand(&folder) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failure(&error, 1),
            },
            Part::Guest { folder } => ending(guest::live(&folder)),
            Part::Session { terminal, program } => {
                failure(&guest::enter_session(&terminal, &program), 127)
            }
        }
    }
}

fn ending(outcome: Result<Infallible, impl Display>) -> ExitCode {
    match outcome {
        Ok(never) => never.report(),
        Err(error) => failure(&error, 1),
    }
}

fn failure(error: &dyn Display, status: u8) -> ExitCode {
    eprintln!("soft-roce: {error}");
    ExitCode::from(status)
}
