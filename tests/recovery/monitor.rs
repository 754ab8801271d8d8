//! `nvmf monitor`: changes of a connection, told so that an operator can act on them.

use std::process::{Child, Stdio};

use tests::metrics::Metrics;

use super::*;

/// A host that is to have no key.
const KEYLESS: &str = "nqn.2026-11.org.soft-roce:keyless";
/// A sample: everybody can read it here.
const KEY: &str = "DHHC-1:00:ThGV3wIN5Z4NZaM6QnnxGD565OXZgOMJ+LVa3/LmHD6mvAWr:";

/// Runs `nvmf monitor` with these options.
fn monitor(arguments: &[&str]) -> Child {
    let child = nvmf()
        .args(["monitor", &uri(SUBSYSTEM), "-c", "500ms"])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("NVMF runs");
    wait_for("the monitor connects", Duration::from_secs(30), || controllers(SUBSYSTEM) == 1);
    child
}

/// Output of the monitor, once it has ended with this exit code.
fn story(monitor: Child, code: i32) -> String {
    let output = monitor.wait_with_output().expect("the monitor ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let message = String::from_utf8_lossy(&output.stderr);
    println!("exit code {:?}:\n{text}{message}", output.status.code());
    assert_eq!(output.status.code(), Some(code), "{text}{message}");
    text
}

/// The states that a story tells of, in order.
fn states(text: &str) -> Vec<&str> {
    let words = text.lines().filter_map(|line| line.split_whitespace().nth(1));
    words.map(|word| word.trim_end_matches([':', ';'])).collect()
}

/// Allows this host, and no other.
fn only(host: &str) {
    target(&["set", "subsystem", SUBSYSTEM, "allow_any_host", "0"]);
    target(&["allow", SUBSYSTEM, host]);
}

/// Lets everybody in again.
fn anybody(host: &str) {
    target(&["disallow", SUBSYSTEM, host]);
    target(&["set", "subsystem", SUBSYSTEM, "allow_any_host", "1"]);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_restart_is_told_from_loss_to_return() {
    let monitor = monitor(&["--runtime", "5"]);
    target(&["down"]);
    std::thread::sleep(Duration::from_millis(700)); // so that an attempt finds no listener
    target(&["up", TARGET_FILE]);
    let text = story(monitor, 0);
    let states = states(&text);
    assert_eq!(states[..5], ["connecting", "live", "resetting", "waiting", "connecting"], "{text}");
    assert_eq!(states[states.len() - 3..], ["live", "deleting", "dead"], "{text}");
    for words in ["closed the connection", "nothing listens", "attempt 1 of", "next in 0.5 s"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn metrics_count_a_reconnect() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, socket) = (folder.path().join("nvmf.prom"), folder.path().join("socket"));
    let words = [&file, &socket].map(|path| path.to_str().expect("text"));
    let monitor = monitor(&["--metrics-file", words[0], "--metrics-socket", words[1]]);
    let has = |name: &str, labels: &[&str], value: f64| {
        wait_for(&format!("{name} {labels:?} is {value}"), Duration::from_secs(30), || {
            Metrics::ask(&socket).sum(name, labels) == value
        });
    };
    has("nvmf_controller_state", &["state=\"live\""], 1.0);
    has("nvmf_connect_attempts_total", &[], 1.0);
    has("nvmf_reconnects_total", &[], 0.0);
    target(&["unlink", "port", "1", SUBSYSTEM]);
    has("nvmf_controller_state", &["state=\"live\""], 0.0);
    let sum = |name: &str| Metrics::ask(&socket).sum(name, &[]);
    let age_is = |what: &str, is: fn(f64) -> bool| {
        wait_for(what, Duration::from_secs(30), || is(sum("nvmf_keep_alive_age_seconds")));
    };
    age_is("the controller has not answered for a second", |age| age > 1.0);
    let attempts = || sum("nvmf_connect_attempts_total");
    wait_for("an attempt", Duration::from_secs(30), || attempts() >= 2.0);
    target(&["link", "port", "1", SUBSYSTEM]);
    has("nvmf_reconnects_total", &[], 1.0);
    has("nvmf_controller_state", &["state=\"live\""], 1.0);
    age_is("it answers again", |age| age < 1.0);
    assert!(sum("nvmf_admin_queue_commands_total") >= 2.0, "an event request of each connection");
    let all = attempts();
    wait_for("the file tells of it", Duration::from_secs(30), || {
        let written = Metrics(std::fs::read_to_string(&file).unwrap_or_default());
        written.0.contains("nvmf_reconnects_total")
            && written.sum("nvmf_reconnects_total", &[]) == 1.0
            && written.sum("nvmf_connect_attempts_total", &[]) == all
    });
    let process = rustix::process::Pid::from_child(&monitor);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("it runs");
    story(monitor, 0);
    assert!(!file.exists() && !socket.exists(), "both are removed");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_host_that_is_removed_is_told_so_at_once() {
    let host = options().host.nqn.to_string();
    only(&host);
    let monitor = monitor(&["-q", &host, "-o", "json"]);
    target(&["disallow", SUBSYSTEM, &host]);
    target(&["fatal", SUBSYSTEM]);
    let text = story(monitor, 3);
    target(&["set", "subsystem", SUBSYSTEM, "allow_any_host", "1"]);
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("a JSON value a line"));
    let lines: Vec<serde_json::Value> = lines.collect();
    let (last, before) = lines.split_last().expect("lines");
    assert!(before.iter().all(|line| line["final"] == false), "{text}");
    assert!(
        lines.is_sorted_by(|one, next| one["time"].as_f64() <= next["time"].as_f64()),
        "{text}"
    );
    let told = (&last["state"], &last["attempt"], &last["final"]);
    assert_eq!(told, (&"dead".into(), &1.into(), &true.into()), "{text}");
    let cause = last["cause"].as_str().expect("a cause");
    assert!(cause.contains("does not allow this host"), "{text}");
    let waiting = before.iter().find(|line| line["state"] == "waiting").expect("it waits");
    assert!(waiting["next_s"].as_f64().is_some_and(|next| next <= 0.5), "{text}");
    assert_eq!(waiting["attempts_max"], 1200, "{text}");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_key_that_is_missing_is_told_so_at_once() {
    only(KEYLESS);
    let monitor = monitor(&["-q", KEYLESS]);
    target(&["set", "host", KEYLESS, "key", KEY]);
    target(&["fatal", SUBSYSTEM]);
    let text = story(monitor, 3);
    anybody(KEYLESS);
    let last = text.lines().last().expect("lines");
    for words in ["dead", "trying again can't help", "demands authentication", "secret"] {
        assert!(last.contains(words), "{words}: {text}");
    }
}
