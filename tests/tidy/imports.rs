//! Import graph of a package: which file names items that which other file declares.

use crate::source_text::{blank, is_word, without_tests, words};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Number of re-exports that are followed to find where an item is declared.
const REEXPORTS_MAX: usize = 16;

/// Nodes, by their paths, and the nodes that each one imports, with the names of what is imported.
pub(crate) struct Graph {
    nodes: Vec<PathBuf>,
    imports: Vec<BTreeMap<usize, BTreeSet<String>>>,
}

impl Graph {
    /// Each file of a package as a node. Imports from the files that enclose a file are left out: a
    /// child may use what its parent declares.
    pub(crate) fn of_files(package: &Package) -> Self {
        let nodes = package.modules.iter().map(|module| module.path.clone()).collect();
        let imports = (0..package.modules.len()).map(|from| package.imports(from)).collect();
        Self { nodes, imports }
    }

    /// Graph with all nodes of one layer as one; `layer` gives the layer of a path.
    pub(crate) fn of_layers(&self, layer: impl Fn(&Path) -> PathBuf) -> Self {
        let layers: Vec<_> = self.nodes.iter().map(|path| layer(path)).collect();
        let nodes: Vec<_> = layers.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let index = |node: usize| nodes.binary_search(&layers[node]).expect("it is one of them");
        let mut imports = vec![BTreeMap::<_, BTreeSet<_>>::new(); nodes.len()];
        for (from, all) in self.imports.iter().enumerate() {
            for (to, names) in all.iter().filter(|(to, _)| index(**to) != index(from)) {
                imports[index(from)].entry(index(*to)).or_default().extend(names.iter().cloned());
            }
        }
        Self { nodes, imports }
    }

    /// Groups of nodes each of which imports each other one of its group, directly or not.
    pub(crate) fn circles(&self) -> Vec<Vec<usize>> {
        let reached: Vec<_> = (0..self.nodes.len()).map(|from| self.reached(from)).collect();
        let circle = |from: usize| -> Vec<_> {
            reached[from].iter().copied().filter(|to| reached[*to].contains(&from)).collect()
        };
        let circles: BTreeSet<_> = (0..reached.len()).map(circle).collect();
        circles.into_iter().filter(|circle| !circle.is_empty()).collect()
    }

    /// Imports between the nodes of a circle, one a line.
    pub(crate) fn describe(&self, circle: &[usize]) -> String {
        let mut lines = Vec::new();
        for from in circle {
            for (to, names) in self.imports[*from].iter().filter(|(to, _)| circle.contains(to)) {
                let (from, to) = (self.nodes[*from].display(), self.nodes[*to].display());
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                lines.push(format!("  {from} imports {to}: {}", names.join(", ")));
            }
        }
        lines.join("\n")
    }

    /// A longest chain of nodes each of which imports the next.
    pub(crate) fn longest_chain(&self) -> Vec<&Path> {
        let mut chains = vec![None; self.nodes.len()];
        (0..chains.len()).for_each(|from| self.find_chain(from, &mut chains));
        let longest = chains.into_iter().flatten().max_by_key(Vec::len).unwrap_or_default();
        longest.into_iter().map(|node| self.nodes[node].as_path()).collect()
    }

    fn find_chain(&self, from: usize, chains: &mut [Option<Vec<usize>>]) {
        if chains[from].is_some() {
            return;
        }
        // This ends a circle.
        chains[from] = Some(Vec::new());
        self.imports[from].keys().for_each(|to| self.find_chain(*to, chains));
        let below = self.imports[from].keys().filter_map(|to| chains[*to].as_ref());
        let longest = below.max_by_key(|chain| chain.len()).cloned().unwrap_or_default();
        chains[from] = Some(std::iter::once(from).chain(longest).collect());
    }

    fn reached(&self, from: usize) -> BTreeSet<usize> {
        let (mut reached, mut waiting) = (BTreeSet::new(), vec![from]);
        while let Some(at) = waiting.pop() {
            waiting.extend(self.imports[at].keys().filter(|to| reached.insert(**to)));
        }
        reached
    }
}

/// Files of a package that `mod` reaches from its root, tests aside. The root is the first.
pub(crate) struct Package {
    modules: Vec<Module>,
}

/// One file; modules within it are part of it.
struct Module {
    path: PathBuf,
    /// Text without comments, contents of literals and tests.
    code: String,
    parent: Option<usize>,
    /// Files of its own modules, by name.
    children: BTreeMap<String, usize>,
    /// Paths of imported items, by the names that they have here.
    names: BTreeMap<String, Vec<String>>,
    /// Paths of modules all items of which are imported.
    globs: Vec<Vec<String>>,
    /// Names of items that are declared here.
    items: BTreeSet<String>,
}

impl Package {
    /// Reads the package of `root`, the path from `top` to a `lib.rs` or `main.rs`.
    pub(crate) fn read(top: &Path, root: &str) -> Self {
        let mut package = Self { modules: Vec::new() };
        package.read_module(top, PathBuf::from(root), None);
        package
    }

    /// Number of files.
    pub(crate) fn files(&self) -> usize {
        self.modules.len()
    }

    /// Number of lines of code: those with more than a comment, tests aside.
    pub(crate) fn lines(&self) -> usize {
        let lines = self.modules.iter().flat_map(|module| module.code.lines());
        lines.filter(|line| !line.trim().is_empty()).count()
    }

    fn read_module(&mut self, top: &Path, path: PathBuf, parent: Option<usize>) -> usize {
        let text = fs::read_to_string(top.join(&path));
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let code = without_tests(&blank(&text));
        let folder = folder_of_children(&path);
        let (names, globs) = imported(&code);
        let (items, files, index) = (declared(&code), declared_files(&code), self.modules.len());
        let children = BTreeMap::new();
        self.modules.push(Module { path, code, parent, children, names, globs, items });
        for name in files {
            let file = folder.join(format!("{name}.rs"));
            let is_file = top.join(&file).exists();
            let file = if is_file { file } else { folder.join(&name).join("mod.rs") };
            let child = self.read_module(top, file, Some(index));
            self.modules[index].children.insert(name, child);
        }
        index
    }

    fn imports(&self, from: usize) -> BTreeMap<usize, BTreeSet<String>> {
        let module = &self.modules[from];
        let mut imports = BTreeMap::<_, BTreeSet<_>>::new();
        let inline = paths(&module.code);
        for path in module.names.values().chain(&module.globs).chain(&inline) {
            let to = self.find(from, path, 0).filter(|to| !self.is_within(from, *to));
            if let (Some(to), Some(name)) = (to, path.last()) {
                imports.entry(to).or_default().insert(name.clone());
            }
        }
        imports
    }

    /// Tells if `outer` is `inner` or encloses it.
    fn is_within(&self, inner: usize, outer: usize) -> bool {
        let parent = self.modules[inner].parent;
        inner == outer || parent.is_some_and(|parent| self.is_within(parent, outer))
    }

    /// The file that declares what `path` names in module `from`; none if it is of another package.
    fn find(&self, from: usize, path: &[String], reexports: usize) -> Option<usize> {
        let mut at = from;
        for (position, name) in path.iter().enumerate() {
            let child = self.modules[at].children.get(name).copied();
            at = match name.as_str() {
                "crate" => 0,
                "self" => at,
                "super" => self.modules[at].parent?,
                _ => match child.or_else(|| self.reexported(at, name, reexports)) {
                    Some(found) => found,
                    None if position == 0 => return None,
                    None => return Some(at),
                },
            };
        }
        Some(at)
    }

    /// The file that declares `name`, which module `at` imports.
    fn reexported(&self, at: usize, name: &str, reexports: usize) -> Option<usize> {
        let module = &self.modules[at];
        if reexports == REEXPORTS_MAX || module.items.contains(name) {
            return None;
        }
        if let Some(path) = module.names.get(name) {
            return self.find(at, path, reexports + 1);
        }
        let targets = module.globs.iter().filter_map(|path| self.find(at, path, reexports + 1));
        targets.filter(|target| *target != at).find_map(|target| {
            let declares = self.modules[target].items.contains(name);
            declares.then_some(target).or_else(|| self.reexported(target, name, reexports + 1))
        })
    }
}

/// Folder of the files that a file declares as its modules.
fn folder_of_children(path: &Path) -> PathBuf {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a name");
    let folder = path.parent().expect("a folder");
    if ["lib", "main", "mod"].contains(&stem) { folder.to_owned() } else { folder.join(stem) }
}

/// Imports of `code`: paths by name, and paths of which every item is imported.
fn imported(code: &str) -> (BTreeMap<String, Vec<String>>, Vec<Vec<String>>) {
    let (mut names, mut globs) = (BTreeMap::new(), Vec::new());
    let imports = words(code).filter(|(word, after)| *word == "use" && after.starts_with(' '));
    let trees = imports.filter_map(|(_, after)| after.split(';').next());
    for path in trees.flat_map(expand) {
        let (path, alias) = match path.split_once(" as ") {
            Some((path, alias)) => (path, Some(alias)),
            None => (path.as_str(), None),
        };
        let mut path: Vec<_> = path.split("::").map(|part| part.trim().to_owned()).collect();
        match path.pop().expect("a last part").as_str() {
            "*" => globs.push(path),
            last => {
                if last != "self" || path.is_empty() {
                    path.push(last.to_owned());
                }
                let name =
                    alias.map_or(path[path.len() - 1].clone(), |name| name.trim().to_owned());
                names.insert(name, path);
            }
        }
    }
    (names, globs)
}

/// Paths of a tree of imports: `a::{b, c}` is `a::b` and `a::c`.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((prefix, rest)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let inner = rest.strip_suffix('}').expect("braces in pairs");
    let mut depth = 0;
    let parts = inner.split(|letter| {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        letter == ',' && depth == 0
    });
    let parts = parts.filter(|part| !part.trim().is_empty());
    parts.flat_map(expand).map(|path| format!("{prefix}{path}")).collect()
}

/// Paths of more than one part that `code` names.
fn paths(code: &str) -> Vec<Vec<String>> {
    let (mut paths, mut path) = (Vec::new(), Vec::new());
    let mut is_visibility = false;
    for (word, after) in words(code) {
        path.push(word.to_owned());
        if !after.starts_with("::") || !after[2..].starts_with(is_word) {
            let path = std::mem::take(&mut path);
            if path.len() > 1 && !is_visibility {
                paths.push(path);
            }
            // `pub(in crate::a)` uses nothing of `a`.
            is_visibility = match word {
                "pub" => after.starts_with("(in "),
                "in" => is_visibility,
                _ => false,
            };
        }
    }
    paths
}

/// Names of the items that `code` declares.
fn declared(code: &str) -> BTreeSet<String> {
    const KINDS: [&str; 9] =
        ["const", "enum", "fn", "macro_rules", "static", "struct", "trait", "type", "union"];
    let kinds = words(code).filter(|(word, _)| KINDS.contains(word));
    kinds.filter_map(|(_, after)| words(after).next()).map(|(name, _)| name.to_owned()).collect()
}

/// Names of the modules that `code` declares and that are files of their own.
fn declared_files(code: &str) -> Vec<String> {
    let declarations = words(code).filter(|(word, _)| *word == "mod");
    let names = declarations.filter_map(|(_, after)| words(after).next());
    names.filter(|(_, after)| after.starts_with(';')).map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn imports_are_found() {
    let (names, globs) = imported("use a::{b as c, d::{self, e}, f::*};\npub use crate::g;");
    let names: Vec<_> = names.iter().map(|(name, path)| (name.as_str(), path.join("::"))).collect();
    let expected = [("c", "a::b"), ("d", "a::d"), ("e", "a::d::e"), ("g", "crate::g")];
    assert_eq!(names, expected.map(|(name, path)| (name, path.to_owned())));
    assert_eq!(globs, [["a", "f"]]);
    let found = paths("pub(in crate::a) fn b() { super::c::d(); for e in f::g {} }");
    assert_eq!(found, [vec!["super", "c", "d"], vec!["f", "g"]]);
}
