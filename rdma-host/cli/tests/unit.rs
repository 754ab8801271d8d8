//! systemd unit of the packages, by the program that checks units.

use std::{fs, path::Path, process::Command};

/// Messages of systemd-analyze about a unit of this text; none where it is not there.
fn verify(text: &str) -> Option<String> {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("nvmf-attach@.service"), text).expect("a file");
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["verify", "--man=no"]).arg(folder.path().join("nvmf-attach@0.service"));
    let output = analyze.output();
    let output = output.inspect_err(|error| println!("SKIPPED: systemd-analyze: {error}")).ok()?;
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(if output.status.success() { messages } else { format!("failed: {messages}") })
}

#[test]
fn systemd_takes_the_unit() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/nvmf-attach@.service");
    let unit = fs::read_to_string(path).expect("the unit of the packages");
    let unit = unit.replace("/usr/bin/nvmf", env!("CARGO_BIN_EXE_nvmf"));
    let Some(messages) = verify(&unit) else { return };
    assert_eq!(messages, "");
    let wrong = verify(&unit.replace("RestartSec", "RestartSeconds")).expect("it was there");
    assert!(wrong.contains("RestartSeconds"), "{wrong}");
}
