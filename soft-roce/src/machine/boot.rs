//! First process of a QEMU guest: loads the modules that its root needs, mounts the root, and
//! becomes the guest's init there.

use std::{
    convert::Infallible,
    env,
    ffi::CString,
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    mount::{MountFlags, UnmountFlags, mount, mount_move, unmount},
    process::{chdir, chroot},
    system::{RebootCommand, finit_module, reboot},
};

use super::{initramfs, modules, sysroot};
use crate::run::spec::name;

/// Name of the port that is the line to the host.
pub(super) const LINE_PORT: &str = "soft-roce";

/// Name by which the guest mounts its root.
pub(super) const ROOT_TAG: &str = "root";

/// Tells the guest's init which device its line to the host is.
pub(crate) const LINE_VARIABLE: &str = "SOFT_ROCE_LINE";

/// Tells the guest's init where the kernel's modules are.
pub(crate) const MODULES_VARIABLE: &str = "SOFT_ROCE_MODULES";

/// Line that a kernel under probe prints at its end.
pub(crate) const PROBE_ANSWER: &str = "soft-roce: the probe has booted";

/// Time for devices to appear once their modules are loaded.
const DEVICE_DEADLINE: Duration = Duration::from_secs(30);

const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// Options of the guest's root: one set of rights, as the server has the caller's anyway; pages
/// kept for what is mapped, nothing else, so that host and guest see each other's changes.
const ROOT_OPTIONS: &str = "trans=virtio,version=9p2000.L,access=any,cache=mmap,msize=512000";

/// Brings up the root and executes the init of the run in `folder`; returns only on failure.
pub(crate) fn run(folder: &Path) -> io::Result<Infallible> {
    let early = [("/proc", "proc"), ("/sys", "sysfs"), ("/dev", "devtmpfs")];
    for (place, kind) in early {
        match mount(kind, place, kind, MountFlags::empty(), c"") {
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    load_modules()?;
    let line = wait_for("the line to the host", find_line)?;
    wait_for("the root", mount_root)?;
    if env::var_os(sysroot::VARIABLE).is_some() {
        sysroot::cover(Path::new(initramfs::ROOT))?;
    }
    for (place, _) in early {
        unmount(place, UnmountFlags::DETACH)?;
    }
    chdir(initramfs::ROOT)?;
    mount_move(".", "/")?;
    chroot(".")?;
    chdir("/")?;
    let mut init = Command::new(folder.join(name::INIT));
    Err(init.arg("init").arg(folder).env(LINE_VARIABLE, line).exec())
}

/// Says that the kernel has booted, and powers off.
pub(crate) fn answer_probe() -> io::Result<Infallible> {
    println!("{PROBE_ANSWER}");
    reboot(RebootCommand::PowerOff)?;
    Err(io::Error::other("powering off did nothing"))
}

/// Loads a module's file with the parameters that the kernel's command line has for it.
pub(super) fn load(name: &str, file: &Path, parameters: &str) -> io::Result<()> {
    let opened = fs::File::open(file)?;
    let parameters = CString::new(parameters)?;
    match finit_module(&opened, &parameters, 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(errno) => Err(io::Error::other(format!("module {name}: {errno}"))),
    }
}

fn load_modules() -> io::Result<()> {
    let command_line = fs::read_to_string("/proc/cmdline")?;
    for file in fs::read_to_string(initramfs::MODULE_LIST)?.lines() {
        let name = file.trim_end_matches(".ko");
        let path = Path::new(initramfs::MODULES).join(file);
        // What a module cannot do here, for instance for lack of a device, shows where it is used.
        if let Err(error) = load(name, &path, &modules::parameters(&command_line, name)) {
            eprintln!("soft-roce: {error}");
        }
        let _ = fs::remove_file(path);
    }
    Ok(())
}

fn find_line() -> io::Result<PathBuf> {
    for entry in fs::read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == LINE_PORT {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

fn mount_root() -> io::Result<()> {
    let options = CString::new(ROOT_OPTIONS)?;
    Ok(mount(ROOT_TAG, initramfs::ROOT, "9p", MountFlags::empty(), &*options)?)
}

fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + DEVICE_DEADLINE;
    loop {
        match attempt() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() >= deadline => {
                return Err(io::Error::other(format!("{what}: {error}")));
            }
            Err(_) => thread::sleep(RETRY_INTERVAL),
        }
    }
}
