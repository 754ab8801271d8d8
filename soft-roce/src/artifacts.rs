//! Files kept of a run that failed: the kernel's log, and the state of RDMA inside the guest.
//!
//! Each run has a folder of its own in the folder that the caller named, so that one folder takes
//! all test programs of a CI job. The guest writes the state of RDMA when the program has failed,
//! and also shortly before the time limit, because a guest that is killed writes nothing. The
//! caller's side adds the kernel's log, and removes what a successful run has left there.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{Error, Outcome, Result, deadline_factor::scaled, folder::remove_folder, run::paths};

/// File with the kernel's messages.
const KERNEL_LOG: &str = "kernel.log";

/// Files with the state of RDMA, and the commands of `rdma` whose output they hold.
const STATE: [(&str, &[&str]); 3] = [
    ("rdma-link.txt", &["-d link show"]),
    (
        "rdma-resource.txt",
        &[
            "resource show",
            "resource show qp",
            "resource show cm_id",
            "resource show cq",
            "resource show mr",
            "resource show pd",
        ],
    ),
    ("rdma-statistic.txt", &["statistic show"]),
];

/// Time before the run's time limit at which the state is written, at most half of the limit:
/// enough for eight commands on a loaded machine, and for booting, which the guest does not count.
const BEFORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time that the commands of one file may take; they wait while the kernel holds RDMA's locks.
const COMMANDS_DEADLINE: Duration = Duration::from_secs(5);

/// Folder of one run, and when to write the state of a program that still runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Artifacts {
    folder: PathBuf,
    after: Option<Duration>,
    deadline_factor: u32,
}

impl Artifacts {
    /// Folder below `base` for a run of `program`; `run` is the run's private folder, whose name no
    /// other run has.
    pub(crate) fn plan(base: &Path, program: &Path, run: &Path) -> Result<Self> {
        fs::create_dir_all(base).map_err(Error::io("create", base))?;
        let base = base.canonicalize().map_err(Error::io("find", base))?;
        if paths::is_covered(&base) {
            let reason = "the guest has its own file system there; keep artifacts elsewhere";
            return Err(Error::Path { path: base, reason });
        }
        let name =
            |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let unique = name(run).rsplit('-').next().unwrap_or_default().to_owned();
        let folder = base.join(format!("{}-{unique}", name(program)));
        Ok(Self { folder, after: None, deadline_factor: 1 })
    }

    /// Deadlines of a run with this time limit, on a machine whose deadlines are longer by that
    /// factor.
    pub(crate) fn deadlines(self, timeout: Option<Duration>, deadline_factor: u32) -> Self {
        let before = scaled(BEFORE_TIMEOUT, deadline_factor);
        let after = timeout.map(|limit| limit - before.min(limit / 2));
        Self { after, deadline_factor, ..self }
    }

    /// Keeps the kernel's log of a run that failed, else removes the folder; returns the folder
    /// that was kept.
    pub(crate) fn conclude(&self, outcome: &Outcome) -> Result<Option<&Path>> {
        if outcome.success() {
            remove_folder(&self.folder)?;
            return Ok(None);
        }
        fs::create_dir_all(&self.folder).map_err(Error::io("create", &self.folder))?;
        let log = self.folder.join(KERNEL_LOG);
        fs::write(&log, &outcome.kernel_log).map_err(Error::io("write", log))?;
        Ok(Some(&self.folder))
    }

    /// Writes the state of RDMA; called inside the guest.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written.
    pub(crate) fn write_state(&self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let limit = scaled(COMMANDS_DEADLINE, self.deadline_factor);
        for (file, commands) in STATE {
            run_commands(commands, &File::create(self.folder.join(file))?, limit)?;
        }
        Ok(())
    }

    /// Writes the state shortly before the time limit, unless the sender is dropped earlier; called
    /// inside the guest.
    pub(crate) fn watch(&self) -> Option<Sender<()>> {
        let (sender, ended) = channel();
        let (artifacts, after) = (self.clone(), self.after?);
        thread::spawn(move || {
            if ended.recv_timeout(after) == Err(RecvTimeoutError::Timeout) {
                // A folder that cannot be written is reported by the caller's side.
                let _ = artifacts.write_state();
            }
        });
        Some(sender)
    }
}

/// Writes each command line of `rdma` and its output; gives up at the deadline.
///
/// A shell runs them: the guest's first process collects its children on another thread, which
/// would take the status of a command that is run directly.
fn run_commands(commands: &[&str], file: &File, limit: Duration) -> io::Result<()> {
    let script: String =
        commands.iter().map(|words| format!("echo '$ rdma {words}'; rdma {words}\n")).collect();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &script]).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    shell.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file.try_clone()?);
    let mut child = shell.spawn()?;
    let deadline = Instant::now() + limit;
    while let Ok(None) = child.try_wait() {
        if Instant::now() > deadline {
            return child.kill();
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunStatus;

    fn outcome(status: i32) -> Outcome {
        Outcome {
            ending: RunStatus::Exited(status),
            kernel_warnings: Vec::new(),
            kernel_log: "[ 0.1] Linux".into(),
            stdout: Vec::new(),
            stderr: Vec::new(),
        }
    }

    #[test]
    fn only_a_failed_run_keeps_its_folder() {
        let base = tempfile::tempdir().unwrap();
        let run = Path::new("/tmp/soft-roce-Ab12");
        let limit = Some(Duration::from_secs(600));
        let planned = Artifacts::plan(base.path(), Path::new("/x/test-1"), run).unwrap();
        let artifacts = planned.deadlines(limit, 1);
        assert_eq!(artifacts.folder.file_name().unwrap(), "test-1-Ab12");
        assert_eq!(artifacts.after, Some(Duration::from_secs(595)));
        // As the guest leaves it shortly before the time limit.
        fs::create_dir(&artifacts.folder).unwrap();
        fs::write(artifacts.folder.join("rdma-link.txt"), "").unwrap();
        assert_eq!(artifacts.conclude(&outcome(0)).unwrap(), None);
        assert!(!artifacts.folder.exists());
        let kept = artifacts.conclude(&outcome(1)).unwrap().unwrap();
        assert_eq!(fs::read_to_string(kept.join(KERNEL_LOG)).unwrap(), "[ 0.1] Linux");
    }

    #[test]
    fn folders_that_the_guest_covers_are_refused() {
        let planned = Artifacts::plan(Path::new("/dev"), Path::new("x"), Path::new("y"));
        assert!(planned.unwrap_err().to_string().contains("keep artifacts elsewhere"));
    }
}
