//! What the `soft-roce` program also is: reaper, kernel, first process, session leader.
//!
//! These are called by the program itself only, so they have no place in its help.

use std::{
    convert::Infallible,
    ffi::OsString,
    fmt::Display,
    path::{Path, PathBuf},
    process::{ExitCode, Termination},
};

use crate::{init, machine::boot, machine::modprobe, run::launch, run::reaper};

/// A part that the program plays behind the scenes.
#[derive(Debug)]
pub struct InternalCommand {
    part: Part,
}

#[derive(Debug)]
enum Part {
    /// Becomes the kernel.
    Launch { folder: PathBuf, cpu: Option<usize> },
    /// Watches over one.
    Reaper { folder: PathBuf },
    /// Is the guest's first process.
    Init { folder: PathBuf },
    /// Brings a QEMU guest to its root.
    Boot { folder: PathBuf },
    /// Says that a kernel has booted.
    Probe,
    /// Loads modules of a QEMU guest's kernel.
    Modprobe { words: Vec<OsString> },
    /// Gives a program a terminal.
    Session { terminal: PathBuf, program: Vec<OsString> },
}

impl InternalCommand {
    /// The part that this command line gives, if it gives one.
    #[must_use]
    pub fn of(mut words: impl Iterator<Item = OsString>) -> Option<Self> {
        let own = words.next()?;
        if Path::new(&own).file_name() == Some(modprobe::NAME.as_ref()) {
            return Some(Self { part: Part::Modprobe { words: words.collect() } });
        }
        let name = words.next()?;
        let mut path = || words.next().map(PathBuf::from);
        let part = match name.to_str()? {
            "launch" => {
                let folder = path()?;
                let cpu = words.next().and_then(|cpu| cpu.to_str()?.parse().ok());
                Part::Launch { folder, cpu }
            }
            "reaper" => Part::Reaper { folder: path()? },
            "boot" => Part::Boot { folder: path()? },
            "probe" => Part::Probe,
            "init" => Part::Init { folder: path()? },
            "session" => Part::Session { terminal: path()?, program: words.collect() },
            _ => return None,
        };
        Some(Self { part })
    }

    /// Plays it to the end.
    #[must_use]
    pub fn play(self) -> ExitCode {
        match self.part {
            Part::Launch { folder, cpu } => ending(launch::execute(&folder, cpu)),
            Part::Reaper { folder } => match reaper::run(&folder) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failure(&error, 1),
            },
            Part::Boot { folder } => ending(boot::run(&folder)),
            Part::Probe => ending(boot::answer_probe()),
            Part::Modprobe { words } => modprobe::run(words.into_iter()),
            Part::Init { folder } => ending(init::run(&folder)),
            Part::Session { terminal, program } => {
                failure(&init::enter_session(&terminal, &program), 127)
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
