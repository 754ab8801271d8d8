//! Figures of the structure, and their limits. To print the figures:
//! `cargo test -p tests --test tidy structure -- --show-output`.

use crate::{
    imports::{Graph, Package},
    source_text::{blank, item_length, words},
    sources, top,
};
use std::path::{Path, PathBuf};

/// A package, and its limit, which only goes down.
struct Limits {
    /// Path of the file that cargo compiles.
    root: &'static str,
    /// Lines of code without blank lines, comments and tests.
    lines: usize,
}

const PACKAGES: [Limits; 14] = [
    Limits { root: "auth/src/lib.rs", lines: 1_700 },
    Limits { root: "rdma-host/src/lib.rs", lines: 22_042 },
    Limits { root: "rdma-host/cli/src/lib.rs", lines: 18_252 },
    Limits { root: "rdma-host/cli/manual/src/lib.rs", lines: 200 },
    Limits { root: "rdma-host/client/src/lib.rs", lines: 700 },
    Limits { root: "rdma-host/options/src/lib.rs", lines: 2_960 },
    Limits { root: "rdma-host/capi/src/lib.rs", lines: 1_800 },
    Limits { root: "rdma-host/pmix/src/lib.rs", lines: 376 },
    Limits { root: "rdma-host/ublk/src/lib.rs", lines: 1_072 },
    Limits { root: "soft-roce/src/lib.rs", lines: 8_215 },
    Limits { root: "soft-roce/fabric/src/lib.rs", lines: 3_986 },
    Limits { root: "verbs/src/lib.rs", lines: 6_314 },
    Limits { root: "verbs/capture/src/lib.rs", lines: 835 },
    Limits { root: "verbs/rdma-core-sys/src/lib.rs", lines: 1_050 },
];

/// Layers of `rdma-host`, one on the other.
const HOST_LAYERS_MAX: usize = 8;

/// Lines of a function, from its name to its last brace.
const FUNCTION_LINES_MAX: usize = 60;

/// Lines of a file of a product, unit tests and all.
const FILE_LINES_MAX: usize = 600;

#[test]
fn files_import_one_another_in_one_direction() {
    for Limits { root, .. } in PACKAGES {
        let graph = Graph::of_files(&Package::read(&top(), root));
        let circles = graph.circles();
        let described: Vec<_> = circles.iter().map(|circle| graph.describe(circle)).collect();
        assert!(circles.is_empty(), "{root}: circles:\n{}", described.join("\n\n"));
        println!("{root}: {} files deep", graph.longest_chain().len());
    }
}

#[test]
fn the_host_is_a_column_of_layers() {
    let root = "rdma-host/src/lib.rs";
    let graph = Graph::of_files(&Package::read(&top(), root)).of_layers(host_layer);
    let chain = graph.longest_chain();
    let names: Vec<_> = chain.iter().map(|layer| layer.to_string_lossy()).collect();
    let depth = format!("{} layers, one on the other: {}", chain.len(), names.join(", "));
    println!("{depth}");
    assert!(chain.len() <= HOST_LAYERS_MAX, "{depth}; {HOST_LAYERS_MAX} is the limit");
    let circles = graph.circles();
    let described: Vec<_> = circles.iter().map(|circle| graph.describe(circle)).collect();
    assert!(circles.is_empty(), "{}", described.join("\n"));
}

/// Layer that a file of `rdma-host` is in: a folder or file of the driver, else one of the crate.
fn host_layer(path: &Path) -> PathBuf {
    let below = path.strip_prefix("rdma-host/src").expect("a file of it").with_extension("");
    let length = if below.starts_with("driver") { 2 } else { 1 };
    below.components().take(length).collect()
}

#[test]
fn products_only_get_smaller() {
    let mut total = 0;
    for Limits { root, lines: limit, .. } in PACKAGES {
        let package = Package::read(&top(), root);
        let lines = package.lines();
        println!("{root}: {lines} lines of code in {} files", package.files());
        assert!(lines <= limit, "{root}: {lines} lines of code; {limit} is the limit");
        total += lines;
    }
    println!("{total} lines of code of all products");
}

#[test]
fn functions_stay_short() {
    let mut long = Vec::new();
    for (path, text) in sources() {
        let code = blank(&text);
        for (_, after) in
            words(&code).filter(|(word, after)| *word == "fn" && after.starts_with(' '))
        {
            let lines = after[..item_length(after)].lines().count();
            if lines > FUNCTION_LINES_MAX {
                let (name, _) = words(after).next().expect("a name");
                long.push(format!("{path}: {name} has {lines} lines"));
            }
        }
    }
    let described =
        format!("functions of more than {FUNCTION_LINES_MAX} lines:\n{}", long.join("\n"));
    assert!(long.is_empty(), "{described}");
}

#[test]
fn files_of_products_stay_short() {
    let mut long = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if path.contains("/src/") && lines > FILE_LINES_MAX {
            long.push(format!("{path} has {lines} lines"));
        }
    }
    let described = format!("files of more than {FILE_LINES_MAX} lines:\n{}", long.join("\n"));
    assert!(long.is_empty(), "{described}");
}
