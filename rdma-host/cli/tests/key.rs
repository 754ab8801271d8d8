//! `nvmf key` and nvme-cli understand each other's secrets.

use std::{
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Command, Output, Stdio},
};

/// A secret as nvme-cli 2.3 makes it of 00 01 02 …, for the host `nqn.x`. With a hash it is the
/// key already, which goes through the hash again when it is used, at both ends.
const RECORDED: [(&str, &str); 6] = [
    ("none", "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:"),
    ("hmac(sha256)", "DHHC-1:01:s58riWX0tutyq+sZhUpTGydCrEosXGCydo5TV2d3t32YRnW5:"),
    (
        "hmac(sha384)",
        "DHHC-1:02:OwgUt3VXOP/YxMovmF8xAc4TOGJIOleayMGOV9zDv0EtslaHTsUjMpddNCYWB5zxcycPSQ==:",
    ),
    (
        "hmac(sha512)",
        "DHHC-1:03:IhC351+kbNvAw0V3gkbdX4idQVpm1mWTJRrE1tI5pd2C1fBu5POytZwOGM1/fvmD68YMSDb6wsuyf\
         XV0Y9fBf41Ec6I=:",
    ),
    // The specification's example, and nvme-cli 3's of `pin:1234`.
    ("none", "DHHC-1:00:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:"),
    ("none", "DHHC-1:00:9wCYVQqDvADjGIZo6q/v2SfmXZqqkNa9TcvYu97Ly3Q/gajh:"),
];

fn run(program: &str, arguments: &[&str], input: &[u8]) -> std::io::Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // A program that does not read is no failure of the test.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    child.wait_with_output()
}

fn nvmf(arguments: &[&str], input: &[u8]) -> Output {
    run(env!("CARGO_BIN_EXE_nvmf"), arguments, input).expect("nvmf runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn assert_valid(secret: &str, transformation: &str) {
    let checked = nvmf(&["key", "check"], secret.as_bytes());
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    let expected = format!("the secret is valid; transformation: {transformation}\n");
    assert_eq!(text(&checked.stdout), expected);
}

#[test]
fn recorded_secrets_are_valid() {
    for (transformation, secret) in RECORDED {
        assert_valid(secret, transformation);
        assert_valid(&format!("{secret}\n"), transformation);
        let wrong = secret.replace("DHHC-1:0", "DHHC-1:1");
        let refused = nvmf(&["key", "check"], wrong.as_bytes());
        assert_eq!(refused.status.code(), Some(1));
        assert_eq!(text(&refused.stdout), "");
    }
}

/// The secrets both programs make: nvme-cli 2.3 wants each hash to have its own length.
const BOTH: [(&str, &str); 6] =
    [("0", "32"), ("0", "48"), ("0", "64"), ("1", "32"), ("2", "48"), ("3", "64")];

const TRANSFORMATIONS: [&str; 4] = ["none", "hmac(sha256)", "hmac(sha384)", "hmac(sha512)"];

fn transformation(hmac: &str) -> &'static str {
    TRANSFORMATIONS[hmac.parse::<usize>().expect("a digit")]
}

#[test]
fn nvme_cli_checks_our_secrets_and_we_check_its() {
    if run("nvme", &["version"], b"").is_err() {
        println!("SKIPPED: nvme-cli is not installed");
        return;
    }
    for (hmac, length) in BOTH {
        let arguments =
            ["gen-dhchap-key", "--hmac", hmac, "--key-length", length, "--nqn", "nqn.x"];
        let theirs = run("nvme", &arguments, b"").expect("nvme runs");
        assert_valid(&text(&theirs.stdout), transformation(hmac));
        let ours = nvmf(&["key", "gen", "--hmac", hmac, "--key-length", length], b"");
        let ours = text(&ours.stdout);
        let arguments = ["check-dhchap-key", "--key", ours.trim_end()];
        let checked = run("nvme", &arguments, b"").expect("nvme runs");
        assert!(checked.status.success(), "{}", text(&checked.stderr));
        let words = text(&checked.stdout);
        assert!(words.contains(&format!("HMAC {hmac}, length {length}")), "{words}");
    }
}

#[test]
fn every_kind_is_made_and_is_another_each_time() {
    for hmac in ["0", "1", "2", "3"] {
        for (length, characters) in [("32", 59), ("48", 83), ("64", 103)] {
            let arguments = ["key", "gen", "-m", hmac, "-l", length];
            let made = [(); 2].map(|()| text(&nvmf(&arguments, b"").stdout));
            assert_ne!(made[0], made[1]);
            for secret in made {
                assert_eq!(secret.trim_end().len(), characters);
                assert_valid(&secret, transformation(hmac));
            }
        }
    }
}

#[test]
fn a_file_is_for_its_owner_and_never_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("host.key");
    let name = path.to_str().expect("UTF-8");
    let made = nvmf(&["key", "gen", "--output", name], b"");
    assert!(made.status.success() && made.stdout.is_empty(), "{}", text(&made.stderr));
    assert_eq!(path.metadata().expect("it is there").permissions().mode() & 0o777, 0o600);
    let secret = std::fs::read_to_string(&path).expect("text");
    assert_valid(&secret, "none");
    assert!(nvmf(&["key", "check", name], b"").status.success());
    let again = nvmf(&["key", "gen", "--output", name], b"");
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("remove it first"), "{}", text(&again.stderr));
    assert_eq!(std::fs::read_to_string(&path).expect("text"), secret);
}
