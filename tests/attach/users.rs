//! Devices of users without privileges.

use super::*;

/// User without privileges, who may use the driver.
pub(super) struct User {
    /// Runtime folder.
    folder: tempfile::TempDir,
}

impl User {
    pub(super) const ID: u32 = 1000;

    pub(super) fn new() -> Self {
        fs::set_permissions("/dev/ublk-control", fs::Permissions::from_mode(0o666)).expect("ours");
        let folder = tempfile::tempdir_in("/dev/shm").expect("a folder");
        chown(&folder, Some(Self::ID), Some(Self::ID)).expect("root may");
        Self { folder }
    }

    /// Runs nvmf as that user.
    pub(super) fn run(&self, words: &[&str]) -> Output {
        let (user, group) = (format!("--reuid={}", Self::ID), format!("--regid={}", Self::ID));
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--memlock=16777216", "setpriv", &user, &group]);
        prlimit.args(["--clear-groups", "--inh-caps=-all"]);
        prlimit.arg(std::env::var("NVMF").expect("tests/run says where")).args(words);
        run(prlimit.env("XDG_RUNTIME_DIR", self.folder.path()), &[])
    }

    /// Attaches namespace 1.
    pub(super) fn attach(&self, id: u32, options: &[&str]) -> Output {
        let (target, id) = (uri(SUBSYSTEM), id.to_string());
        let words = ["attach", &target, "--ns", "1", "--id", &id, "--unlocked", "--queues", "1"];
        self.run(&[&words[..], &["--queue-size", "8"], options].concat())
    }

    /// A file of the user in memory.
    pub(super) fn file(&self, bytes: u64) -> PathBuf {
        let path = self.folder.path().join("file");
        File::create(&path).expect("a file").set_len(bytes).expect("no byte is written");
        chown(&path, Some(Self::ID), Some(Self::ID)).expect("root may");
        path
    }
}

/// The test does what udev does with the owner that `nvmf list` knows.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_user_attaches_a_device_of_theirs() {
    let user = User::new();
    let done = AtomicBool::new(false);
    let target = uri(SUBSYSTEM);
    let refused = user.run(&["attach", &target, "--ns", "1", "--id", "9"]);
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(message.contains("--unlocked") && message.lines().count() == 1, "{message}");
    let (attached, listed, detached) = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for file in ["/dev/ublkc9", "/dev/ublkb9"] {
                    if fs::metadata(file).is_ok_and(|file| file.uid() == 0) {
                        let owner = nvmf_ok(&["list", "--owner", "9"], &[]);
                        assert_eq!(owner, b"1000 1000\n");
                        chown(file, Some(User::ID), Some(User::ID)).unwrap();
                    }
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        let all = (user.attach(9, &[]), user.run(&["list"]), user.run(&["detach", "9"]));
        done.store(true, Ordering::Relaxed);
        all
    });
    assert!(attached.status.success(), "{attached:?}");
    assert_eq!(attached.stdout, b"/dev/ublkb9\n");
    assert!(String::from_utf8_lossy(&listed.stdout).contains("live"), "{listed:?}");
    assert!(detached.status.success(), "{detached:?}");
}
