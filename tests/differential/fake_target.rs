//! Targets that break the protocol, as nvmet can't be made to: two for each case, in this process
//! over the same device, one for the kernel's initiator and one for ours.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use auth::{GroupId, HashId, Secret};
use rdma_host::HostIdentity;
use tests::{
    authentication_hook::{AuthenticationHook, OutgoingMessage},
    authenticator::Settings,
    target::{Answer, ReceivedCommand, Target},
};
use verbs::RdmaCore;

use super::case_target::command;

/// Behaviour of a target from the fault on, and its demand for authentication from the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FakeTargetSpec {
    /// Changes answers.
    pub(crate) misbehave: fn(ReceivedCommand, &mut Answer),
    /// Rejects connection requests with this private data.
    pub(crate) reject: Option<&'static [u8]>,
    /// Demands authentication.
    pub(crate) authentication: Option<AuthenticationSpec>,
    /// Connections stay when the fault begins.
    pub(crate) stays: bool,
    /// The targets are on another machine, over another link.
    pub(crate) remote: bool,
}

/// Demand for authentication.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AuthenticationSpec {
    /// The host's secret, and the controller's.
    pub(crate) secrets: [&'static str; 2],
    /// Changes messages from the fault on.
    pub(crate) attack: fn(OutgoingMessage<'_>),
}

impl FakeTargetSpec {
    /// A target that misbehaves like this from the fault on, and then closes all connections.
    pub(crate) const fn misbehaving(misbehave: fn(ReceivedCommand, &mut Answer)) -> Self {
        Self { misbehave, reject: None, authentication: None, stays: false, remote: false }
    }

    /// A target that demands authentication, and changes its messages like this from the fault on.
    pub(crate) const fn attacking(
        secrets: [&'static str; 2],
        attack: fn(OutgoingMessage<'_>),
    ) -> Self {
        Self {
            authentication: Some(AuthenticationSpec { secrets, attack }),
            ..Self::misbehaving(|_, _| ())
        }
    }
}

/// Both targets of a case, until dropped.
pub(crate) struct FakeTargets {
    misbehaving: Arc<AtomicBool>,
    disconnect_all: [Arc<AtomicBool>; 2],
    stop: Arc<AtomicBool>,
    stays: bool,
    /// Process on the other machine.
    process: Option<Child>,
}

impl Drop for FakeTargets {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(process) = &mut self.process {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl FakeTargets {
    /// Starts both targets at these addresses, each for the host beside it.
    pub(crate) fn set_up(
        fake: FakeTargetSpec,
        nqn: &str,
        places: [(SocketAddr, &HostIdentity); 2],
    ) -> Self {
        let [misbehaving, stop] = [Arc::new(AtomicBool::new(false)), Arc::default()];
        if fake.remote {
            let process = Some(remote_process(nqn, places.map(|(address, _)| address.port())));
            return Self {
                misbehaving,
                disconnect_all: Default::default(),
                stop,
                stays: true,
                process,
            };
        }
        let disconnect_all = places.map(|(address, host)| {
            let (disconnect_all, stop) = (Arc::default(), Arc::clone(&stop));
            let target = one(fake, nqn, address, host.nqn.as_str(), &misbehaving);
            let target = target.disconnecting(Arc::clone(&disconnect_all));
            std::thread::spawn(move || target.serve(&stop));
            disconnect_all
        });
        Self { misbehaving, disconnect_all, stop, stays: fake.stays, process: None }
    }

    /// Begins the fault.
    pub(crate) fn misbehave(&self) {
        self.misbehaving.store(true, Ordering::Relaxed);
        if !self.stays {
            self.disconnect_all.iter().for_each(|flag| flag.store(true, Ordering::Relaxed));
        }
    }

    /// Ends the fault.
    pub(crate) fn behave(&self) {
        self.misbehaving.store(false, Ordering::Relaxed);
    }
}

/// Address of the other machine.
pub(crate) const REMOTE_ADDRESS: &str = "10.30.0.2";

/// Environment variable of a process there: the NQN and two ports.
const REMOTE_TARGETS: &str = "REMOTE_TARGETS";

/// Starts targets on another machine: a network namespace with a device of its own.
fn remote_process(nqn: &str, services: [u16; 2]) -> Child {
    if !std::fs::exists("/sys/class/net/wire0").expect("sys is mounted") {
        for line in [
            "ip netns add far",
            "ip link add wire0 type veth peer name wire1 netns far",
            "ip addr add 10.30.0.1/24 dev wire0",
            "ip link set wire0 up",
            "ip -n far addr add 10.30.0.2/24 dev wire1",
            "ip -n far link set wire1 up",
            "rdma link add near type rxe netdev wire0",
            "ip netns exec far rdma link add far type rxe netdev wire1",
        ] {
            command(line);
        }
    }
    let mut process = Command::new("ip");
    process.args(["netns", "exec", "far"]).arg(std::env::current_exe().expect("our own path"));
    process.args(["--ignored", "--exact", "both_initiators_through_the_same_faults"]);
    process.env(REMOTE_TARGETS, format!("{nqn} {} {}", services[0], services[1]));
    let process = process.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    // Time to begin listening: a connect before that is rejected, which is no verdict.
    std::thread::sleep(Duration::from_secs(1));
    process.expect("it starts")
}

/// Serves, if this is the process on the other machine; then it never returns.
pub(crate) fn serve_if_remote() {
    let Ok(words) = std::env::var(REMOTE_TARGETS) else { return };
    let words: Vec<_> = words.split(' ').collect();
    let [nqn, services @ ..] = words.as_slice() else { return };
    let spec = FakeTargetSpec::misbehaving(|_, _| ());
    let targets = services.iter().map(|service| {
        let address = format!("{REMOTE_ADDRESS}:{service}").parse().expect("an address");
        let (nqn, misbehaving) = (nqn.to_string(), Arc::default());
        std::thread::spawn(move || {
            one(spec, &nqn, address, "", &misbehaving).serve(&AtomicBool::new(false));
        })
    });
    targets.collect::<Vec<_>>().into_iter().for_each(|one| one.join().expect("it serves"));
}

/// Makes one target, at an address, for one host.
fn one(
    fake: FakeTargetSpec,
    nqn: &str,
    address: SocketAddr,
    host: &str,
    misbehaving: &Arc<AtomicBool>,
) -> Target<RdmaCore> {
    let now = |flag: &Arc<AtomicBool>| {
        let flag = Arc::clone(flag);
        move || flag.load(Ordering::Relaxed)
    };
    let (misbehaves, attacks, rejects) = (now(misbehaving), now(misbehaving), now(misbehaving));
    let authentication = fake.authentication.map(|spec| {
        let (nqn, host) = (nqn.to_owned(), host.to_owned());
        let settings = move |_queue| settings(spec, &host, &nqn);
        AuthenticationHook::hostile(settings, move |out| {
            if attacks() {
                (spec.attack)(out);
            }
        })
    });
    let name = nqn.to_owned();
    let hook = move |seen: ReceivedCommand, answer: &mut Answer| {
        describe(&name, seen, answer);
        if let Some(authentication) = &authentication {
            authentication.answer(seen, answer);
        }
        if misbehaves() {
            (fake.misbehave)(seen, answer);
        }
    };
    let refuse = move |_request: &[u8]| fake.reject.filter(|_| rejects()).map(<[u8]>::to_vec);
    Target::over(Arc::new(RdmaCore::new()), address, Box::new(hook)).rejecting(Box::new(refuse))
}

/// Sets the subsystem's name, which the kernel tells subsystems apart by, and no namespaces.
fn describe(nqn: &str, seen: ReceivedCommand, answer: &mut Answer) {
    let identify = seen.queue == 0 && seen.sqe[0] == 0x06;
    match seen.sqe[40] {
        0x01 if identify => answer.data[768..768 + nqn.len()].copy_from_slice(nqn.as_bytes()),
        0x02 if identify => answer.data.fill(0),
        _ => {}
    }
}

fn settings(spec: AuthenticationSpec, host: &str, nqn: &str) -> Settings {
    let [host_secret, controller_secret] =
        spec.secrets.map(|text| Secret::parse(text).expect("a sample"));
    Settings {
        host_secret,
        controller_secret: Some(controller_secret),
        hash: HashId::SHA_256,
        group: GroupId::NULL,
        host_nqn: host.to_owned(),
        subsystem_nqn: nqn.to_owned(),
        seed: 5,
    }
}
