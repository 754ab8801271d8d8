//! Subsystems whose commands pass through to a controller that the kernel's own initiator has
//! connected.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{
    Passthru, Port, SERVICE, Target,
    configfs::{TargetRoot, names},
};
use crate::{Error, Result};

/// Device through which the kernel's initiator connects.
const INITIATOR: &str = "/dev/nvme-fabrics";
/// Folder of the kernel's controllers.
const CONTROLLERS: &str = "/sys/class/nvme";
/// Maximum time in which the initiator finds the namespaces of a controller.
const SCAN_TIMEOUT: Duration = Duration::from_secs(20);
const SCAN_POLL_INTERVAL: Duration = Duration::from_millis(10);

impl Target {
    /// Port that offers a subsystem, the first one if there are several.
    pub(super) fn port_of(&self, nqn: &str) -> Option<&Port> {
        self.ports.iter().find(|port| {
            let named = |all: &Vec<String>| all.iter().any(|one| one == nqn);
            port.subsystems.as_ref().is_none_or(named)
        })
    }

    /// Returns true if the commands of a subsystem pass through.
    pub(super) fn passes_through(&self, nqn: &str) -> bool {
        self.subsystems.iter().any(|one| one.nqn == nqn && one.passthru.is_some())
    }
}

/// Connects the kernel's initiator to a subsystem at a port, and waits until it has found
/// `namespaces` namespaces. Returns the name of the controller, such as `nvme0`.
pub(super) fn connect(nqn: &str, port: &Port, namespaces: usize) -> Result<String> {
    let path = Path::new(INITIATOR);
    let failed = |source: io::Error| Error::Attribute {
        object: format!("subsystem {nqn}"),
        attribute: "a connection of the kernel's initiator".into(),
        value: INITIATOR.into(),
        source,
        kernel: Vec::new(),
    };
    let (address, service) = (port.address(), port.service.unwrap_or(SERVICE));
    let options = format!("transport=rdma,traddr={address},trsvcid={service},nqn={nqn}");
    let file = OpenOptions::new().read(true).write(true).open(path);
    let mut file = file.map_err(Error::io("open", path))?;
    let mut answer = String::new();
    file.write_all(options.as_bytes()).map_err(failed)?;
    file.read_to_string(&mut answer).map_err(failed)?;
    let instance = answer.split(',').find_map(|pair| pair.trim().strip_prefix("instance="));
    let Some(instance) = instance.filter(|number| number.parse::<u32>().is_ok()) else {
        return Err(failed(io::Error::other(format!("it answers {:?}", answer.trim()))));
    };
    let controller = format!("nvme{instance}");
    match until_scanned(&controller, namespaces) {
        true => Ok(controller),
        false => {
            let _ = disconnect(&controller);
            Err(failed(io::Error::other(format!(
                "{controller} has fewer than {namespaces} namespaces after {} s",
                SCAN_TIMEOUT.as_secs()
            ))))
        }
    }
}

/// Waits until the initiator has found this many namespaces; returns false if it has not in time.
fn until_scanned(controller: &str, namespaces: usize) -> bool {
    let folder = Path::new(CONTROLLERS).join(controller);
    // nvme0n1, or nvme0c0n1 for a path.
    let is_namespace = |name: &String| name.starts_with("nvme") && name[4..].contains('n');
    let deadline = Instant::now() + SCAN_TIMEOUT;
    while Instant::now() < deadline {
        if names(&folder).iter().filter(|name| is_namespace(name)).count() >= namespaces {
            return true;
        }
        thread::sleep(SCAN_POLL_INTERVAL);
    }
    false
}

/// Disconnects a controller; succeeds when it is gone already.
pub(super) fn disconnect(controller: &str) -> Result<()> {
    let path = Path::new(CONTROLLERS).join(controller).join("delete_controller");
    match fs::write(&path, "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("write", &path)(error))
        }
        _ => Ok(()),
    }
}

impl Passthru {
    /// Has the commands of a subsystem pass through to a controller.
    pub(super) fn enable(&self, root: &TargetRoot, nqn: &str, controller: &str) -> Result<()> {
        let node = root.passthru(nqn)?;
        let device = PathBuf::from("/dev").join(controller);
        node.set("device_path", &device.to_string_lossy())?;
        node.set_some("admin_timeout", self.admin_timeout)?;
        node.set_some("io_timeout", self.io_timeout)?;
        node.set_some("clear_ids", self.clear_ids.map(u8::from))?;
        node.set("enable", "1")
    }
}
