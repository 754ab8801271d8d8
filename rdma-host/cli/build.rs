//! Commit that the program is built from, in `NVMF_COMMIT`; not set outside a checkout.

use std::{path::Path, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A package unpacked inside another checkout is none of that.
    if git(&["ls-files", "build.rs"]).is_none() {
        return;
    }
    // What the program is made of, besides the registry's packages.
    for path in [
        "Cargo.toml",
        "src",
        "../options/src",
        "../src",
        "../../auth/src",
        "../../verbs/src",
        "../../verbs/capture/src",
    ] {
        if Path::new(path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    // Written by every commit.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={log}");
    }
    if let Some(commit) = git(&["describe", "--always", "--exclude=*", "--abbrev=12", "--dirty"]) {
        println!("cargo:rustc-env=NVMF_COMMIT={commit}");
    }
}

/// Output of git, if it can be run here.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
