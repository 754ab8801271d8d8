//! User space of another processor architecture: Debian's packages, unpacked into a folder. Nothing
//! is installed, and no program of theirs runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Error, Result,
    folder::remove_folder,
    helper,
    kernel::cache::Cache,
    packages::apt::{self, Apt},
    progress::{Step, say},
};

/// Suite of the packages. Programs linked here run there as long as its C library is not older.
const SUITE: &str = "trixie";

/// Packages of each user space: a shell and its tools, the network's tools, and RDMA's libraries
/// with what linking to them needs. What they depend on comes with them.
const PACKAGES: [&str; 12] = [
    "bash",
    "coreutils",
    "dash",
    "diffutils",
    "grep",
    "ibverbs-providers",
    "iproute2",
    "libibverbs-dev",
    "librdmacm-dev",
    "mount",
    "sed",
    "util-linux",
];

/// File, below the folder, that lists the packages that were asked for; written last.
const LIST: &str = "usr/share/soft-roce/packages";

/// Makes `folder` a user space for an architecture, as Debian names it, with `extra` packages. A
/// folder that was made of the same packages is left as it is; another folder with content is
/// refused.
///
/// # Errors
///
/// [`Error::Sysroot`], or what apt or dpkg-deb said.
pub fn make_sysroot(folder: &Path, architecture: &str, extra: &[String]) -> Result<()> {
    let refused = |reason: &str| Error::Sysroot { folder: folder.into(), reason: reason.into() };
    let wanted = Wanted::new(architecture, extra);
    match fs::read_to_string(folder.join(LIST)) {
        Ok(made) if made == wanted.list() => return Ok(()),
        Ok(_) => return Err(refused("it was made of other packages; remove it first")),
        Err(_) if is_used(folder) => return Err(refused("it holds something else already")),
        Err(_) => {}
    }
    if !helper::exists("apt-get") || !helper::exists("dpkg-deb") {
        return Err(refused("this machine has no apt-get and dpkg-deb"));
    }
    let cache = Cache::open()?;
    let mirror = apt::mirror(Some(&cache));
    let mirror = mirror.ok_or_else(|| refused("apt is not set up for a Debian mirror"))?;
    let partial = partial(folder)?;
    let done = wanted
        .fill(&partial, &mirror, &cache)
        .and_then(|()| fs::rename(&partial, folder).map_err(Error::io("rename", &partial)));
    remove_folder(&partial)?;
    done
}

fn is_used(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// A fresh folder beside the one that is wanted, for what may become it.
fn partial(folder: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(folder).map_err(Error::io("find", folder))?;
    let partial = absolute.with_extension(format!("partial-{}", std::process::id()));
    remove_folder(&partial)?;
    fs::create_dir_all(&partial).map_err(Error::io("create", &partial))?;
    Ok(partial)
}

/// The packages that a user space is made of.
struct Wanted {
    architecture: String,
    packages: Vec<String>,
}

impl Wanted {
    fn new(architecture: &str, extra: &[String]) -> Self {
        let packages = PACKAGES.iter().map(|name| (*name).to_owned()).chain(extra.iter().cloned());
        Self { architecture: architecture.into(), packages: packages.collect() }
    }

    fn list(&self) -> String {
        format!("{SUITE} {} {}\n", self.architecture, self.packages.join(" "))
    }

    fn fill(&self, folder: &Path, mirror: &str, cache: &Cache) -> Result<()> {
        let architecture = &self.architecture;
        let _lock = cache.lock(&format!("sysroot-{architecture}"), || {
            say("another download of these packages is under way; waiting for it");
        })?;
        let apt = Apt::suite(cache, mirror, SUITE, Some(architecture))?;
        {
            let text = format!("reading the package list of {SUITE} for {architecture}");
            let _step = Step::new(text);
            apt.update()?;
        }
        let archives = cache.root().join("apt").join(format!("sysroot-{architecture}"));
        remove_folder(&archives)?;
        let files = {
            let count = self.packages.len();
            let _step = Step::new(format!("downloading {count} packages and what they need"));
            apt.download_with_dependencies(&self.packages, &archives)?
        };
        let step = Step::new(format!("unpacking {} packages", files.len()));
        for file in &files {
            helper::check(Command::new("dpkg-deb").arg("-x").arg(file).arg(folder))?;
        }
        drop(step);
        let path = folder.join(LIST);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        fs::write(&path, self.list()).map_err(Error::io("write", path))?;
        remove_folder(&archives)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_something_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("letter"), "text").unwrap();
        let error = make_sysroot(folder.path(), "arm64", &[]).unwrap_err().to_string();
        assert!(error.contains("something else"), "{error}");
        assert_eq!(fs::read_to_string(folder.path().join("letter")).unwrap(), "text");
    }

    #[test]
    fn a_folder_is_made_once_for_the_same_packages() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join(LIST);
        fs::create_dir_all(list.parent().unwrap()).unwrap();
        fs::write(&list, Wanted::new("arm64", &["perl".into()]).list()).unwrap();
        make_sysroot(folder.path(), "arm64", &["perl".into()]).unwrap();
        let error = make_sysroot(folder.path(), "arm64", &[]).unwrap_err().to_string();
        assert!(error.contains("other packages"), "{error}");
    }
}
