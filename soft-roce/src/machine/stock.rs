//! Kernels of distributions: found in Debian's suites or given by path, and made ready to boot.
//!
//! Nothing is installed. A package is unpacked into the cache; drivers for devices that no guest
//! has are left out, the rest is decompressed, so that neither a boot nor `modprobe` has to.

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sha2::{Digest, Sha256};

use super::{
    architecture::Architecture,
    initramfs,
    modules::{self, Index},
};
use crate::{
    Error, Kernel, Result, folder::remove_folder, helper, kernel::cache::Cache,
    packages::KernelImage, progress::Step,
};

/// Changes when what is made of a package changes.
const RECIPE: &str = "2";

/// Folders of modules, below a kernel's, for devices that no guest has.
const EXCLUDED: [&str; 30] = [
    "kernel/drivers/accel",
    "kernel/drivers/ata",
    "kernel/drivers/bluetooth",
    "kernel/drivers/comedi",
    "kernel/drivers/edac",
    "kernel/drivers/firewire",
    "kernel/drivers/gpio",
    "kernel/drivers/gpu",
    "kernel/drivers/hid",
    "kernel/drivers/hwmon",
    "kernel/drivers/i2c",
    "kernel/drivers/iio",
    "kernel/drivers/infiniband/hw",
    "kernel/drivers/input",
    "kernel/drivers/leds",
    "kernel/drivers/media",
    "kernel/drivers/mfd",
    "kernel/drivers/mtd",
    "kernel/drivers/net/can",
    "kernel/drivers/net/ethernet",
    "kernel/drivers/net/usb",
    "kernel/drivers/net/wireless",
    "kernel/drivers/platform",
    "kernel/drivers/staging",
    "kernel/drivers/usb",
    "kernel/drivers/video",
    "kernel/net/bluetooth",
    "kernel/net/mac80211",
    "kernel/net/wireless",
    "kernel/sound",
];

/// Programs that decompress a module or a kernel, by the first bytes or the end of the name.
const DECOMPRESSORS: [(&str, &[u8], &str); 3] = [
    ("xz", b"\xfd7zXZ\0", "ko.xz"),
    ("zstd", b"\x28\xb5\x2f\xfd", "ko.zst"),
    ("gzip", b"\x1f\x8b", "ko.gz"),
];

/// Modules decompressed by one process.
const FILES_PER_PROCESS: usize = 500;

/// Beginnings of names in the cache of what is not complete.
const INCOMPLETE: [&str; 3] = [DOWNLOAD, PARTIAL, NEW];
const DOWNLOAD: &str = "download-";
const PARTIAL: &str = "partial-";
const NEW: &str = "new-";

/// A kernel that QEMU can boot.
#[derive(Clone, Debug)]
pub(super) struct StockKernel {
    /// The file that QEMU loads.
    pub(super) image: PathBuf,
    /// The part of an initramfs that holds modules.
    pub(super) module_archive: PathBuf,
    /// Folder of all modules.
    pub(super) modules: PathBuf,
}

/// A kernel as a distribution or the user has it.
struct Source {
    image: PathBuf,
    modules: PathBuf,
    release: String,
}

/// Finds the kernel: in the cache, at the given path, or in a package, which is downloaded.
pub(super) fn locate(
    kernel: &Kernel,
    architecture: Architecture,
    cache: &Cache,
) -> Result<StockKernel> {
    let base = cache.root().join("stock").join(architecture.debian());
    match kernel {
        Kernel::Program(path) => {
            let source = given(path)?;
            let entry = base.join(key(&fingerprint(&source)?));
            import_once(cache, &source, &entry)?;
            opened(&entry)
        }
        Kernel::Series(series) => {
            let pointer = base.join(format!("current-{}-{}", series.name(), key("")));
            if let Ok(found) = opened(&pointer) {
                return Ok(found);
            }
            let lock = format!("stock-{}-{}", architecture.debian(), series.name());
            let _lock = cache.lock(&lock, || {
                crate::progress::say(
                    "another download of this kernel is under way; waiting for it",
                );
            })?;
            if let Ok(found) = opened(&pointer) {
                return Ok(found);
            }
            let package = KernelImage::find(*series, architecture.debian(), cache)?;
            let entry = base.join(key(&package.version));
            download(&package, &entry)?;
            point(&pointer, &entry)?;
            opened(&entry)
        }
    }
}

/// Names of the stock kernels that are in the cache.
pub(super) fn cached(architecture: Architecture, cache: &Cache) -> Vec<String> {
    let base = cache.root().join("stock").join(architecture.debian());
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    let whole = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !INCOMPLETE.iter().any(|start| name.starts_with(start)) && !path.is_symlink()
    };
    let entries = entries.map(|entry| entry.path()).filter(whole);
    let mut releases: Vec<_> = entries.filter_map(|entry| release(&entry)).collect();
    releases.sort();
    releases.dedup();
    releases
}

fn opened(entry: &Path) -> Result<StockKernel> {
    let missing = || Error::NoKernelProgram(entry.into());
    let entry = entry.canonicalize().map_err(Error::io("open", entry))?;
    let release = release(&entry).ok_or_else(missing)?;
    let modules = entry.join("modules").join(release);
    let (image, module_archive) = (entry.join("image"), entry.join("modules.cpio"));
    let complete = image.is_file() && module_archive.is_file();
    complete.then_some(StockKernel { image, module_archive, modules }).ok_or_else(missing)
}

fn release(entry: &Path) -> Option<String> {
    let mut folders = fs::read_dir(entry.join("modules")).ok()?.flatten();
    folders.next()?.file_name().into_string().ok()
}

/// Name of an entry in the cache: what the kernel is, and what is made of it.
fn key(version: &str) -> String {
    let made = Sha256::new().chain_update(RECIPE).chain_update(initramfs::WANTED.join(" "));
    let made = made.chain_update(EXCLUDED.join(" ")).finalize();
    let digits: String = made.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    if version.is_empty() { digits } else { format!("{version}-{digits}") }
}

/// Makes an entry of the cache from a package. The caller holds the lock of the series, so what a
/// killed download left is taken away by the next.
fn download(package: &KernelImage, entry: &Path) -> Result<()> {
    if entry.is_dir() {
        return Ok(());
    }
    let folder = beside(entry, DOWNLOAD);
    remove_folder(&folder)?;
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    let unpacked = folder.join("root");
    let done = package.download(&folder).and_then(|files| {
        let _step = Step::new("unpacking the kernel".into());
        for file in files {
            helper::check(Command::new("dpkg-deb").arg("-x").arg(file).arg(&unpacked))?;
        }
        import(&in_root(&unpacked)?, entry)
    });
    remove_folder(&folder)?;
    done
}

/// The kernel in an unpacked package.
fn in_root(root: &Path) -> Result<Source> {
    let entries = |folder: &str| fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
    let in_boot = entries("boot").map(|entry| entry.path());
    let mut in_boot = in_boot.filter(|path| release_in_name(path).is_some());
    // Since 7.3 Debian has the kernel among its modules.
    let modules = entries("usr/lib/modules").chain(entries("lib/modules"));
    let mut among_modules = modules.map(|entry| entry.path().join("vmlinuz"));
    let image = in_boot.next().or_else(|| among_modules.find(|path| path.is_file()));
    image.ok_or_else(|| not_a_kernel(root)).and_then(|image| given(&image))
}

/// The kernel of a path, and its modules: beside it, or where a distribution has them.
fn given(path: &Path) -> Result<Source> {
    let image = path.canonicalize().map_err(Error::io("open", path))?;
    let here = image.parent().unwrap_or(Path::new("/"));
    // Other folders have a `kernel` in them, too: `/etc`, for one.
    if here.join("kernel").is_dir()
        && here.join("modules.builtin").is_file()
        && let Some(release) = here.file_name().and_then(OsStr::to_str)
    {
        return Ok(Source { modules: here.into(), release: release.into(), image });
    }
    let release = release_in_name(&image).or_else(|| release_in_header(&image));
    let release = release.ok_or_else(|| not_a_kernel(&image))?;
    let places = ["modules", "lib/modules", "../lib/modules", "../usr/lib/modules"];
    let places = places.iter().map(|place| here.join(place).join(&release));
    let usual = Path::new("/lib/modules").join(&release);
    let found = places.chain([usual]).find(|folder| folder.join("kernel").is_dir());
    let modules = found.ok_or_else(|| Error::Machine {
        name: "QEMU",
        reason: format!(
            "{} needs its modules in a folder modules/{release} beside it",
            image.display()
        ),
    })?;
    Ok(Source { image, modules, release })
}

fn not_a_kernel(path: &Path) -> Error {
    let reason = format!(
        "{} is no kernel that QEMU boots; give 6.12, 7, or a vmlinuz with its modules beside it",
        path.display()
    );
    Error::Machine { name: "QEMU", reason }
}

fn release_in_name(image: &Path) -> Option<String> {
    let name = image.file_name()?.to_str()?;
    let starts = ["vmlinuz-", "vmlinux-", "Image-", "bzImage-"];
    starts.iter().find_map(|start| name.strip_prefix(start)).map(str::to_owned)
}

/// The release that the header of an x86 kernel names: its boot protocol, `kernel_version`.
fn release_in_header(image: &Path) -> Option<String> {
    let bytes = fs::read(image).ok()?;
    (bytes.get(0x202..0x206)? == b"HdrS").then_some(())?;
    let offset = u16::from_le_bytes(bytes.get(0x20e..0x210)?.try_into().ok()?);
    let text = bytes.get(usize::from(offset) + 0x200..)?;
    let text = std::str::from_utf8(text.split(|byte| *byte == 0).next()?).ok()?;
    text.split(' ').next().filter(|release| !release.is_empty()).map(str::to_owned)
}

/// Names a given kernel: the same name means the same files.
fn fingerprint(source: &Source) -> Result<String> {
    let mut digest = Sha256::new();
    for path in [&source.image, &source.modules] {
        let about = fs::metadata(path).map_err(Error::io("read", path))?;
        let changed = about.modified().map_err(Error::io("read", path))?;
        digest.update(format!("{path:?} {} {changed:?}\n", about.len()));
    }
    let digits: String = digest.finalize().iter().take(4).map(|b| format!("{b:02x}")).collect();
    Ok(format!("given-{}-{digits}", source.release))
}

fn import_once(cache: &Cache, source: &Source, entry: &Path) -> Result<()> {
    let _lock = cache.lock("stock-given", || {
        crate::progress::say("another run prepares this kernel; waiting for it");
    })?;
    if entry.is_dir() {
        return Ok(());
    }
    let _step = Step::new(format!("preparing {}", source.image.display()));
    import(source, entry)
}

/// Makes an entry of the cache from a kernel; it appears whole or not at all. The caller holds a
/// lock.
fn import(source: &Source, entry: &Path) -> Result<()> {
    let partial = beside(entry, PARTIAL);
    remove_folder(&partial)?;
    let modules = partial.join("modules").join(&source.release);
    fs::create_dir_all(&modules).map_err(Error::io("create", &modules))?;
    let done = fill(source, &partial, &modules)
        .and_then(|()| fs::rename(&partial, entry).map_err(Error::io("rename", &partial)));
    if done.is_err() {
        let _ = remove_folder(&partial);
    }
    done
}

fn fill(source: &Source, partial: &Path, modules: &Path) -> Result<()> {
    copy_modules(&source.modules, modules)?;
    decompress_modules(modules)?;
    let index = Index::of_folder(modules)?;
    index.store(modules)?;
    let archive = partial.join("modules.cpio");
    let bytes = initramfs::of_modules(&index, modules)?;
    fs::write(&archive, bytes).map_err(Error::io("write", &archive))?;
    let image = fs::read(&source.image).map_err(Error::io("read", &source.image))?;
    let image = uncompressed(&image).unwrap_or(image);
    let path = partial.join("image");
    fs::write(&path, image).map_err(Error::io("write", &path))
}

fn copy_modules(from: &Path, to: &Path) -> Result<()> {
    let mut files = Vec::new();
    modules::files_below(&from.join("kernel"), &mut files)?;
    let lists = ["modules.builtin", "modules.builtin.modinfo", "modules.order"];
    files.extend(lists.map(|list| from.join(list)).into_iter().filter(|path| path.is_file()));
    for file in files {
        let below = file.strip_prefix(from).unwrap_or(&file);
        if EXCLUDED.iter().any(|folder| below.starts_with(folder)) {
            continue;
        }
        let target = to.join(below);
        let folder = target.parent().unwrap_or(to);
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        fs::copy(&file, &target).map_err(Error::io("copy", &file))?;
    }
    Ok(())
}

fn decompress_modules(folder: &Path) -> Result<()> {
    let mut files = Vec::new();
    modules::files_below(folder, &mut files)?;
    for (program, _, end) in DECOMPRESSORS {
        let compressed = |path: &&PathBuf| path.to_string_lossy().ends_with(end);
        let files: Vec<_> = files.iter().filter(compressed).collect();
        for files in files.chunks(FILES_PER_PROCESS) {
            let mut command = helper::system(program);
            if program == "zstd" {
                command.args(["-q", "--rm"]);
            }
            helper::check(command.arg("-d").args(files))?;
        }
    }
    Ok(())
}

/// The kernel proper out of an x86 `vmlinuz`. QEMU starts it without firmware and without its own
/// decompressor, which takes an emulated processor seconds. None where that is not to be had; then
/// the file is booted as it is.
fn uncompressed(image: &[u8]) -> Option<Vec<u8>> {
    let number = |at: usize| {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    (image.get(0x202..0x206)? == b"HdrS").then_some(())?;
    // The boot protocol's `setup_sects`, `payload_offset` and `payload_length`.
    let start = (usize::from(*image.get(0x1f1)?) + 1) * 512 + number(0x248)?;
    let payload = image.get(start..start + number(0x24c)?)?;
    // The last four bytes are the size of the result, where the format itself does not have it.
    let (body, size) = payload.split_at_checked(payload.len().checked_sub(4)?)?;
    let size = usize::try_from(u32::from_le_bytes(size.try_into().ok()?)).ok()?;
    let known = DECOMPRESSORS.iter().find(|(_, magic, _)| payload.starts_with(magic))?;
    let body = if known.0 == "gzip" { payload } else { body };
    let kernel = piped(Command::new(known.0).arg("-dc"), body)?;
    (kernel.len() == size && kernel.starts_with(b"\x7fELF")).then_some(kernel)
}

fn piped(command: &mut Command, input: &[u8]) -> Option<Vec<u8>> {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let mut writer = child.stdin.take()?;
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(input));
        let output = child.wait_with_output().ok()?;
        output.status.success().then_some(output.stdout)
    })
}

/// A path in the same folder for what is not complete.
fn beside(path: &Path, start: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{start}{name}"))
}

/// Makes `pointer` stand for `entry`, in one step.
fn point(pointer: &Path, entry: &Path) -> Result<()> {
    let fresh = beside(pointer, NEW);
    let _ = fs::remove_file(&fresh);
    let name = entry.file_name().unwrap_or_default();
    std::os::unix::fs::symlink(name, &fresh).map_err(Error::io("create", &fresh))?;
    fs::rename(&fresh, pointer).map_err(Error::io("rename", &fresh))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_in_the_name_or_the_header() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("vmlinuz-6.12.117+deb13-amd64");
        assert_eq!(release_in_name(&image).as_deref(), Some("6.12.117+deb13-amd64"));
        let mut header = vec![0; 0x400];
        header[0x202..0x206].copy_from_slice(b"HdrS");
        header[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        header[0x300..0x30e].copy_from_slice(b"6.1.0 (build) ");
        let image = folder.path().join("vmlinuz");
        fs::write(&image, &header).unwrap();
        assert_eq!(release_in_header(&image).as_deref(), Some("6.1.0"));
        let error = given(&image).err().unwrap().to_string();
        assert!(error.contains("modules/6.1.0"), "{error}");
        fs::write(&image, b"text").unwrap();
        fs::create_dir(folder.path().join("kernel")).unwrap();
        let error = given(&image).err().unwrap().to_string();
        assert!(error.contains("no kernel that QEMU boots"), "{error}");
    }

    #[test]
    fn a_package_has_its_kernel_in_boot_or_among_the_modules() {
        for image in ["boot/vmlinuz-7.3.4", "usr/lib/modules/7.3.4/vmlinuz"] {
            let root = tempfile::tempdir().unwrap();
            let modules = root.path().join("usr/lib/modules/7.3.4");
            fs::create_dir_all(modules.join("kernel")).unwrap();
            fs::write(modules.join("modules.builtin"), "").unwrap();
            let image = root.path().join(image);
            fs::create_dir_all(image.parent().unwrap()).unwrap();
            fs::write(&image, "").unwrap();
            let source = in_root(root.path()).unwrap();
            let same = source.modules.canonicalize().unwrap() == modules.canonicalize().unwrap();
            assert!(same && source.image == image.canonicalize().unwrap());
            assert_eq!(source.release, "7.3.4");
        }
        assert!(in_root(tempfile::tempdir().unwrap().path()).is_err());
    }

    #[test]
    fn a_kernel_is_imported_whole() {
        let folder = tempfile::tempdir().unwrap();
        let modules = folder.path().join("modules/6.1.0");
        for path in ["kernel/fs/9p/9p.ko", "kernel/sound/snd.ko"] {
            let path = modules.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::write(modules.join("modules.builtin"), "kernel/fs/ext4/ext4.ko\n").unwrap();
        let image = folder.path().join("vmlinuz-6.1.0");
        fs::write(&image, b"text").unwrap();
        let entry = folder.path().join("entry");
        import(&given(&image).unwrap(), &entry).unwrap();
        let found = opened(&entry).unwrap();
        assert_eq!(fs::read(&found.image).unwrap(), b"text");
        assert!(found.modules.join("kernel/fs/9p/9p.ko").is_file());
        assert!(!found.modules.join("kernel/sound").exists());
        let index = Index::load(&found.modules).unwrap();
        assert!(index.knows("9p") && index.knows("ext4") && !index.knows("snd"));
    }
}
