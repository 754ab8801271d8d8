//! Bill of materials of a release, and the list of licences: both name the crates that are linked.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Output},
};

use serde_json::{Value, json};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/licences.py");

fn licences(arguments: &[&str]) -> Option<Output> {
    let output = Command::new(PROGRAM).args(arguments).output();
    output.inspect_err(|error| println!("SKIPPED: python3: {error}")).ok()
}

fn component(name: &str, version: &str) -> Value {
    json!({ "bom-ref": format!("registry#{name}@{version}"), "name": name, "version": version })
}

/// cargo-cyclonedx names crates, too, that only other members of the workspace turn on.
#[test]
fn a_bill_of_materials_names_what_is_linked() {
    let Some(output) = licences(&["nvmf"]) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    // Name, version and licence of each crate stand before the texts.
    let (list, _) = text.split_once("\n---").expect("the texts");
    let linked: Vec<_> = list
        .lines()
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_once(": ")?.0.split_once(' '))
        .filter(|(name, _)| *name != "Rust")
        .collect();
    assert!(linked.len() > 50 && linked.iter().any(|(name, _)| *name == "clap"), "{list}");

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("nvmf.cdx.json");
    let path = path.to_str().expect("UTF-8");
    let mut components: Vec<_> =
        linked.iter().map(|(name, version)| component(name, version)).collect();
    components.push(component("not-linked", "1.0.0"));
    let reference = |component: &Value| component["bom-ref"].clone();
    let names: Vec<_> = components.iter().map(reference).collect();
    let bill = |components: &[Value]| {
        json!({
            "metadata": { "component": { "bom-ref": "path+file:///nvmf" } },
            "components": components,
            "dependencies": [
                { "ref": "path+file:///nvmf", "dependsOn": names },
                { "ref": "registry#not-linked@1.0.0" },
            ],
        })
    };
    fs::write(path, bill(&components).to_string()).expect("the file is written");
    let output = licences(&["--materials", path, "nvmf"]).expect("it ran before");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let kept: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let found: BTreeSet<_> = kept["components"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| (it["name"].as_str().expect("text"), it["version"].as_str().expect("text")))
        .collect();
    assert_eq!(found, linked.iter().copied().collect());
    assert!(!kept["dependencies"].to_string().contains("not-linked"));

    // One that lacks a linked crate is none.
    fs::write(path, bill(&components[1..]).to_string()).expect("the file is written");
    let output = licences(&["--materials", path, "nvmf"]).expect("it ran before");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains(linked[0].0), "{message}");
}
