//! Processes of this machine, as `/proc` shows them.

use std::fs;

use rustix::process::Pid;

/// State of a process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// A letter; `Z` for a process that has ended and is waited for.
    pub(crate) state: char,
    pub(crate) parent: i32,
    pub(crate) session: i32,
}

/// All processes.
pub(crate) fn all() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(Pid::from_raw)
}

/// State of a process; `None` when there is no such process.
pub(crate) fn stat(pid: Pid) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name in brackets may hold any character; no field after it does.
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Stat { state, parent, session })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::{getpid, getsid};

    use super::*;

    #[test]
    fn a_child_is_found_with_its_state() {
        let mut child = Command::new("sleep").arg("10").spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(all().any(|one| one == pid));
        let expected = getsid(None).unwrap().as_raw_nonzero().get();
        let stat = stat(pid).unwrap();
        let me = getpid().as_raw_nonzero().get();
        assert_eq!((stat.parent, stat.session), (me, expected));
        child.kill().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while super::stat(pid).unwrap().state != 'Z' {
            assert!(std::time::Instant::now() < deadline);
        }
        child.wait().unwrap();
        assert_eq!(super::stat(pid), None);
    }
}
