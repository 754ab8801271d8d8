//! QEMU: its command line, what it needs here, and whether it has to emulate the processor.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    architecture::Architecture,
    boot::{LINE_PORT, MODULES_VARIABLE, ROOT_TAG},
    initramfs, kvm,
    spec::QemuSpec,
    stock::{self, StockKernel},
    sysroot::{self, Sysroot},
};
use crate::{
    Error, Kernel, Result, Series,
    check::Check,
    helper,
    kernel::cache::Cache,
    run::spec::{self, LaunchSpec, name},
};

/// The most processors that are given to a guest.
const CPUS_MAX: usize = 64;

/// Finds QEMU and the kernel, and tries KVM; returns the machine, its kernel and a line that says
/// why it is slow, if it is.
pub(super) fn prepare(
    kernel: &Kernel,
    cpus: Option<usize>,
    sysroot: Option<&Sysroot>,
) -> Result<(QemuSpec, PathBuf, Option<String>)> {
    let architecture = sysroot.map_or_else(Architecture::host, |it| Ok(it.architecture))?;
    let program = find(architecture)?;
    let cpus = cpus.unwrap_or(1);
    if cpus > CPUS_MAX {
        return Err(Error::Usage(format!("--cpus {cpus}: a guest has at most {CPUS_MAX}")));
    }
    let cache = Cache::open()?;
    let StockKernel { image, module_archive, modules } =
        stock::locate(kernel, architecture, &cache)?;
    let emulated = if Architecture::host().is_ok_and(|host| host == architecture) {
        kvm::refusal(architecture, &image, &cache)
    } else {
        Some("its architecture is not this machine's".into())
    };
    let note = emulated
        .as_ref()
        .map(|reason| format!("QEMU emulates the processor, ten to twenty times slower: {reason}"));
    let sysroot = sysroot.cloned();
    let spec = QemuSpec { program, architecture, emulated, cpus, module_archive, modules, sysroot };
    Ok((spec, image, note))
}

/// The stock kernel of a series, for this machine's own architecture; downloads it when it is not
/// in the cache.
///
/// # Errors
///
/// No QEMU, no package, or no download.
pub fn stock_kernel(series: Series, cache: &Cache) -> Result<PathBuf> {
    let architecture = Architecture::host()?;
    find(architecture)?;
    Ok(stock::locate(&Kernel::Series(series), architecture, cache)?.image)
}

/// Looks whether QEMU guests can run here; changes nothing and boots nothing.
#[must_use]
pub fn check() -> Check {
    let subject = "machine qemu";
    let found =
        Architecture::host().and_then(|architecture| Ok((architecture, find(architecture)?)));
    match found {
        Err(error) => Check::note(subject, error.to_string()),
        Ok((architecture, program)) => {
            let kvm = match File::options().read(true).write(true).open("/dev/kvm") {
                Ok(_) => "/dev/kvm opens; a run tries whether it works".to_owned(),
                Err(error) => format!("emulation, for lack of KVM (/dev/kvm: {error})"),
            };
            let kernels = Cache::open().map(|cache| stock::cached(architecture, &cache));
            let kernels = kernels.unwrap_or_default();
            let kernels = if kernels.is_empty() {
                "stock kernel: none yet; the first run downloads it".to_owned()
            } else {
                format!("stock kernels: {}", kernels.join(" "))
            };
            Check::good(subject, format!("{}; {kvm}; {kernels}", program.display()))
        }
    }
}

/// Refuses memory that the machine does not have now: QEMU takes it as the guest uses it, and
/// would be killed for it later.
pub(crate) fn check_memory(bytes: u64) -> Result<()> {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = available_memory(&text).unwrap_or(u64::MAX);
    if bytes <= available {
        return Ok(());
    }
    let text = format!(
        "no room for {} MiB of guest memory: {} MiB are available; give less with --mem",
        bytes >> 20,
        available >> 20
    );
    Err(Error::Usage(text))
}

fn available_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes << 10)
}

/// The command that becomes the machine of the run in `folder`; writes the guest's initramfs there.
pub(crate) fn command(launch: &LaunchSpec, spec: &QemuSpec, folder: &Path) -> Result<Command> {
    let initramfs = write_initramfs(spec, folder)?;
    for (end, name) in [("in", name::INPUT), ("out", name::OUTPUT)] {
        let link = folder.join(format!("line.{end}"));
        symlink(name, &link).map_err(Error::io("create", link))?;
    }
    let mut command = Command::new(&spec.program);
    command.args(spec.architecture.machine());
    command.args(["-accel", if spec.is_emulated() { spec.architecture.emulator() } else { "kvm" }]);
    command.args(["-cpu", spec.architecture.processor(spec.is_emulated())]);
    command.args(["-smp", &spec.cpus.to_string()]);
    command.arg("-m").arg(format!("{}k", launch.memory_bytes >> 10));
    command.arg("-kernel").arg(&launch.kernel).arg("-initrd").arg(initramfs);
    command.arg("-append").arg(kernel_arguments(launch, spec, folder));
    let log = option_value(&launch.log);
    command.arg("-chardev").arg(format!("file,id=log,append=on,path={log}"));
    command.args(["-serial", "chardev:log", "-device", "virtio-serial-pci"]);
    let line = option_value(&folder.join("line"));
    command.arg("-chardev").arg(format!("pipe,id=line,path={line}"));
    command.arg("-device").arg(format!("virtserialport,chardev=line,name={LINE_PORT}"));
    share(&mut command, ROOT_TAG, Path::new("/"));
    if let Some(sysroot) = &spec.sysroot {
        share(&mut command, sysroot::TAG, &sysroot.folder);
    }
    Ok(command)
}

/// Gives the guest a folder, which it mounts by this name.
fn share(command: &mut Command, tag: &str, folder: &Path) {
    let path = option_value(folder);
    let options = "security_model=none,multidevs=remap";
    command.arg("-fsdev").arg(format!("local,id={tag},{options},path={path}"));
    command.arg("-device").arg(format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"));
}

fn find(architecture: Architecture) -> Result<PathBuf> {
    helper::find(architecture.program()).ok_or_else(|| {
        let (program, package) = (architecture.program(), architecture.package());
        let reason = format!(
            "{program} is not on the search path; run: apt-get install -y \
             --no-install-recommends {package}"
        );
        Error::Machine { name: "QEMU", reason }
    })
}

fn kernel_arguments(launch: &LaunchSpec, spec: &QemuSpec, folder: &Path) -> String {
    let mut words = vec![
        format!("console={}", spec.architecture.console()),
        "rdinit=/init".into(),
        "loglevel=7".into(),
        "panic=-1".into(),
        "oops=panic".into(),
        "null_blk.nr_devices=0".into(),
        // A guest runs its caller's programs: it has nothing to keep from them.
        "mitigations=off".into(),
        format!("{MODULES_VARIABLE}={}", spec.modules.display()),
    ];
    if spec.is_emulated() {
        // Time that the emulator did not get must not be taken for a fault of the guest's.
        words.extend(["nowatchdog".into(), "tsc=reliable".into()]);
    }
    if spec.sysroot.is_some() {
        words.push(format!("{}=1", sysroot::VARIABLE));
    }
    words.extend_from_slice(&launch.extra);
    words.extend(["--".into(), "boot".into(), folder.display().to_string()]);
    words.join(" ")
}

fn write_initramfs(spec: &QemuSpec, folder: &Path) -> Result<PathBuf> {
    let (program, root) = match &spec.sysroot {
        Some(sysroot) => (sysroot.program(), sysroot.folder.as_path()),
        None => {
            let own = std::env::current_exe().map_err(Error::io("find", "soft-roce"))?;
            (own, Path::new("/"))
        }
    };
    let path = folder.join("initramfs");
    let modules =
        fs::read(&spec.module_archive).map_err(Error::io("read", &spec.module_archive))?;
    let own = initramfs::of_program(&program, root)?;
    let written = spec::create_private(&path).and_then(|mut file| {
        file.write_all(&modules)?;
        file.write_all(&own)
    });
    written.map_err(Error::io("write", &path))?;
    Ok(path)
}

/// A path within an option of QEMU's, where a comma ends a value unless it is doubled.
fn option_value(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_known_by_either_name() {
        assert_eq!("aarch64".parse::<Architecture>().unwrap(), Architecture::Aarch64);
        assert_eq!("amd64".parse::<Architecture>().unwrap(), Architecture::X86_64);
        let error = "riscv64".parse::<Architecture>().unwrap_err().to_string();
        assert!(error.contains("riscv64") && error.contains("aarch64"), "{error}");
    }

    #[test]
    fn commas_do_not_end_a_path() {
        assert_eq!(option_value(Path::new("/a,b/c")), "/a,,b/c");
    }

    #[test]
    fn memory_that_is_not_there_is_refused() {
        assert_eq!(available_memory("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert!(check_memory(1 << 20).is_ok());
        assert!(check_memory(u64::MAX - 1).unwrap_err().to_string().contains("--mem"));
    }

    #[test]
    fn too_many_processors_are_refused() {
        // Without QEMU the refusal names the package.
        let error = prepare(&Kernel::default(), Some(1000), None).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("--cpus 1000") || text.contains("apt-get install"), "{text}");
    }
}
