//! Modules of a stock kernel: which there are, which others each needs, and in what order they
//! are loaded.
//!
//! A distribution's package leaves that index to `depmod` on the machine that it is installed on.
//! Here nothing is installed, and a guest may lack `modprobe`; so the index is our own, made from
//! the modules' descriptions of themselves.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::elf;
use crate::{Error, Result};

/// Name of the index in a kernel's folder.
pub(super) const INDEX: &str = "modules.soft-roce";

/// Ends of a module's file name.
const ENDS: [&str; 4] = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"];

/// A module that can be loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Module {
    /// Path of the file, below the kernel's folder.
    pub(super) path: String,
    /// Names and aliases of what has to be loaded before it.
    before: Vec<String>,
}

/// All modules of a kernel, by name; names have underscores.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    modules: BTreeMap<String, Module>,
    aliases: BTreeMap<String, Vec<String>>,
    built_in: Vec<String>,
}

impl Index {
    /// Reads what every module below `folder` says of itself.
    pub(super) fn of_folder(folder: &Path) -> Result<Self> {
        let mut index = Self::default();
        let mut files = Vec::new();
        files_below(folder, &mut files)?;
        files.sort();
        for path in files {
            let below = path.strip_prefix(folder).unwrap_or(&path);
            let (Some(name), Some(below)) = (name_of(&path), below.to_str()) else { continue };
            let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
            index.add(name, below, &elf::module_info(&bytes));
        }
        let list = fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
        index.built_in = list.lines().filter_map(|line| name_of(Path::new(line))).collect();
        Ok(index)
    }

    /// Reads the index that [`Index::store`] wrote.
    pub(super) fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(INDEX);
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        Ok(Self::parse(&text))
    }

    /// Writes the index into the kernel's folder.
    pub(super) fn store(&self, folder: &Path) -> Result<()> {
        let path = folder.join(INDEX);
        fs::write(&path, self.to_text()).map_err(Error::io("write", &path))
    }

    /// The modules that `wanted` stands for, by name or alias, each behind those that it needs.
    /// What the kernel does not have is left out.
    pub(super) fn in_order<'a>(&'a self, wanted: &[&str]) -> Vec<(&'a str, &'a Module)> {
        let mut order = Vec::new();
        for name in wanted {
            self.visit(name, &mut Vec::new(), &mut order);
        }
        order
    }

    /// Tells if a name or alias is a module's, or is built into the kernel.
    pub(super) fn knows(&self, name: &str) -> bool {
        let plain = plain(name);
        self.built_in.contains(&plain)
            || self.modules.contains_key(&plain)
            || self.aliases.contains_key(name)
    }

    fn visit<'a>(
        &'a self,
        name: &str,
        pending: &mut Vec<&'a str>,
        order: &mut Vec<(&'a str, &'a Module)>,
    ) {
        if let Some((name, module)) = self.modules.get_key_value(&plain(name)) {
            let name = name.as_str();
            // Modules that name each other in a circle exist: soft dependencies do that.
            if pending.contains(&name) || order.iter().any(|(known, _)| *known == name) {
                return;
            }
            pending.push(name);
            module.before.iter().for_each(|before| self.visit(before, pending, order));
            pending.pop();
            order.push((name, module));
            return;
        }
        for module in self.aliases.get(name).into_iter().flatten() {
            self.visit(module, pending, order);
        }
    }

    fn add(&mut self, name: String, path: &str, info: &[(String, String)]) {
        let mut module = Module { path: path.into(), before: Vec::new() };
        for (key, value) in info {
            match key.as_str() {
                "depends" => module.before.extend(words(value, ',')),
                "softdep" => module.before.extend(soft_before(value)),
                // Patterns stand for devices that a guest does not have.
                "alias" if !value.contains(['*', '?', '[']) => {
                    self.aliases.entry(value.clone()).or_default().push(name.clone());
                }
                _ => {}
            }
        }
        self.modules.insert(name, module);
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        for (name, Module { path, before }) in &self.modules {
            text.push_str(&format!("module {name} {path} {}\n", before.join(",")));
        }
        for (alias, names) in &self.aliases {
            text.push_str(&format!("alias {} {}\n", names.join(","), alias));
        }
        for name in &self.built_in {
            text.push_str(&format!("builtin {name}\n"));
        }
        text
    }

    fn parse(text: &str) -> Self {
        let mut index = Self::default();
        for line in text.lines() {
            let mut fields = line.splitn(4, ' ');
            match (fields.next(), fields.next(), fields.next()) {
                (Some("module"), Some(name), Some(path)) => {
                    let before = words(fields.next().unwrap_or_default(), ',').collect();
                    index.modules.insert(name.into(), Module { path: path.into(), before });
                }
                (Some("alias"), Some(names), Some(alias)) => {
                    let alias =
                        fields.next().map_or(alias.into(), |rest| format!("{alias} {rest}"));
                    index.aliases.insert(alias, words(names, ',').collect());
                }
                (Some("builtin"), Some(name), None) => index.built_in.push(name.into()),
                _ => {}
            }
        }
        index
    }
}

/// A module's name as the kernel writes it: of `-` and `_`, which mean the same, always `_`.
pub(super) fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// Parameters that the kernel's command line has for a module, as `module.parameter=value` words.
pub(super) fn parameters(command_line: &str, module: &str) -> String {
    let ours = command_line.split_whitespace().filter_map(|word| {
        let (name, parameter) = word.split_once('.')?;
        (plain(name) == module).then_some(parameter)
    });
    ours.collect::<Vec<_>>().join(" ")
}

fn name_of(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    ENDS.iter().find_map(|end| file.strip_suffix(end)).map(plain)
}

fn words(text: &str, separator: char) -> impl Iterator<Item = String> {
    text.split(separator).filter(|word| !word.is_empty()).map(str::to_owned)
}

/// The part of a soft dependency that comes before: `pre: a b post: c` is a and b.
fn soft_before(text: &str) -> impl Iterator<Item = String> {
    let before = text.split_once("pre:").map_or("", |(_, before)| before);
    words(before.split("post:").next().unwrap_or_default(), ' ')
}

/// Lists the modules below a folder.
pub(super) fn files_below(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(Error::io("read", folder))?;
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files_below(&path, files)?,
            Ok(kind) if kind.is_file() && name_of(&path).is_some() => files.push(path),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(modules: &[(&str, &[(&str, &str)])]) -> Index {
        let mut index = Index::default();
        for (name, info) in modules {
            let info: Vec<_> =
                info.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
            index.add((*name).into(), &format!("kernel/{name}.ko"), &info);
        }
        index
    }

    fn names(index: &Index, wanted: &[&str]) -> Vec<String> {
        index.in_order(wanted).into_iter().map(|(name, _)| name.into()).collect()
    }

    #[test]
    fn each_comes_behind_what_it_needs_and_once() {
        let index = index(&[
            ("rdma_rxe", &[("depends", "ib_uverbs,ib_core,udp_tunnel")]),
            ("ib_uverbs", &[("depends", "ib_core")]),
            ("ib_core", &[("depends", "")]),
            ("udp_tunnel", &[]),
        ]);
        let expected = ["ib_core", "ib_uverbs", "udp_tunnel", "rdma_rxe"];
        assert_eq!(names(&index, &["ib_core", "rdma-rxe", "none"]), expected);
    }

    #[test]
    fn soft_dependencies_aliases_and_circles() {
        let index = index(&[
            ("libcrc32c", &[("softdep", "pre: crc32c post: other")]),
            ("crc32c_generic", &[("alias", "crc32c"), ("alias", "pci:v*")]),
            ("crc32c_intel", &[("alias", "crc32c")]),
            ("other", &[("softdep", "pre: libcrc32c")]),
            ("a", &[("depends", "b")]),
            ("b", &[("depends", "a")]),
        ]);
        let expected = ["crc32c_generic", "crc32c_intel", "libcrc32c"];
        assert_eq!(names(&index, &["libcrc32c"]), expected);
        assert_eq!(names(&index, &["a"]), ["b", "a"]);
        assert!(index.knows("crc32c") && !index.knows("pci:v*"));
    }

    #[test]
    fn the_index_is_read_as_it_was_written() {
        let mut index = index(&[
            ("x", &[("depends", "y"), ("alias", "net-pf-38"), ("alias", "of two words")]),
            ("y", &[]),
        ]);
        index.built_in.push("ext4".into());
        assert_eq!(Index::parse(&index.to_text()), index);
    }

    #[test]
    fn parameters_come_from_the_command_line() {
        let line = "quiet null_blk.nr_devices=0 null-blk.bs=512 loop.max_loop=1 a=b.c";
        assert_eq!(parameters(line, "null_blk"), "nr_devices=0 bs=512");
        assert_eq!(parameters(line, "nvmet"), "");
    }

    #[test]
    fn names_are_those_of_files() {
        assert_eq!(name_of(Path::new("a/nvmet-rdma.ko.xz")).as_deref(), Some("nvmet_rdma"));
        assert_eq!(name_of(Path::new("a/modules.order")), None);
    }
}
