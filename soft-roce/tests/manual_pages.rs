//! `soft-roce generate`: manual pages and completions.

use std::{fs, process::Command};

fn soft_roce(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_soft-roce")).args(arguments).output();
    let output = output.expect("soft-roce runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn commands_have_pages() {
    let folder = tempfile::tempdir().expect("a folder");
    soft_roce(&["generate", "man", folder.path().to_str().expect("UTF-8")]);
    let page = |name: &str| {
        fs::read_to_string(folder.path().join(format!("{name}.1"))).expect("the page is there")
    };
    for name in ["build", "doctor", "export", "import", "native-up", "run", "target-link-port"] {
        let text = page(&format!("soft-roce-{name}"));
        assert_eq!(text.matches("\n.SH \"EXIT STATUS\"\n").count(), 1, "{name}: {text}");
    }
    assert!(page("soft-roce-run").contains("\\-\\-timeout was up"));
    assert!(page("soft-roce").contains("\nsoft\\-roce run \\-\\- cargo test\n"));
}

#[test]
fn completions_are_those_of_this_program() {
    let script = soft_roce(&["generate", "completions", "bash"]);
    assert!(script.trim_end().ends_with(" soft-roce\nfi"), "{script}");
}
