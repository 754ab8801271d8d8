//! Helper programs: run one, and say in one line why it failed.

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use crate::{Error, Result};

/// Runs to the end and returns standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let done = finish(command)?;
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Runs to the end; the output is of interest only when it fails.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    finish(command).map(drop)
}

/// The command line as one would type it.
pub(crate) fn words(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}

/// A system program, found even where the search path is a user's, or empty as in a young guest.
pub(crate) fn system(program: &str) -> Command {
    find(program).map_or_else(|| Command::new(program), Command::new)
}

/// Tells if there is a program of this name on the search path or in the usual system folders.
pub(crate) fn exists(program: &str) -> bool {
    find(program).is_some()
}

/// The file of a program of this name, on the search path or in the usual system folders.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    let folders = std::env::split_paths(&path).chain(system);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn finish(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null());
    let done = command
        .output()
        .map_err(|error| Error::Helper { command: words(command), reason: error.to_string() })?;
    if done.status.success() { Ok(done) } else { Err(failure(command, &done)) }
}

fn failure(command: &Command, done: &Output) -> Error {
    let text = String::from_utf8_lossy(&done.stderr);
    // apt names the cause first, and in the end only that something failed.
    let apt = text.lines().find_map(|line| line.strip_prefix("E: "));
    let line = apt.or_else(|| text.lines().rev().find(|line| !line.trim().is_empty()));
    let reason = line.map_or_else(|| done.status.to_string(), |line| line.trim().to_owned());
    Error::Helper { command: words(command), reason }
}
