//! Keys and controllers of a configuration in /etc/nvme, as all commands use them.

use std::{fs, path::Path, process::Output};

use tests::{SUBSYSTEM, address, nvmf, run, uri};

use super::bed::{HOST, Keys, choose, plain, secret_file};

const FOLDER: &str = "/etc/nvme";

/// Runs `nvmf` where a folder is in the place of /etc/nvme.
fn nvmf_with(folder: &Path, arguments: &[&str]) -> Output {
    let script = format!("mount --bind \"$0\" {FOLDER} && exec \"$@\"");
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]).arg(folder).arg(nvmf().get_program());
    run(command.args(arguments), &[])
}

/// Configuration with this key in both formats, by the names of the files.
fn configurations(key: &str, controller: &str, more: [&str; 2]) -> [(&'static str, String); 2] {
    let place = address();
    let [ini, json] = more;
    [
        (
            "nvme-fabrics.conf",
            format!(
                "[Host]\nhostnqn = {HOST}\n[Subsystem]\nnqn = {SUBSYSTEM}\nkxchap-secret = {key}\n\
                 kxchap-ctrl-secret = {controller}\n{ini}\n\
                 controller = transport=rdma;traddr={place}\n"
            ),
        ),
        (
            "config.json",
            format!(
                r#"{{"hosts": [{{"hostnqn": "{HOST}", "dhchap_key": "{key}", "subsystems": [
                {{"nqn": "{SUBSYSTEM}", "ports": [{{"transport": "rdma", "traddr": "{place}",
                "dhchap_ctrl_key": "{controller}"{json}}}]}}]}}]}}"#
            ),
        ),
    ]
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn every_command_uses_the_configuration() {
    if !Path::new(FOLDER).is_dir() {
        println!("SKIPPED: there is no {FOLDER} to mount over");
        return;
    }
    let keys = Keys::new(plain(71), Some(plain(72)));
    choose("sha256", "null");
    keys.set();
    let controller = keys.controller.as_deref().expect("two keys");
    let name = format!("@{}", SUBSYSTEM.rsplit_once(':').expect("a colon").1);
    let target = uri(SUBSYSTEM);
    let folder = tempfile::tempdir().expect("a folder");
    let check = |file: &str, text: &str, arguments: &[&str], code: i32, words: &str| {
        fs::read_dir(folder.path()).expect("it is ours").flatten().for_each(|old| {
            fs::remove_file(old.path()).expect("it is ours");
        });
        secret_file(folder.path(), file, text);
        let run = || {
            let output = nvmf_with(folder.path(), arguments);
            let said = [output.stdout, output.stderr].concat();
            (output.status, String::from_utf8_lossy(&said).into_owned())
        };
        let (mut status, mut said) = run();
        // On a busy machine nvmet now and then closes the connection before its refusal is out.
        for _ in 0..4 {
            if code != 3 || status.code() != Some(4) || !said.contains("closed the connection") {
                break;
            }
            println!("{file}, {arguments:?}: {said}");
            (status, said) = run();
        }
        assert_eq!(status.code(), Some(code), "{file}, {arguments:?}: {said}");
        assert!(said.contains(words), "{file}, {arguments:?}: {said} lacks {words:?}");
        assert!(!said.contains(&keys.host[10..26]), "{said}");
    };
    for (file, text) in configurations(&keys.host, controller, ["", ""]) {
        let two_way = "DH-HMAC-CHAP, two-way";
        check(file, &text, &["identify", &name], 0, two_way);
        check(file, &text, &["identify", &target, "-q", HOST], 0, two_way);
        check(file, &text, &["log", &name, "health"], 0, "");
        let bench = ["bench", &name, "--ns", "1", "--runtime", "200ms"];
        // A warning that only an authenticated connection has.
        check(file, &text, &bench, 0, "authenticated without a DH group");
    }
    for (file, text) in configurations(&plain(73), controller, ["", ""]) {
        check(file, &text, &["identify", &name], 3, "");
    }
    for (file, text) in configurations("none", "none", ["", ""]) {
        check(file, &text, &["identify", &name], 3, "demands authentication");
    }
    for (file, text) in configurations("garbage", "none", ["", ""]) {
        check(file, &text, &["identify", &target, "-q", HOST], 2, "dhchap_key");
    }
    for (file, text) in configurations(&keys.host, controller, ["tls = 1", ", \"tls\": true"]) {
        check(file, &text, &["identify", &name], 2, "tls is set");
        check(file, &text, &["identify", &target, "-q", HOST], 2, "tls is set");
    }
}
