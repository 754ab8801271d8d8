//! `nvmf generate`: a manual page for every command, and completions that shells can use.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output},
};

fn nvmf(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nvmf")).args(arguments).output().expect("nvmf runs")
}

/// Output of a program of the system, or nothing, with a message, if it is not installed.
fn installed(program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(output.status.success(), "{program} {arguments:?}: {text}");
            Some(text)
        }
        Err(error) => {
            println!("SKIPPED: {program}: {error}");
            None
        }
    }
}

fn pages(folder: &Path) -> BTreeSet<String> {
    let output = nvmf(&["generate", "man", folder.to_str().expect("UTF-8")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty() && output.stderr.is_empty());
    let entries = fs::read_dir(folder).expect("the folder");
    entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect()
}

/// Commands below `words`, as their help lists them.
fn subcommands(words: &[String]) -> Vec<Vec<String>> {
    let mut arguments: Vec<_> = words.iter().map(String::as_str).collect();
    arguments.push("--help");
    let help = String::from_utf8(nvmf(&arguments).stdout).expect("UTF-8");
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = list.take_while(|line| !line.is_empty()).filter_map(|line| {
        let name = line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?;
        name.split_whitespace().next().filter(|name| *name != "help")
    });
    names.map(|name| [words, &[name.to_owned()]].concat()).collect()
}

#[test]
fn every_command_has_a_page_with_its_sections() {
    let folder = tempfile::tempdir().expect("a folder");
    let pages = pages(&folder.path().join("man/man1"));
    let mut left = vec![Vec::new()];
    let mut expected = BTreeSet::new();
    while let Some(words) = left.pop() {
        expected.insert(format!("{}.1", [&["nvmf".to_owned()], &words[..]].concat().join("-")));
        left.extend(subcommands(&words));
    }
    assert_eq!(pages, expected);
    assert!(expected.contains("nvmf-key-gen.1") && expected.len() > 15, "{expected:?}");
    for page in &pages {
        let text = fs::read_to_string(folder.path().join("man/man1").join(page)).expect("a page");
        let title = page.trim_end_matches(".1").to_uppercase();
        let version = env!("CARGO_PKG_VERSION");
        let first = format!(".TH {title} 1 \"\" \"nvmf {version}\" \"nvmf manual\"");
        assert_eq!(text.lines().next(), Some(first.as_str()));
        for heading in
            ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "\"EXIT STATUS\"", "\"SEE ALSO\""]
        {
            assert!(text.contains(&format!("\n.SH {heading}\n")), "{page}: {heading}\n{text}");
        }
        let connects = text.contains("\\-\\-traddr") || page == "nvmf.1";
        assert_eq!(text.contains("\n.SH FILES\n"), connects, "{page}");
    }
    let bench = fs::read_to_string(folder.path().join("man/man1/nvmf-bench.1")).expect("a page");
    assert!(bench.contains("\n.SH EXAMPLES\n.nf\nnvmf bench TARGET"), "{bench}");
}

#[test]
fn formatters_find_no_fault_in_the_pages() {
    let folder = tempfile::tempdir().expect("a folder");
    for page in pages(folder.path()) {
        let path = folder.path().join(&page);
        let path = path.to_str().expect("UTF-8");
        if let Some(text) = installed("mandoc", &["-man", "-T", "lint", "-W", "error", path]) {
            assert!(text.is_empty(), "{page}: {text}");
        }
        if let Some(text) =
            installed("groff", &["-man", "-K", "utf8", "-T", "utf8", "-ww", "-z", path])
        {
            assert!(text.is_empty(), "{page}: {text}");
        }
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let output = nvmf(&["generate", "man", "/dev/null/man"]);
    let message = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        message.starts_with("nvmf: /dev/null/man: ") && message.lines().count() == 1,
        "{message}"
    );
}

/// Script of a shell's completions, in a file.
fn completions(shell: &str, folder: &Path) -> String {
    let output = nvmf(&["generate", "completions", shell]);
    assert!(output.status.success(), "{shell}");
    let path = folder.join(shell);
    fs::write(&path, output.stdout).expect("the file is written");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn bash_completes_commands_and_options() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = completions("bash", folder.path());
    let complete = |words: &str, index: usize, typed: &str, before: &str| {
        let text = format!(
            "source '{script}'; COMP_WORDS=({words}); COMP_CWORD={index}; _nvmf nvmf '{typed}' \
             '{before}'; echo \"${{COMPREPLY[*]}}\""
        );
        installed("bash", &["--norc", "-c", &text])
    };
    let Some(found) = complete("nvmf be", 1, "be", "nvmf") else { return };
    assert_eq!(found.trim(), "bench");
    let found = complete("nvmf bench --ioe", 2, "--iod", "bench").expect("bash is there");
    assert_eq!(found.trim(), "--iodepth");
}

#[test]
fn fish_completes_commands() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = completions("fish", folder.path());
    let text = format!("source '{script}'; complete -C 'nvmf be'");
    if let Some(found) = installed("fish", &["--no-config", "-c", &text]) {
        assert!(found.starts_with("bench\t") && found.lines().count() == 1, "{found}");
    }
}

#[test]
fn zsh_loads_the_completions() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = completions("zsh", folder.path());
    let text =
        format!("autoload -U compinit; compinit -D -u; source '{script}'; print ${{_comps[nvmf]}}");
    if let Some(found) = installed("zsh", &["-f", "-c", &text]) {
        assert_eq!(found.trim(), "_nvmf");
    }
}
