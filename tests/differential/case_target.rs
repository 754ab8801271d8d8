//! The target of one case: a subsystem, a port and two hosts of its own, so that cases can run
//! side by side.

use std::{
    fs,
    io::ErrorKind,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rdma_host::HostIdentity;
use soft_roce::target::TargetRoot;
use tests::{SUBSYSTEM, address, dmsetup, run, wait_for};
use uuid::Uuid;

use super::{case::TargetSpec, fake_target::FakeTargets};

/// The controller id that the subsystem of the target file gives out, as text.
const HELD_ID: &str = "60000";

const NVMET: &str = "/sys/kernel/config/nvmet";

/// The target of one case, and the changes that can be made to it.
pub(crate) struct CaseTarget {
    spec: TargetSpec,
    place: TargetRoot,
    /// Id of the port.
    id: u16,
    /// Service ids for the kernel's initiator and ours.
    services: [u16; 2],
    nqn: String,
    /// Hosts of the kernel's initiator and ours.
    hosts: [HostIdentity; 2],
    fake_targets: Option<FakeTargets>,
}

impl CaseTarget {
    /// Sets up the target of the case with this number.
    pub(crate) fn set_up(number: u16, spec: TargetSpec) -> Self {
        let host = |side: u16| {
            let id = 0x6a2c_1f4e_0b1d_4c8e_9f53_0000_0000_0000 + u128::from(number * 2 + side);
            HostIdentity::from_id(Uuid::from_u128(id))
        };
        let (service, nqn, hosts) =
            (5000 + number, format!("{SUBSYSTEM}-{number}"), [host(0), host(1)]);
        // Each initiator has a scripted target of its own.
        let services = [service, if spec.fake.is_some() { 2000 + service } else { service }];
        let fake_targets = spec.fake.map(|fake| {
            let place = |side: usize| {
                let ip = address().parse().expect("an address");
                (SocketAddr::new(ip, services[side]), &hosts[side])
            };
            FakeTargets::set_up(fake, &nqn, [place(0), place(1)])
        });
        let place = TargetRoot::here();
        let target = Self { spec, place, id: 100 + number, services, nqn, hosts, fake_targets };
        if target.fake_targets.is_some() {
            return target;
        }
        target.make();
        if let Some(prepare) = spec.prepare {
            prepare(&target);
        }
        target
    }

    pub(crate) fn nqn(&self) -> &str {
        &self.nqn
    }

    /// Service id of the target; of a fake one, that for the kernel's initiator.
    pub(crate) fn service(&self) -> u16 {
        self.services[0]
    }

    /// Service id of the target for our initiator.
    pub(crate) fn our_service(&self) -> u16 {
        self.services[1]
    }

    pub(crate) fn kernel_host(&self) -> &HostIdentity {
        &self.hosts[0]
    }

    pub(crate) fn our_host(&self) -> &HostIdentity {
        &self.hosts[1]
    }

    /// Makes the hosts, the subsystem and the port; also after [`down`](Self::down).
    pub(crate) fn make(&self) {
        self.hosts.iter().for_each(|host| make_folder(&host_path(host)));
        for (attribute, value) in self.spec.hosts {
            self.host(attribute, value);
        }
        self.make_subsystem();
        let port = self.port_path();
        make_folder(&port);
        write(&port.join("addr_trtype"), "rdma");
        write(&port.join("addr_adrfam"), "ipv4");
        write(&port.join("addr_traddr"), &address());
        write(&port.join("addr_trsvcid"), &self.service().to_string());
        for (attribute, value) in self.spec.port {
            self.port(attribute, value);
        }
        if self.spec.companion {
            self.expect("link", self.place.link(self.id, SUBSYSTEM));
        }
        self.link();
    }

    /// The subsystem alone, at no port.
    fn make_subsystem(&self) {
        // A removed subsystem exists until its last controller has gone.
        wait_for("room for the subsystem", Duration::from_secs(10), || {
            make_folder(&self.subsystem_path());
            self.subsystem_path().is_dir()
        });
        self.subsystem("allow_any_host", if self.spec.closed { "0" } else { "1" });
        for (attribute, value) in self.spec.subsystem {
            self.subsystem(attribute, value);
        }
        if self.spec.closed {
            self.allow();
        }
        if self.spec.namespace {
            self.add_namespace(1);
        }
    }

    /// Adds a namespace: a file in memory, that is new each time, or a mapped device.
    pub(crate) fn add_namespace(&self, nsid: u32) {
        let path = self.namespace_path(nsid);
        make_folder(&path);
        if self.spec.mapped {
            let name = self.mapped();
            dmsetup(&["create", &name, "--table", &format!("0 {SECTORS} linear /dev/ram0 0")]);
            let minor = dmsetup(&["info", "-c", "--noheadings", "-o", "minor", &name]);
            write(&path.join("device_path"), &format!("/dev/dm-{}", minor.trim()));
        } else {
            let file = PathBuf::from(format!("/run/differential-{}-{nsid}", self.id));
            fs::write(&file, vec![0; 1 << 20]).expect("/run is in memory");
            write(&path.join("device_path"), file.to_str().expect("the path is ASCII"));
            write(&path.join("buffered_io"), "1");
        }
        write(&path.join("enable"), "1");
    }

    /// The name of the mapped device.
    fn mapped(&self) -> String {
        format!("differential-{}", self.id)
    }

    /// Gives the mapped device another medium.
    pub(crate) fn map(&self, medium: &str) {
        self.mapper("suspend --noflush --nolockfs");
        let name = self.mapped();
        dmsetup(&["load", &name, "--table", &format!("0 {SECTORS} {medium}")]);
        self.mapper("resume");
    }

    /// Does this with the mapped device.
    pub(crate) fn mapper(&self, what: &str) {
        let name = self.mapped();
        dmsetup(&what.split(' ').chain([&*name]).collect::<Vec<_>>());
    }

    pub(crate) fn remove_namespace(&self, nsid: u32) {
        remove_folder(&self.namespace_path(nsid));
    }

    /// Takes the whole target of this case down: port, subsystem and namespaces.
    pub(crate) fn down(&self) {
        let port = self.port_path();
        for name in names(&port.join("subsystems")) {
            fs::remove_file(port.join("subsystems").join(name)).expect("the port lets go");
        }
        for group in names(&port.join("ana_groups")).iter().filter(|name| *name != "1") {
            remove_folder(&port.join("ana_groups").join(group));
        }
        remove_folder(&port);
        self.remove_subsystem();
    }

    /// Removes the subsystem, wherever it is offered.
    pub(crate) fn remove_subsystem(&self) {
        let _ = fs::remove_file(self.port_path().join("subsystems").join(&self.nqn));
        // To remove it while controllers are ending is a thing that 6.12 warns of.
        self.wait_until_disconnected();
        let path = self.subsystem_path();
        for host in names(&path.join("allowed_hosts")) {
            fs::remove_file(path.join("allowed_hosts").join(host)).expect("the host is let go");
        }
        for nsid in names(&path.join("namespaces")) {
            remove_folder(&path.join("namespaces").join(nsid));
        }
        remove_folder(&path);
    }

    /// Makes the subsystem again, and offers it.
    pub(crate) fn remake_subsystem(&self) {
        self.make_subsystem();
        self.link();
    }

    /// Makes the fake targets misbehave.
    pub(crate) fn misbehave(&self) {
        self.fake_targets.as_ref().expect("the case has a fake target").misbehave();
    }

    /// Makes the fake targets keep to the protocol again.
    pub(crate) fn behave(&self) {
        self.fake_targets.as_ref().expect("the case has a fake target").behave();
    }

    /// Removes all that the case has made.
    pub(crate) fn tear_down(&self) {
        if self.fake_targets.is_some() {
            return;
        }
        self.down();
        for host in &self.hosts {
            remove_folder(&host_path(host));
        }
        if self.spec.mapped {
            self.mapper("remove");
        }
    }

    pub(crate) fn link(&self) {
        self.expect("link", self.place.link(self.id, &self.nqn));
    }

    pub(crate) fn unlink(&self) {
        self.expect("unlink", self.place.unlink(self.id, &self.nqn));
    }

    /// Closes the port, changes something about it, and opens it again.
    pub(crate) fn reopen(&self, attribute: &str, value: &str) {
        self.unlink();
        self.port(attribute, value);
        self.link();
    }

    pub(crate) fn allow(&self) {
        for host in &self.hosts {
            self.expect("allow", self.place.allow(&self.nqn, host.nqn.as_str()));
        }
    }

    pub(crate) fn disallow(&self) {
        for host in &self.hosts {
            self.expect("disallow", self.place.disallow(&self.nqn, host.nqn.as_str()));
        }
    }

    /// Sets an attribute of the subsystem.
    pub(crate) fn subsystem(&self, attribute: &str, value: &str) {
        let words = ["subsystem", &self.nqn, attribute, value];
        self.expect(attribute, self.place.set(&words));
    }

    /// Sets an attribute of the port.
    pub(crate) fn port(&self, attribute: &str, value: &str) {
        let words = ["port", &self.id.to_string(), attribute, value];
        self.expect(attribute, self.place.set(&words));
    }

    /// Sets an attribute of both hosts.
    pub(crate) fn host(&self, attribute: &str, value: &str) {
        for host in &self.hosts {
            let words = ["host", host.nqn.as_str(), attribute, value];
            self.expect(attribute, self.place.set(&words));
        }
    }

    pub(crate) fn namespace(&self, attribute: &str, value: &str) {
        let words = ["namespace", &self.nqn, "1", attribute, value];
        self.expect(attribute, self.place.set(&words));
    }

    /// Sets the state of the first ANA group.
    pub(crate) fn ana(&self, state: &str) {
        self.expect(state, self.place.set(&["ana", &self.id.to_string(), "1", state]));
    }

    /// Makes all controllers of the subsystem fatal, which ends their connections.
    pub(crate) fn fatal(&self) {
        self.expect("fatal", self.place.fatal(&self.nqn, None));
    }

    /// Leaves the subsystem one controller id, which is in use: ids are the whole target's.
    pub(crate) fn use_up_ids(&self) {
        self.subsystem("cntlid_min", HELD_ID);
        self.subsystem("cntlid_max", HELD_ID);
    }

    /// As [`make`](Self::make), but neither host is allowed.
    pub(crate) fn make_without_hosts(&self) {
        self.make();
        self.disallow();
    }

    /// Number of controllers of the subsystem. Nothing else is read about them: to read the address
    /// of one that ends is a use after free in the kernel, since its queue may be gone.
    pub(crate) fn controllers(&self) -> usize {
        let folder = Path::new("/sys/kernel/debug/nvmet").join(&self.nqn);
        names(&folder).iter().filter(|name| name.starts_with("ctrl")).count()
    }

    /// Waits until no host is connected.
    pub(crate) fn wait_until_disconnected(&self) {
        wait_for("the target forgets", Duration::from_secs(10), || self.controllers() == 0);
        // The kernel's list of controllers is a little behind what it shows.
        std::thread::sleep(Duration::from_millis(100));
    }

    fn expect(&self, what: &str, outcome: soft_roce::Result<()>) {
        outcome.unwrap_or_else(|error| panic!("{}: {what}: {error}", self.nqn));
    }

    fn subsystem_path(&self) -> PathBuf {
        Path::new(NVMET).join("subsystems").join(&self.nqn)
    }

    fn namespace_path(&self, nsid: u32) -> PathBuf {
        self.subsystem_path().join("namespaces").join(nsid.to_string())
    }

    fn port_path(&self) -> PathBuf {
        Path::new(NVMET).join("ports").join(self.id.to_string())
    }
}

/// Sectors of a mapped device.
const SECTORS: u32 = 2048;

/// Runs `ip`, `rdma` or `tc`, which must succeed.
pub(crate) fn command(line: &str) {
    let mut words = line.split(' ');
    let program = words.next().expect("a line has words");
    let output = run(Command::new(program).args(words), &[]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {message}");
}

fn host_path(host: &HostIdentity) -> PathBuf {
    Path::new(NVMET).join("hosts").join(host.nqn.as_str())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn make_folder(path: &Path) {
    match fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            panic!("{}: {error}", path.display())
        }
        _ => {}
    }
}

fn remove_folder(path: &Path) {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => panic!("{}: {error}", path.display()),
        _ => {}
    }
}

fn write(path: &Path, value: &str) {
    fs::write(path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
