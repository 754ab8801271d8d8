//! The test bed on this machine's own kernel, where that has rxe and nvmet.

use std::{fmt, fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result, helper, packages,
    run::ADDRESS,
    target::{State, Target, TargetRoot},
};

/// The kernel modules of the bed.
const MODULES: [&str; 5] = ["configfs", "rdma_rxe", "nvmet", "nvmet_rdma", "null_blk"];

/// Our network device and our RDMA device; the names must not be anybody else's.
const NETDEV: &str = "softroce0";
const LINK: &str = "rxe_softroce0";

/// The largest rxe packet carries 4,096 bytes of payload and needs room for its headers.
const MTU: &str = "4400";

/// Parts of the bed that exist on this machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Our RDMA device exists.
    pub device: bool,
    /// The target as text; none when the kernel has no target at all.
    pub target: Option<String>,
    /// Reasons why this machine cannot be the bed.
    pub missing: Vec<String>,
}

/// Loads the modules, makes an RDMA device on a network device of its own, and brings up the
/// target of `file`, if one is given.
///
/// # Errors
///
/// [`Error::NotNative`] with all that is missing, or what the kernel refused.
pub fn up(file: Option<&Path>) -> Result<()> {
    let target = file.map(Target::load).transpose()?;
    let missing = missing();
    if !missing.is_empty() {
        return Err(Error::NotNative(missing));
    }
    MODULES.iter().try_for_each(|module| helper::check(helper::system("modprobe").arg(module)))?;
    if !Path::new("/sys/kernel/config/nvmet").is_dir() {
        run("mount", &["-t", "configfs", "configfs", "/sys/kernel/config"])?;
    }
    if !has_device() {
        let outcome = device();
        if outcome.is_err() {
            remove_device();
        }
        outcome?;
    }
    target.map_or(Ok(()), |target| target.up(&TargetRoot::native()))
}

/// Takes down what [`up`] brought up. The modules stay: others may use them.
///
/// # Errors
///
/// When not root, or what the kernel refused.
pub fn down() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotNative(vec!["only root may do this".into()]));
    }
    TargetRoot::native().down()?;
    remove_device();
    Ok(())
}

/// Parts of the bed that exist, and the features that are missing.
#[must_use]
pub fn status() -> Status {
    let state: Option<State> = TargetRoot::native().state().ok();
    let target = state.map(|state| state.to_string());
    Status { device: has_device(), target, missing: missing() }
}

/// All that keeps this machine from being the bed.
#[must_use]
pub fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("only root may do this".into());
    }
    for module in MODULES.iter().filter(|module| !has_module(module)) {
        missing.push(format!("kernel module {module} is not there"));
    }
    for package in packages::missing(&packages::TO_RUN) {
        missing.push(format!("package {package} is not installed"));
    }
    missing
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = if self.device { "is there" } else { "is not there" };
        writeln!(f, "RDMA device {LINK} {device}")?;
        write!(f, "{}", self.target.as_deref().unwrap_or("no target is up\n"))?;
        self.missing.iter().try_for_each(|missing| writeln!(f, "missing: {missing}"))
    }
}

fn has_module(module: &str) -> bool {
    let loaded = Path::new("/sys/module").join(module).is_dir();
    loaded || helper::check(helper::system("modprobe").args(["-n", "-q", module])).is_ok()
}

fn has_device() -> bool {
    fs::exists(Path::new("/sys/class/infiniband").join(LINK)).unwrap_or(false)
}

fn device() -> Result<()> {
    run("ip", &["link", "add", NETDEV, "type", "dummy"])?;
    run("ip", &["link", "set", NETDEV, "mtu", MTU, "up"])?;
    run("ip", &["addr", "add", &format!("{ADDRESS}/24"), "dev", NETDEV])?;
    run("rdma", &["link", "add", LINK, "type", "rxe", "netdev", NETDEV])
}

/// Removes what may be there of it.
fn remove_device() {
    let _ = run("rdma", &["link", "del", LINK]);
    let _ = run("ip", &["link", "del", NETDEV]);
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    helper::check(helper::system(program).args(args))
}
