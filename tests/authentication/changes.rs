//! Changes at the target under a live `nvmf monitor`, and its end at the next connect: exit code 3,
//! after one attempt.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Stdio},
    time::Duration,
};

use tests::{SUBSYSTEM, break_connections, nvmf, target, uri, wait_for};

use super::bed::{HOST, Keys, choose, plain, secret_file, set, set_host};

/// A connected `nvmf monitor`.
struct Monitor {
    child: Child,
    lines: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
}

impl Monitor {
    /// With these keys, once it says that it is live.
    fn live(keys: &Keys, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = nvmf();
        command.args(["monitor", &uri(SUBSYSTEM), "-q", HOST, "--reconnect-delay", "1"]);
        command.arg("--dhchap-secret-file").arg(secret_file(folder.path(), "ours", &keys.host));
        if let Some(controller) = &keys.controller {
            let file = secret_file(folder.path(), "theirs", controller);
            command.arg("--dhchap-ctrl-secret-file").arg(file);
        }
        command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("nvmf runs");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        while !line.ends_with(" live\n") {
            line.clear();
            let count = lines.read_line(&mut line).expect("a pipe");
            assert!(count > 0, "it ended before it was live");
        }
        Self { child, lines, _folder: folder }
    }

    /// Breaks the connection; says what is not as it should be.
    fn ends(mut self, name: &str, words: &str) -> Result<(), String> {
        break_connections(SUBSYSTEM);
        let mut status = None;
        wait_for(name, Duration::from_secs(60), || {
            status = self.child.try_wait().expect("it is ours");
            status.is_some()
        });
        let (mut printed, mut message) = (String::new(), String::new());
        self.lines.read_to_string(&mut printed).expect("text");
        let mut stderr = self.child.stderr.take().expect("a pipe");
        stderr.read_to_string(&mut message).expect("text");
        let failures: Vec<_> =
            message.lines().filter(|line| !line.starts_with("nvmf: warning: ")).collect();
        let attempts =
            printed.lines().filter(|line| line.contains(" connecting; attempt ")).count();
        let code = status.and_then(|status| status.code());
        match (code, failures.as_slice(), attempts) {
            (Some(3), [line], 1) if line.contains(words) && line.contains("1 attempt") => Ok(()),
            _ => Err(format!("{name}: {status:?}: {message}{printed}")),
        }
    }
}

/// A name, the group at first, options, what changes, and the words of the end.
type Case = (&'static str, &'static str, &'static [&'static str], fn(), &'static str);

const CASES: [Case; 6] = [
    ("our key changes", "ffdhe2048", &[], || set_host("dhchap_key", &plain(3)), "at both ends"),
    (
        "the controller's key changes",
        "null",
        &[],
        || set_host("dhchap_ctrl_key", &plain(3)),
        "the target has another controller secret than this host",
    ),
    (
        "the keys are swapped",
        "null",
        &[],
        || Keys::new(plain(2), Some(plain(1))).set(),
        "at both ends",
    ),
    (
        "the target stops asking",
        "null",
        &[],
        || {
            target(&["disallow", SUBSYSTEM, HOST]);
            set(&["subsystem", SUBSYSTEM, "allow_any_host", "1"]);
        },
        "the target asks for none",
    ),
    (
        "the host is no longer welcome",
        "null",
        &[],
        || drop(target(&["disallow", SUBSYSTEM, HOST])),
        "does not allow this host",
    ),
    (
        "the group is weakened",
        "ffdhe3072",
        &["--dhchap-min-group", "ffdhe3072"],
        || choose("sha256", "ffdhe2048"),
        "the target chose ffdhe2048, below the minimum ffdhe3072",
    ),
];

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn what_the_target_changes_under_a_live_connection_ends_it_for_good() {
    let mut wrong = Vec::new();
    for (name, group, more, change, words) in CASES {
        choose("sha256", group);
        let keys = Keys::new(plain(1), Some(plain(2)));
        keys.set();
        let monitor = Monitor::live(&keys, more);
        change();
        wrong.extend(monitor.ends(name, words).err());
        set(&["subsystem", SUBSYSTEM, "allow_any_host", "0"]);
        if !is_allowed() {
            target(&["allow", SUBSYSTEM, HOST]);
        }
    }
    println!("{} refusals under a live connection", CASES.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn is_allowed() -> bool {
    let folder = format!("/sys/kernel/config/nvmet/subsystems/{SUBSYSTEM}/allowed_hosts/{HOST}");
    std::path::Path::new(&folder).exists()
}
