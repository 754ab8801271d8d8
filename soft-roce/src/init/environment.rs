//! Set-up of the guest: file systems, network, RDMA devices and, when asked for, the target.

use std::{
    ffi::CStr,
    fs,
    io::Write,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    mount::{MountFlags, mount as mount_at},
    process::{Resource, Rlimit, setrlimit},
    system::sethostname,
};

use super::cpuinfo;
use crate::{
    Error, Result,
    deadline_factor::scaled,
    helper,
    machine::modprobe,
    run::device::Link,
    run::spec::{GUEST_MARKER, GuestSpec},
    target::{Target, TargetRoot},
};

/// File systems of the guest: mount point, type and options.
const MOUNTS: [(&str, &str, &CStr); 10] = [
    ("/proc", "proc", c""),
    ("/sys", "sysfs", c""),
    ("/dev", "devtmpfs", c"mode=755"),
    ("/dev/pts", "devpts", c"mode=620,ptmxmode=666"),
    ("/dev/shm", "tmpfs", c"mode=1777"),
    ("/dev/mqueue", "mqueue", c""),
    ("/sys/kernel/config", "configfs", c""),
    ("/sys/kernel/debug", "debugfs", c""),
    ("/run", "tmpfs", c"mode=755"),
    ("/run/lock", "tmpfs", c"mode=1777"),
];

/// Hard and soft limit of a program's open files; the host's limits do not hold in the guest.
const OPEN_FILES_MAX: u64 = 1 << 20;
const OPEN_FILES: u64 = 1 << 16;

/// MTU of the network devices: 4,096 bytes of payload of the largest rxe packet, and its headers.
const MTU: u32 = 4400;

/// Time for the kernel's initiator to remove its controllers.
const INITIATORS_DEADLINE: Duration = Duration::from_secs(8);

/// Mounts the file systems of the guest.
pub(super) fn mount() -> Result<()> {
    for (place, kind, options) in MOUNTS {
        let _ = fs::create_dir_all(place);
        match mount_at(kind, place, kind, MountFlags::empty(), options) {
            // The kernel has mounted devtmpfs already.
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(errno) => return Err(Error::errno("mount", place)(errno)),
        }
    }
    for (link, target) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        let link = Path::new("/dev").join(link);
        let target = Path::new("/proc/self").join(target);
        std::os::unix::fs::symlink(target, &link).map_err(Error::io("create", link))?;
    }
    modprobe::install()?;
    fs::write(GUEST_MARKER, "").map_err(Error::io("write", GUEST_MARKER))
}

/// Sets up limits, names, network, RDMA devices, `/proc/cpuinfo` and the target.
pub(super) fn set_up(spec: &GuestSpec) -> Result<()> {
    let links = spec.device.links();
    set_limits()?;
    network(links)?;
    links.iter().try_for_each(rdma_link)?;
    spec.counter_mhz.map_or(Ok(()), cpuinfo::install)?;
    let Some(file) = &spec.target else { return Ok(()) };
    Target::load(file)?.up(&TargetRoot::guest())
}

/// Removes the initiator's controllers, then the target, so that neither loses its connection.
pub(super) fn tear_down(deadline_factor: u32) -> Result<()> {
    end_initiators(scaled(INITIATORS_DEADLINE, deadline_factor));
    TargetRoot::guest().down()
}

fn set_limits() -> Result<()> {
    let limit = |current, maximum| Rlimit { current, maximum };
    let limits = [
        (Resource::Memlock, limit(None, None)),
        (Resource::Nofile, limit(Some(OPEN_FILES), Some(OPEN_FILES_MAX))),
        (Resource::Core, limit(Some(0), None)),
    ];
    for (resource, limit) in limits {
        setrlimit(resource, limit).map_err(Error::errno("set limits in", "/proc/self"))?;
    }
    sethostname(b"soft-roce").map_err(Error::errno("set the name in", "/proc/sys/kernel"))
}

fn network(links: &[Link]) -> Result<()> {
    let mut text = String::from("link set lo up\n");
    for Link { netdev, address, address_v6, .. } in links {
        text += &format!(
            "link add {netdev} type dummy\n\
             link set {netdev} mtu {MTU} up\n\
             addr add {address}/24 dev {netdev}\n\
             addr add {address_v6}/64 dev {netdev} nodad\n"
        );
    }
    let mut ip = helper::system("ip");
    ip.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let failed = |reason: String| Error::Helper { command: "ip -batch -".into(), reason };
    let mut child = ip.spawn().map_err(|error| failed(error.to_string()))?;
    let mut input = child.stdin.take().expect("it was started with a pipe");
    let written = input.write_all(text.as_bytes());
    drop(input);
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    written.map_err(|error| failed(error.to_string()))?;
    if status.success() { Ok(()) } else { Err(failed(status.to_string())) }
}

fn rdma_link(link: &Link) -> Result<()> {
    let Link { name, kind, netdev, .. } = link;
    let mut rdma = helper::system("rdma");
    helper::check(rdma.args(["link", "add", name, "type", kind, "netdev", netdev])).map_err(
        |error| match error {
            // The kernel's answer for a driver that it does not have.
            Error::Helper { reason, .. } if reason.contains("Invalid argument") => {
                Error::NoDriver { kind }
            }
            other => other,
        },
    )
}

fn end_initiators(limit: Duration) {
    let deadline = Instant::now() + limit;
    for entry in fs::read_dir("/sys/class/nvme").into_iter().flatten().flatten() {
        // The write returns when the controller is gone, or at once when it is going already.
        let _ = fs::write(entry.path().join("delete_controller"), "1");
    }
    let left = || fs::read_dir("/sys/class/nvme").is_ok_and(|mut left| left.next().is_some());
    while left() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
}
