//! The kernel's source: a package, or a tree or tarball that the user has.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest, Sha256};

use rustix::fs::statvfs;

use crate::{
    Error, Result, Series,
    folder::remove_folder,
    helper,
    packages::{self, SourcePackage},
    progress::{Step, say},
};

/// Space in MB for the unpacked source and the compiler's output: 1,860 for 6.12, 2,050 for 7.3.
const BUILD_MB: u64 = 2_200;

/// Origin of a kernel's source.
pub(crate) enum Source {
    Package(SourcePackage),
    Tarball { path: PathBuf, version: String },
    Tree { path: PathBuf, version: String },
}

impl Source {
    /// The source at a path: a folder is a tree, a file a tarball.
    pub(crate) fn given(path: &Path) -> Result<Self> {
        let path = path.canonicalize().map_err(Error::io("open", path))?;
        if path.is_dir() {
            let version = tree_version(&path)?;
            return Ok(Self::Tree { path, version });
        }
        let version = format!("tarball-{}", fingerprint(std::slice::from_ref(&path))?);
        Ok(Self::Tarball { path, version })
    }

    /// Names the source in the cache: the same name means the same source.
    pub(crate) fn version(&self) -> &str {
        match self {
            Self::Package(package) => &package.version,
            Self::Tarball { version, .. } | Self::Tree { version, .. } => version,
        }
    }

    /// True for a package of a release outside the series.
    pub(crate) fn replaces(&self, series: Series) -> bool {
        matches!(self, Self::Package(package) if package.replaces(series))
    }

    /// Leaves the source in `folder/tree`, unless an earlier call already did.
    pub(crate) fn unpack(&self, folder: &Path) -> Result<PathBuf> {
        let tree = folder.join("tree");
        if tree.is_dir() {
            return Ok(tree);
        }
        self.check_room(folder)?;
        let partial = folder.join("partial");
        remove_folder(&partial)?;
        fs::create_dir_all(&partial).map_err(Error::io("create", &partial))?;
        match self {
            Self::Package(package) => unpack_package(package, folder, &partial)?,
            Self::Tarball { path, .. } => unpack_tarball(path, &partial)?,
            Self::Tree { path, .. } => copy_tree(path, &partial)?,
        }
        fs::rename(&partial, &tree).map_err(Error::io("rename", &partial))?;
        Ok(tree)
    }

    /// Says what the build takes; fails when the disk cannot hold it.
    fn check_room(&self, folder: &Path) -> Result<()> {
        // A package's file is gone before its tarball, of about the same size, is unpacked.
        let package = if let Self::Package(package) = self { package.size / 1_000_000 } else { 0 };
        let needed = BUILD_MB + package;
        let disk = statvfs(folder).map_err(Error::errno("look at", folder))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize) / 1_000_000;
        if free < needed {
            return Err(Error::NoSpace { folder: folder.into(), free, needed });
        }
        say(&format!("building takes {needed} MB of {} while it lasts", folder.display()));
        Ok(())
    }
}

fn unpack_package(package: &SourcePackage, folder: &Path, into: &Path) -> Result<()> {
    let download = folder.join("download");
    remove_folder(&download)?;
    fs::create_dir_all(&download).map_err(Error::io("create", &download))?;
    unpack_tarball(&package.tarball(&download)?, into)?;
    remove_folder(&download)
}

fn unpack_tarball(tarball: &Path, into: &Path) -> Result<()> {
    packages::ensure(packages::to_unpack(tarball).as_slice())?;
    let name = tarball.file_name().unwrap_or_default().display();
    let _step = Step::new(format!("unpacking {name}"));
    let mut tar = Command::new("tar");
    helper::check(tar.arg("-xf").arg(tarball).arg("--strip-components=1").arg("-C").arg(into))
}

/// Copies, because the user's tree may hold another configuration and must stay as it is.
fn copy_tree(from: &Path, into: &Path) -> Result<()> {
    let _step = Step::new(format!("copying {}", from.display()));
    let mut copy = Command::new("sh");
    copy.args(["-c", r#"tar --exclude=./.git -C "$0" -cf - . | tar -C "$1" -xf -"#]);
    helper::check(copy.arg(from).arg(into))?;
    helper::check(Command::new("make").arg("-C").arg(into).args(["ARCH=um", "mrproper"]))
}

/// The version in the tree's top Makefile, and a fingerprint: a changed tree is another source.
fn tree_version(tree: &Path) -> Result<String> {
    let makefile = tree.join("Makefile");
    let text = fs::read_to_string(&makefile).map_err(Error::io("read", &makefile))?;
    let reason = "is not a kernel source tree";
    let version = version_in(&text).ok_or_else(|| Error::Path { path: tree.into(), reason })?;
    let mut files = Vec::new();
    sources_below(tree, &mut files).map_err(Error::io("read", tree))?;
    Ok(format!("{version}-tree-{}", fingerprint(&files)?))
}

fn version_in(makefile: &str) -> Option<String> {
    let value = |name: &str| {
        let line = makefile.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim_start().strip_prefix('=')).map(str::trim)
    };
    let numbers = [value("VERSION")?, value("PATCHLEVEL")?, value("SUBLEVEL")?];
    Some(numbers.join(".") + value("EXTRAVERSION").unwrap_or_default())
}

fn sources_below(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() && entry.file_name() != ".git" {
                folders.push(entry.path());
            } else if kind.is_file() && is_source(&entry.path()) {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(())
}

/// True for a source file; files that a build makes must not change the fingerprint.
fn is_source(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let ends = ["c", "h", "S", "lds", "dts"];
    name.starts_with("Makefile")
        || name.starts_with("Kconfig")
        || path.extension().is_some_and(|end| ends.iter().any(|known| end == *known))
}

fn fingerprint(files: &[PathBuf]) -> Result<String> {
    let mut digest = Sha256::new();
    for path in files {
        let about = fs::metadata(path).map_err(Error::io("read", path))?;
        let changed = about.modified().map_err(Error::io("read", path))?;
        digest.update(format!("{path:?} {} {changed:?}\n", about.len()));
    }
    Ok(digest.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trees_version_is_in_its_makefile() {
        let makefile = "# c\nVERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION = -rc1\n";
        assert_eq!(version_in(makefile).as_deref(), Some("7.3.4-rc1"));
        assert_eq!(version_in("all:\n"), None);
    }

    #[test]
    fn a_folder_that_is_no_tree_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("Makefile"), "all:\n").unwrap();
        let error = Source::given(folder.path()).err().unwrap().to_string();
        assert!(error.contains("not a kernel source tree"), "{error}");
    }

    #[test]
    fn a_changed_tree_is_another_source() {
        let folder = tempfile::tempdir().unwrap();
        let makefile = "VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\n";
        fs::write(folder.path().join("Makefile"), makefile).unwrap();
        let first = tree_version(folder.path()).unwrap();
        fs::write(folder.path().join("built.o"), "").unwrap();
        assert_eq!(tree_version(folder.path()).unwrap(), first);
        fs::write(folder.path().join("new.c"), "").unwrap();
        assert_ne!(tree_version(folder.path()).unwrap(), first);
        assert!(first.starts_with("7.3.4-tree-"), "{first}");
    }
}
