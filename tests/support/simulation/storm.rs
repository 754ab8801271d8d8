//! Reconnect storm: many hosts lose one target at the same moment, and find it again.
//!
//! Hosts are whole controllers of the driver, each with an admin queue and one I/O queue. The
//! target closes all connections, refuses requests during the outage, and then accepts one after
//! the other.

use std::{
    convert::Infallible,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rdma_fabric::{Host, Link};
use rdma_host::{
    ConnectOptions, Controller, Error, HostIdentity, LifecycleState, ReconnectOptions,
};
use tokio::sync::oneshot;

use crate::{
    executor::World,
    target::{ADDRESS, AdmissionLimits, HOST_ID, Limits, ModelTarget, SUBSYSTEM},
};

/// Limits that the target grants each host.
const LIMITS: Limits = Limits {
    entries: 4,
    queues: 1,
    mdts: 1,
    traffic_keeps_alive: false,
    takes_capsule_data: false,
};

/// Step of time in which a run looks if all hosts are back.
const STEP: Duration = Duration::from_millis(100);

/// Hosts, what happens to them, and what they do about it.
#[derive(Clone, Debug)]
pub struct Storm {
    /// Number of hosts.
    pub hosts: u16,
    /// Time from the end of all connections until the target listens again.
    pub outage: Duration,
    /// Limits of the target once it listens again.
    pub admission: AdmissionLimits,
    /// Options of every host.
    pub reconnect: ReconnectOptions,
}

/// Outcome of a storm. Times are from the end of the outage.
#[derive(Clone, Debug, Default)]
pub struct StormReport {
    /// Connection requests in each second in which there were any, from the end of all connections
    /// on. Those of the outage itself are refused without the target.
    pub requests: Vec<u64>,
    /// Requests that found the target's backlog full.
    pub rejected: u64,
    /// Times at which the hosts were live again, in order.
    pub returned: Vec<Duration>,
}

impl StormReport {
    /// Maximum number of connection requests in a second.
    #[must_use]
    pub fn requests_max(&self) -> u64 {
        self.requests.iter().copied().max().unwrap_or(0)
    }
}

impl Storm {
    /// Runs the storm until every host is live again.
    ///
    /// # Panics
    ///
    /// When a host can't connect at first, or gives up.
    #[must_use]
    pub fn run(&self, seed: u64) -> StormReport {
        let world = World::of_many(seed);
        world.fabric().set_link(Link { jitter: Duration::from_micros(20), ..Link::default() });
        let (own, storm) = (world.clone(), self.clone());
        world.run(async move { storm.run_in(own).await })
    }

    async fn run_in(&self, world: World) -> StormReport {
        let target = ModelTarget::new(&world);
        world.spawn(target.clone().run());
        target.change(|target| target.limits = Some(LIMITS));
        let returned = Returned::default();
        for number in 0..self.hosts {
            self.connect(&world, number, &returned).await;
        }
        target.change(|target| {
            target.admit(self.admission);
            target.set_listening(false);
            target.restart();
        });
        world.sleep(self.outage).await;
        let begin = world.now();
        target.change(|target| target.set_listening(true));
        while returned.lock().len() < usize::from(self.hosts) {
            world.sleep(STEP).await;
            drop(world.take_transcript());
        }
        let mut returned: Vec<_> = returned.lock().iter().map(|time| *time - begin).collect();
        returned.sort_unstable();
        target.change(|target| StormReport {
            requests: target.requests(),
            rejected: target.counts.get("connection requests rejected").copied().unwrap_or(0),
            returned,
        })
    }

    /// Connects a host, which leaves once it has lost its connection and is live again: it would do
    /// nothing more.
    async fn connect(&self, world: &World, number: u16, returned: &Returned) {
        let [high, low] = number.to_be_bytes();
        let address = Ipv4Addr::new(10, 1, high, low).into();
        let host: Arc<Host> = world.fabric().host(&format!("host {number}"), address);
        let connecting = Controller::connect_over(&host, &self.options());
        let mut changes = connecting.changes();
        let (own, returned) = (world.clone(), returned.clone());
        let (leave, left) = oneshot::channel();
        world.spawn(async move {
            let mut live = 0;
            while let Some(change) = changes.next().await {
                assert_ne!(change.state, LifecycleState::Dead, "host {number} gave up: {change}");
                live += u32::from(change.state == LifecycleState::Live);
                if live == 2 {
                    returned.lock().push(own.now());
                    let _ = leave.send(());
                    break;
                }
            }
        });
        let (controller, mut pollers) = connecting.polled(1).await.expect("an honest target");
        let mut poller = pollers.pop().expect("one was asked for");
        world.spawn(async move {
            let drive = async {
                loop {
                    poller.poll()?;
                    poller.ready(Duration::from_secs(3_600)).await?;
                }
            };
            tokio::select! {
                biased;
                _ = left => {}
                Err::<Infallible, Error>(error) = drive => panic!("host {number}: {error}"),
            }
            drop(poller);
            controller.shutdown().await;
        });
    }

    fn options(&self) -> ConnectOptions {
        let host = HostIdentity::from_id(HOST_ID.parse().expect("a UUID"));
        let subsystem = SUBSYSTEM.parse().expect("an NQN");
        ConnectOptions::new(ADDRESS.parse().expect("an address"), subsystem, host)
            .io_queues(1)
            .queue_entries(LIMITS.entries)
            .keep_alive(Duration::ZERO)
            .reconnect(self.reconnect.clone())
    }
}

/// Times at which hosts were live again. Clones refer to the same ones.
#[derive(Clone, Default)]
struct Returned(Arc<Mutex<Vec<Duration>>>);

impl Returned {
    fn lock(&self) -> MutexGuard<'_, Vec<Duration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hosts that find the backlog full all come again at the same moment, unless there is
    /// jitter.
    #[test]
    fn jitter_spreads_a_storm() {
        let storm = |jitter| Storm {
            hosts: 100,
            outage: Duration::from_secs(5),
            admission: AdmissionLimits { time: Duration::from_millis(1), backlog: 50 },
            reconnect: ReconnectOptions::default().jitter_percent(jitter),
        };
        let (fixed, spread) = (storm(0).run(1), storm(50).run(1));
        let after = |report: &StormReport| report.returned.last().copied();
        assert!(fixed.rejected >= 49, "{fixed:?}");
        assert!(after(&fixed) > Some(Duration::from_secs(15)), "{fixed:?}");
        assert_eq!(spread.rejected, 0, "{spread:?}");
        assert!(after(&spread) < Some(Duration::from_secs(10)), "{spread:?}");
        assert!(spread.requests_max() < fixed.requests_max() / 2, "{spread:?}");
    }
}
