//! Commands that the `soft-roce` program calls itself with: reaper, kernel, first process, session
//! leader, and the guest's `modprobe`. They are not part of its help.

use std::{
    convert::Infallible,
    ffi::OsString,
    fmt::Display,
    path::{Path, PathBuf},
    process::{ExitCode, Termination},
};

use crate::{init, machine::boot, machine::modprobe, run::launch, run::reaper};

/// A command that only the program itself gives.
#[derive(Debug)]
pub struct InternalCommand {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Becomes the kernel.
    Launch { folder: PathBuf, cpu: Option<usize> },
    /// Starts a kernel and removes what is left of it.
    Reaper { folder: PathBuf },
    /// Runs as the guest's first process.
    Init { folder: PathBuf },
    /// Brings a QEMU guest to its root.
    Boot { folder: PathBuf },
    /// Says that a kernel has booted.
    Probe,
    /// Loads modules of a guest's kernel, or answers for those that are built in.
    Modprobe { words: Vec<OsString> },
    /// Gives a program a terminal.
    Session { terminal: PathBuf, program: Vec<OsString> },
}

impl InternalCommand {
    /// The internal command of a command line, if it is one.
    #[must_use]
    pub fn of(mut words: impl Iterator<Item = OsString>) -> Option<Self> {
        let own = words.next()?;
        if Path::new(&own).file_name() == Some(modprobe::NAME.as_ref()) {
            return Some(Self { kind: Kind::Modprobe { words: words.collect() } });
        }
        let name = words.next()?;
        let mut path = || words.next().map(PathBuf::from);
        let kind = match name.to_str()? {
            "launch" => {
                let folder = path()?;
                let cpu = words.next().and_then(|cpu| cpu.to_str()?.parse().ok());
                Kind::Launch { folder, cpu }
            }
            "reaper" => Kind::Reaper { folder: path()? },
            "boot" => Kind::Boot { folder: path()? },
            "probe" => Kind::Probe,
            "init" => Kind::Init { folder: path()? },
            "session" => Kind::Session { terminal: path()?, program: words.collect() },
            _ => return None,
        };
        Some(Self { kind })
    }

    /// Runs the command to its end.
    #[must_use]
    pub fn run(self) -> ExitCode {
        match self.kind {
            Kind::Launch { folder, cpu } => ending(launch::execute(&folder, cpu)),
            Kind::Reaper { folder } => match reaper::run(&folder) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failure(&error, 1),
            },
            Kind::Boot { folder } => ending(boot::run(&folder)),
            Kind::Probe => ending(boot::answer_probe()),
            Kind::Modprobe { words } => modprobe::run(words.into_iter()),
            Kind::Init { folder } => ending(init::run(&folder)),
            Kind::Session { terminal, program } => {
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
