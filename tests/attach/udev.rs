//! The rules for udev, by udev.

use super::{users::User, *};

/// Process of udevd, with our rules, ended on drop.
struct Udev(Child);

const RULES: &str = "/run/udev/rules.d/61-nvmf-attach.rules";

impl Udev {
    fn start() -> Option<Self> {
        let program = "/usr/lib/systemd/systemd-udevd";
        if !Path::new(program).exists() {
            println!("SKIPPED: no systemd-udevd; run: apt-get install udev");
            return None;
        }
        let packaged =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../rdma-host/cli/packaging/61-nvmf-attach.rules");
        let rules = fs::read_to_string(packaged).expect("the rules of the packages");
        let installed = std::env::var("NVMF").expect("tests/run says where");
        fs::create_dir_all("/run/udev/rules.d").expect("a folder");
        fs::write(RULES, rules.replace("/usr/bin/nvmf", &installed)).expect("a file");
        let this = Self(Command::new(program).stderr(Stdio::null()).spawn().expect("it starts"));
        wait_for("udevd listens", LIMIT, || Path::new("/run/udev/control").exists());
        Some(this)
    }
}

impl Drop for Udev {
    fn drop(&mut self) {
        let _ = fs::remove_file(RULES);
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn udev_makes_links_and_gives_devices_to_their_owners() {
    let Some(_udev) = Udev::start() else { return };
    let link = Path::new("/dev/disk/by-id/nvmf-uuid.f2a1c5de-7a2b-4a9c-9d6e-1f3b5c7d9e01");
    assert!(!link.exists());
    let device = Attached::new(&["--ns", "1"]);
    wait_for("the link is there", LIMIT, || {
        fs::canonicalize(link).is_ok_and(|path| path == device.path)
    });
    assert!(device.detach(&[]).status.success());
    wait_for("the link is gone", LIMIT, || !link.exists());
    let user = User::new();
    let file = user.file(1 << 20);
    let share = ["--share", file.to_str().expect("text")];
    let attached = user.attach(9, if sharing::is_supported() { &share } else { &[] });
    assert!(attached.status.success(), "{attached:?}");
    wait_for("the block device is the user's, too", LIMIT, || {
        ["/dev/ublkc9", "/dev/ublkb9"].iter().all(|file| {
            let metadata = fs::metadata(file).expect("a device");
            (metadata.uid(), metadata.gid()) == (User::ID, User::ID)
        })
    });
    let detached = user.run(&["detach", "9"]);
    assert!(detached.status.success(), "{detached:?}");
}
