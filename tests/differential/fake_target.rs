//! Targets that do what nvmet can't be made to do: two for each case, in this process over the
//! same device, one for the kernel's initiator and one for ours.

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
    authentication_hook::{Door, Outgoing},
    authenticator::Settings,
    target::{Answer, Seen, Target},
};
use verbs::RdmaCore;

use super::case_target::command;

/// What a target does from the fault on, and whether it asks for authentication from the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    /// Changes answers.
    pub(crate) lie: fn(Seen, &mut Answer),
    /// Refuses connection requests with this private data.
    pub(crate) reject: Option<&'static [u8]>,
    /// Demands authentication.
    pub(crate) door: Option<Lock>,
    /// The fault leaves the connections there are alone.
    pub(crate) stays: bool,
    /// The targets are on another machine, behind a wire.
    pub(crate) far: bool,
}

/// How a target demands authentication.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lock {
    /// The host's secret, and the controller's.
    pub(crate) secrets: [&'static str; 2],
    /// Changes messages from the fault on.
    pub(crate) attack: fn(Outgoing<'_>),
}

impl Script {
    /// A target that becomes like this, and closes all connections when it does.
    pub(crate) const fn lying(lie: fn(Seen, &mut Answer)) -> Self {
        Self { lie, reject: None, door: None, stays: false, far: false }
    }

    /// A target whose messages of authentication become like this.
    pub(crate) const fn attacking(secrets: [&'static str; 2], attack: fn(Outgoing<'_>)) -> Self {
        Self { door: Some(Lock { secrets, attack }), ..Self::lying(|_, _| ()) }
    }
}

/// Both targets of a case, until dropped.
pub(crate) struct Scripted {
    lying: Arc<AtomicBool>,
    hang_up: [Arc<AtomicBool>; 2],
    stop: Arc<AtomicBool>,
    stays: bool,
    /// On another machine.
    process: Option<Child>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(process) = &mut self.process {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Scripted {
    /// Both, at these places, each for the host beside it.
    pub(crate) fn up(script: Script, nqn: &str, places: [(SocketAddr, &HostIdentity); 2]) -> Self {
        let [lying, stop] = [Arc::new(AtomicBool::new(false)), Arc::default()];
        if script.far {
            let process = Some(far_process(nqn, places.map(|(address, _)| address.port())));
            return Self { lying, hang_up: Default::default(), stop, stays: true, process };
        }
        let hang_up = places.map(|(address, host)| {
            let (hang_up, stop) = (Arc::default(), Arc::clone(&stop));
            let target = one(script, nqn, (address, host.nqn.as_str()), &lying);
            let target = target.hanging_up(Arc::clone(&hang_up));
            std::thread::spawn(move || target.serve(&stop));
            hang_up
        });
        Self { lying, hang_up, stop, stays: script.stays, process: None }
    }

    /// The fault.
    pub(crate) fn lie(&self) {
        self.lying.store(true, Ordering::Relaxed);
        if !self.stays {
            self.hang_up.iter().for_each(|flag| flag.store(true, Ordering::Relaxed));
        }
    }

    /// The fault is over.
    pub(crate) fn be_honest(&self) {
        self.lying.store(false, Ordering::Relaxed);
    }
}

/// Where targets on another machine are.
pub(crate) const FAR: &str = "10.30.0.2";

/// What a process on that machine is to serve: a name and two ports.
const FAR_TARGETS: &str = "FAR_TARGETS";

/// Honest targets on another machine: a network namespace, with a device of its own.
fn far_process(nqn: &str, services: [u16; 2]) -> Child {
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
    process.env(FAR_TARGETS, format!("{nqn} {} {}", services[0], services[1]));
    let process = process.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    // For it to listen: who comes before is refused, which is no verdict.
    std::thread::sleep(Duration::from_secs(1));
    process.expect("it starts")
}

/// Serves, if this is the process on the other machine; then it never returns.
pub(crate) fn serve_if_far() {
    let Ok(words) = std::env::var(FAR_TARGETS) else { return };
    let words: Vec<_> = words.split(' ').collect();
    let [nqn, services @ ..] = words.as_slice() else { return };
    let honest = Script::lying(|_, _| ());
    let targets = services.iter().map(|service| {
        let address = format!("{FAR}:{service}").parse().expect("an address");
        let (nqn, lying) = (nqn.to_string(), Arc::default());
        std::thread::spawn(move || {
            one(honest, &nqn, (address, ""), &lying).serve(&AtomicBool::new(false));
        })
    });
    targets.collect::<Vec<_>>().into_iter().for_each(|one| one.join().expect("it serves"));
}

/// One target, at a place, for one host.
fn one(
    script: Script,
    nqn: &str,
    (address, host): (SocketAddr, &str),
    lying: &Arc<AtomicBool>,
) -> Target<RdmaCore> {
    let now = |flag: &Arc<AtomicBool>| {
        let flag = Arc::clone(flag);
        move || flag.load(Ordering::Relaxed)
    };
    let (lies, attacks, rejects) = (now(lying), now(lying), now(lying));
    let door = script.door.map(|lock| {
        let (nqn, host) = (nqn.to_owned(), host.to_owned());
        let settings = move |_queue| settings(lock, &host, &nqn);
        Door::hostile(settings, move |out| {
            if attacks() {
                (lock.attack)(out);
            }
        })
    });
    let name = nqn.to_owned();
    let hook = move |seen: Seen, answer: &mut Answer| {
        describe(&name, seen, answer);
        if let Some(door) = &door {
            door.answer(seen, answer);
        }
        if lies() {
            (script.lie)(seen, answer);
        }
    };
    let refuse = move |_request: &[u8]| script.reject.filter(|_| rejects()).map(<[u8]>::to_vec);
    Target::over(Arc::new(RdmaCore::new()), address, Box::new(hook)).refusing(Box::new(refuse))
}

/// The subsystem's name, by which the kernel tells subsystems apart, and no namespaces.
fn describe(nqn: &str, seen: Seen, answer: &mut Answer) {
    let identify = seen.queue == 0 && seen.sqe[0] == 0x06;
    match seen.sqe[40] {
        0x01 if identify => answer.data[768..768 + nqn.len()].copy_from_slice(nqn.as_bytes()),
        0x02 if identify => answer.data.fill(0),
        _ => {}
    }
}

fn settings(lock: Lock, host: &str, nqn: &str) -> Settings {
    let [host_secret, controller_secret] =
        lock.secrets.map(|text| Secret::parse(text).expect("a sample"));
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
