//! The program with files of its own for one test, and the processes of its guests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Pid;
use tempfile::TempDir;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_soft-roce");
pub(crate) const TARGETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/targets");

/// A folder that takes the files of runs; the test fails when one is left there.
pub(crate) struct Bed {
    pub(crate) folder: Arc<TempDir>,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self { folder: Arc::new(tempfile::tempdir().unwrap()) }
    }

    /// A bed whose runs use the same folder.
    pub(crate) fn sharing(other: &Self) -> Self {
        Self { folder: Arc::clone(&other.folder) }
    }

    /// `soft-roce run`, with these options and whatever follows.
    pub(crate) fn run(&self, options: &[&str]) -> Command {
        let mut command = self.program();
        command.arg("run").args(options).stdin(Stdio::null());
        command
    }

    /// The program.
    pub(crate) fn program(&self) -> Command {
        self.environment(PROGRAM)
    }

    /// Another program, in the environment in which these tests run `soft-roce`.
    pub(crate) fn environment(&self, program: &str) -> Command {
        // Under nohup, or behind a shell's `&`, signals are ignored that these tests send.
        let mut command = Command::new("env");
        command.args(["--default-signal", program]);
        let path = std::env::var("PATH").unwrap();
        let own = Path::new(PROGRAM).parent().unwrap().display();
        command.env("TMPDIR", self.folder.path()).env("PATH", format!("{own}:{path}"));
        command.env_remove("SOFT_ROCE_TARGET");
        command
    }

    pub(crate) fn shell(&self, options: &[&str], script: &str) -> Output {
        let output = self.run(options).args(["--", "sh", "-c", script]).output().unwrap();
        self.expect_nothing_left();
        output
    }

    pub(crate) fn with_target(&self, name: &str, script: &str) -> Output {
        self.shell(&["--timeout", "60", "--target", &format!("{TARGETS}/{name}.toml")], script)
    }

    /// Starts a program that says when it runs, and waits for that.
    pub(crate) fn start(&self, options: &[&str], script: &str) -> (Child, Watched) {
        let marker = TempDir::new().unwrap();
        let running = marker.path().join("running");
        let script = format!("touch {}; {script}", running.display());
        let mut command = self.run(options);
        command.args(["--", "sh", "-c", &script]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        wait_until("the program runs", || running.exists());
        (child, Watched::find(self.folder.path()))
    }

    pub(crate) fn expect_nothing_left(&self) {
        wait_until("no process is left", || processes_with(self.folder.path()).is_empty());
        wait_until("no file is left", || {
            fs::read_dir(self.folder.path()).unwrap().next().is_none()
        });
        wait_until("no memory is left", || self.memory_folders().is_empty());
    }

    /// Folders in /dev/shm with the memory of this bed's guests.
    pub(crate) fn memory_folders(&self) -> Vec<PathBuf> {
        let own = self.folder.path().to_str().unwrap();
        let is_own = |path: &PathBuf| {
            fs::read_to_string(path.join("reserved")).is_ok_and(|record| record.contains(own))
        };
        let all = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
        all.map(|entry| entry.path()).filter(is_own).collect()
    }
}

/// Options of runs that test User-Mode Linux: no other machine takes its place.
pub(crate) const OPTIONS: &str = "--machine uml --timeout 60";

/// Runs a script in a mount namespace of its own, where `run` is `soft-roce run`, and
/// `appears FILE` waits for a file. The script may mount over folders in which the programs lie.
pub(crate) fn in_mounts(script: &str) -> Option<(Output, Bed)> {
    if !can_mount() {
        println!("SKIPPED: this user may not mount a file system in a namespace of its own");
        return None;
    }
    let bed = Bed::new();
    let own = Path::new(PROGRAM).parent().unwrap().display();
    let script = format!(
        "mount --bind {own} /srv && mount --bind $(dirname $KERNEL) /media && cd / || exit 9
         KERNEL=/media/$(basename $KERNEL)
         run() {{ /srv/soft-roce run {OPTIONS} --kernel $KERNEL \"$@\"; }}
         appears() {{
             for try in $(seq 1200); do test -e $1 && return; sleep 0.05; done
             echo \"$1 does not appear\" >&2; exit 9
         }}
         {script}"
    );
    let mut command = bed.environment("unshare");
    command.args(["--mount", "sh", "-c", &script]).env("KERNEL", kernel_program());
    Some((command.stdin(Stdio::null()).output().unwrap(), bed))
}

/// Tells if this user can mount a file system in a namespace of its own.
pub(crate) fn can_mount() -> bool {
    let mut command = Command::new("unshare");
    command.args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]);
    command.output().is_ok_and(|output| output.status.success())
}

/// The processes of a guest that runs.
pub(crate) struct Watched {
    pub(crate) reaper: Pid,
    pub(crate) kernel: Pid,
}

impl Watched {
    fn find(folder: &Path) -> Self {
        let all = processes_with(folder);
        let find = |starts: &[&str]| {
            let is_it = |word: &String| starts.iter().any(|start| word.starts_with(start));
            let found = all.iter().find(|(_, words)| words.iter().any(is_it));
            Pid::from_raw(found.unwrap().0).unwrap()
        };
        // The kernel's helpers share its command line; it came first.
        // A word of User-Mode Linux's command line, or of QEMU's.
        let kernel = find(&["mem=", "virtio-9p-pci"]);
        Self { reaper: find(&["reaper"]), kernel }
    }

    /// Processes of the guest.
    pub(crate) fn session(&self) -> Vec<i32> {
        let session = self.kernel.as_raw_nonzero().get();
        processes().into_iter().filter(|pid| session_of(*pid) == Some(session)).collect()
    }

    pub(crate) fn expect_gone(&self) {
        wait_until("the guest's session is empty", || self.session().is_empty());
        wait_until("the reaper is gone", || {
            rustix::process::test_kill_process(self.reaper).is_err()
        });
    }
}

/// The kernel under test, as a path.
pub(crate) fn kernel_program() -> PathBuf {
    let named = std::env::var("SOFT_ROCE_KERNEL").unwrap_or_default();
    if named.contains('/') {
        return named.into();
    }
    let output = Command::new(PROGRAM).arg("build").output().unwrap();
    expect_success(&output);
    text(&output.stdout).trim().into()
}

pub(crate) fn expect_success(output: &Output) {
    let (seen, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}\n{seen}\n{error}", output.status);
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.into()).unwrap()
}

pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    // Longer than an emulated machine beside three others takes to boot.
    let deadline = Instant::now() + Duration::from_secs(120);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Processes that name this folder on their command line, by age, but for the tests' own.
pub(crate) fn processes_with(folder: &Path) -> Vec<(i32, Vec<String>)> {
    let folder = folder.to_str().unwrap();
    let words = |pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains(folder).then(|| (pid, line.split('\0').map(str::to_owned).collect()))
    };
    let mut all: Vec<_> = processes().into_iter().filter_map(words).collect();
    all.sort_by_key(|(pid, _)| *pid);
    all
}

/// Session of a process that has not ended.
fn session_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = stat.rsplit_once(") ")?.1;
    if fields.starts_with('Z') { None } else { fields.split(' ').nth(3)?.parse().ok() }
}
