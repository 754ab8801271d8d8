//! Targets that do what nvmet can't be made to do: two for each case, in this process over the
//! same device, one for the kernel's initiator and one for ours.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use auth::{GroupId, HashId, Secret};
use rdma_host::HostIdentity;
use tests::authenticator::Settings;
use tests::door::{Door, Outgoing};
use tests::target::{Answer, Seen, Target};
use verbs::RdmaCore;

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
        Self { lie, reject: None, door: None, stays: false }
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
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Scripted {
    /// Both, at these places, each for the host beside it.
    pub(crate) fn up(script: Script, nqn: &str, places: [(SocketAddr, &HostIdentity); 2]) -> Self {
        let [lying, stop] = [Arc::new(AtomicBool::new(false)), Arc::default()];
        let hang_up = places.map(|(address, host)| {
            let (hang_up, stop) = (Arc::default(), Arc::clone(&stop));
            let target = one(script, nqn, address, host.nqn.as_str(), &lying);
            let target = target.hanging_up(Arc::clone(&hang_up));
            std::thread::spawn(move || target.serve(&stop));
            hang_up
        });
        Self { lying, hang_up, stop, stays: script.stays }
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

/// One target, for one host.
fn one(
    script: Script,
    nqn: &str,
    address: SocketAddr,
    host: &str,
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
