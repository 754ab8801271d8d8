//! Helper programs: run one, and say in one line why it failed.

use std::process::{Command, Output, Stdio};

use super::{Error, Result};

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

/// Whether a program of this name is on the search path or in the usual system folders.
pub(crate) fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(Into::into);
    std::env::split_paths(&path).chain(system).any(|folder| folder.join(program).is_file())
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
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    let reason = last.map_or_else(|| done.status.to_string(), |line| line.trim().to_owned());
    Error::Helper { command: words(command), reason }
}
