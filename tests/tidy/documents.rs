//! Documents name what there is: files by their paths, items by `Type` or `Type::name`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use super::{
    source_text::{blank, words},
    sources, top,
};

/// Endings of the paths that are looked for; others are names of packages, devices, or examples.
const FILES: [&str; 8] = [".rs", ".md", ".txt", ".toml", ".h", ".sh", ".json", ".py"];

/// Walk through the driver, whose words with an underscore are functions.
const WALK: &str = "rdma-host/src/driver/mod.rs";

#[test]
fn documents_name_files_and_items_that_exist() {
    let code: String = sources().iter().map(|(_, text)| blank(text)).collect();
    let words: BTreeSet<_> = code.split(|letter: char| !is_of_name(letter)).collect();
    let (files, mut missing, mut found) = (tracked(), Vec::new(), 0);
    for document in files.iter().filter(|path| path.ends_with(".md") || *path == WALK) {
        let text = fs::read_to_string(top().join(document)).expect("a document");
        let text = if document == WALK { module_documentation(&text) } else { text };
        for (number, span) in code_spans(&text) {
            let is_type = span.starts_with(char::is_uppercase) && span.contains(char::is_lowercase);
            let is_function = document == WALK && span.contains('_');
            let is_item = (span.contains("::") || is_type || is_function)
                && span.chars().all(|it| is_of_name(it) || it == ':');
            let last = span.rsplit("::").next().expect("a last part");
            let is_file = span.contains('/')
                && span.chars().all(|it| is_of_name(it) || "/-.".contains(it))
                && FILES.iter().any(|ending| span.ends_with(ending));
            let exists = match (is_item, is_file) {
                (true, _) => words.contains(last),
                (_, true) => is_there(&files, document, span),
                _ => continue,
            };
            found += 1;
            if !exists {
                missing.push(format!("{document}:{number}: {span}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(found > 50, "only {found} files and items are named");
}

/// Each function of the walk is in the file that is named before it.
#[test]
fn the_walk_names_functions_of_its_files() {
    const FOLDERS: [&str; 4] =
        ["rdma-host/src/driver/data_path", "rdma-host/src/driver", "rdma-host/src", "verbs/src"];
    let sources: BTreeMap<_, _> = sources().into_iter().collect();
    let text = module_documentation(&fs::read_to_string(top().join(WALK)).expect("the walk"));
    let (mut missing, mut found) = (Vec::new(), 0);
    // A paragraph is one text; so is a row of a table.
    for part in text.replace("\n |", "\n\n |").split("\n\n").filter(|part| part.contains(".rs`")) {
        let mut file = None;
        for (_, span) in code_spans(part) {
            if span.ends_with(".rs") {
                let paths = FOLDERS.map(|folder| format!("{folder}/{span}"));
                file = paths.iter().find_map(|path| sources.get(path));
                if file.is_none() {
                    missing.push(format!("no file {span}"));
                }
            } else if let Some(text) = file {
                found += 1;
                let (owner, function) = span.rsplit_once("::").unwrap_or((span, span));
                let is_there = text.contains(&format!("fn {function}("))
                    && (owner == function || words(text).any(|(word, _)| word == owner));
                if !is_there {
                    missing.push(format!("no {span} in its file: {part}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(found > 20, "only {found} functions are named");
}

/// Tables of faults name tests by file and function.
#[test]
fn faults_name_tests_that_exist() {
    let (sources, mut missing, mut found) = (sources(), Vec::new(), 0);
    let text = fs::read_to_string(top().join("tests/regressions.md")).expect("the tables");
    for (number, span) in code_spans(&text) {
        let Some((file, function)) = span.split_once("::") else { continue };
        found += 1;
        let of_file = sources.iter().filter(|(path, _)| is_named(Path::new(path), file));
        if !of_file.into_iter().any(|(_, text)| has_test(text, function)) {
            missing.push(format!("{number}: {span}"));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(found > 200, "only {found} tests are named");
}

/// Tells if a file of sources, or a folder by its first file, has this name.
fn is_named(path: &Path, name: &str) -> bool {
    let stem = path.file_stem().expect("a file");
    let folder = path.parent().and_then(Path::file_name);
    stem == name
        || ["mod", "main", "tests"].iter().any(|it| stem == *it) && folder == Some(name.as_ref())
}

/// Tells if a function is there with the attribute of a test.
fn has_test(text: &str, function: &str) -> bool {
    let parts = text.split(&format!("fn {function}()")).collect::<Vec<_>>();
    let before = parts.split_last().map(|(_, before)| before).unwrap_or_default();
    before.iter().any(|before| {
        let attributes = before.rsplit("}\n").next().unwrap_or_default();
        attributes.contains("#[test]") || attributes.contains("#[tokio::test")
    })
}

fn module_documentation(text: &str) -> String {
    text.lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn is_of_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Texts between backticks, with the numbers of their lines; blocks of code are left out.
fn code_spans(text: &str) -> Vec<(usize, &str)> {
    let (mut spans, mut block) = (Vec::new(), false);
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            block = !block;
        } else if !block {
            spans.extend(line.split('`').skip(1).step_by(2).map(|span| (index + 1, span)));
        }
    }
    spans
}

/// Tells if a path names a file: from the top, from the document's folder, or by its last parts.
fn is_there(files: &[String], document: &str, path: &str) -> bool {
    let folder = Path::new(document).parent().expect("a folder");
    let end = format!("/{path}");
    files.iter().any(|file| {
        file == path || file.ends_with(&end) || Path::new(file) == folder.join(path).as_path()
    })
}

/// Files of the repository.
fn tracked() -> Vec<String> {
    let listed = std::process::Command::new("git").arg("ls-files").current_dir(top()).output();
    let listed = listed.expect("git runs");
    assert!(listed.status.success(), "git ls-files");
    String::from_utf8(listed.stdout).expect("paths are text").lines().map(str::to_owned).collect()
}
