//! The interface of the library against its header, the committed list of symbols and the manual
//! page; and what programs in C get for wrong arguments, without a target.

mod compile;

use std::{collections::BTreeSet, fmt::Write, fs, path::Path, process::Command};

use compile::{PACKAGE, compiler, has_compilers, library, program};

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(PACKAGE).join(name)).expect(name)
}

/// Functions that the header declares: names before a parenthesis, outside of comments.
fn declared() -> BTreeSet<String> {
    let header = read("include/nvmf-rdma.h");
    let mut code = String::new();
    let mut rest = header.as_str();
    while let Some((before, after)) = rest.split_once("/*") {
        code.push_str(before);
        rest = after.split_once("*/").expect("the end of a comment").1;
    }
    code.push_str(rest);
    let calls = code.match_indices('(').map(|(at, _)| {
        let before = &code[..at];
        let start = before.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |at| at + 1);
        before[start..].to_owned()
    });
    calls.filter(|name| name.starts_with("nvmf_")).collect()
}

fn committed() -> BTreeSet<String> {
    read("symbols.txt").lines().map(str::to_owned).collect()
}

#[test]
fn the_header_declares_the_committed_symbols() {
    assert_eq!(declared(), committed());
}

#[test]
fn the_library_exports_the_committed_symbols_and_no_other() {
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(library()).output();
    let Ok(output) = output else {
        println!("SKIPPED: no nm to list symbols with; run: apt-get install binutils");
        return;
    };
    let listed = String::from_utf8(output.stdout).expect("text");
    let names = listed.lines().filter_map(|line| line.split_whitespace().last());
    let exported: BTreeSet<_> = names.map(str::to_owned).collect();
    assert_eq!(exported, committed());
}

#[test]
fn the_shared_library_has_the_name_of_its_interface() {
    let Ok(output) = Command::new("objdump").arg("-p").arg(library()).output() else {
        println!("SKIPPED: no objdump to look at the library with; run: apt-get install binutils");
        return;
    };
    let listed = String::from_utf8(output.stdout).expect("text");
    assert!(listed.contains("libnvmf-rdma.so.0"), "{listed}");
}

/// Sizes and offsets are compared by the compiler.
#[test]
fn structures_are_the_same_in_c_and_rust() {
    if !has_compilers() {
        return;
    }
    let mut source = "#include <nvmf-rdma.h>\n".to_owned();
    for (name, size, fields) in nvmf_rdma::LAYOUTS {
        writeln!(source, "_Static_assert(sizeof(struct {name}) == {size}, \"{name}\");").unwrap();
        for (field, offset) in *fields {
            let place = format!("offsetof(struct {name}, {field}) == {offset}");
            writeln!(source, "_Static_assert({place}, \"{name}.{field}\");").unwrap();
        }
    }
    source.push_str("int main(void) { return 0; }\n");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("layouts.c");
    fs::write(&path, source).unwrap();
    let output = compiler(&path).arg("-fsyntax-only").output().expect("a compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_manual_page_names_every_function_and_option() {
    let page = read("nvmf-rdma.3").replace("\\-", "-");
    for name in committed() {
        assert!(page.contains(&name), "nvmf-rdma.3 lacks {name}");
    }
    for (name, _) in nvmf_options::pairs::OptionPairs::all() {
        assert!(page.contains(&format!("B {name}\n")), "nvmf-rdma.3 lacks the option {name}");
    }
}

#[test]
fn wrong_arguments_are_errors() {
    if !has_compilers() {
        return;
    }
    let (_folder, mut program) = program("tests/wrong_arguments.c");
    let output = program.output().expect("it runs");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {message}", output.status);
}
