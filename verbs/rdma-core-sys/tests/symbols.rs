//! Every function that this package binds exists in the libraries installed on this machine.
//! The names are read from the sources, so a new declaration is checked without further ado.

use std::ffi::CString;

#[test]
fn every_function_of_ibverbs_is_exported() {
    let mut names = declared(include_str!("../src/ibverbs.rs"));
    names.extend(declared(include_str!("../src/dispatch.rs")));
    names.extend(declared(include_str!("../src/extended.rs")));
    assert!(names.iter().any(|name| name == "ibv_reg_mr"), "renamed symbols are found: {names:?}");
    assert_exported("libibverbs.so.1", &names);
}

#[test]
fn every_function_of_rdmacm_is_exported() {
    assert_exported("librdmacm.so.1", &declared(include_str!("../src/rdmacm.rs")));
}

/// Names of the functions in the `extern` blocks of a source.
fn declared(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    let mut renamed = false;
    for line in source.lines() {
        if line.starts_with("unsafe extern") {
            inside = true;
        } else if line == "}" {
            inside = false;
        }
        let text = line.trim_start();
        if let Some(rest) = text.strip_prefix("#[link_name = \"") {
            names.push(rest.trim_end_matches("\"]").to_owned());
            renamed = true;
        } else if inside && (text.starts_with("pub fn ") || text.starts_with("fn ")) {
            let name = text.trim_start_matches("pub ").trim_start_matches("fn ");
            let end = name.find('(').expect("a declaration has a parameter list");
            if !std::mem::take(&mut renamed) {
                names.push(name[..end].to_owned());
            }
        }
    }
    names
}

fn assert_exported(library: &str, names: &[String]) {
    assert!(names.len() > 10, "the sources declare functions: {names:?}");
    let file = CString::new(library).expect("a library name has no NUL");
    // SAFETY: opening a system library runs only its own initialisers; the name is a C string.
    let handle = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_NOW) };
    assert!(!handle.is_null(), "{library} is not installed");
    for name in names {
        let symbol = CString::new(name.as_str()).expect("a function name has no NUL");
        // SAFETY: the handle was just opened and is never closed; the name is a C string.
        let address = unsafe { libc::dlsym(handle, symbol.as_ptr()) };
        assert!(!address.is_null(), "{library} does not export {name}");
    }
}
