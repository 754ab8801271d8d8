//! Standard output of commands that need no target: a closed pipe is no failure, a full disk is one
//! in one line.

use std::{
    fs::{self, File},
    io::Write,
    process::{Command, Output, Stdio},
};

const SECRET: &[u8] = b"DHHC-1:00:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:\n";

/// Runs `nvmf` with a secret on standard input.
fn nvmf(arguments: &[&str], stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nvmf"));
    command.args(arguments).stdin(Stdio::piped()).stdout(stdout).stderr(stderr);
    let mut child = command.spawn().expect("nvmf runs");
    drop(command);
    // A command that does not read is no failure of the test.
    let _ = child.stdin.take().expect("a pipe").write_all(SECRET);
    child.wait_with_output().expect("it ends")
}

/// Pipe without a reader.
fn closed_pipe() -> Stdio {
    let (_, writer) = std::io::pipe().expect("a pipe");
    writer.into()
}

/// File on a full disk.
fn full_disk() -> File {
    File::options().write(true).open("/dev/full").expect("every Linux has it")
}

/// Messages, without warnings about the identity of this host.
fn messages(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines().filter(|line| !line.contains("warning: ")).map(str::to_owned).collect()
}

/// Calls `check` with each command line that prints a result without a target.
fn for_each_command(check: impl Fn(&[&str])) {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("the file is written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let text = r#"{ "series": [{ "iops": 1.0 }], "configuration": { "rw": "randread" } }"#;
    let report = write("report.json", text);
    let configuration =
        write("a.conf", "[Discovery Controller]\ncontroller = transport=rdma;traddr=192.0.2.1\n");
    for arguments in [
        &["bench", "--compare", &report, &report][..],
        &["bench", "--compare", &report, &report, "-o", "json"],
        &["config", "convert", &configuration, "-o", "-"],
        &["config", "show", &configuration],
        &["config", "show", &configuration, "-o", "json"],
        &["report", &report],
        &["report", &report, "-o", "json"],
        &["report", &report, "-o", "fio"],
        &["key", "check"],
        &["key", "gen"],
        &["--help"],
        &["--version"],
        &["bench", "--help"],
    ] {
        check(arguments);
    }
}

#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    for_each_command(|arguments| {
        let output = nvmf(arguments, closed_pipe(), Stdio::piped());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {:?}", messages(&output));
        assert!(messages(&output).is_empty(), "{arguments:?}: {:?}", messages(&output));
    });
}

#[test]
fn a_full_disk_is_a_failure_in_one_line() {
    for_each_command(|arguments| {
        let output = nvmf(arguments, full_disk(), Stdio::piped());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let messages = messages(&output);
        let [message] = &messages[..] else { panic!("{arguments:?}: {messages:?}") };
        assert!(message.contains("No space left"), "{arguments:?}: {message}");
    });
}

#[test]
fn messages_that_cannot_be_written_change_no_exit_code() {
    let refused = "nvmf-rdma://127.0.0.1:1/nqn.x";
    for (arguments, code) in [
        (&["key", "check", "/nothing"][..], 2),
        (&["-vv", "identify", refused], 4),
        (&["identify", "--no-option"], 2),
    ] {
        let code = Some(code);
        assert_eq!(nvmf(arguments, Stdio::null(), closed_pipe()).status.code(), code);
        assert_eq!(nvmf(arguments, Stdio::null(), full_disk()).status.code(), code);
    }
}

/// On paper a sweep has its charts and tables beside each other: about two points on a sheet.
#[test]
fn a_sweep_prints_two_points_on_a_sheet() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let sample = include_str!("../src/bench/report-sample.json");
    let sample: serde_json::Value = serde_json::from_str(sample).expect("JSON");
    let point = |index: u64| {
        let mut point = sample["points"][1].clone();
        point["configuration"]["iodepth"] = (1 << (index % 4)).into();
        point["configuration"]["bs"] = (512_u64 << (index / 4)).into();
        point["configuration"]["bs_in_words"] = format!("{} B", 512 << (index / 4)).into();
        let interval = point["series"][0].clone();
        point["series"] = (0..10_u32)
            .map(|second| {
                let mut interval = interval.clone();
                interval["start_s"] = second.into();
                interval
            })
            .collect();
        point
    };
    let report = serde_json::json!({ "points": (0..8).map(point).collect::<Vec<_>>() });
    fs::write(path("sweep.json"), report.to_string()).expect("the file is written");
    let arguments = ["report", &path("sweep.json"), "--html", &path("sweep.html")];
    let output = nvmf(&arguments, Stdio::null(), Stdio::piped());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let mut browser = Command::new("chromium");
    browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]);
    browser.arg(format!("--user-data-dir={}", path("profile")));
    browser.arg(format!("--print-to-pdf={}", path("sweep.pdf")));
    let Ok(output) = browser.arg(format!("file://{}", path("sweep.html"))).output() else {
        println!("SKIPPED: no chromium to print with; apt-get install chromium");
        return;
    };
    let document = fs::read(path("sweep.pdf"));
    let document =
        document.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let sheets = String::from_utf8_lossy(&document).matches("/Type /Page\n").count();
    // Beside those of the points, sheets for the charts, the table and the facts of all.
    assert!((4..=9).contains(&sheets), "{sheets} sheets");
}

/// A report that is read stays, and so does each result: no file is written over another.
#[test]
fn no_result_replaces_a_report_or_another_result() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let text = r#"{ "series": [{ "iops": 1.0 }], "configuration": { "rw": "randread" } }"#;
    let (report, page, other) = (path("report.json"), path("page"), path("other"));
    fs::write(&report, text).expect("the file is written");
    std::os::unix::fs::symlink(&report, path("link")).expect("a link");
    for arguments in [
        &["report", &report, "--html", &report][..],
        &["report", &report, "--csv", &path("link")],
        &["report", &report, "--html", &page, "--csv", &page],
        &["bench", "--compare", &report, &report, "--html", &path("link")],
        &["report", &report, "--html", "-"],
    ] {
        let output = nvmf(arguments, Stdio::null(), Stdio::piped());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {:?}", messages(&output));
        assert_eq!(messages(&output).len(), 1, "{arguments:?}");
        assert_eq!(fs::read_to_string(&report).expect("a report"), text, "{arguments:?}");
        assert!(!fs::exists(&page).expect("a folder"), "{arguments:?}");
    }
    // One that can't be written does not keep the others from it.
    let arguments = ["report", &report, "--html", &path("none/page"), "--csv", &other];
    let output = nvmf(&arguments, Stdio::null(), Stdio::piped());
    assert_eq!(output.status.code(), Some(1), "{:?}", messages(&output));
    assert!(fs::read_to_string(&other).expect("a table").starts_with("name,began"));
}
