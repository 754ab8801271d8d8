//! The program as a command: arguments, environment, folder and standard streams.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::{
    fs::Mode,
    process::{setsid, umask},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use super::stdio_relay::{StdioRelay, Stream};
use crate::{
    deadline_factor,
    machine::modprobe,
    run::device::{ADDRESS, Device, SECOND_ADDRESS},
    run::spec::{GuestSpec, StdioSpec},
    run::terminal::make_raw,
};

/// Prepares the program as a command, and the relay for its standard streams.
pub(super) fn prepare(spec: &GuestSpec) -> io::Result<(Command, StdioRelay)> {
    umask(Mode::from_raw_mode(spec.umask));
    if spec.interactive {
        return interactive(spec);
    }
    let mut stdio_relay = StdioRelay::default();
    let mut command =
        Command::new(spec.program.first().map_or(OsStr::new(""), OsString::as_os_str));
    command.args(spec.program.iter().skip(1));
    match spec.input {
        StdioSpec::Null => drop(command.stdin(Stdio::null())),
        StdioSpec::Pipe | StdioSpec::Terminal => {
            let (reader, writer) = io::pipe()?;
            command.stdin(reader);
            stdio_relay.input = Some(File::from(OwnedFd::from(writer)));
        }
    }
    let mut ends = Ends { spec, stdio_relay: &mut stdio_relay, terminal: None };
    let output = ends.open(spec.output, Stream::Output)?;
    let joined = spec.error_joins_output || ends.is_same_terminal();
    let error = match &output {
        Some(output) if joined => Some(output.try_clone()?),
        _ => ends.open(spec.error, Stream::Error)?,
    };
    command.stdout(output.map_or_else(Stdio::null, Stdio::from));
    command.stderr(error.map_or_else(Stdio::null, Stdio::from));
    surround(&mut command, spec);
    Ok((command, stdio_relay))
}

/// Starts a session on the terminal and executes the program in this process; returns only on
/// failure.
pub(crate) fn enter(terminal: &Path, program: &[OsString]) -> io::Error {
    let Some((name, args)) = program.split_first() else {
        return io::Error::new(io::ErrorKind::InvalidInput, "no program");
    };
    let opened = setsid().map_err(io::Error::from).and_then(|_| {
        // The first terminal that a session leader opens becomes the session's controlling one.
        let terminal = File::options().read(true).write(true).open(terminal)?;
        Ok((terminal.try_clone()?, terminal.try_clone()?, terminal))
    });
    match opened {
        Ok((input, output, error)) => {
            Command::new(name).args(args).stdin(input).stdout(output).stderr(error).exec()
        }
        Err(error) => error,
    }
}

fn interactive(spec: &GuestSpec) -> io::Result<(Command, StdioRelay)> {
    let (master, name) = open_terminal(spec)?;
    let stdio_relay = StdioRelay {
        input: Some(File::from(master.try_clone()?)),
        terminal: Some(master.try_clone()?),
        outputs: vec![(File::from(master), Stream::Output)],
    };
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("session").arg(name).args(&spec.program);
    surround(&mut command, spec);
    Ok((command, stdio_relay))
}

fn surround(command: &mut Command, spec: &GuestSpec) {
    command.env_clear().envs(spec.environment.iter().map(|(name, value)| (name, value)));
    let path = spec.environment.iter().rev().find(|(name, _)| name == "PATH");
    let mut path = path.map(|(_, path)| path.clone()).unwrap_or_default();
    if Path::new(modprobe::FOLDER).is_dir() {
        let mut first = OsString::from(modprobe::FOLDER);
        first.push(":");
        first.push(path);
        path = first;
    }
    // A user's search path lacks the folders of `ip` and `nvme`; in the guest, the user is root.
    path.push(if path.is_empty() { "" } else { ":" });
    path.push("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("PATH", path);
    command.env("SOFT_ROCE", "1");
    command.env("SOFT_ROCE_ADDRESS", ADDRESS).env("RDMA_TEST_ADDRESS", ADDRESS);
    command.env("SOFT_ROCE_DEVICE", spec.device.name());
    if spec.device == Device::Both {
        command.env("SOFT_ROCE_SIW_ADDRESS", SECOND_ADDRESS);
    }
    command.env(deadline_factor::VARIABLE, spec.deadline_factor.to_string());
    if let Some(target) = &spec.target {
        command.env("SOFT_ROCE_TARGET", target);
    }
    command.current_dir(&spec.folder);
}

fn open_terminal(spec: &GuestSpec) -> io::Result<(OwnedFd, PathBuf)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?.into_string().map_err(io::Error::other)?;
    resize(&master, spec.window)?;
    Ok((master, name.into()))
}

fn resize(terminal: impl AsFd, window: Option<(u16, u16)>) -> io::Result<()> {
    let Some((ws_row, ws_col)) = window else { return Ok(()) };
    Ok(tcsetwinsize(terminal, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 })?)
}

/// Opens the program's ends of its output streams.
struct Ends<'a> {
    spec: &'a GuestSpec,
    stdio_relay: &'a mut StdioRelay,
    terminal: Option<File>,
}

impl Ends<'_> {
    fn open(&mut self, spec: StdioSpec, stream: Stream) -> io::Result<Option<OwnedFd>> {
        match spec {
            StdioSpec::Null => Ok(None),
            StdioSpec::Pipe => {
                let (reader, writer) = io::pipe()?;
                self.stdio_relay.outputs.push((File::from(OwnedFd::from(reader)), stream));
                Ok(Some(writer.into()))
            }
            StdioSpec::Terminal => {
                let (master, name) = open_terminal(self.spec)?;
                let slave = File::options().read(true).write(true).open(name)?;
                // The user's own terminal does the translating.
                make_raw(&slave)?;
                self.terminal = Some(slave.try_clone()?);
                self.stdio_relay.outputs.push((File::from(master), stream));
                Ok(Some(slave.into()))
            }
        }
    }

    fn is_same_terminal(&self) -> bool {
        self.terminal.is_some() && self.spec.error == StdioSpec::Terminal
    }
}
