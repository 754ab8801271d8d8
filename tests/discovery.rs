//! Discovery: against targets that lie, and, in the bed, against the kernel's, where nvme-cli and
//! the kernel's initiator say what is right.

// bed: --target tests/targets/discovery.toml --deny non-flush.error

use std::{
    collections::HashSet,
    fmt::Write as _,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rdma_host::{
    ConnectOptions, DiscoveryController, DiscoveryEvent, DiscoveryLog, DiscoveryWatch,
    wire::{Nqn, SubsystemType},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::{SUBSYSTEM, address, nvmf, nvmf_ok, options, run, target, wait_for};

#[path = "discovery/malicious.rs"]
mod malicious;

const SECOND: &str = "nqn.2026-11.org.soft-roce:second";
const CLOSED: &str = "nqn.2026-11.org.soft-roce:closed";
const OTHER_HOST: &str = "nqn.2026-11.org.soft-roce:other";

/// Options for the discovery controller at a port.
fn discovery(port: u16) -> ConnectOptions {
    let mut options = options();
    options.address.set_port(port);
    options.subsystem = Nqn::DISCOVERY.parse().expect("an NQN");
    options.keep_alive = Duration::ZERO;
    options
}

fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(test)
}

/// The log of the port, as JSON, with these options in addition.
fn json(more: &[&str]) -> Value {
    let address = address();
    let output = nvmf_ok(&[&["discover", "-a", &address, "--json"], more].concat(), &[]);
    serde_json::from_slice(&output).expect("one JSON value")
}

fn names(log: &Value) -> Vec<&str> {
    let records = log["records"].as_array().expect("a list");
    records.iter().map(|record| record["subnqn"].as_str().expect("a text")).collect()
}

/// The names of the subsystems with namespaces in a log.
fn subsystems(log: &DiscoveryLog) -> Vec<&str> {
    let entries = log.entries.iter().filter(|entry| entry.kind == SubsystemType::NVM);
    entries.map(|entry| entry.subsystem.as_str()).collect()
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn nvme_cli_prints_the_same() {
    let host = options().host;
    let (nqn, id) = (host.nqn.as_str().to_owned(), host.id.to_string());
    let address = address();
    let place = ["-a", &address, "-s", "4420", "-q", &nqn, "-I", &id];
    let theirs = |format: &str| {
        let mut command = Command::new("nvme");
        command.args(["discover", "-t", "rdma", "-o", format]).args(place);
        command.output().ok()
    };
    let Some(text) = theirs("normal") else {
        println!("SKIPPED: nvme-cli is not installed");
        return;
    };
    assert!(text.status.success(), "nvme: {text:?}");
    let ours = nvmf_ok(&[&["discover"], &place[..]].concat(), &[]);
    // nvme-cli 2.3 prints a key of zero as 0x0000, newer ones as 0000.
    let lines = |text: &[u8]| {
        let text =
            String::from_utf8(text.to_vec()).unwrap().replace("rdma_pkey: 0x", "rdma_pkey: ");
        text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(lines(&ours), lines(&text.stdout));
    assert!(ours.len() > 500, "there were entries");

    let theirs = theirs("json").expect("just run").stdout;
    let ours = nvmf_ok(&[&["discover", "-o", "json"], &place[..]].concat(), &[]);
    let value = |text: &[u8]| serde_json::from_slice::<Value>(text).expect("one JSON value");
    assert_eq!(value(&ours), value(&theirs));

    let folder = tempfile::tempdir().expect("a folder");
    let raw = |program: &mut Command, name: &str| {
        let path = folder.path().join(name);
        let output =
            program.args(["discover", "-t", "rdma"]).args(place).arg("-r").arg(&path).output();
        let output = output.expect("just run");
        assert!(output.status.success(), "{output:?}");
        std::fs::read(path).expect("the log page")
    };
    let ours = raw(&mut nvmf(), "ours");
    // The header and the entries, of 1,024 bytes each.
    assert_eq!((ours.len() % 1024, ours.len() > 2048), (0, true), "{}", ours.len());
    assert!(ours == raw(&mut Command::new("nvme"), "theirs"), "nvme-cli writes the same bytes");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn each_host_sees_what_it_may_use() {
    let by_uri = nvmf_ok(&["discover", "--json", &format!("nvmf-rdma://{}", address())], &[]);
    let by_uri: Value = serde_json::from_slice(&by_uri).expect("one JSON value");
    assert_eq!(by_uri, json(&["-t", "rdma"]));
    let log = json(&[]);
    assert_eq!(names(&log), [Nqn::DISCOVERY, SUBSYSTEM, SECOND, Nqn::DISCOVERY]);
    let log = json(&["-q", OTHER_HOST]);
    assert!(names(&log).contains(&CLOSED), "{log}");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn referrals_are_followed_once_and_no_further_than_wanted() {
    let address = address();
    let walk = |more: &[&str]| {
        let arguments = [&["discover", "-a", &address, "--json"], more].concat();
        let output = run(nvmf().args(&arguments), &[]);
        let value: Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
        let seen: Vec<_> = value
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| {
                let service = one["trsvcid"].as_str().unwrap().to_owned();
                (service, one["depth"].as_u64().unwrap(), one["error"].is_null())
            })
            .collect();
        (seen, output.status.code())
    };
    let one = |service: &str, depth, answered| (service.to_owned(), depth, answered);
    let all = [one("4420", 0, true), one("4421", 1, true), one("4499", 2, false)];
    assert_eq!(walk(&["--recursive"]), (all.to_vec(), Some(1)));
    assert_eq!(walk(&["--referrals", "1"]), (all[..2].to_vec(), Some(0)));
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn changes_are_told_while_connected() {
    block_on(async {
        let mut watch = DiscoveryWatch::connect(&discovery(4420)).await.unwrap();
        let mut log = next(&mut watch).await;
        assert_eq!(subsystems(&log), [SUBSYSTEM, SECOND]);
        for _ in 0..3 {
            target(&["unlink", "port", "1", SECOND]);
            log = until(&mut watch, &log, |log| subsystems(log) == [SUBSYSTEM]).await;
            target(&["link", "port", "1", SECOND]);
            log = until(&mut watch, &log, |log| subsystems(log).contains(&SECOND)).await;
        }
        let us = discovery(4420).host.nqn;
        target(&["allow", CLOSED, us.as_str()]);
        log = until(&mut watch, &log, |log| subsystems(log).contains(&CLOSED)).await;
        target(&["disallow", CLOSED, us.as_str()]);
        until(&mut watch, &log, |log| !subsystems(log).contains(&CLOSED)).await;
        watch.shutdown().await;
    });
}

/// The next log; nothing else may come.
async fn next(watch: &mut DiscoveryWatch) -> Arc<DiscoveryLog> {
    let news = tokio::time::timeout(Duration::from_secs(20), watch.next()).await;
    match news.expect("news within 20 s") {
        DiscoveryEvent::Log(log) => log,
        other => panic!("{other:?}"),
    }
}

/// The first log of which `condition` holds; its generation must be newer than that of `before`.
async fn until(
    watch: &mut DiscoveryWatch,
    before: &DiscoveryLog,
    condition: impl Fn(&DiscoveryLog) -> bool,
) -> Arc<DiscoveryLog> {
    loop {
        let log = next(watch).await;
        assert!(log.generation > before.generation, "{} came again", log.generation);
        if condition(&log) {
            return log;
        }
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_program_stays_and_prints_each_log() {
    let mut program = nvmf()
        .args(["discover", "-a", &address(), "-s", "4421", "--persistent", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let mut count = || {
        let line = lines.next().expect("the program goes on").unwrap();
        let log: Value = serde_json::from_str(&line).expect("one JSON value on a line");
        names(&log).len()
    };
    assert_eq!(count(), 4);
    target(&["link", "port", "2", SUBSYSTEM]);
    assert_eq!(count(), 5);
    target(&["unlink", "port", "2", SUBSYSTEM]);
    assert_eq!(count(), 4);
    send_signal(&program, Signal::INT);
    assert!(wait(&mut program).success(), "an interrupt is no failure");
}

/// `nvmf discover --persistent` in the middle of printing a log that is longer than a pipe holds.
fn printing(port: u16) -> Child {
    let mut program = nvmf();
    program.args(["discover", "-a", &address(), "--persistent", "--json", "-s", &port.to_string()]);
    let program = program.stdout(Stdio::piped()).spawn().expect("nvmf starts");
    let pipe = program.stdout.as_ref().expect("a pipe");
    wait_for("a full pipe", Duration::from_secs(30), || {
        rustix::io::ioctl_fionread(pipe).expect("a pipe") >= 60 << 10
    });
    program
}

fn send_signal(program: &Child, signal: Signal) {
    kill_process(Pid::from_child(program), signal).expect("it is ours");
}

fn wait(program: &mut Child) -> ExitStatus {
    let mut status = None;
    wait_for("the end of nvmf", Duration::from_secs(30), || {
        status = program.try_wait().expect("it is our child");
        status.is_some()
    });
    status.expect("just seen")
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_signal_that_arrives_while_a_log_is_printed_is_not_lost() {
    many(9, "nqn.2026-11.org.soft-roce:printed-", 300);
    for signal in [Signal::INT, Signal::TERM] {
        let mut program = printing(4429);
        send_signal(&program, signal);
        let mut printed = String::new();
        BufReader::new(program.stdout.take().unwrap()).read_to_string(&mut printed).unwrap();
        assert!(wait(&mut program).success(), "{signal:?} is no failure");
        let log: Value = serde_json::from_str(&printed).expect("the log was printed to its end");
        assert!(names(&log).len() > 300, "{} names", names(&log).len());
    }
    // A second one does not wait for the pipe.
    let mut program = printing(4429);
    send_signal(&program, Signal::TERM);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(program.try_wait().unwrap(), None, "it has a log to print");
    send_signal(&program, Signal::INT);
    assert_eq!(wait(&mut program).code(), Some(128 + 2));
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn an_idle_watch_stays_alive() {
    block_on(async {
        let mut options = discovery(4420);
        // nvmet ends a controller that is silent for so long.
        options.keep_alive = Duration::from_secs(1);
        let mut watch = DiscoveryWatch::connect(&options).await.unwrap();
        let log = next(&mut watch).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        target(&["unlink", "port", "1", SECOND]);
        target(&["link", "port", "1", SECOND]);
        until(&mut watch, &log, |log| subsystems(log).len() == 2).await;
        watch.shutdown().await;
    });
}

/// Sets up a port with `count` subsystems without namespaces, whose names begin with `prefix`.
fn many(port: u16, prefix: &str, count: usize) {
    let mut text = String::new();
    for index in 0..count {
        let _ = writeln!(text, "[[subsystems]]\nnqn = \"{prefix}{index}\"\nnamespaces = []");
    }
    let _ = writeln!(text, "[[ports]]\nid = {port}\nservice = {}", 4420 + port);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("many.toml");
    std::fs::write(&file, text).expect("a file");
    target(&["up", file.to_str().expect("a path in UTF-8")]);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn long_logs_are_read_whole_though_they_change() {
    const COUNT: usize = 150;
    let prefix = "nqn.2026-11.org.soft-roce:many-";
    many(7, prefix, COUNT);
    let stop = Arc::new(AtomicBool::new(false));
    let changer = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut changes = 0;
            while !stop.load(Ordering::Relaxed) {
                target(&["unlink", "port", "7", &format!("{prefix}0")]);
                target(&["link", "port", "7", &format!("{prefix}0")]);
                changes += 2;
            }
            changes
        }
    });
    let (mut read, mut refused, mut generations) = (0, 0, HashSet::new());
    block_on(async {
        let controller = DiscoveryController::connect(&discovery(4427)).await.unwrap();
        for _ in 0..60 {
            match controller.read_log().await {
                Ok(log) => {
                    let names: HashSet<_> = subsystems(&log).into_iter().collect();
                    assert_eq!(names.len() + 1, log.entries.len(), "each is there once");
                    let first = names.contains(format!("{prefix}0").as_str());
                    assert_eq!(names.len(), COUNT - usize::from(!first), "none is missing");
                    generations.insert(log.generation);
                    read += 1;
                }
                Err(error) => {
                    assert!(error.to_string().contains("keeps changing"), "{error}");
                    refused += 1;
                }
            }
        }
        controller.shutdown().await;
    });
    stop.store(true, Ordering::Relaxed);
    let changes = changer.join().unwrap();
    assert!(read > 0 && changes > 0, "{read} read, {refused} refused, {changes} changes");
    assert!(generations.len() > 1, "it changed meanwhile");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_discovery_subsystem_may_have_a_name_of_its_own() {
    let unique = "nqn.2026-11.org.soft-roce:discovery";
    target(&["set", "discovery_nqn", unique]);
    for nqn in [unique, Nqn::DISCOVERY] {
        assert_eq!(names(&json(&["-n", nqn]))[0], unique, "asked as {nqn}");
    }
    target(&["set", "discovery_nqn", Nqn::DISCOVERY]);
    let output = run(nvmf().args(["discover", "-a", &address(), "-n", unique]), &[]);
    assert_eq!(output.status.code(), Some(3), "the name is gone: {output:?}");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_subsystem_with_namespaces_has_no_log() {
    let output = run(nvmf().args(["discover", "-a", &address(), "-n", SUBSYSTEM]), &[]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("no discovery subsystem"), "{message}");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn controllers_come_from_every_kind_of_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let address = address();
    let ini = format!(
        "[Host]\nhostnqn = {OTHER_HOST}\nhostid = 6a2c1f4e-0b1d-4c8e-9f53-7d1e2a3b4c5e\n\
         [Discovery Controller]\ncontroller = transport=rdma;traddr={address}\n\
         [Discovery Controller]\ncontroller = transport=tcp;traddr={address}\n\
         [Subsystem]\nnqn = {SUBSYSTEM}\ncontroller = transport=rdma;traddr={address}\n"
    );
    let json = format!(
        r#"[{{"hostnqn": "{OTHER_HOST}", "hostid": "6a2c1f4e-0b1d-4c8e-9f53-7d1e2a3b4c5e",
              "subsystems": [{{"nqn": "{}", "ports": [
                {{"transport": "rdma", "traddr": "{address}", "discovery": true}}]}}]}}]"#,
        Nqn::DISCOVERY
    );
    let list = format!("-t rdma -a {address} -q {OTHER_HOST}\n");
    for (name, text) in [("a.conf", ini), ("config.json", json), ("discovery.conf", list)] {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap();
        let output = nvmf_ok(&["discover", "--json", "--config", path], &[]);
        let value: Value = serde_json::from_slice(&output).expect("one JSON value");
        let [log] = value.as_array().expect("a list").as_slice() else { panic!("{value}") };
        assert!(names(log).contains(&CLOSED), "{name}: as the host of the file: {log}");
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_lost_controller_is_found_again() {
    many(8, "nqn.2026-11.org.soft-roce:lost-", 1);
    block_on(async {
        let mut options = discovery(4428);
        options.keep_alive = Duration::from_secs(2);
        let mut watch = DiscoveryWatch::connect(&options).await.unwrap();
        let log = next(&mut watch).await;
        target(&["unlink", "port", "8", "nqn.2026-11.org.soft-roce:lost-0"]);
        loop {
            match watch.next().await {
                DiscoveryEvent::Log(_) => {}
                DiscoveryEvent::Lost { attempt, .. } => {
                    assert_eq!(attempt, 1);
                    break;
                }
                DiscoveryEvent::Ended(error) => panic!("{error}"),
            }
        }
        target(&["link", "port", "8", "nqn.2026-11.org.soft-roce:lost-0"]);
        let again = next(&mut watch).await;
        assert!(again.generation > log.generation && again.entries.len() == 2);
        watch.shutdown().await;
    });
}
