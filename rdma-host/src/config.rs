//! Every option, limit and timeout, with its unit and the reason for its default.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::wire::Nqn;

/// Who we are to a target (Base 4.7 and 6.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostIdentity {
    /// The host's NQN.
    pub nqn: Nqn,
    /// The host identifier; by convention the UUID inside the NQN.
    pub id: Uuid,
}

impl HostIdentity {
    /// The host that `id` names, with the NQN made of it.
    #[must_use]
    pub fn from_id(id: Uuid) -> Self {
        Self { nqn: Nqn::from_host_id(id), id }
    }
}

/// How to connect to one subsystem. Names and defaults are those of Linux.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Where the target listens (traddr, trsvcid).
    pub address: SocketAddr,
    /// Which of our addresses to use (`host_traddr`); by default the routing table decides.
    pub source: Option<IpAddr>,
    /// The subsystem to use.
    pub subsystem: Nqn,
    /// Who we are.
    pub host: HostIdentity,
    /// I/O queues to ask for (`nr_io_queues`); the target may grant fewer. 1 to 65,535.
    pub io_queues: u16,
    /// Entries of an I/O queue (`queue_size`), 2 to 1,024; one less may be in flight.
    pub queue_entries: u16,
    /// The keep-alive time (`keep_alive_tmo`); zero turns it off.
    pub keep_alive: Duration,
    /// The type of service of the connections (`tos`).
    pub type_of_service: Option<u8>,
    /// How long the device waits for an acknowledgement before it sends again: 4.096 µs times two
    /// to this power, at most 31; by default the device decides.
    pub ack_timeout: Option<u8>,
    /// How often the device sends again without an acknowledgement, 0 to 7.
    pub retry_count: u8,
    /// How often it sends again when the target has no receive posted, 0 to 7; 7 is without end.
    pub rnr_retry_count: u8,
    /// Ask for no submission queue flow control (`disable_sqflow`).
    pub disable_flow_control: bool,
    /// How long one I/O command may take before its queue is given up.
    pub io_timeout: Duration,
    /// How the pollers wait for completions.
    pub wait: WaitMode,
    /// What happens when the connection is lost.
    pub reconnect: ReconnectOptions,
    /// How queues are authenticated.
    pub authentication: AuthenticationOptions,
    /// How the controller reaches the data of commands.
    pub memory: MemoryMode,
}

/// How a controller may reach our memory. What is in force, and why if it is not what was asked
/// for, says [`Controller::memory`](crate::Controller::memory).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryMode {
    /// By a key for each registration, which is good as long as that lives: between commands,
    /// too, and on all queues of the controller. No other controller can use it. Costs nothing.
    #[default]
    Pool,
    /// By a key for each command, which reaches its data and nothing else, on its queue alone,
    /// and is dead before the buffer comes back: a memory window of type 2. Costs a work request
    /// and a completion more for each command that moves data outside of its capsule. Where the
    /// device has no such windows, as [`Pool`](Self::Pool).
    Window,
}

impl MemoryMode {
    /// As on the command line, and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Window => "window",
        }
    }
}

/// The secrets that queues are authenticated with, and what to insist on. Cheap to clone; a clone
/// shares the secrets, which are wiped with the last.
#[derive(Clone, Default)]
pub struct AuthenticationOptions {
    /// Our secret, and the controller's if it is to prove itself. Without them a target that asks
    /// for authentication is refused; with them, one that does not on the admin queue. The I/O
    /// queues are authenticated then as well, even if the target asks on the admin queue alone.
    pub credentials: Option<Arc<auth::Credentials>>,
    /// The least that is accepted.
    pub policy: auth::Policy,
}

impl fmt::Debug for AuthenticationOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = self.credentials.as_ref().map(|credentials| match credentials.is_two_way() {
            true => "two-way",
            false => "one-way",
        });
        f.debug_struct("AuthenticationOptions")
            .field("way", &way)
            .field("policy", &self.policy)
            .finish()
    }
}

impl PartialEq for AuthenticationOptions {
    /// Whether the secrets are the same ones, not whether they have the same bytes.
    fn eq(&self, other: &Self) -> bool {
        let pointer = |this: &Self| this.credentials.as_ref().map(Arc::as_ptr);
        self.policy == other.policy && pointer(self) == pointer(other)
    }
}

impl Eq for AuthenticationOptions {}

/// When, how often and how long to connect again. Names and defaults are those of Linux, whose
/// names stand in brackets; what Linux does not have is off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReconnectOptions {
    /// From a loss to the first attempt, and from one to the next (`reconnect_delay`).
    pub delay: Duration,
    /// How long attempts go on (`ctrl_loss_tmo`): as many as the delay fits in it, rounded up.
    /// Zero for none, nothing for ever.
    pub loss_timeout: Option<Duration>,
    /// How long commands are held while there is no connection (`fast_io_fail_tmo`). Nothing: as
    /// long as attempts go on. Zero: they fail at once.
    pub fast_io_fail: Option<Duration>,
    /// Lets the delay double with every attempt, up to this.
    pub delay_max: Option<Duration>,
    /// The part of each delay in percent that is left to chance, so that the hosts of one target
    /// do not all come back at the same moment. 0 to 100.
    pub jitter_percent: u8,
    /// The longest time by the clock from a loss to the last attempt.
    pub time_limit: Option<Duration>,
    /// Gives up also for causes that somebody must mend on the target, though it does not say so.
    pub strict: bool,
    /// Retries the first connect too.
    pub first_connect: bool,
    /// Sends commands again that were in flight when the connection was lost, as Linux does. They
    /// may have been executed already; without this they fail, and say so.
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
    /// Never again: the first loss is the end.
    #[must_use]
    pub fn never() -> Self {
        Self { loss_timeout: Some(Duration::ZERO), ..Self::default() }
    }

    /// How many attempts there are after a loss; nothing for no end of them.
    #[must_use]
    pub fn attempts_max(&self) -> Option<u32> {
        let timeout = self.loss_timeout?.as_millis();
        let delay = self.delay.as_millis().max(1);
        Some(u32::try_from(timeout.div_ceil(delay)).unwrap_or(u32::MAX))
    }
}

/// How a poller waits when nothing has completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitMode {
    /// Spin for the given time, then as [`Event`](Self::Event).
    Adaptive(Duration),
    /// Arm the completion queue and sleep: no processor time, one wake-up of latency.
    Event,
    /// Spin: least latency, a processor used up.
    Poll,
}

impl Default for WaitMode {
    /// Adaptive, with a spin of about the cost of a wake-up: at most that much is lost either way.
    fn default() -> Self {
        Self::Adaptive(Duration::from_micros(50))
    }
}

impl ConnectOptions {
    /// The service NVMe/RDMA targets listen on (IANA).
    pub const SERVICE: u16 = 4420;

    /// Linux's defaults for this subsystem: 128 entries a queue, keep-alive 5 s, commands 30 s;
    /// one I/O queue for each processor.
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
        }
    }
}

/// Entries an I/O queue may be asked to have. Linux has 16 as its floor; 2 is the specification's.
pub const QUEUE_ENTRIES: std::ops::RangeInclusive<u16> = 2..=1024;

/// Entries of the admin queue (RDMA 3.3: 32 is the fabrics minimum, and what Linux uses).
pub const ADMIN_QUEUE_ENTRIES: u16 = 32;

/// Address and route resolution each: as Linux. An absent host is noticed by ARP within it.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

/// How often an address is asked for within that. Linux's CM does not notice an answer that comes
/// while it still asks, as over a link that has just come up, before the time of the question is
/// over: it is to be over soon.
pub const RESOLVE_RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// I/O queues of one controller that are connected at the same time: what a target has to do for
/// one is mostly waiting, and its connection manager queues no more than a few dozen requests.
pub const CONCURRENT_CONNECTS_MAX: u16 = 16;

/// When one I/O queue's connection ends while others come up, how long they wait for what that
/// queue itself has to say of it: an answer that came before is taken in by then.
pub const CLOSE_REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// Of these, how many are authenticated at the same time. A target with one processor computes one
/// after the other, and all of them have [`AUTHENTICATION_TIMEOUT`].
pub const CONCURRENT_AUTHENTICATIONS_MAX: usize = 4;

/// From the connect request to the reply. Linux leaves it to the CM, about a minute; a target that
/// is there answers in milliseconds.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connection requests of a process that may be within the system's call on iWARP, where each takes
/// a thread, an endpoint and up to two minutes, also when nobody waits for it any more.
pub const CONNECT_THREADS_MAX: usize = 256;

/// How often connecting one queue may begin, where an old connection or a port is in the way. With
/// the pause below that spans the 5 s for which targets on rxe are known to hold an old connection.
pub const CONNECT_ATTEMPTS: u8 = 8;

/// Before the next attempt when the target still holds an old connection of ours.
pub const STALE_CONNECTION_DELAY: Duration = Duration::from_secs(1);

/// For a port of our device that is down: longer than a switch takes to bring a link up again.
pub const PORT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a connect that waits looks at the port: seldom enough to cost nothing, and much less
/// than the 4 s after which Linux's CM sends a request again.
pub const PORT_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How long a port that is back may need until packets pass: neighbours are to be found again.
pub const PORT_SETTLE_TIME: Duration = Duration::from_secs(10);

/// From the return of a port to the first attempt: the other end of the link comes up meanwhile.
pub const PORT_UP_DELAY: Duration = Duration::from_millis(300);

/// The delay before another attempt within that time, if the usual one is longer.
pub const PORT_RETRY_DELAY: Duration = Duration::from_millis(200);

/// One admin command. Linux waits 60 s; a target silent for ten is not going to answer.
pub const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);

/// One whole authentication: nvmet computes for seconds with the largest group on a slow machine,
/// and the first time longer.
pub const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(30);

/// The whole bring-up, whatever its steps allow: a target that drips replies can't hold us longer.
pub const BRING_UP_TIMEOUT: Duration = Duration::from_secs(60);

/// An orderly shutdown; past it the connections are dropped as they are. With that, the end takes
/// less than a second.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(700);

/// For posted work to come back once a queue is disconnected, which a device does in microseconds.
/// One that does not is not waited for: destroying the queue pair gives all of it back, too.
pub const DRAIN_TIMEOUT: Duration = Duration::from_millis(20);

/// Between two looks at the controller's status while it gets ready or shuts down.
pub const STATUS_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The longest readiness wait we believe, whatever CAP.TO says (its own maximum is 127.5 s).
pub const READY_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// The largest acknowledge timeout, as an exponent: about 2.4 hours (InfiniBand 9.9.2.1.1).
pub const ACK_TIMEOUT_MAX: u8 = 31;

/// The largest of both retry counts (InfiniBand 9.7.5.2.8).
pub const RETRY_COUNT_MAX: u8 = 7;

/// Resends of an unacknowledged packet. Not 7: on rxe that means for ever.
pub const RETRY_COUNT: u8 = 6;

/// Resends after "receiver not ready": without end, as Linux; the command timeouts bound it.
pub const RNR_RETRY_COUNT: u8 = 7;

/// RDMA READs a target may have open on one queue; the device's own limit may be lower.
pub const READ_DEPTH_MAX: u32 = 128;

/// Bytes one command may move if the target sets no limit: Linux's own bound on a transfer.
pub const TRANSFER_BYTES_DEFAULT: u64 = 1 << 20;

/// Active namespaces we list; a target with more, or with a list that does not end, is refused.
pub const NAMESPACES_MAX: usize = 1 << 16;

/// Entries of a discovery log we read. A target with more is refused: 64 Ki entries are 64 MiB.
pub const DISCOVERY_RECORDS_MAX: u64 = 1 << 16;

/// Bytes of a discovery log that one command reads: 64 entries; many targets have fewer.
pub const DISCOVERY_CHUNK_BYTES: u32 = 64 << 10;

/// How often a discovery log that changes while it is read is begun; as nvme-cli.
pub const DISCOVERY_ATTEMPTS: u8 = 10;

/// Reading one discovery log, whatever its commands are allowed: a target that drips can't hold us
/// longer.
pub const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Discovery subsystems that one walk over referrals asks at most.
pub const DISCOVERY_TARGETS_MAX: usize = 64;

/// Referrals in a row that are followed by default: real networks have one or two.
pub const REFERRAL_DEPTH: u8 = 8;

/// The keep-alive time of a discovery connection that stays; as nvme-cli.
pub const DISCOVERY_KEEP_ALIVE: Duration = Duration::from_secs(30);

/// What one admin command may move of ours: all log pages of the kernel's target fit.
pub const ADMIN_TRANSFER_MAX: usize = 16 << 10;

/// Events that may wait until their log pages are read; meanwhile no more are asked for.
pub const EVENT_BACKLOG: usize = 4;

/// The shortest time between two events we let a controller tell us, so that a storm of them costs
/// no more than ten commands a second.
pub const EVENT_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// How long an idle task sleeps before it looks around.
pub const IDLE_TIMEOUT: Duration = Duration::from_millis(100);

/// For pollers to give up their queues before a controller is told of the end: tasks of ours do so
/// within microseconds, and one that a caller neglects is not waited for.
pub const QUIESCE_TIMEOUT: Duration = Duration::from_millis(100);

/// Completions taken from a completion queue at once.
pub const POLL_BATCH: usize = 32;

/// Requests that may wait for a poller, for each queue entry it has.
pub const BACKLOG_PER_ENTRY: usize = 2;

/// How often a busy poller looks at timeouts and connection events.
pub const TICK: Duration = Duration::from_millis(10);

/// Looks of a poller that find nothing between two readings of the clock, which may cost as much as
/// a look. So many take some microseconds.
pub const POLLS_PER_CLOCK_READ: u32 = 64;

/// Connections of a poller that are looked at for events each [`TICK`]. A look is a system call,
/// of which a poller with 1,000 queues is not to make 100,000 a second.
pub const CONNECTIONS_PER_TICK: usize = 16;

/// After an Abort, for the command to come back. Linux on RDMA sends none and resets at once; a
/// target that can abort does so within milliseconds.
pub const ABORT_TIMEOUT: Duration = Duration::from_secs(2);

/// Aborts that may wait for the admin queue; past them a late command is recovered without.
pub const ABORT_BACKLOG: usize = 16;

/// How often a command is sent again because its connection was lost; as Linux (`max_retries`).
pub const RESENDS_MAX: u8 = 5;

/// Changes of state that a slow watcher may fall behind.
pub const STATE_CHANGE_BACKLOG: usize = 256;

/// Admin requests that may wait for their turn.
pub const ADMIN_BACKLOG: usize = 16;
