//! Options, limits and timeouts, with units and the reasons for their defaults.

mod fence;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use uuid::Uuid;

pub use self::fence::{
    ENDED_ASSOCIATIONS_MAX, FENCE_PROBE_INTERVAL, FENCE_PROBE_TIMEOUT, FENCE_RESET_INTERVAL,
    FENCE_RESET_TIMEOUT, FENCE_TIMEOUT, Fence, FenceOptions,
};
use crate::wire::Nqn;

/// Identity of the host towards a target (Base 4.7 and 6.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostIdentity {
    /// Host NQN.
    pub nqn: Nqn,
    /// Host identifier; by convention the UUID inside the NQN.
    pub id: Uuid,
}

impl HostIdentity {
    /// Identity with the host identifier `id` and the NQN derived from it.
    #[must_use]
    pub fn from_id(id: Uuid) -> Self {
        Self { nqn: Nqn::from_host_id(id), id }
    }
}

/// Options of a connection to one subsystem. Names and defaults are those of Linux. Each field has
/// a setter of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// Address and port of the target (`traddr`, `trsvcid`).
    pub address: SocketAddr,
    /// Local address to use (`host_traddr`); by default the routing table decides.
    pub source: Option<IpAddr>,
    /// Subsystem NQN (`nqn`).
    pub subsystem: Nqn,
    /// Identity of this host.
    pub host: HostIdentity,
    /// I/O queues to request (`nr_io_queues`), 1 to 65,535; the target may grant fewer.
    pub io_queues: u16,
    /// Entries of an I/O queue (`queue_size`), 2 to 1,024; one less may be in flight.
    pub queue_entries: u16,
    /// Keep-alive timeout (`keep_alive_tmo`); zero turns it off.
    pub keep_alive: Duration,
    /// IP type of service of the connections (`tos`).
    pub type_of_service: Option<u8>,
    /// Transport ACK timeout of the device: 4.096 µs × 2^`ack_timeout`, 0 to 31; by default the
    /// device's own.
    pub ack_timeout: Option<u8>,
    /// Transport retries after a missing acknowledgement, 0 to 7.
    pub retry_count: u8,
    /// RNR retries, when the target has no receive posted, 0 to 7; 7 is unlimited.
    pub rnr_retry_count: u8,
    /// Request to disable submission queue flow control (`disable_sqflow`).
    pub disable_flow_control: bool,
    /// Timeout of an I/O command, after which it is aborted; if that does not end it, all queues
    /// are closed.
    pub io_timeout: Duration,
    /// Waiting strategy of the pollers.
    pub wait: WaitMode,
    /// Reconnect policy.
    pub reconnect: ReconnectOptions,
    /// Authentication of the queues.
    pub authentication: AuthenticationOptions,
    /// Access of the controller to the data of commands.
    pub memory: MemoryMode,
    /// Fence for writes after a loss of the connection.
    pub fence: FenceOptions,
}

/// Access of a controller to host memory. [`Controller::memory`](crate::Controller::memory) returns
/// the mode in force, and the reason if it is not the one requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryMode {
    /// One remote key per registration, valid for the life of the registration: also between
    /// commands, and on all queues of the controller. No other controller can use it. No cost per
    /// command.
    #[default]
    Pool,
    /// One remote key per command (memory window type 2), which gives access to the data of that
    /// command only, on its queue only, and is invalid before the buffer is returned. Costs one
    /// more work request and completion for each command whose data is not in its capsule. Falls
    /// back to [`Pool`](Self::Pool) where the device has no such windows.
    Window,
}

impl MemoryMode {
    /// Name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Window => "window",
        }
    }
}

/// Credentials and policy for the authentication of queues. Cheap to clone; clones share the
/// secrets, which are wiped when the last is dropped. Each field has a setter of its name.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct AuthenticationOptions {
    /// Host secret, and controller secret for two-way authentication. Without credentials, a target
    /// that requires authentication is refused; with them, a target that does not require it on the
    /// admin queue is. The I/O queues are authenticated then as well, even if the target requires
    /// it on the admin queue only.
    pub credentials: Option<Arc<auth::Credentials>>,
    /// Minimum hash and group, and whether unauthenticated targets are allowed.
    pub policy: auth::Policy,
}

impl fmt::Debug for AuthenticationOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = self
            .credentials
            .as_ref()
            .map(|credentials| if credentials.is_two_way() { "two-way" } else { "one-way" });
        f.debug_struct("AuthenticationOptions")
            .field("way", &way)
            .field("policy", &self.policy)
            .finish()
    }
}

impl PartialEq for AuthenticationOptions {
    /// Compares the identity of the shared secrets, not their bytes.
    fn eq(&self, other: &Self) -> bool {
        let pointer = |this: &Self| this.credentials.as_ref().map(Arc::as_ptr);
        self.policy == other.policy && pointer(self) == pointer(other)
    }
}

impl Eq for AuthenticationOptions {}

/// Reconnect policy. Defaults are those of Linux, whose option names are given in brackets; options
/// that Linux does not have are off by default. Each field has a setter of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReconnectOptions {
    /// Delay before the first attempt after a loss, and between attempts (`reconnect_delay`).
    pub delay: Duration,
    /// Total time for attempts (`ctrl_loss_tmo`), converted to a number of attempts by dividing by
    /// the delay, rounded up. Zero for none, `None` for unlimited.
    pub loss_timeout: Option<Duration>,
    /// Time for which commands wait for a connection (`fast_io_fail_tmo`). `None`: as long as
    /// attempts are made. Zero: they fail at once.
    pub fast_io_fail: Option<Duration>,
    /// Maximum delay of an exponential backoff, in which the delay doubles with every attempt.
    pub delay_max: Option<Duration>,
    /// Jitter: part of each delay in percent, 0 to 100, that is randomized, so that the hosts of
    /// one target do not reconnect at the same moment.
    pub jitter_percent: u8,
    /// Maximum time from a loss to the last attempt.
    pub time_limit: Option<Duration>,
    /// Gives up also on failures that need a fix at the target, though the target did not set DNR.
    pub strict: bool,
    /// Applies the policy to the first connect too.
    pub first_connect: bool,
    /// Resends commands that were in flight when the connection was lost, and those that failed
    /// with a status without DNR, as Linux does. They may have been executed already; without this
    /// option they fail, and the error says so.
    pub resend: bool,
}

impl Default for ReconnectOptions {
    fn default() -> Self {
        Self {
            delay: Duration::from_secs(10),
            loss_timeout: Some(Duration::from_secs(600)),
            fast_io_fail: None,
            delay_max: None,
            jitter_percent: 0,
            time_limit: None,
            strict: false,
            first_connect: false,
            resend: true,
        }
    }
}

impl ReconnectOptions {
    /// Policy without any reconnect.
    #[must_use]
    pub fn never() -> Self {
        Self { loss_timeout: Some(Duration::ZERO), ..Self::default() }
    }

    /// Maximum number of attempts after a loss; `None` for unlimited.
    #[must_use]
    pub fn attempts_max(&self) -> Option<u32> {
        let timeout = self.loss_timeout?.as_millis();
        let delay = self.delay.as_millis().max(1);
        Some(u32::try_from(timeout.div_ceil(delay)).unwrap_or(u32::MAX))
    }
}

/// Waiting strategy of a poller when nothing has completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitMode {
    /// Spin for the given time, then sleep as in [`Event`](Self::Event).
    Adaptive(Duration),
    /// Arm the completion queue and sleep: no processor time, at the latency of one wake-up.
    Event,
    /// Spin: least latency, one processor fully used.
    Poll,
}

impl WaitMode {
    /// Name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Adaptive(_) => "adaptive",
            Self::Event => "event",
            Self::Poll => "poll",
        }
    }
}

impl Default for WaitMode {
    /// Adaptive, with a spin of about the cost of a wake-up, which bounds the loss either way.
    fn default() -> Self {
        Self::Adaptive(Duration::from_micros(50))
    }
}

impl ConnectOptions {
    /// Port of NVMe/RDMA targets (IANA).
    pub const SERVICE: u16 = 4420;

    /// Linux's defaults for this subsystem: 128 entries per queue, keep-alive timeout 5 s, I/O
    /// timeout 30 s, one I/O queue per processor.
    #[must_use]
    pub fn new(address: SocketAddr, subsystem: Nqn, host: HostIdentity) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            address,
            source: None,
            subsystem,
            host,
            io_queues: u16::try_from(processors).unwrap_or(u16::MAX),
            queue_entries: 128,
            keep_alive: Duration::from_secs(5),
            type_of_service: None,
            ack_timeout: None,
            retry_count: RETRY_COUNT,
            rnr_retry_count: RNR_RETRY_COUNT,
            disable_flow_control: false,
            io_timeout: Duration::from_secs(30),
            wait: WaitMode::default(),
            reconnect: ReconnectOptions::default(),
            authentication: AuthenticationOptions::default(),
            memory: MemoryMode::default(),
            fence: FenceOptions::default(),
        }
    }
}

/// Defines a setter for each field, which returns the changed options.
macro_rules! setters {
    ($options:ident { $($field:ident: $type:ty,)* }) => {
        impl $options {$(
            #[doc = concat!("Sets the [field](#structfield.", stringify!($field), ").")]
            #[must_use]
            pub fn $field(mut self, $field: $type) -> Self {
                self.$field = $field;
                self
            }
        )*}
    };
}

setters! { ConnectOptions {
    address: SocketAddr,
    source: Option<IpAddr>,
    subsystem: Nqn,
    host: HostIdentity,
    io_queues: u16,
    queue_entries: u16,
    keep_alive: Duration,
    type_of_service: Option<u8>,
    ack_timeout: Option<u8>,
    retry_count: u8,
    rnr_retry_count: u8,
    disable_flow_control: bool,
    io_timeout: Duration,
    wait: WaitMode,
    reconnect: ReconnectOptions,
    authentication: AuthenticationOptions,
    memory: MemoryMode,
    fence: FenceOptions,
} }

setters! { FenceOptions {
    mode: Fence,
    timeout: Duration,
    controller_ids: Option<bool>,
} }

setters! { AuthenticationOptions {
    credentials: Option<Arc<auth::Credentials>>,
    policy: auth::Policy,
} }

setters! { ReconnectOptions {
    delay: Duration,
    loss_timeout: Option<Duration>,
    fast_io_fail: Option<Duration>,
    delay_max: Option<Duration>,
    jitter_percent: u8,
    time_limit: Option<Duration>,
    strict: bool,
    first_connect: bool,
    resend: bool,
} }

/// Valid number of entries of an I/O queue. Linux's minimum is 16; the specification's is 2.
pub const QUEUE_ENTRIES: std::ops::RangeInclusive<u16> = 2..=1024;

/// Entries of the admin queue: 32, the minimum of fabrics (RDMA 3.3) and Linux's value.
pub const ADMIN_QUEUE_ENTRIES: u16 = 32;

/// Minimum number of commands that a target must receive at once on the admin queue (CRQSIZE): one
/// of a client, Keep Alive, Abort and Asynchronous Event Request.
pub const ADMIN_COMMANDS_MIN: u16 = 4;

/// Timeout of address resolution and of route resolution, as in Linux. ARP reports an absent host
/// within it.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Interval between address resolution requests within [`RESOLVE_TIMEOUT`]. Linux's CM does not
/// notice an ARP reply that arrives during a request, as over a link that has just come up, until
/// that request times out; so requests are short.
pub const RESOLVE_RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Maximum number of I/O queues of a controller that connect at the same time. Most of a connect is
/// waiting for the target, and its connection manager queues a few dozen requests at most.
pub const CONCURRENT_CONNECTS_MAX: u16 = 16;

/// Maximum time to wait, when the connection of an I/O queue ends during its bring-up, for the
/// error of the queue itself: a response received before the disconnect may say more.
pub const CLOSE_REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum number of I/O queues of a controller that authenticate at the same time. A target with
/// one processor computes one after the other, and all of them share [`AUTHENTICATION_TIMEOUT`].
pub const CONCURRENT_AUTHENTICATIONS_MAX: usize = 4;

/// Timeout of an RDMA connect, from request to reply. Linux uses the CM's timeout of about a
/// minute; a reachable target answers in milliseconds.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of connection requests of a process in the blocking system call of iWARP, where
/// each occupies a thread, an endpoint and up to two minutes, even after its caller has gone.
pub const CONNECT_THREADS_MAX: usize = 256;

/// Maximum number of RDMA connect attempts for one queue, if a stale connection or a port that is
/// down prevents it. With [`STALE_CONNECTION_DELAY`] that covers the 5 s for which targets on rxe
/// keep a stale connection.
pub const CONNECT_ATTEMPTS: u8 = 8;

/// Delay before the next attempt if the target still has a stale connection of this host.
pub const STALE_CONNECTION_DELAY: Duration = Duration::from_secs(1);

/// Timeout of waiting for a port of the local device to come up: longer than a switch takes to
/// bring a link up again.
pub const PORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval at which a waiting connect reads the port state: negligible cost, and much less than
/// the 4 s after which Linux's CM resends a request.
pub const PORT_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Time after a port comes up during which packets may still be lost, until neighbours are resolved
/// again.
pub const PORT_SETTLE_TIME: Duration = Duration::from_secs(10);

/// Delay from a port coming up to the first attempt, in which the other end of the link comes up
/// too.
pub const PORT_UP_DELAY: Duration = Duration::from_millis(300);

/// Maximum delay between attempts within [`PORT_SETTLE_TIME`].
pub const PORT_RETRY_DELAY: Duration = Duration::from_millis(200);

/// Timeout of an admin command. Linux waits 60 s; a target that is silent for ten is not going to
/// answer.
pub const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout of one authentication: nvmet computes for seconds with the largest group on a slow
/// machine, and longer the first time.
pub const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(30);

/// Timeout of a whole bring-up, whatever its steps allow, against a target that delays each
/// response.
pub const BRING_UP_TIMEOUT: Duration = Duration::from_secs(60);

/// Timeout of an orderly shutdown, after which the connections are dropped. With it, closing takes
/// less than a second.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(700);

/// Timeout of waiting for posted work requests to be flushed after a disconnect, which a device
/// does in microseconds. The rest is flushed when the queue pair is destroyed.
pub const DRAIN_TIMEOUT: Duration = Duration::from_millis(20);

/// Interval between reads of CSTS while the controller becomes ready or shuts down.
pub const STATUS_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Maximum time for the controller to become ready, whatever CAP.TO says (its own maximum is 127.5
/// s).
pub const READY_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// Maximum transport ACK timeout, as an exponent: about 2.4 hours (InfiniBand 9.9.2.1.1).
pub const ACK_TIMEOUT_MAX: u8 = 31;

/// Maximum of both retry counts (InfiniBand 9.7.5.2.8).
pub const RETRY_COUNT_MAX: u8 = 7;

/// Default of transport retries. Not 7, which means unlimited on rxe.
pub const RETRY_COUNT: u8 = 6;

/// Default of RNR retries: unlimited, as in Linux; the command timeouts limit them.
pub const RNR_RETRY_COUNT: u8 = 7;

/// Maximum number of outstanding RDMA READs of a target on one queue; the device's limit may be
/// lower.
pub const READ_DEPTH_MAX: u32 = 128;

/// Maximum data transfer of one command in bytes if the target reports no limit: Linux's own limit.
pub const TRANSFER_BYTES_DEFAULT: u64 = 1 << 20;

/// Maximum number of active namespaces; a target with more, or whose list does not end, is refused.
pub const NAMESPACES_MAX: usize = 1 << 16;

/// Timeout of the identification of all namespaces, whatever each command allows: thousands take
/// seconds of a target that answers in a millisecond.
pub const NAMESPACES_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum number of namespaces that are identified for the report of later changes.
pub const NAMESPACES_WATCHED_MAX: usize = 256;

/// Maximum number of entries of a discovery log. A target with more is refused: 64 Ki entries are
/// 64 MiB.
pub const DISCOVERY_RECORDS_MAX: u64 = 1 << 16;

/// Maximum bytes of a discovery log read by one command: 64 entries, more than many targets have.
pub const DISCOVERY_CHUNK_BYTES: u32 = 64 << 10;

/// Maximum number of attempts to read a discovery log that changes meanwhile; as nvme-cli.
pub const DISCOVERY_ATTEMPTS: u8 = 10;

/// Timeout of reading one discovery log, whatever its commands allow, against a target that delays
/// each response.
pub const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum number of discovery subsystems queried by one walk over referrals.
pub const DISCOVERY_TARGETS_MAX: usize = 64;

/// Timeout of a walk over referrals, whatever each subsystem may take: with
/// [`CONCURRENT_QUERIES_MAX`] it is enough for [`DISCOVERY_TARGETS_MAX`] of which most are dead.
pub const DISCOVERY_WALK_TIMEOUT: Duration = Duration::from_secs(120);

/// Maximum number of discovery subsystems that are queried at the same time.
pub const CONCURRENT_QUERIES_MAX: usize = 8;

/// Default maximum of referrals followed in a row: real networks have one or two.
pub const REFERRAL_DEPTH: u8 = 8;

/// Keep-alive timeout of a persistent discovery connection; as nvme-cli.
pub const DISCOVERY_KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Maximum data transfer of one admin command in bytes: all log pages of the kernel's target fit.
pub const ADMIN_TRANSFER_MAX: usize = 16 << 10;

/// Maximum number of asynchronous events that wait for their log pages to be read; no more are
/// requested meanwhile.
pub const EVENT_BACKLOG: usize = 4;

/// Minimum time between two asynchronous events of a controller, so that a storm of them costs at
/// most ten commands a second.
pub const EVENT_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Maximum sleep of an idle task between two checks of its timers.
pub const IDLE_TIMEOUT: Duration = Duration::from_millis(100);

/// Timeout of waiting for pollers to release their queues before a controller is torn down: the
/// library's tasks do so within microseconds, and a poller that its owner does not drive is not
/// waited for.
pub const QUIESCE_TIMEOUT: Duration = Duration::from_millis(100);

/// Maximum number of completions taken by one poll of a completion queue.
pub const POLL_BATCH: usize = 32;

/// Maximum number of requests that wait for a poller, per queue entry.
pub const BACKLOG_PER_ENTRY: usize = 2;

/// Interval at which a busy poller checks timeouts and connection events.
pub const TICK: Duration = Duration::from_millis(10);

/// Number of empty polls between two reads of the clock, which may cost as much as a poll. 64 polls
/// take some microseconds.
pub const POLLS_PER_CLOCK_READ: u32 = 64;

/// Maximum number of connections that a poller checks for events per [`TICK`]. A check is a system
/// call, and a poller with 1,000 queues must not make 100,000 a second.
pub const CONNECTIONS_PER_TICK: usize = 16;

/// Timeout of waiting for the event that says why work was flushed, or refused by a queue pair in
/// its error state. On iWARP the work fails first, and the event follows within milliseconds; on a
/// machine with four guests for a processor it took more than 200 ms.
pub const FLUSH_CAUSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Timeout of an aborted command, after the Abort. Linux on RDMA sends no Abort and resets at once;
/// a target that supports Abort completes within milliseconds.
pub const ABORT_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of Aborts that wait for the admin queue; beyond it a timed-out command is
/// recovered without one.
pub const ABORT_BACKLOG: usize = 16;

/// Maximum number of times that a command is sent again, after a loss of its connection or a status
/// without DNR; as Linux (`max_retries`).
pub const RESENDS_MAX: u8 = 5;

/// Maximum delay before a command with a status without DNR is sent again. The field of the
/// controller (CRDT) holds up to two hours.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(60);

/// Interval after which a path gets a command whatever its latency was, so that it is measured. A
/// path that is slower by 10 ms then has a thousandth of the commands in flight at depth 100.
pub const PATH_MEASURE_INTERVAL: Duration = Duration::from_millis(100);

/// Interval at which a command is sent again while its namespace is inaccessible: far below the
/// seconds of a change of access, and no load for the target.
pub const PATH_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Longest wait for the first attempts of the other paths, once one path of a subsystem is
/// connected: many times what a connect takes, and less than an address without an answer does.
pub const OTHER_PATHS_WAIT: Duration = Duration::from_secs(1);

/// Delay before namespaces and access of a path are read again, if that failed.
pub const PATH_RELOAD_DELAY: Duration = Duration::from_secs(1);

/// Number of state changes buffered for a slow subscriber.
pub const STATE_CHANGE_BACKLOG: usize = 256;

/// Maximum number of admin requests that wait.
pub const ADMIN_BACKLOG: usize = 16;
