//! First file system of a QEMU guest: our program with its libraries, and the modules that reach
//! the root and make the bed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::{
    cpio::Archive,
    elf,
    modules::{Index, Module},
};
use crate::{Error, Result};

/// Folder of the modules, and the file that lists them in the order of loading.
pub(super) const MODULES: &str = "/modules";
pub(super) const MODULE_LIST: &str = "/modules/order";

/// Place where the root is mounted before it becomes the root.
pub(super) const ROOT: &str = "/root";

/// Modules of every guest: its devices, its root, and what init and target use in each run. Others
/// are loaded when a program or the kernel asks for them.
pub(super) const WANTED: [&str; 15] = [
    "virtio_pci",
    "virtio_console",
    "9pnet_virtio",
    "9p",
    "configfs",
    "crc32_pclmul",
    "crc32c_intel",
    "dummy",
    "ib_uverbs",
    "rdma_ucm",
    "rdma_rxe",
    "null_blk",
    "nvmet",
    "nvmet_rdma",
    "nvme_rdma",
];

/// Folders, below a root, where a loader looks for libraries; `*` is each folder there.
const LIBRARY_FOLDERS: [&str; 8] = [
    "lib/*-linux-gnu",
    "usr/lib/*-linux-gnu",
    "lib64",
    "usr/lib64",
    "lib",
    "usr/lib",
    "usr/local/lib",
    "usr/local/lib64",
];

/// Packs the program, its loader and its libraries, as they are below `root`.
pub(super) fn of_program(program: &Path, root: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    let mut packed = BTreeSet::new();
    archive.directory("dev");
    archive.device("dev/console", [5, 1]);
    for folder in ["proc", "sys", ROOT] {
        archive.directory(folder);
    }
    let bytes = fs::read(program).map_err(Error::io("read", program))?;
    archive.file("init", &elf::mapped_part(&bytes));
    let mut pending = vec![bytes];
    while let Some(bytes) = pending.pop() {
        let needs = elf::needs(&bytes);
        let mut files = Vec::new();
        if let Some(interpreter) = needs.interpreter {
            files.push((interpreter.clone(), root.join(interpreter.trim_start_matches('/'))));
        }
        for name in needs.libraries {
            let path = find_library(&name, root).ok_or_else(|| {
                let reason = format!("the library {name} that soft-roce needs was not found");
                Error::Machine { name: "QEMU", reason }
            })?;
            let place = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            files.push((place, path));
        }
        for (place, path) in files {
            let place = place.trim_start_matches('/').to_owned();
            if !packed.insert(place.clone()) {
                continue;
            }
            let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
            add_parents(&mut archive, &mut packed, &place);
            archive.file(&place, &elf::mapped_part(&bytes));
            pending.push(bytes);
        }
    }
    Ok(archive.finish())
}

/// Packs the modules of every guest, in the order of loading.
pub(super) fn of_modules(index: &Index, folder: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.directory(MODULES);
    let mut list = String::new();
    for (name, Module { path, .. }) in index.in_order(&WANTED) {
        let path = folder.join(path);
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        let file = format!("{name}.ko");
        archive.file(&format!("{MODULES}/{file}"), &bytes);
        list.push_str(&file);
        list.push('\n');
    }
    archive.file(MODULE_LIST, list.as_bytes());
    Ok(archive.finish())
}

fn add_parents(archive: &mut Archive, packed: &mut BTreeSet<String>, place: &str) {
    let parents: Vec<_> = Path::new(place).ancestors().skip(1).collect();
    for parent in parents.into_iter().rev().filter_map(Path::to_str) {
        if !parent.is_empty() && packed.insert(parent.into()) {
            archive.directory(parent);
        }
    }
}

fn find_library(name: &str, root: &Path) -> Option<PathBuf> {
    let folders = LIBRARY_FOLDERS.iter().flat_map(|pattern| expand(root, pattern));
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The folders that a pattern stands for: its last part may begin with `*`.
fn expand(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let Some((parent, end)) = pattern.split_once('*') else { return vec![root.join(pattern)] };
    let entries = fs::read_dir(root.join(parent)).into_iter().flatten().flatten();
    let matches = |path: &PathBuf| path.to_str().is_some_and(|path| path.ends_with(end));
    entries.map(|entry| entry.path()).filter(matches).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_comes_with_loader_and_libraries() {
        let program = std::env::current_exe().unwrap();
        let bytes = of_program(&program, Path::new("/")).unwrap();
        let has = |name: &str| {
            let name = [name.as_bytes(), b"\0"].concat();
            bytes.windows(name.len()).any(|part| part == name)
        };
        assert!(has("init") && has("dev/console") && has("root"));
        let needs = elf::needs(&std::fs::read(&program).unwrap());
        assert!(has(needs.interpreter.unwrap().trim_start_matches('/')));
    }

    #[test]
    fn a_library_that_is_missing_is_named() {
        let root = tempfile::tempdir().unwrap();
        let program = std::env::current_exe().unwrap();
        let error = of_program(&program, root.path()).unwrap_err().to_string();
        assert!(error.contains("lib"), "{error}");
    }
}
