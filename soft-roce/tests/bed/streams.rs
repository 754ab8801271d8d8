//! Standard streams: every byte, in order, both ways, to the end.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
    thread,
};

use crate::support::{Bed, PROGRAM, expect_success, text};

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn binary_streams_pass_unchanged() {
    let bed = Bed::new();
    let all: Vec<u8> = (0..=255).cycle().take(3_000_001).collect();
    let mut child =
        bed.run(&["--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = all.clone();
    let writer = thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.stdout == all, "{} bytes came back", output.stdout.len());
    bed.expect_nothing_left();
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn input_ends_where_it_ends() {
    let bed = Bed::new();
    assert_eq!(text(&bed.shell(&[], "wc -c").stdout).trim(), "0");
    let file = bed.folder.path().join("input");
    fs::write(&file, "line one\nline two").unwrap();
    let mut command = bed.run(&["--", "cat"]);
    let output = command.stdin(fs::File::open(&file).unwrap()).output().unwrap();
    assert_eq!(text(&output.stdout), "line one\nline two");
    // A program that never reads must not wait for what it is sent.
    let mut command = bed.run(&["--", "true"]);
    let zero = fs::File::open("/dev/zero").unwrap();
    expect_success(&command.stdin(zero).output().unwrap());
    fs::remove_file(&file).unwrap();
    bed.expect_nothing_left();
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn a_dialogue_works_line_by_line() {
    use std::io::{BufRead, BufReader};
    let bed = Bed::new();
    let mut child = bed
        .run(&["--", "sh", "-c", "while read line; do echo got $line; done"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    for word in ["one", "two", "three"] {
        writeln!(input, "{word}").unwrap();
        assert_eq!(answers.next().unwrap().unwrap(), format!("got {word}"));
    }
    drop(input);
    assert!(child.wait().unwrap().success());
    bed.expect_nothing_left();
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn output_and_error_stay_apart_or_in_order() {
    let bed = Bed::new();
    let script = "for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done";
    let output = bed.shell(&[], script);
    assert_eq!(text(&output.stdout).lines().filter(|line| line.starts_with("out")).count(), 9);
    assert_eq!(text(&output.stdout).lines().count(), 9);
    assert_eq!(text(&output.stderr).lines().count(), 9);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = bed.run(&["--", "sh", "-c", script]);
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    assert!(command.status().unwrap().success());
    drop(command);
    let joined = std::io::read_to_string(&mut reader).unwrap();
    let expected: String = (1..10).map(|i| format!("out {i}\nerr {i}\n")).collect();
    assert_eq!(joined, expected);
    bed.expect_nothing_left();
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn a_reader_that_leaves_ends_the_run() {
    let bed = Bed::new();
    let mut child = bed.run(&["--", "yes"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(141));
    bed.expect_nothing_left();
}

#[test]
#[ignore = "boots a kernel: run by ./tests/run"]
fn a_shell_has_a_terminal() {
    let bed = Bed::new();
    let inner = "test -t 0 && test -t 1 && test -t 2 && tty && stty size && read x && echo [$x]";
    let words = format!("stty rows 31 cols 97; {PROGRAM} run --shell -- sh -c '{inner}'");
    let mut script = Command::new("script");
    script.args(["-qec", &words, "/dev/null"]).env("TMPDIR", bed.folder.path());
    script.env("SHELL", "/bin/sh").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = script.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"typed\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let seen = text(&output.stdout);
    assert!(seen.contains("/dev/pts/") && seen.contains("31 97"), "{seen}");
    assert!(seen.contains("[typed]"), "{seen}");
    drop(input);
    bed.expect_nothing_left();
}
