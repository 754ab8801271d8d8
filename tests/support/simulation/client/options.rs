//! Options of a run's connections.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use auth::Credentials;

use rdma_host::{
    AuthenticationOptions, ConnectOptions, HostIdentity, MemoryMode, ReconnectOptions, WaitMode,
    config::RESENDS_MAX,
};

use crate::{
    random::Random,
    target::{ADDRESS, HOST_ID, SUBSYSTEM, secrets},
};

/// Options of all runs. Their defaults read the system's number of processors.
static DEFAULTS: LazyLock<ConnectOptions> = LazyLock::new(|| {
    let host = HostIdentity::from_id(HOST_ID.parse().expect("a UUID"));
    let subsystem = SUBSYSTEM.parse().expect("an NQN");
    ConnectOptions::new(ADDRESS.parse().expect("an address"), subsystem, host)
});

/// Choices of a run.
#[derive(Debug)]
pub(super) struct Setup {
    /// True if the host drives the pollers itself.
    pub(super) is_polled: bool,
    /// True if a driven poller never sleeps.
    pub(super) spins: bool,
    pub(super) pollers: usize,
    io_queues: u16,
    queue_entries: u16,
    keep_alive: Duration,
    pub(super) io_timeout: Duration,
    wait: WaitMode,
    memory: MemoryMode,
    reconnect: ReconnectOptions,
    /// True if both sides prove themselves.
    pub(super) is_authenticated: bool,
}

impl Setup {
    pub(super) fn draw(random: &mut Random) -> Self {
        let ms = Duration::from_millis;
        let reconnect = ReconnectOptions::default()
            .delay([ms(40), ms(300), ms(2_000), ms(10_000)][random.index(4)])
            .loss_timeout([None, None, None, Some(ms(8_000))][random.index(4)])
            .fast_io_fail([None, None, Some(ms(0)), Some(ms(1_500))][random.index(4)])
            .jitter_percent([0, 50][random.index(2)])
            .resend(!random.once_in(4));
        Self {
            is_polled: random.once_in(3),
            spins: random.once_in(2),
            pollers: 1 + random.index(2),
            io_queues: [1, 2, 3][random.index(3)],
            queue_entries: [4, 16, 32][random.index(3)],
            keep_alive: [ms(0), ms(1_000), ms(5_000)][random.index(3)],
            io_timeout: [ms(300), ms(2_000), ms(30_000)][random.index(3)],
            wait: [WaitMode::Event, WaitMode::Event, WaitMode::default()][random.index(3)],
            memory: [MemoryMode::Pool, MemoryMode::Window][random.index(2)],
            reconnect,
            is_authenticated: random.once_in(5),
        }
    }

    pub(super) fn options(&self) -> ConnectOptions {
        DEFAULTS
            .clone()
            .io_queues(self.io_queues)
            .queue_entries(self.queue_entries)
            .keep_alive(self.keep_alive)
            .io_timeout(self.io_timeout)
            .wait(self.wait)
            .memory(self.memory)
            .reconnect(self.reconnect.clone())
            .authentication(self.authentication())
    }

    /// Maximum number of times that a write is sent.
    pub(super) fn executions_max(&self) -> u32 {
        if self.reconnect.resend { 1 + u32::from(RESENDS_MAX) } else { 1 }
    }

    /// Longest time that I/O may wait for a connection.
    pub(super) fn wait_max(&self) -> Option<Duration> {
        self.reconnect.fast_io_fail
    }

    fn authentication(&self) -> AuthenticationOptions {
        let [host, controller] = secrets();
        let credentials = Credentials::two_way(host, controller).expect("two secrets");
        let mut options = AuthenticationOptions::default();
        options.credentials = self.is_authenticated.then(|| Arc::new(credentials));
        options
    }
}
