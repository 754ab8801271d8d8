//! Built kernels as one file: for machines that are to build nothing, and for releases.
//!
//! A gzipped tar archive. Its first member, `manifest.json`, names the kernels with what they were
//! made of and the SHA-256 of each file; the others are those files, as `KEY/linux`, `KEY/config`
//! and `KEY/kernel.json`, where KEY is the cache's key.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize};
use tar::{Archive, Builder, EntryType};

use crate::{
    Error, Result,
    folder::remove_folder,
    kernel::{
        KernelInfo,
        build::Trial,
        cache::Cache,
        config,
        info::{self, sha256},
    },
};

/// Version of the archive's form.
const FORMAT: u32 = 1;

/// The manifest's name in the archive.
const MANIFEST: &str = "manifest.json";

/// Limit of the manifest's length, in bytes.
const MANIFEST_MAX: u64 = 1 << 20;

/// Limit of the length of any other file, in bytes: a kernel has some ten million.
const FILE_MAX: u64 = 256 << 20;

/// The files of a kernel.
const FILES: [&str; 3] = ["linux", "config", info::FILE];

/// The kernels of an archive, by the names under which `--kernel` finds them.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    /// The machine that the kernels are for, as `uname -m` has it.
    machine: String,
    kernels: BTreeMap<String, Exported>,
}

/// One kernel of an archive.
#[derive(Debug, Serialize, Deserialize)]
struct Exported {
    key: String,
    info: KernelInfo,
    sha256: BTreeMap<String, String>,
}

/// Writes the current kernels of those names, or all, into `file`; returns the names.
///
/// # Errors
///
/// A kernel that is not in the cache, none at all, or a file that cannot be written.
pub fn export(cache: &Cache, names: &[String], file: &Path) -> Result<Vec<String>> {
    let mut manifest = Manifest {
        format: FORMAT,
        machine: std::env::consts::ARCH.into(),
        kernels: BTreeMap::new(),
    };
    for name in chosen(cache, names)? {
        let linux = cache.current(&name).expect("it was looked up just now");
        let entry = linux.parent().expect("a program lies in its entry");
        let key = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let info = KernelInfo::load(&entry.join(info::FILE))?;
        let sums = FILES.map(|one| Ok((one.to_owned(), sha256(&entry.join(one))?)));
        let sha256 = sums.into_iter().collect::<Result<_>>()?;
        manifest.kernels.insert(name, Exported { key, info, sha256 });
    }
    write(cache, &manifest, file)?;
    Ok(manifest.kernels.into_keys().collect())
}

/// Takes the kernels of `file` into the cache, after checking that each file is whole and that
/// each kernel passes its `trial` on this machine; returns their names. All of them, or none.
///
/// # Errors
///
/// [`Error::Archive`] when the file is damaged or of another soft-roce, [`Error::Trial`] when a
/// kernel does not work here.
pub fn import(cache: &Cache, file: &Path, trial: Trial<'_>) -> Result<Vec<String>> {
    let _lock = cache.lock("import", || {})?;
    let folder = cache.root().join("import");
    remove_folder(&folder)?;
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    let imported = unpack(file, &folder).and_then(|manifest| {
        for exported in manifest.kernels.values() {
            trial(&folder.join(&exported.key).join("linux"))?;
        }
        for (name, exported) in &manifest.kernels {
            let entry = cache.root().join(&exported.key);
            remove_folder(&entry)?;
            let from = folder.join(&exported.key);
            fs::rename(&from, &entry).map_err(Error::io("rename", &from))?;
            cache.point(name, &entry)?;
        }
        Ok(manifest.kernels.into_keys().collect())
    });
    let removed = remove_folder(&folder);
    let names = imported?;
    removed?;
    Ok(names)
}

fn chosen(cache: &Cache, names: &[String]) -> Result<Vec<String>> {
    let known = cache.kernels().into_iter().filter(|(_, linux)| linux.is_some());
    let known: Vec<_> = known.map(|(name, _)| name).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(name)) {
        return Err(Error::Usage(format!("kernel {name} is not built; run: soft-roce build")));
    }
    if known.is_empty() {
        return Err(Error::Usage("no kernel is built; run: soft-roce build".into()));
    }
    Ok(if names.is_empty() { known } else { names.to_vec() })
}

fn write(cache: &Cache, manifest: &Manifest, file: &Path) -> Result<()> {
    let text = serde_json::to_vec_pretty(manifest).expect("strings always have a JSON form");
    let fresh = file.with_added_extension("new");
    let output = File::create(&fresh).map_err(Error::io("create", &fresh))?;
    let write = || -> io::Result<()> {
        let mut archive = Builder::new(GzEncoder::new(output, Compression::default()));
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, MANIFEST, &text[..])?;
        for exported in manifest.kernels.values() {
            for name in FILES {
                let path = Path::new(&exported.key).join(name);
                archive.append_path_with_name(cache.root().join(&path), &path)?;
            }
        }
        archive.into_inner()?.finish()?.sync_all()
    };
    write().map_err(Error::io("write", &fresh))?;
    fs::rename(&fresh, file).map_err(Error::io("rename", &fresh))
}

/// Unpacks and checks everything below `folder`, which is empty.
fn unpack(file: &Path, folder: &Path) -> Result<Manifest> {
    let damaged = |reason: String| Error::Archive { path: file.into(), reason };
    let input = File::open(file).map_err(Error::io("open", file))?;
    let mut archive = Archive::new(GzDecoder::new(input));
    let unreadable = |error: io::Error| damaged(format!("no whole export of kernels: {error}"));
    let mut members = archive.entries().map_err(unreadable)?;
    let first = members.next().transpose().map_err(unreadable)?;
    let first = first.ok_or_else(|| damaged("it is empty".into()))?;
    let manifest = manifest(first).map_err(&damaged)?;
    let mut left = wanted(&manifest);
    for member in members {
        let mut member = member.map_err(unreadable)?;
        let path = member.path().map_err(unreadable)?.into_owned();
        let odd = || damaged(format!("{} does not belong into it", path.display()));
        let sum = left.remove(&path).ok_or_else(odd)?;
        if member.header().entry_type() != EntryType::Regular || member.size() > FILE_MAX {
            return Err(odd());
        }
        let to = folder.join(&path);
        let parent = to.parent().expect("the path has a folder");
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        let mut output = File::create(&to).map_err(Error::io("create", &to))?;
        io::copy(&mut member, &mut output).map_err(unreadable)?;
        if path.ends_with("linux") {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            output.set_permissions(mode).map_err(Error::io("write", &to))?;
        }
        if sha256(&to)? != sum {
            return Err(damaged(format!("the checksum of {} is wrong", path.display())));
        }
    }
    // The rest of the stream has its checksum, which covers the manifest.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(unreadable)?;
    match left.keys().next() {
        Some(path) => Err(damaged(format!("{} is missing", path.display()))),
        None => Ok(manifest),
    }
}

/// Reads the manifest; an error is a reason in words.
fn manifest(mut member: tar::Entry<'_, impl Read>) -> std::result::Result<Manifest, String> {
    if member.path().map_or(true, |path| path != Path::new(MANIFEST)) {
        return Err(format!("{MANIFEST} is not its first member"));
    }
    let mut text = Vec::new();
    let read = member.by_ref().take(MANIFEST_MAX).read_to_end(&mut text);
    read.map_err(|error| format!("{MANIFEST}: {error}"))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| format!("{MANIFEST}: {error}"))?;
    if manifest.format != FORMAT {
        let format = manifest.format;
        return Err(format!("format {format} is another soft-roce's; this one reads {FORMAT}"));
    }
    if manifest.machine != std::env::consts::ARCH {
        return Err(format!("its kernels are for {}", manifest.machine));
    }
    for (name, exported) in &manifest.kernels {
        let is_plain =
            |text: &str| !text.starts_with('.') && !text.is_empty() && !text.contains(['/', '\0']);
        if !is_plain(name) || !is_plain(&exported.key) {
            return Err(format!("{name:?} is no kernel's name"));
        }
        if exported.key != Cache::key(&exported.info.version) {
            let (theirs, ours) = (&exported.info.recipe, config::hash());
            return Err(format!(
                "kernel {name} was made by another soft-roce (recipe {theirs}; this one's is \
                 {ours})"
            ));
        }
    }
    Ok(manifest)
}

/// The members that must follow the manifest, with their checksums.
fn wanted(manifest: &Manifest) -> BTreeMap<PathBuf, String> {
    let files = manifest.kernels.values().flat_map(|exported| {
        FILES.map(|name| {
            let sum = exported.sha256.get(name).cloned().unwrap_or_default();
            (Path::new(&exported.key).join(name), sum)
        })
    });
    files.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Patched;

    /// A cache with a kernel of that version, which is a few bytes.
    fn cache(version: &str) -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("cache"));
        let entry = cache.entry(version);
        fs::create_dir_all(&entry).unwrap();
        fs::write(entry.join("linux"), version.repeat(1000)).unwrap();
        fs::write(entry.join("config"), "CONFIG_NET=y\n").unwrap();
        let info = KernelInfo {
            version: version.into(),
            recipe: config::hash(),
            patched: Patched::default(),
            missing_options: vec![],
        };
        info.store(&entry.join(info::FILE)).unwrap();
        cache.point("6.12", &entry).unwrap();
        (folder, cache)
    }

    fn empty() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("other"));
        (folder, cache)
    }

    #[test]
    fn what_is_exported_is_imported() {
        let (folder, full) = cache("6.12.1");
        let file = folder.path().join("kernels");
        assert_eq!(export(&full, &[], &file).unwrap(), ["6.12"]);
        let (_other, cache) = empty();
        let tried = std::cell::Cell::new(0);
        let trial = |_: &Path| {
            tried.set(tried.get() + 1);
            Ok(())
        };
        assert_eq!(import(&cache, &file, &trial).unwrap(), ["6.12"]);
        assert_eq!(tried.get(), 1);
        let linux = cache.current("6.12").unwrap();
        assert_eq!(fs::read(linux).unwrap(), fs::read(full.current("6.12").unwrap()).unwrap());
        assert!(export(&full, &["7".into()], &file).unwrap_err().to_string().contains("not built"));
    }

    #[test]
    fn a_damaged_file_changes_nothing() {
        let (folder, full) = cache("6.12.1");
        let file = folder.path().join("kernels");
        export(&full, &[], &file).unwrap();
        let whole = fs::read(&file).unwrap();
        let mut damaged: Vec<Vec<u8>> =
            (0..whole.len()).step_by(whole.len() / 40).map(|end| whole[..end].to_vec()).collect();
        // After the header of gzip, each byte counts.
        damaged.extend((10..whole.len()).step_by(whole.len() / 40).map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            bytes
        }));
        let (_other, cache) = empty();
        let mut refused = 0;
        for bytes in damaged {
            fs::write(&file, bytes).unwrap();
            match import(&cache, &file, &|_| Ok(())) {
                // Compression may say the same in two ways; then nothing is damaged.
                Ok(_) => {
                    let read = |cache: &Cache| fs::read(cache.current("6.12").unwrap()).unwrap();
                    assert!(read(&cache) == read(&full));
                    fs::remove_dir_all(cache.root()).unwrap();
                }
                Err(error) => {
                    assert!(error.to_string().contains("nothing was imported"), "{error}");
                    assert_eq!(cache.kernels(), []);
                    refused += 1;
                }
            }
            assert!(!cache.root().join("import").exists());
        }
        assert!(refused > 70, "{refused}");
    }

    #[test]
    fn a_kernel_that_fails_its_trial_is_not_taken() {
        let (folder, full) = cache("6.12.1");
        let file = folder.path().join("kernels");
        export(&full, &[], &file).unwrap();
        let (_other, cache) = empty();
        let fails = |kernel: &Path| {
            Err(Error::Trial { kernel: kernel.into(), reason: "it panicked".into() })
        };
        assert!(import(&cache, &file, &fails).unwrap_err().to_string().contains("it panicked"));
        assert_eq!(cache.kernels(), []);
    }
}
