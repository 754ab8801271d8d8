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
    use std::time::{Duration, Instant};

    use rustix::process::getpid;

    use super::*;

    /// The child leads a session of its own: this process's may lie outside its process id
    /// namespace, where it has no number.
    #[test]
    fn a_child_is_found_with_its_state() {
        let mut child = Command::new("setsid").args(["sleep", "10"]).spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(all().any(|one| one == pid));
        let session = pid.as_raw_nonzero().get();
        let found = wait_for(pid, |stat| stat.session == session);
        assert_eq!(found.parent, getpid().as_raw_nonzero().get());
        child.kill().unwrap();
        wait_for(pid, |stat| stat.state == 'Z');
        child.wait().unwrap();
        assert_eq!(stat(pid), None);
    }

    fn wait_for(pid: Pid, condition: impl Fn(&Stat) -> bool) -> Stat {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let stat = stat(pid).unwrap();
            if condition(&stat) {
                return stat;
            }
            assert!(Instant::now() < deadline, "{stat:?}");
        }
    }
}
