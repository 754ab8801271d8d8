//! The values that the other tests expect, computed again from their inputs in another language.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::{
    path::Path,
    process::{Command, Output},
};

fn check(files: &[&Path]) -> Option<Output> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/check.py");
    let mut command = Command::new("python3");
    command.arg(program).args(files).env("PYTHONDONTWRITEBYTECODE", "1");
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            println!("SKIPPED: python3: {error}");
            None
        }
    }
}

#[test]
fn every_value_is_right() {
    let Some(output) = check(&[]) else { return };
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    let said = String::from_utf8_lossy(&output.stdout);
    let expected = "vectors.json: 525 cases are right\n\
                    transcripts.json: 57 exchanges are right\n\
                    live.json: 72 exchanges are right\n";
    assert_eq!(said, expected);
}

/// A digit of a response is another one.
#[test]
fn a_wrong_value_is_found() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    for (name, field) in [("vectors.json", "\"host_response\": \""), ("live.json", "\"0102")] {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        // Behind the head of a Reply; in a vector, anywhere.
        let at = text.find(field).unwrap() + field.len() + 40;
        let other = if text.as_bytes()[at] == b'0' { "1" } else { "0" };
        let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
        let path = std::env::temp_dir().join(format!("{}-{name}", std::process::id()));
        std::fs::write(&path, changed).unwrap();
        let output = check(&[&path]);
        std::fs::remove_file(&path).unwrap();
        let Some(output) = output else { return };
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(output.stdout.is_empty(), "{name}");
    }
}
