//! Check that KVM works. That `/dev/kvm` exists proves nothing: in a virtual machine without
//! nested virtualization, and under some hypervisors with it, a guest dies when it starts.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{architecture::Architecture, boot, initramfs};
use crate::{Result, kernel::cache::Cache, program};

/// Seconds that a probe may take; with KVM it takes one.
const PROBE_SECONDS: &str = "20";

/// Returns why KVM cannot be used, or nothing when a guest of it has booted.
///
/// The result of a probe is kept in the cache until the machine boots again.
pub(super) fn refusal(architecture: Architecture, kernel: &Path, cache: &Cache) -> Option<String> {
    if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
        return Some(format!("cannot open /dev/kvm: {error}"));
    }
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let kept = cache.root().join(format!("kvm-probe-{}", architecture.debian()));
    if let Some(verdict) = fs::read_to_string(&kept)
        .ok()
        .and_then(|text| text.strip_prefix(boot_id.as_str()).map(str::to_owned))
    {
        return (!verdict.is_empty()).then_some(verdict);
    }
    let refusal = probe(architecture, kernel, cache).err();
    // A cache that cannot be written costs the next run a second probe.
    let _ = fs::write(kept, boot_id + refusal.as_deref().unwrap_or_default());
    refusal
}

fn probe(
    architecture: Architecture,
    kernel: &Path,
    cache: &Cache,
) -> std::result::Result<(), String> {
    let initramfs = pack(cache).map_err(|error| error.to_string())?;
    let mut qemu = Command::new("timeout");
    qemu.args(["--kill-after=1", PROBE_SECONDS]).arg(architecture.program());
    qemu.args(architecture.machine()).args(["-accel", "kvm", "-cpu", "max", "-m", "256"]);
    qemu.args(["-serial", "stdio", "-kernel"]).arg(kernel).arg("-initrd").arg(&initramfs);
    let console = architecture.console();
    qemu.arg("-append").arg(format!("console={console} panic=-1 rdinit=/init -- probe"));
    let output = qemu.stdin(Stdio::null()).output();
    let _ = fs::remove_file(initramfs);
    let output = output.map_err(|error| error.to_string())?;
    if String::from_utf8_lossy(&output.stdout).contains(boot::PROBE_ANSWER) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    let last = last.map_or_else(|| output.status.to_string(), |line| line.trim().to_owned());
    Err(format!("a probe with KVM did not boot: {last}"))
}

fn pack(cache: &Cache) -> Result<PathBuf> {
    let path = cache.root().join(format!("kvm-probe.{}", std::process::id()));
    let bytes = initramfs::of_program(&program::own()?, Path::new("/"))?;
    fs::write(&path, bytes).map_err(crate::Error::io("write", &path))?;
    Ok(path)
}
