//! Devices with names of the user's choice.

use super::*;

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_name_is_a_link_until_the_device_is_detached() {
    let link = Path::new("/dev/nvmf/database-1");
    let device = Attached::new(&["--ns", "1", "--name", "database-1"]);
    let leads_to = |link: &Path| fs::canonicalize(link).ok();
    assert_eq!(leads_to(link).as_deref(), Some(&*device.path));
    assert_eq!(listed()[0]["name"], "database-1");

    let target = uri(SUBSYSTEM);
    let refused = |words: &[&str], word: &str| {
        let output = run(nvmf().args(words), &[]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {message}");
        assert!(message.contains(word), "{words:?}: {message}");
    };
    let named = |name| ["attach", &target, "--ns", "2", "--name", name];
    refused(&named("database-1"), &format!("is {}", device.path.display()));
    refused(&named("../sda"), "a name is of letters");
    fs::write("/dev/nvmf/file", "").unwrap();
    refused(&named("file"), "not a link of nvmf's");
    refused(&["detach", "/dev/nvmf/other"], "no device has this name");
    assert_eq!(listed().len(), 1);

    // The next process keeps the name, or gives another one.
    device.kill_and_recover();
    assert_eq!(leads_to(link).as_deref(), Some(&*device.path));
    device.kill_and_recover_with(&["--name", "db"]);
    let second = Path::new("/dev/nvmf/db");
    assert_eq!(leads_to(second).as_deref(), Some(&*device.path));
    assert!(link.symlink_metadata().is_err());

    let output = run(nvmf().args(["detach", "/dev/nvmf/db"]), &[]);
    assert!(output.status.success(), "{output:?}");
    assert!(second.symlink_metadata().is_err());
    wait_for("the device is gone", LIMIT, || listed().is_empty());
}

/// A machine may have lost its power, or the process been killed while the device was deleted.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_link_that_was_left_behind_is_replaced() {
    fs::create_dir_all("/dev/nvmf").unwrap();
    let link = Path::new("/dev/nvmf/left");
    std::os::unix::fs::symlink("../ublkb77", link).unwrap();
    let device = Attached::new(&["--ns", "1", "--name", "left"]);
    assert_eq!(fs::canonicalize(link).unwrap(), device.path);
    assert!(device.detach(&[]).status.success());
    assert!(link.symlink_metadata().is_err());
}
