//! Every way to be refused: what the library says, and how `nvmf identify` ends.

use std::{fs, os::unix::fs::PermissionsExt};

use auth::{GroupId, HashId, Policy};
use rdma_host::{
    ConnectOptions, Controller, DiscoveryController, Error, ErrorClass, LifecycleState,
    error::AuthenticationFailure, wire::Nqn,
};
use serde_json::Value;
use tests::{SUBSYSTEM, break_connections, nvmf, run, target, uri};

use super::bed::{
    HOST, Keys, ONE_WAY_HOST, choose, connect_and_read, credentials, in_runtime, plain,
    secret_file, secret_options, secret_text, set, write_and_read,
};

/// Connects with these options, which must fail.
fn refused(options: &ConnectOptions) -> Error {
    in_runtime(Controller::connect(options).into_future()).err().expect("the target refuses")
}

/// The target's keys in these tests, both of them.
fn keys() -> Keys {
    choose("sha256", "ffdhe2048");
    let keys = Keys::new(secret_text(HashId(1), 32, 1), Some(secret_text(HashId(1), 32, 2)));
    keys.set();
    keys
}

/// blktests nvme/041 and nvme/044, SPDK's host/auth.sh: no secret, another one, and another one of
/// the controller. None of them is worth another attempt. What the target says of it may be
/// overtaken by its hanging up: both messages ask to compare the secrets at both ends.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn keys_that_are_wrong_or_missing_are_terminal() {
    let keys = keys();
    let other = secret_text(HashId(1), 32, 3);
    let ours = Some(keys.host.as_str());
    for (name, host, controller, words) in [
        ("no key", None, None, "give this host's secret"),
        ("another host key", Some(&*other), None, "at both ends"),
        ("another host key, two-way", Some(&*other), keys.controller.as_deref(), "at both ends"),
        ("another controller key", ours, Some(&*other), "another controller secret"),
        ("keys swapped", keys.controller.as_deref(), ours, "at both ends"),
        ("another length", Some(&secret_text(HashId(1), 48, 1)), None, "at both ends"),
        ("another transformation", Some(&secret_text(HashId(2), 32, 1)), None, "at both ends"),
    ] {
        let error = refused(&secret_options(host.map(|host| credentials(host, controller))));
        assert_eq!(error.class(), ErrorClass::Access, "{name}: {error}");
        assert!(error.to_string().contains(words), "{name}: {error}");
        assert!(matches!(error, Error::Authentication { .. }), "{name}: {error}");
    }
    // blktests nvme/041 and nvme/044 again: the right ones get in.
    for options in [keys.options(), secret_options(Some(credentials(&keys.host, None)))] {
        in_runtime(connect_and_read(&options));
    }
}

/// The target has no controller secret for this host: the host's is right, and is not blamed.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_controller_secret_that_the_target_does_not_have_is_told() {
    let [right, wrong, controller] = [plain(21), plain(22), plain(23)];
    set(&["host", ONE_WAY_HOST, "dhchap_key", &right]);
    target(&["allow", SUBSYSTEM, ONE_WAY_HOST]);
    let mut options = secret_options(Some(credentials(&right, Some(&controller))));
    options.host.nqn = ONE_WAY_HOST.parse().expect("an NQN");
    let error = refused(&options);
    let words = "the target has no controller secret for this host";
    assert!(error.to_string().contains(words), "{error}");
    assert_eq!(error.class(), ErrorClass::Access, "{error}");
    options.authentication.credentials = Some(credentials(&wrong, Some(&controller)));
    let error = refused(&options);
    assert!(error.to_string().contains("at both ends"), "{error}");
    options.authentication.credentials = Some(credentials(&right, None));
    in_runtime(connect_and_read(&options));
    target(&["disallow", SUBSYSTEM, ONE_WAY_HOST]);
}

/// SPDK's target/auth.sh: what lives goes on, what comes new needs the new key.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_key_changed_at_the_target_matters_to_the_next_connection_only() {
    choose("sha256", "null");
    let keys = Keys::new(plain(1), None);
    keys.set();
    in_runtime(async {
        let controller = Controller::connect(&keys.options()).await.expect("the key is right");
        let next = Keys::new(plain(2), None);
        next.set();
        write_and_read(&controller).await;
        let old = Controller::connect(&keys.options()).await.err().expect("the key is old");
        assert_eq!(old.class(), ErrorClass::Access, "{old}");
        let new = Controller::connect(&next.options()).await.expect("the key is new");
        write_and_read(&controller).await;
        new.shutdown().await;
        controller.shutdown().await;
    });
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_key_changed_at_the_target_ends_the_retries() {
    choose("sha256", "ffdhe2048");
    let keys = Keys::new(plain(1), None);
    keys.set();
    in_runtime(async {
        let controller = Controller::connect(&keys.options()).await.expect("the key is right");
        let mut changes = controller.changes();
        tokio::task::spawn_blocking(|| {
            Keys::new(plain(2), None).set();
            break_connections(SUBSYSTEM);
        })
        .await
        .expect("the key changes");
        let error = controller.failed().await;
        assert_eq!(error.class(), ErrorClass::Access, "{error}");
        assert!(error.to_string().contains("1 attempt"), "{error}");
        let mut last = None;
        while let Some(change) = changes.next().await {
            last = Some(change.state);
        }
        assert_eq!(last, Some(LifecycleState::Dead));
        assert!(controller.changes().next().await.is_none(), "there is nothing to come");
    });
}

/// SPDK's target/auth.sh: secrets that the target does not ask for.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_target_that_stops_asking_is_refused_unless_allowed() {
    let keys = keys();
    // For nvmet a subsystem that any host may use needs no authentication.
    target(&["disallow", SUBSYSTEM, HOST]);
    set(&["subsystem", SUBSYSTEM, "allow_any_host", "1"]);
    let mut options = keys.options();
    let error = refused(&options);
    let code = Case::new(3, &["asks for none"]).host(&keys.host).run();
    let warned = ["nvmf: warning: the target asked for no authentication though secrets are set"];
    let allowed = Case::new(0, &warned).host(&keys.host).with(&["--dhchap-allow-unasked"]).run();
    options.authentication.policy = options.authentication.policy.danger_allow_unauthenticated();
    let how = in_runtime(connect_and_read(&options));
    set(&["subsystem", SUBSYSTEM, "allow_any_host", "0"]);
    target(&["allow", SUBSYSTEM, HOST]);
    assert!(
        matches!(
            &error,
            Error::Authentication { failure: AuthenticationFailure::Requirements(_), .. }
        ),
        "{error}"
    );
    assert_eq!(error.class(), ErrorClass::Access, "{error}");
    assert_eq!((code, allowed), (Ok(()), Ok(())));
    assert_eq!(how, [None; 3]);
}

/// nvmet never asks on a discovery controller, whose log anybody may forge: secrets that are given
/// for it are not ignored.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_discovery_controller_that_does_not_ask_is_refused_unless_allowed() {
    let mut options = keys().options();
    options.subsystem = Nqn::DISCOVERY.parse().expect("an NQN");
    let connect = |options: &ConnectOptions| in_runtime(DiscoveryController::connect(options));
    let error = connect(&options).err().expect("it does not ask");
    assert_eq!(error.class(), ErrorClass::Access, "{error}");
    assert!(error.to_string().contains("the target asks for none"), "{error}");
    options.authentication.policy = options.authentication.policy.danger_allow_unauthenticated();
    connect(&options).expect("it is allowed");
    options.authentication = rdma_host::config::AuthenticationOptions::default();
    connect(&options).expect("there is nothing to ask for");
}

/// The target chooses the group that is set for the host, offered or not; of hashes, one that is
/// offered.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_group_below_the_floor_is_refused() {
    let keys = keys();
    for (hash, group) in [
        (HashId::SHA_256, GroupId::FFDHE_3072),
        (HashId::SHA_384, GroupId::FFDHE_4096),
        (HashId::SHA_512, GroupId::FFDHE_8192),
    ] {
        let mut options = keys.options();
        options.authentication.policy = Policy::new(hash, group).expect("known ids");
        let error = refused(&options);
        assert!(error.to_string().contains("below the minimum"), "{error}");
        assert_eq!(error.class(), ErrorClass::Access, "{error}");
    }
    for hash in [HashId::SHA_384, HashId::SHA_512] {
        let mut options = keys.options();
        options.authentication.policy = Policy::new(hash, GroupId::NULL).expect("known ids");
        let how = in_runtime(connect_and_read(&options));
        assert!(how.iter().all(|how| how.is_some_and(|how| how.hash >= hash)), "{how:?}");
    }
}

/// One `nvmf identify`, and how it is to end.
struct Case<'a> {
    code: i32,
    words: &'a [&'a str],
    name: &'a str,
    host: Option<(&'a str, u32)>,
    controller: Option<(&'a str, u32)>,
    more: &'a [&'a str],
}

impl<'a> Case<'a> {
    fn new(code: i32, words: &'a [&'a str]) -> Self {
        Self { code, words, name: HOST, host: None, controller: None, more: &[] }
    }

    /// With a file that holds our secret.
    fn host(self, text: &'a str) -> Self {
        Self { host: Some((text, 0o600)), ..self }
    }

    /// With a file that holds the controller's.
    fn controller(self, text: &'a str) -> Self {
        Self { controller: Some((text, 0o600)), ..self }
    }

    /// With files of this mode.
    fn mode(self, mode: u32) -> Self {
        let with = |file: Option<(&'a str, u32)>| file.map(|(text, _)| (text, mode));
        Self { host: with(self.host), controller: with(self.controller), ..self }
    }

    fn with(self, more: &'a [&'a str]) -> Self {
        Self { more, ..self }
    }

    fn named(self, name: &'a str) -> Self {
        Self { name, ..self }
    }

    /// Says what is not as it should be.
    fn run(&self) -> Result<(), String> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = nvmf();
        command.args(["identify", &uri(SUBSYSTEM), "-q", self.name]);
        let files = [("--dhchap-secret-file", self.host)];
        for (option, file) in
            files.into_iter().chain([("--dhchap-ctrl-secret-file", self.controller)])
        {
            let Some((text, mode)) = file else { continue };
            let path = folder.path().join(&option[2..]);
            fs::write(&path, text).expect("the folder is ours");
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("the file is ours");
            command.arg(option).arg(path);
        }
        let output = run(command.args(self.more), &[]);
        let message = String::from_utf8_lossy(&output.stderr);
        let lacks = self.words.iter().find(|word| !message.contains(**word));
        match (output.status.code() == Some(self.code), lacks) {
            (true, None) if self.code == 0 || message.trim_end().lines().count() == 1 => Ok(()),
            _ => Err(format!("{:?} {:?}: {}: {message}", self.words, self.more, output.status)),
        }
    }
}

/// blktests nvme/044 among them, whose secret with a bad CRC this is.
const BAD_CRC: &str = "DHHC-1:00:Jc/My1o0qtLCWRp+sHhAVafdfaS7YQOMYhk9zSmlatobqB8C:";

/// Attempts that the target rejects: exit code 3, since another attempt can't help.
fn refused_by_the_target(keys: &Keys) -> Vec<Result<(), String>> {
    let ours = keys.host.as_str();
    let theirs = keys.controller.as_deref().expect("two keys");
    let (other, longer) = (secret_text(HashId(1), 32, 3), secret_text(HashId(1), 64, 1));
    let untransformed = plain(1);
    let floor = ["--dhchap-min-group", "ffdhe3072"];
    let floors = ["--dhchap-min-group", "ffdhe8192", "--dhchap-min-hash", "sha512"];
    let stranger = "nqn.2026-11.org.soft-roce:stranger";
    let queue = ["queue 0", "at both ends"];
    [
        Case::new(3, &["queue 0", "demands authentication", "give this host's secret"]),
        Case::new(3, &queue).host(&other),
        Case::new(3, &queue).host(&other).controller(theirs),
        Case::new(3, &["queue 0", "another controller secret"]).host(ours).controller(&other),
        Case::new(3, &queue).host(theirs).controller(ours),
        Case::new(3, &queue).host(theirs),
        Case::new(3, &queue).host(&longer),
        Case::new(3, &queue).host(&untransformed),
        Case::new(3, &["chose ffdhe2048, below the minimum ffdhe3072"]).host(ours).with(&floor),
        Case::new(3, &["chose ffdhe2048, below the minimum ffdhe8192"]).host(ours).with(&floors),
        Case::new(3, &["does not allow this host"]).host(ours).named(stranger),
        Case::new(3, &["does not allow this host"]).named(stranger),
    ]
    .iter()
    .map(Case::run)
    .collect()
}

/// Attempts that never reach the target: exit code 2.
fn refused_here(keys: &Keys) -> Vec<Result<(), String>> {
    let ours = keys.host.as_str();
    let ours_in_clear = ours.trim_start_matches("DHHC-1:01:");
    let wrong_prefix = format!("DHHC-2:01:{ours_in_clear}");
    let wrong_hash = format!("DHHC-1:09:{ours_in_clear}");
    let cut = &ours[..ours.len() - 9];
    let large = "D".repeat(5000);
    let both = ["--dhchap-secret", ours, "--dhchap-secret-fd", "0"];
    let descriptor = ["--dhchap-secret-fd", "77"];
    let nothing = ["--dhchap-secret-file", "/nowhere/secret"];
    let nothing_theirs = ["--dhchap-ctrl-secret-file", "/nowhere/theirs"];
    let folder = ["--dhchap-secret-file", "/run"];
    let input = ["--dhchap-secret-fd", "0"];
    let group = ["--dhchap-min-group", "modp2048"];
    let hash = ["--dhchap-min-hash", "md5"];
    [
        Case::new(2, &["our secret", "checksum"]).host(BAD_CRC),
        Case::new(2, &["the controller's secret", "checksum"]).host(ours).controller(BAD_CRC),
        Case::new(2, &["our secret", "DHHC-1"]).host(&wrong_prefix),
        Case::new(2, &["our secret"]).host(&wrong_hash),
        Case::new(2, &["our secret"]).host(cut),
        Case::new(2, &["our secret"]).host(ours_in_clear),
        Case::new(2, &["our secret"]).host("DHHC-1:01:"),
        Case::new(2, &["our secret"]).host("DHHC-1:01:AAAA:"),
        Case::new(2, &["our secret"]).host("DHHC-1:01:!!!!:"),
        Case::new(2, &["our secret"]).host("secret"),
        Case::new(2, &["our secret"]).host(""),
        Case::new(2, &["our secret"]).host("\n"),
        Case::new(2, &["our secret"]).host(&large),
        Case::new(2, &["the controller's secret"]).host(ours).controller(""),
        Case::new(2, &["same"]).host(ours).controller(ours),
        Case::new(2, &["may be read by others", "chmod 600"]).host(ours).mode(0o644),
        Case::new(2, &["may be read by others", "mode 640"]).host(ours).mode(0o640),
        Case::new(2, &["may be read by others", "mode 604"]).host(ours).mode(0o604),
        Case::new(2, &["add --dhchap-secret-file"]).controller(ours),
        Case::new(2, &["/nowhere/secret"]).with(&nothing),
        Case::new(2, &["/nowhere/theirs"]).host(ours).with(&nothing_theirs),
        Case::new(2, &["our secret", "/run"]).with(&folder),
        Case::new(2, &["our secret", "/dev/fd/77"]).with(&descriptor),
        Case::new(2, &["our secret"]).with(&input),
    ]
    .iter()
    .map(Case::run)
    .chain([(&both[..], "cannot be used with"), (&group, "ffdhe8192"), (&hash, "sha512")].map(
        |(arguments, words)| {
            // The parser of the command line explains itself in several lines.
            let output = run(nvmf().args(["identify", &uri(SUBSYSTEM)]).args(arguments), &[]);
            let message = String::from_utf8_lossy(&output.stderr);
            if output.status.code() == Some(2) && message.contains(words) {
                return Ok(());
            }
            Err(format!("{arguments:?}: {}: {message}", output.status))
        },
    ))
    .collect()
}

/// A target that can't prove itself, or negotiate, though it has our key.
fn refused_by_a_target_that_lacks_something() -> Vec<Result<(), String>> {
    let nobody = "nqn.2026-11.org.soft-roce:one-way";
    let (ours, theirs) = (plain(1), plain(2));
    target(&["allow", SUBSYSTEM, nobody]);
    set(&["host", nobody, "dhchap_key", &ours]);
    let two_way = Case::new(3, &["queue 0"]).named(nobody).host(&ours).controller(&theirs).run();
    let warned = ["warning: authenticated without a DH group", "warning: the target has not"];
    let one_way = Case::new(0, &warned).named(nobody).host(&ours).run();
    assert_eq!(one_way, Ok(()), "what it can do, it does");
    let other_host = Case::new(3, &["queue 0"]).named(nobody).host(&theirs).run();
    target(&["disallow", SUBSYSTEM, nobody]);
    let gone = Case::new(3, &["does not allow this host"]).named(nobody).host(&ours).run();
    vec![two_way, other_host, gone]
}

/// Each ends with the exit code that says whether to try again, and one line that says whose the
/// fault is.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn more_than_forty_refusals_say_what_is_wrong() {
    let keys = keys();
    let mut all = refused_by_the_target(&keys);
    all.extend(refused_here(&keys));
    all.extend(refused_by_a_target_that_lacks_something());
    let wrong: Vec<_> = all.iter().filter_map(|one| one.as_ref().err()).collect();
    println!("{} refusals", all.len());
    assert!(wrong.is_empty(), "{} of {}:\n{wrong:#?}", wrong.len(), all.len());
    assert!(all.len() > 40);
}

/// `nvmf identify` and `nvmf bench` say of each queue how it was authenticated.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn reports_say_how_each_queue_was_authenticated() {
    let keys = keys();
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| secret_file(folder.path(), name, text);
    let ours = file("ours", &keys.host);
    let theirs = file("theirs", keys.controller.as_deref().expect("two keys"));
    let common = ["-q", HOST, "--dhchap-secret-file", &ours, "--dhchap-ctrl-secret-file", &theirs];
    let target = uri(SUBSYSTEM);
    let json = ["-i", "2", "-o", "json"];
    let bench = ["--ns", "1", "--runtime", "1", "--rw", "read", "--size", "1M"];
    for arguments in [&["identify", &target][..], &[&["bench", &target][..], &bench].concat()] {
        let arguments = [arguments, &common, &json].concat();
        let printed = tests::nvmf_ok(&arguments, &[]);
        let report: Value = serde_json::from_slice(&printed).expect("JSON");
        let how = find(&report, "authentication").expect("it says how");
        let queues = how.as_array().expect("a value for each queue");
        assert!(queues.len() >= 2, "{how}");
        for queue in queues {
            assert_eq!(queue["bidirectional"], true, "{how}");
            assert_eq!(queue["dhgroup"], "ffdhe2048", "{how}");
        }
    }
    let printed = tests::nvmf_ok(&[&["identify", &target][..], &common].concat(), &[]);
    let text = String::from_utf8(printed).expect("text");
    assert!(text.contains("DH-HMAC-CHAP, two-way, hmac(sha256), ffdhe2048"), "{text}");
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_example_authenticates() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = secret_file(folder.path(), "secret", &keys().host);
    let printed = tests::run_example("authenticate", &[SUBSYSTEM, HOST, &file]);
    assert!(printed.ends_with(" queues authenticated\n"), "{printed}");
    assert!(!printed.starts_with("0 "), "{printed}");
}

/// The first value of this name, at any depth.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => {
            map.get(name).or_else(|| map.values().find_map(|value| find(value, name)))
        }
        Value::Array(list) => list.iter().find_map(|value| find(value, name)),
        _ => None,
    }
}
