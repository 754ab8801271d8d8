//! Process that serves a device: in the background, and so that it never waits for itself.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    io::{BufRead, BufReader, Read},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::{OsStrExt, OsStringExt},
            net::{SocketAddr, UnixDatagram},
            process::ExitStatusExt,
        },
    },
    path::PathBuf,
    process::{Command, Stdio},
};

use rustix::{mm::MlockAllFlags, mount::UnmountFlags};

use crate::{failure::Failure, output, process_hardening};

/// Option that makes a process the one in the background.
const DAEMON: &str = "--daemon";

/// Starts the same command in the background, and waits until it has printed its device.
pub(super) fn start_in_background() -> Result<(), Failure> {
    let failed = |error| Failure::failed(format!("cannot start a process: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    let mut child = Command::new(program)
        .args(daemon_words(std::env::args_os().skip(1)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut device = String::new();
    let mut printed = BufReader::new(child.stdout.take().expect("a pipe"));
    printed.read_line(&mut device).map_err(failed)?;
    if !device.is_empty() {
        return output::print_text(&device);
    }
    let mut messages = String::new();
    let errors = child.stderr.take().expect("a pipe");
    // What is no text says nothing.
    let _ = BufReader::new(errors).read_to_string(&mut messages);
    let status = child.wait().map_err(failed)?;
    let (before, last) = split_last_line(&messages);
    before.for_each(|line| output::print_message(format_args!("{line}")));
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    let code = code.and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
    Err(Failure::of_process(code.unwrap_or(1), last.strip_prefix("nvmf: ").unwrap_or(last)))
}

/// Words of the command in the background.
fn daemon_words(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<_> = words.collect();
    let command = words.iter().position(|word| word == "attach").map_or(0, |index| index + 1);
    words.insert(command, DAEMON.into());
    words
}

fn split_last_line(text: &str) -> (impl Iterator<Item = &str>, &str) {
    let lines: Vec<_> = text.lines().collect();
    let last = lines.last().copied().unwrap_or("the process in the background ended");
    let before = lines.len().saturating_sub(1);
    (lines.into_iter().take(before), last)
}

/// Leaves the terminal and the folder of the process that started this one.
pub(super) fn leave_session() -> Result<(), Failure> {
    let failed = |error| Failure::failed(format!("cannot leave the session: {error}"));
    rustix::process::setsid().map_err(failed)?;
    rustix::process::chdir("/").map_err(failed)
}

/// Sends a message to syslog: standard error of a process in the background is not read. It
/// is lost where nothing takes it at once: what does may wait for the device of this process.
pub(super) fn log(message: &str) {
    /// Facility 3 (daemon), severity 5 (notice).
    const PRIORITY: u8 = 3 << 3 | 5;
    let line = format!("<{PRIORITY}>nvmf[{}]: {message}", std::process::id());
    let sent = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.send_to(line.as_bytes(), "/dev/log")
    });
    if let Err(error) = sent {
        tracing::debug!("/dev/log: {error}");
    }
}

/// Prepares the process, before it has other threads: it must not need memory that is gained by
/// writing to its own device, nor unmount a file system that is on it when it ends. A device that
/// it will take over may have such file systems already.
pub(super) fn prepare(unlocked: bool, recover: Option<u32>) -> Result<(), Failure> {
    match ublk::leave_mount_namespace() {
        Ok(()) => recover.into_iter().for_each(unmount_here),
        Err(error) => tracing::debug!("no mount namespace of its own: {error}"),
    }
    if let Err(error) = rustix::process::configure_io_flusher_behavior(true) {
        tracing::debug!("not marked as a process that serves I/O: {error}");
    }
    // Only for who may: it ends with the process.
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE;
    if unlocked || (process_hardening::may_lock_everything() && rustix::mm::mlockall(all).is_ok()) {
        return Ok(());
    }
    Err(Failure::failed(
        "the memory of the process cannot be locked, so that it may wait for its own device: raise \
         the limit (ulimit -l unlimited), or give --unlocked for a device that is neither swap \
         space nor has a file system that is written",
    ))
}

/// Unmounts the file systems on a device, in the mount namespace of this process alone.
fn unmount_here(id: u32) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let number = read(&format!("/sys/block/ublkb{id}/dev"));
    for path in mounts_of(&read("/proc/self/mountinfo"), number.trim()) {
        if let Err(error) = rustix::mount::unmount(&path, UnmountFlags::DETACH) {
            tracing::warn!("{}: cannot be unmounted here: {error}", path.display());
        }
    }
}

/// Mount points of a device, given by its numbers, the latest first (proc_pid_mountinfo(5)).
fn mounts_of(mounts: &str, number: &str) -> Vec<PathBuf> {
    let points = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(2);
        (words.next() == Some(number)).then(|| unescaped(words.nth(1)?))?
    });
    let mut points: Vec<_> = points.collect();
    points.reverse();
    points
}

/// Path of a mount point, whose blanks and backslashes are octal numbers.
fn unescaped(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let number = after.get(..3).and_then(|digits| str::from_utf8(digits).ok());
        match number.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    Some(OsString::from_vec(bytes).into())
}

/// Tells systemd that the device is there, if it has started the process (sd_notify(3)).
pub(super) fn notify_ready() {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = notify(&socket)
    {
        output::print_message(format_args!("nvmf: warning: systemd is not told: {error}"));
    }
}

fn notify(socket: &OsStr) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_background_has_the_same_words() {
        let words = ["-v", "attach", "TARGET", "--ns", "1"].map(OsString::from);
        let expected = ["-v", "attach", DAEMON, "TARGET", "--ns", "1"].map(OsString::from);
        assert_eq!(daemon_words(words.into_iter()), expected);
    }

    #[test]
    fn the_last_line_is_the_reason() {
        let (before, last) = split_last_line("nvmf: warning: a\nnvmf: b\n");
        assert_eq!((before.collect::<Vec<_>>(), last), (vec!["nvmf: warning: a"], "nvmf: b"));
        assert!(split_last_line("").1.contains("ended"));
    }

    #[test]
    fn mounts_are_found_by_the_numbers_of_the_device() {
        let mounts = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n\
                      37 36 259:1 / /mnt\\040a rw shared:2 - ext4 /dev/ublkb0 rw\n\
                      38 37 259:1 /x /mnt\\040a/b rw - ext4 /dev/ublkb0 rw\n";
        let expected = ["/mnt a/b", "/mnt a"].map(PathBuf::from);
        assert_eq!(mounts_of(mounts, "259:1"), expected);
        assert!(mounts_of(mounts, "").is_empty());
    }
}
