//! Secrets and security in configurations, files and arguments: what they ask for is done or
//! refused, and no message shows a secret. The commands need no target.

#[allow(dead_code, reason = "places between characters are for parsers, which are faster")]
#[path = "../../options/src/configuration/tests/damage.rs"]
mod damage;

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use damage::{KINDS, Random, places, repetitions, shown_piece};

const SECRET: &str = "DHHC-1:00:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:";
const OTHER: &str = "DHHC-1:00:9wCYVQqDvADjGIZo6q/v2SfmXZqqkNa9TcvYu97Ly3Q/gajh:";

/// Options by which this host is the same on every machine.
const IDENTITY: [&str; 4] =
    ["-q", "nqn.2026-11.org.example:host", "-I", "46ba5037-7ce5-41fa-9452-48477bf00080"];

/// Files of one test, which only their owner may read.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file; returns its path.
    fn write(&self, name: &str, text: &str) -> String {
        self.write_with_mode(name, text, 0o600)
    }

    fn write_with_mode(&self, name: &str, text: &str, mode: u32) -> String {
        let path = self.path(name);
        fs::write(&path, text).expect("the file is written");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("it is ours");
        path.into_os_string().into_string().expect("UTF-8")
    }

    /// Writes a configuration in each format with these parameters of a discovery controller; their
    /// names are those of INI.
    fn write_each(&self, parameters: &[(&str, &str)]) -> Vec<String> {
        let lines: String =
            parameters.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let pairs: String = parameters
            .iter()
            .map(|(key, value)| {
                let key = key.replace("kxchap-ctrl-secret", "dhchap_ctrl_key");
                let key = key.replace("kxchap-secret", "dhchap_key").replace('-', "_");
                format!(", \"{key}\": \"{value}\"")
            })
            .collect();
        let options: String =
            parameters.iter().map(|(key, value)| format!(" --{key}={value}")).collect();
        vec![
            self.write(
                "a.conf",
                &format!(
                    "[Discovery Controller]\n{lines}\
                     controller = transport=rdma;traddr=127.0.0.1;trsvcid=1\n"
                ),
            ),
            self.write(
                "a.json",
                &format!(
                    "{{\"hosts\": [{{\"subsystems\": [{{\
                     \"nqn\": \"nqn.2014-08.org.nvmexpress.discovery\", \"ports\": [{{\
                     \"transport\": \"rdma\", \"traddr\": \"127.0.0.1\", \"trsvcid\": \"1\"\
                     {pairs}}}]}}]}}]}}"
                ),
            ),
            self.write("discovery.conf", &format!("-t rdma -a 127.0.0.1 -s 1{options}\n")),
        ]
    }
}

fn nvmf(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nvmf"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("nvmf runs");
    // A command that does not read is no failure of the test.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("it ends")
}

fn discover(configuration: &str) -> Output {
    nvmf(&[&["discover", "-J", configuration][..], &IDENTITY].concat(), "")
}

/// Messages, without warnings about the identity of this host.
fn message(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines = text.lines().filter(|line| !line.contains("nvmf: warning: host identifier"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Checks the exit code and the words of a message of one line.
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let message = message(output);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    for word in words {
        assert!(message.contains(word), "{message:?} lacks {word:?}");
    }
}

/// Checks that no part of a secret is in the output.
fn assert_silent(output: &Output) {
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    for secret in [SECRET, OTHER] {
        assert!(!said.contains(&secret[10..26]) && !said.contains(&secret[40..56]), "{said}");
    }
}

#[test]
fn what_a_configuration_asks_for_is_done_or_refused_by_name() {
    let files = Files::new();
    for (parameters, words) in [
        (&[("kxchap-secret", "garbage")][..], &["kxchap-secret (dhchap_key): ", "DHHC-1:"][..]),
        (&[("kxchap-secret", SECRET), ("kxchap-ctrl-secret", "x")], &["dhchap_ctrl_key"]),
        (&[("kxchap-secret", SECRET), ("kxchap-ctrl-secret", SECRET)], &["same"]),
        (&[("kxchap-ctrl-secret", SECRET)], &["add kxchap-secret"]),
        (&[("tls", "true")], &["tls is set", "RDMA has no TLS"]),
        (&[("concat", "true")], &["concat is set"]),
        (&[("tls-key", "NVMeTLSkey-1:01:x:")], &["tls-key is set"]),
        (&[("tls-key-identity", "x")], &["tls-key-identity is set"]),
        (&[("keyring", ".nvme")], &["keyring is set"]),
        (&[("hdr-digest", "true")], &["hdr-digest is set"]),
        (&[("data-digest", "true")], &["data-digest is set"]),
        (&[("host-iface", "eth0")], &["host-iface is set", "host-traddr"]),
        (&[("tos", "300")], &["tos takes a number from -1 to 255"]),
        (&[("keep-alive-tmo", "-5")], &["keep-alive-tmo takes a number"]),
    ] {
        for path in files.write_each(parameters) {
            // An address is not allowed on a line of its own.
            if parameters[0].0 == "host-iface" && path.ends_with("a.conf") {
                continue;
            }
            assert_refused(&discover(&path), 2, words);
        }
    }
    // A key that is good is no reason to refuse: the connection is tried.
    for path in files.write_each(&[("kxchap-secret", SECRET), ("tls", "false")]) {
        assert_eq!(discover(&path).status.code(), Some(4), "{}", message(&discover(&path)));
    }
}

/// A key about security that has no effect is refused, not ignored.
#[test]
fn security_in_the_wrong_place_is_refused() {
    let files = Files::new();
    let controller = "controller = transport=rdma;traddr=127.0.0.1;trsvcid=1\n";
    let ini = |lines: &str| format!("{lines}\n[Discovery Controller]\n{controller}");
    let port = r#""transport": "rdma", "traddr": "127.0.0.1""#;
    let json = |host: &str, subsystem: &str, port_more: &str| {
        format!(
            "{{\"hosts\": [{{ {host} \"subsystems\": [{{ {subsystem} \
             \"nqn\": \"nqn.2014-08.org.nvmexpress.discovery\", \"ports\": [{{ {port} {port_more}\
             }}]}}]}}]}}"
        )
    };
    let secret = format!("\"dhchap_ctrl_key\": {SECRET:?},");
    for (name, text) in [
        ("1.conf", ini(&format!("[Host]\ndhchap_key = {SECRET}"))),
        ("2.conf", ini(&format!("[Host]\nkxchap_secret = {SECRET}"))),
        ("3.conf", ini(&format!("[Host]\nsceret = {SECRET}"))),
        ("4.conf", ini(&format!("[Hosts]\nkxchap-secret = {SECRET}"))),
        ("5.conf", ini("[Host]\nTLS = 1")),
        ("1.json", json("\"tls\": true,", "", "")),
        ("2.json", json("", "\"tls\": true,", "")),
        ("3.json", json(&secret, "", "")),
        ("4.json", json("", "", ", \"dhchap_secret\": \"x\"")),
        ("5.json", format!("{{\"hosts\": [], {} \"owner\": \"x\"}}", secret)),
        ("1/discovery.conf", "-t rdma -a 127.0.0.1 --dhchap-key=x".to_owned()),
        ("2/discovery.conf", format!("-t rdma -a 127.0.0.1 --dhchap-secret= {SECRET}")),
        ("3/discovery.conf", format!("-t rdma -a 127.0.0.1 {SECRET}")),
        ("4/discovery.conf", "-t rdma -a 127.0.0.1 --TLS".to_owned()),
    ] {
        fs::create_dir_all(files.path(name).parent().expect("a folder")).expect("it is made");
        let path = files.write(name, &text);
        for output in [discover(&path), nvmf(&["config", "show", &path], "")] {
            assert_refused(&output, 2, &[name]);
            assert_silent(&output);
        }
    }
}

/// Secrets in a configuration are as safe as those in a file.
#[test]
fn a_configuration_with_secrets_that_others_may_read_is_not_used() {
    let files = Files::new();
    for path in files.write_each(&[("kxchap-secret", SECRET)]) {
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("it is ours");
        assert_refused(&discover(&path), 2, &["may be read by others", "chmod 600"]);
    }
    for path in files.write_each(&[("tos", "1")]) {
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("it is ours");
        assert_eq!(discover(&path).status.code(), Some(4));
    }
}

#[test]
fn no_message_about_a_configuration_quotes_what_it_did_not_recognise() {
    let files = Files::new();
    let list = format!(
        "[ {{ \"hostnqn\": \"nqn.x\", \"dhchap_key\": {SECRET:?}, \"subsystems\": [ {{ \"nqn\": \
         \"nqn.y\", \"ports\": [ {{ \"transport\": \"rdma\", \"traddr\": \"127.0.0.1\", \
         \"dhchap_ctrl_key\": {OTHER:?} }} ] }} ] }} ]"
    );
    for (name, text) in [
        ("colon.conf", format!("[Host]\nkxchap-secret: {SECRET}\n")),
        ("padded.conf", format!("[Host]\nkxchap-secret: {}=\n", &SECRET[..50])),
        ("blank.conf", format!("[Host]\nkxchap-secret {SECRET}\n")),
        ("alone.conf", format!("{SECRET}\n")),
        ("section.conf", format!("[{SECRET}]\n")),
        ("open.conf", format!("[{SECRET}\n")),
        ("value.conf", format!("[Host]\ntos = {SECRET}\n")),
        ("nqn.conf", format!("[Host]\nhostnqn = {SECRET}\n")),
        ("id.conf", format!("[Host]\nhostid = {SECRET}\n")),
        ("path.conf", format!("[Discovery Controller]\ncontroller = {SECRET}\n")),
        (
            "address.conf",
            format!("[Discovery Controller]\ncontroller = transport=rdma;traddr={SECRET}\n"),
        ),
        ("swapped.json", format!("{{\"hosts\": [{{ {SECRET:?}: \"dhchap_key\" }}]}}")),
        ("value.json", format!("{{\"hosts\": {SECRET:?} }}")),
        ("none.json", SECRET.to_owned()),
        ("discovery.conf", format!("-t rdma -a 127.0.0.1 -S{SECRET} -k {OTHER}")),
    ] {
        let path = files.write(name, &text);
        for arguments in [
            &["config", "show", &path][..],
            &["config", "convert", &path],
            &["discover", "-J", &path],
        ] {
            let output = nvmf(arguments, "");
            assert_silent(&output);
            // Unknown sections are ignored, as by nvme-cli.
            let shown = name == "section.conf" && arguments[1] == "show";
            let code = if shown { 0 } else { 2 };
            assert_eq!(output.status.code(), Some(code), "{name}: {}", message(&output));
        }
    }
    // JSON is known by its first characters.
    let path = files.write("nvme", &list);
    let output = nvmf(&["config", "show", &path], "");
    assert!(output.status.success(), "{}", message(&output));
    assert_silent(&output);
    assert!(String::from_utf8_lossy(&output.stdout).contains("kxchap-secret = (a secret)"));
}

#[test]
fn none_is_not_set() {
    let files = Files::new();
    let parameters = [
        ("kxchap-secret", "none"),
        ("kxchap-ctrl-secret", "none"),
        ("tls-key", "none"),
        ("keyring", "none"),
    ];
    for path in files.write_each(&parameters) {
        assert_eq!(discover(&path).status.code(), Some(4), "{}", message(&discover(&path)));
        let shown = nvmf(&["config", "show", &path], "").stdout;
        let shown = String::from_utf8_lossy(&shown);
        assert!(shown.contains("kxchap-secret = (default)") && !shown.contains("none"), "{shown}");
        let written = nvmf(&["config", "convert", &path, "-o", "-"], "").stdout;
        assert!(!String::from_utf8_lossy(&written).contains("none"));
    }
    // As udev's rules call nvme-cli.
    let none =
        ["--host-traddr=none", "--hostnqn=none", "--hostid=none", "-S", "none", "-C", "none"];
    for command in [
        &["discover", "-a", "127.0.0.1", "--trsvcid=none"][..],
        &["identify", "-a", "127.0.0.1", "-n", "nqn.x", "--trsvcid=none"],
    ] {
        let output = nvmf(&[command, &none].concat(), "");
        assert_eq!(output.status.code(), Some(4), "{}", message(&output));
    }
    let path = files.write(
        "discovery.conf",
        "-t rdma -a 127.0.0.1 -s 1 --host-traddr=none --host-iface=none --hostnqn=none \
         --hostid=none\n-t rdma -a 127.0.0.1 --trsvcid=none\n",
    );
    assert_eq!(discover(&path).status.code(), Some(4), "{}", message(&discover(&path)));
}

#[test]
fn secret_files_are_those_of_this_user_alone() {
    let files = Files::new();
    let check = |option: &str, path: &str, words: &[&str]| {
        let target = "nvmf-rdma://127.0.0.1:1/nqn.x";
        let identify = ["identify", target, option, path];
        assert_refused(&nvmf(&[&identify[..], &IDENTITY].concat(), ""), 2, words);
        assert_refused(&nvmf(&["key", "check", path], ""), 2, words);
    };
    let fifo = files.path("fifo");
    let made = Command::new("mkfifo").arg("-m").arg("600").arg(&fifo).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo makes a FIFO");
    let begun = Instant::now();
    for option in ["--dhchap-secret-file", "--dhchap-ctrl-secret-file"] {
        check(option, fifo.to_str().expect("UTF-8"), &["fifo", "no file"]);
        check(option, "/dev/zero", &["no file"]);
        for (mode, words) in [(0o640, "mode 640"), (0o604, "mode 604")] {
            let path = files.write_with_mode("shared", SECRET, mode);
            check(option, &path, &["may be read by others", words]);
        }
        let path = files.write("foreign", SECRET);
        if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
            check(option, &path, &["belongs to user 12345"]);
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "nothing waits for a writer");
    // Standard input is read if it is asked for; line ends of every kind are no part of a secret.
    for arguments in
        [&["key", "check", "-"][..], &["key", "check", "/dev/stdin"], &["key", "check"]]
    {
        for end in ["", "\n", "\r\n"] {
            let output = nvmf(arguments, &format!("{SECRET}{end}"));
            assert!(output.status.success(), "{arguments:?}: {}", message(&output));
        }
    }
}

#[test]
fn files_are_read_up_to_a_limit() {
    let files = Files::new();
    let large = files.write("large.conf", &"#\n".repeat(1 << 20));
    for arguments in [
        &["config", "show", "/dev/zero"][..],
        &["config", "convert", "/dev/zero", "-o", "-"],
        &["config", "show", &large],
        &["discover", "-J", "/dev/zero"],
        &["key", "check", "/dev/zero"],
        &["key", "check", &large],
    ] {
        assert_refused(&nvmf(arguments, ""), 2, &[arguments[2]]);
    }
    let report = files.write("report.json", "{ \"iops\": 1.0 }");
    let compared = nvmf(&["bench", "--compare", "/dev/zero", &report], "");
    assert_refused(&compared, 2, &["/dev/zero", "more than 64 MiB"]);
    // A file that is no report may hold a secret.
    for text in [format!("{SECRET:?}"), format!("{{ \"iops\": {SECRET:?} }}"), SECRET.to_owned()] {
        let path = files.write("secret.json", &text);
        let compared = nvmf(&["bench", "--compare", &path, &report], "");
        assert_refused(&compared, 2, &[&path]);
        assert_silent(&compared);
    }
}

#[test]
fn a_secret_given_in_the_place_of_a_file_is_not_shown() {
    let files = Files::new();
    for arguments in [
        &["key", "check", SECRET][..],
        &["key", "check", "-k", "DHHC-1:00:", SECRET],
        &["identify", "nvmf-rdma://127.0.0.1:1/nqn.x", "--dhchap-secret-file", SECRET],
        &["identify", "nvmf-rdma://127.0.0.1:1/nqn.x", "--dhchap-secret-key", SECRET],
        &["config", "show", SECRET],
        &["discover", "-J", SECRET],
    ] {
        let output = nvmf(arguments, "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", message(&output));
        assert_silent(&output);
    }
    let given = nvmf(&["key", "check", "-k", SECRET], "");
    assert!(given.status.success(), "{}", message(&given));
    assert!(message(&given).contains("command line"), "{}", message(&given));
    assert_silent(&given);
    let wrong = nvmf(&["key", "check", "--key", &SECRET.replace('6', "7")], "");
    assert_eq!(wrong.status.code(), Some(1), "{}", message(&wrong));
    let written =
        files.write("a.conf", "[Discovery Controller]\ncontroller = transport=rdma;traddr=h\n");
    let output = nvmf(&["config", "convert", &written], "");
    assert_refused(&output, 2, &["--output /etc/nvme/nvme-fabrics.conf", "--output -"]);
}

/// Kinds of damage, each as often as is wanted, with a seed for the secret.
fn kinds() -> impl Iterator<Item = (usize, u64)> {
    (0..repetitions(1))
        .flat_map(|round| (0..KINDS).map(move |kind| (kind, (round * KINDS + kind) as u64)))
}

/// Text of a file with a secret in one of its places.
fn with_secret(text: &str, random: &mut Random, secret: &str) -> String {
    let places = places(text);
    let place = random.choose(&places);
    format!("{}{secret}{}", &text[..place.start], &text[place.end..])
}

/// Damage of 40 kinds to a secret, in files of each format, by the whole program.
#[test]
fn no_output_shows_a_damaged_secret_of_a_configuration() {
    let files = Files::new();
    let parameters = [("kxchap-secret", "SECRET"), ("tos", "1"), ("keyring", "none")];
    let texts = files.write_each(&parameters).into_iter().map(|path| {
        let name = path.rsplit_once('/').expect("a folder").1.to_owned();
        (name, fs::read_to_string(path).expect("it was written"))
    });
    let texts: Vec<_> = texts.collect();
    let mut random = Random(5);
    let written = files.path("written.conf").to_str().expect("UTF-8").to_owned();
    for (kind, seed) in kinds() {
        for (name, text) in &texts {
            let secret = random.damage(&random_secret(seed), kind);
            let path = files.write(name, &with_secret(text, &mut random, &secret));
            for arguments in [
                &["config", "show", &path][..],
                &["config", "show", &path, "-o", "json"],
                &["config", "convert", &path, "--force", "-o", &written],
                &["discover", "-vv", "-J", &path],
            ] {
                assert_shows_no_piece(&nvmf(arguments, ""), &secret, arguments);
            }
        }
    }
}

/// Damage of the same kinds, in each place of a job file.
#[test]
fn no_output_shows_a_damaged_secret_of_a_job_file() {
    let files = Files::new();
    let text = "[global]\ntarget = \"nvmf-rdma://127.0.0.1:1/nqn.x\"\nns = 1\n[mixed]\nrw = \
                'randrw'\nfail-if = [\"p99>1s\"]\nwait = \"poll\"\nverify = false\n";
    let mut random = Random(8);
    for (kind, seed) in kinds() {
        let secret = random.damage(&random_secret(seed), kind);
        let path = files.write("job.toml", &with_secret(text, &mut random, &secret));
        let arguments = ["bench", "--job", &path];
        assert_shows_no_piece(&nvmf(&arguments, ""), &secret, &arguments);
    }
}

/// Damage of the same kinds, in each place of a command line.
#[test]
fn no_output_shows_a_damaged_secret_of_the_command_line() {
    let mut random = Random(6);
    let target = "nvmf-rdma://127.0.0.1:1/nqn.x";
    for (kind, seed) in kinds() {
        // An argument can't hold NUL.
        let secret = random.damage(&random_secret(seed), kind).replace('\0', "0");
        let glued = format!("--dhchap_secret={secret}");
        let option = format!("--keep-alive-tmo={secret}");
        for arguments in [
            &["key", "check", &secret][..],
            &["key", "check", "-k", &secret],
            &["key", "check", "-", &secret],
            &["key", "check", "--kay", &secret],
            &["key", &secret],
            &[&secret],
            &["identify", target, &secret],
            &["identify", &secret],
            &["identify", target, &glued],
            &["identify", target, &option],
            &["identify", target, "-k", &secret],
            &["identify", target, "-q", &secret],
            &["identify", target, "-I", &secret],
            &["identify", target, "-w", &secret],
            &["identify", target, "--dhchap-secret", &secret],
            &["identify", target, "--dhchap-secret-file", &secret],
            &["identify", target, "--dhchap-secret-fd", &secret],
            &["identify", target, "--dhchap-secret-key", &secret],
            &["identify", target, "--dhchap-min-hash", &secret],
            &["identify", "-a", "127.0.0.1", "-n", &secret],
            &["identify", "-a", "127.0.0.1", "-n", "nqn.x", "-s", &secret],
            &["discover", "-J", &secret],
            &["config", "show", &secret],
            &["report", &secret],
            &["bench", target, "--job", &secret],
            &["bench", target, "--baseline", &secret],
            &["bench", target, "--fail-if", &secret],
            &["bench", target, "--random-distribution", &secret],
            &["report-bug", &secret],
            &["report-bug", "-J", &secret],
            &["report-bug", "--capture", &secret],
            &["report-bug", "--", "identify", target, "--dhchap-secret", &secret],
            &["report-bug", "--", "identify", target, &format!("--dhchap-secret={secret}")],
            &["report-bug", "--", "bench", target, "--dhchap-ctrl-secret", &secret, "--ns", "1"],
        ] {
            assert_shows_no_piece(&nvmf(arguments, ""), &secret, arguments);
        }
    }
}

#[test]
fn a_bug_report_has_the_configuration_without_its_secrets() {
    let files = Files::new();
    let parameters = [("kxchap-secret", SECRET), ("kxchap-ctrl-secret", OTHER), ("tos", "7")];
    for configuration in files.write_each(&parameters) {
        let report = files.path("report");
        let words = ["report-bug", "-J", &configuration, "--", "identify", SECRET];
        let output = nvmf(&words, "");
        assert!(output.status.success(), "{}", message(&output));
        assert_silent(&output);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for words in ["nvmf ", "identify ***", "(a secret)", "tos = 7", "127.0.0.1"] {
            assert!(text.contains(words), "{configuration}: {text}");
        }
        let words = ["report-bug", "-J", &configuration, "-o", report.to_str().unwrap()];
        let output = nvmf(&words, "");
        assert!(output.status.success() && output.stdout.is_empty(), "{}", message(&output));
        let written = fs::read_to_string(&report).expect("it is written");
        assert_eq!(written, text.replace("command         identify ***\n", ""));
    }
}

#[test]
fn a_bug_report_names_a_capture_and_nothing_else() {
    let files = Files::new();
    let other = files.write("notes", "not a capture");
    assert_refused(&nvmf(&["report-bug", "--capture", &other], ""), 2, &["no capture", &other]);
    let capture = files.path("capture");
    fs::write(&capture, [0x0a, 0x0d, 0x0d, 0x0a, 0, 0, 0, 0]).expect("it is written");
    let output = nvmf(&["report-bug", "--capture", capture.to_str().unwrap()], "");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = format!("capture         {}, 8 B", capture.display());
    assert!(text.lines().any(|found| found == line), "{text}");
}

/// Text from outside is printed without control, bidi and zero-width characters.
#[test]
fn what_comes_from_outside_cannot_write_over_the_terminal() {
    let files = Files::new();
    let odd = "a\u{1b}[2J\u{9b}b\u{7f}\u{202e}c\u{200b}d\u{2066}e\u{feff}\u{e0041}";
    let uri = format!("nvmf-rdma://{odd}:1/nqn.x");
    let bracketed = format!("nvmf-rdma://[{odd}]/nqn.x");
    let name = format!("nvmf-rdma://127.0.0.1:1/nqn.{odd}");
    let transport_id = format!("trtype:{odd} traddr:1.2.3.4 subnqn:nqn.x");
    let configuration = files.write(
        &format!("{odd}.conf"),
        &format!("[Host]\nhostsymname = {odd}\n{odd}\n[Discovery Controller]\n"),
    );
    let shown = files.write(
        &format!("{odd}2.conf"),
        "[Discovery Controller]\ncontroller = transport=rdma;traddr=127.0.0.1\n",
    );
    for arguments in [
        &["identify", &uri][..],
        &["identify", &bracketed],
        &["identify", &name],
        &["identify", &transport_id],
        &["identify", odd],
        &["-vv", "identify", &uri],
        &["identify", "-a", odd, "-n", odd],
        &["identify", "--option", odd],
        &[odd],
        &["key", "check", odd],
        &["config", "show", odd],
        &["config", "show", &configuration],
        &["config", "show", &shown],
        &["config", "show", &shown, "-o", "json"],
        &["bench", "--compare", odd, odd],
    ] {
        let output = nvmf(arguments, "");
        for stream in [&output.stdout, &output.stderr] {
            let text = std::str::from_utf8(stream).expect("UTF-8");
            let found = text
                .chars()
                .find(|&c| c != '\n' && (c.is_control() || odd.contains(c) && !c.is_ascii()));
            assert_eq!(found, None, "{arguments:?}: {text:?}");
        }
    }
}

fn random_secret(seed: u64) -> String {
    Random(seed).secret()
}

fn assert_shows_no_piece(output: &Output, secret: &str, arguments: &[&str]) {
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(shown_piece(secret, &said), None, "{arguments:?}: {said}");
    assert!(output.status.code().is_some_and(|code| code < 6), "{arguments:?}: {said}");
}
