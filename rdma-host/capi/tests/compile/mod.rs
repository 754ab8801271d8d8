//! Programs in C and C++, compiled against the library of this build.

#![allow(dead_code, reason = "each program of tests uses some of it")]

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// Folder of the package.
pub(crate) const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

/// Shared library of this build.
pub(crate) fn library() -> PathBuf {
    let program = std::env::current_exe().expect("the path of this program");
    program.with_file_name("libnvmf_rdma.so")
}

/// True if there are compilers; tells how to get them if not.
pub(crate) fn has_compilers() -> bool {
    let is_there = |name: &str| Command::new(name).arg("--version").output().is_ok();
    let both = is_there("cc") && is_there("c++");
    if !both {
        println!("SKIPPED: no compilers of C and C++; run: apt-get install gcc g++");
    }
    both
}

/// Options under which all code of ours compiles without a warning.
pub(crate) fn compiler(path: &Path) -> Command {
    let is_c = path.extension().is_some_and(|extension| extension == "c");
    let mut command = Command::new(if is_c { "cc" } else { "c++" });
    command.args([if is_c { "-std=c11" } else { "-std=c++11" }, "-D_POSIX_C_SOURCE=200809L"]);
    command.args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-g", "-pthread"]);
    command.arg(format!("-I{PACKAGE}/include")).arg(path);
    command
}

/// Compiles a program of the package and links it with the library; its folder holds the library
/// by its name for the dynamic linker.
pub(crate) fn program(path: &str) -> (TempDir, Command) {
    let folder = tempfile::tempdir().expect("a folder");
    symlink(library(), folder.path().join("libnvmf-rdma.so.0")).expect("a link");
    let executable = folder.path().join("program");
    let path = Path::new(PACKAGE).join(path);
    let mut compiler = compiler(&path);
    compiler.arg("-o").arg(&executable).arg(folder.path().join("libnvmf-rdma.so.0"));
    let output = compiler.output().expect("a compiler");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {message}", path.display());
    let mut command = Command::new(executable);
    command.env("LD_LIBRARY_PATH", folder.path());
    (folder, command)
}
