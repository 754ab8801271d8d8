//! Target and connect options, from a URI, an SPDK transport ID or the options of nvme-cli.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Once,
    time::Duration,
};

use clap::Args;
use rdma_host::{
    ConnectOptions, Fence, FenceOptions, MemoryMode, PathPolicy, ReconnectOptions,
    SubsystemOptions, WaitMode,
    config::{QUEUE_ENTRIES, RETRY_COUNT},
    wire::Nqn,
};
use uuid::Uuid;

use crate::{
    configuration::{GivenOptions, configured_authentication, configured_connection},
    failure::Failure,
    host,
    option_value::{OrNone, or_none},
    program,
    secrets::SecretArguments,
    size,
    target_address::{self, TargetAddress},
};

/// Time for which a measurement waits for a path to become usable, before it ends.
const NO_PATH_TIMEOUT: Duration = Duration::from_secs(10);
/// Commands that use several paths.
const MULTIPATH_COMMANDS: &str = "identify, monitor, bench, write-verify, read, write, compare, \
                                  copy, dsm, flush, verify, write-uncor and write-zeroes";

/// Target and connect options; names and defaults as in nvme-cli.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Target")]
pub struct TargetArguments {
    #[arg(
        help = "nvmf-rdma://ADDRESS[:PORT][,ADDRESS…]/NQN, \"trtype:RDMA traddr:… subnqn:…\", or \
                  @NAME for a subsystem of the configuration in /etc/nvme, by its NQN or what \
                  follows the last colon in it"
    )]
    target: Option<String>,

    /// Transport, as in nvme-cli; only RDMA is supported.
    #[arg(short = 't', long, value_name = "NAME", default_value = "rdma",
          hide_default_value = true, value_parser = transport)]
    transport: String,

    /// Address of the target; a link-local one with its interface: fe80::1%eth0.
    #[arg(short = 'a', long, value_name = "ADDRESS", conflicts_with = "target")]
    traddr: Option<String>,

    /// Port of the target [default: 4420].
    #[arg(short = 's', long, value_name = "PORT", conflicts_with = "target",
          value_parser = or_none::<String>)]
    trsvcid: Option<OrNone<String>>,

    /// NQN of the subsystem.
    #[arg(short = 'n', long, conflicts_with = "target")]
    nqn: Option<String>,

    /// Another address of the same subsystem, to use as a path to it; may be repeated.
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    path: Vec<String>,

    /// Choice among several paths of the same access: round-robin, queue-depth, or latency (fewest
    /// commands in flight, of those that are not slower than the others) [default: round-robin].
    #[arg(long, value_name = "POLICY", value_parser = path_policy)]
    iopolicy: Option<PathPolicy>,

    /// Configuration for @NAME, and for secrets that are not given, instead of /etc/nvme.
    #[arg(short = 'J', long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    host: HostArguments,

    /// Number of I/O queues [default: one for each processor].
    #[arg(short = 'i', long, visible_alias = "queues", value_name = "N",
          value_parser = size::in_range(1..=u16::MAX))]
    pub nr_io_queues: Option<u16>,

    /// Entries of an I/O queue; one command less can be in flight [default: 128].
    #[arg(short = 'Q', long, value_name = "N", value_parser = size::in_range(QUEUE_ENTRIES))]
    pub queue_size: Option<u16>,

    /// Keep-alive time in seconds; 0 turns it off [default: 5].
    #[arg(short = 'k', long, value_name = "SECONDS", value_parser = size::seconds)]
    keep_alive_tmo: Option<Duration>,

    #[command(flatten)]
    reconnect: ReconnectArguments,

    #[command(flatten)]
    fence: FenceArguments,

    #[command(flatten)]
    secrets: SecretArguments,

    /// Type of service of the connections.
    #[arg(long, value_name = "TOS")]
    tos: Option<u8>,

    /// Acknowledgement timeout of the device: 4.096 µs times two to this power; 14 is 67 ms
    /// [default: the device's].
    #[arg(long, value_name = "EXPONENT", value_parser = clap::value_parser!(u8).range(0..=31))]
    ack_timeout: Option<u8>,

    /// Retransmissions by the device without an acknowledgement.
    #[arg(long, value_name = "N", default_value_t = RETRY_COUNT,
          value_parser = clap::value_parser!(u8).range(0..=7))]
    retry_count: u8,

    /// Ask the target to disable submission queue flow control.
    #[arg(long)]
    disable_sqflow: bool,

    /// Way to wait for completions: poll, event, or adaptive (spin for 50 µs, then as event).
    #[arg(long, value_name = "MODE", default_value = "adaptive", value_parser = wait_mode)]
    wait: WaitMode,

    /// Remote access to memory: pool (one key for all registered memory, valid as long as nvmf
    /// runs), or window (a key for each command, invalidated with it; if the device can).
    #[arg(long, value_name = "MODE", default_value = "pool", value_parser = memory_mode)]
    memory: MemoryMode,
}

/// Identity and address of this host; `none` stands for a value that is not given.
#[derive(Args, Clone, Debug)]
pub struct HostArguments {
    /// Address of this host to use.
    #[arg(short = 'w', long, value_name = "ADDRESS", value_parser = or_none::<IpAddr>)]
    host_traddr: Option<OrNone<IpAddr>>,

    /// Host NQN [default: /etc/nvme/hostnqn, or made of the machine id].
    #[arg(short = 'q', long, value_name = "NQN", value_parser = or_none::<String>)]
    hostnqn: Option<OrNone<String>>,

    /// Host identifier [default: /etc/nvme/hostid, or the UUID of the NQN].
    #[arg(short = 'I', long, value_name = "UUID", value_parser = or_none::<Uuid>)]
    hostid: Option<OrNone<Uuid>>,
}

impl HostArguments {
    /// Options of the command line, of which the others have their defaults.
    pub fn given(&self) -> GivenOptions {
        GivenOptions {
            hostnqn: self.hostnqn.clone().flatten(),
            hostid: self.hostid.flatten(),
            source: self.host_traddr.flatten(),
            ..GivenOptions::default()
        }
    }
}

/// Reconnecting after the connection was lost.
#[derive(Args, Clone, Debug)]
pub struct ReconnectArguments {
    /// Seconds from a loss to the first attempt to reconnect, and between attempts [default: 10].
    #[arg(short = 'c', long, value_name = "SECONDS", value_parser = size::seconds)]
    reconnect_delay: Option<Duration>,

    /// Seconds for which attempts go on; -1 for ever, 0 for none [default: 600; bench: 0].
    #[arg(short = 'l', long, value_name = "SECONDS", allow_negative_numbers = true)]
    ctrl_loss_tmo: Option<i64>,

    /// Seconds for which commands wait for a connection; -1 as long as attempts go on
    /// [default: -1].
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    fast_io_fail_tmo: Option<i64>,

    /// Double the delay with every attempt, up to this many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = size::seconds)]
    reconnect_delay_max: Option<Duration>,

    /// Random part of each delay, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(0..=100))]
    reconnect_jitter: u8,

    /// Longest time, in seconds, from a loss to the last attempt.
    #[arg(long, value_name = "SECONDS", value_parser = size::seconds)]
    reconnect_time_limit: Option<Duration>,

    /// Give up also for causes that persist until the target is repaired.
    #[arg(long)]
    reconnect_strict: bool,

    /// Retry the first connect too.
    #[arg(long)]
    retry_first_connect: bool,
}

impl ReconnectArguments {
    /// Options of the command line, in place of those in `options`.
    pub fn replace(&self, options: ReconnectOptions) -> ReconnectOptions {
        let seconds = |seconds: i64| u64::try_from(seconds).ok().map(Duration::from_secs);
        let delay = self.reconnect_delay.unwrap_or(options.delay);
        let loss_timeout = self.ctrl_loss_tmo.map_or(options.loss_timeout, seconds);
        let fast_io_fail = self.fast_io_fail_tmo.map_or(options.fast_io_fail, seconds);
        options
            .delay(delay)
            .loss_timeout(loss_timeout)
            .fast_io_fail(fast_io_fail)
            .delay_max(self.reconnect_delay_max)
            .jitter_percent(self.reconnect_jitter)
            .time_limit(self.reconnect_time_limit)
            .strict(self.reconnect_strict)
            .first_connect(self.retry_first_connect)
    }
}

/// Fence for writes after the connection was lost.
#[derive(Args, Clone, Debug)]
pub(crate) struct FenceArguments {
    /// Proof that lets a write follow writes of unknown outcome to the same blocks: proof (the
    /// target no longer knows the old controller, or the time that it guarantees is over), linux
    /// (with the time of the patches proposed for Linux), time (that time also if the target
    /// guarantees none), or off (none, as Linux; data can be lost).
    #[arg(long, value_name = "MODE", default_value = "proof", value_parser = fence)]
    fence: Fence,

    /// Seconds for which a write waits for that proof, before it fails.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = size::seconds)]
    fence_tmo: Duration,

    /// Proof by controller ids: a target that does not know an id has ended that controller, yes,
    /// no, or auto (yes for Linux's target).
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = ["auto", "yes", "no"])]
    fence_cntlid: String,
}

impl FenceArguments {
    fn options(&self) -> FenceOptions {
        let controller_ids = match self.fence_cntlid.as_str() {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        };
        FenceOptions::default()
            .mode(self.fence)
            .timeout(self.fence_tmo)
            .controller_ids(controller_ids)
    }
}

impl TargetArguments {
    /// Options of a program that uses one controller.
    ///
    /// # Errors
    ///
    /// Also if there are several paths.
    pub fn options(&self) -> Result<ConnectOptions, Failure> {
        let (options, further) = self.paths()?;
        if further.is_empty() {
            return Ok(options);
        }
        Err(Failure::usage(format!(
            "several paths are for {MULTIPATH_COMMANDS}; what is asked for here is of one \
             controller: give one address"
        )))
    }

    /// Options for a subsystem, with its paths: one or several.
    pub fn subsystem_options(&self) -> Result<SubsystemOptions, Failure> {
        let (options, further) = self.paths()?;
        let source = options.source;
        let policy = self.iopolicy.unwrap_or_default();
        let first = SubsystemOptions::new(options).policy(policy);
        let all = further.into_iter().fold(first, |all, address| all.path(address, source));
        all.check()?;
        Ok(all)
    }

    /// Options of the first path, and the addresses of the others.
    fn paths(&self) -> Result<(ConnectOptions, Vec<SocketAddr>), Failure> {
        let options = self.connect_options()?;
        let target = self.target.as_deref().unwrap_or_default();
        let in_target = target_address::each_address(target).into_iter().skip(1);
        let in_target = in_target.map(|target| {
            let target = target_address::parse_target(&target).map_err(Failure::usage)?;
            target_address::resolve(&target)
        });
        let in_options = self.path.iter().map(|path| target_address::path_address(path));
        let further: Vec<_> = in_target.chain(in_options).collect::<Result<_, Failure>>()?;
        match self.iopolicy {
            Some(_) if further.is_empty() => Err(Failure::usage(
                "--iopolicy chooses among several paths; give further ones with --path ADDRESS",
            )),
            _ => Ok((options, further)),
        }
    }

    /// Options of the first path.
    fn connect_options(&self) -> Result<ConnectOptions, Failure> {
        let mut options = match self.configured_name() {
            Some(name) => {
                configured_connection(self.config.as_deref(), name)?.options(&self.given()?)?
            }
            None => self.explicit_options()?,
        };
        warn_of_names(&options);
        options.io_queues = self.nr_io_queues.unwrap_or(options.io_queues);
        options.queue_entries = self.queue_size.unwrap_or(options.queue_entries);
        options.ack_timeout = self.ack_timeout;
        options.retry_count = self.retry_count;
        options.disable_flow_control |= self.disable_sqflow;
        options.wait = self.wait;
        options.memory = self.memory;
        options.fence = self.fence.options();
        options.reconnect = self.reconnect.replace(options.reconnect);
        Ok(options)
    }

    /// Name of a subsystem of the configuration, if the target is given so.
    fn configured_name(&self) -> Option<&str> {
        self.target.as_deref().and_then(|target| target.strip_prefix('@'))
    }

    /// Options of the command line that a configuration has, too.
    fn given(&self) -> Result<GivenOptions, Failure> {
        Ok(GivenOptions {
            keep_alive: self.keep_alive_tmo,
            type_of_service: self.tos,
            authentication: self.secrets.options()?,
            ..self.host.given()
        })
    }

    /// Options for a target that the command line names by its address. Secrets that it does not
    /// give are those of the subsystem in the configuration, if it is there.
    fn explicit_options(&self) -> Result<ConnectOptions, Failure> {
        let target = self.target_address().map_err(Failure::usage)?;
        let subsystem: Nqn = target.nqn.parse().map_err(Failure::usage)?;
        let address = target_address::resolve(&target)?;
        let given = self.given()?;
        let host = host::identity(given.hostnqn.as_deref(), given.hostid)?;
        let mut options = ConnectOptions::new(address, subsystem, host);
        options.source = given.source;
        options.keep_alive = given.keep_alive.unwrap_or(options.keep_alive);
        options.type_of_service = given.type_of_service;
        options.authentication = if given.authentication.credentials.is_some() {
            given.authentication
        } else {
            let (subsystem, host) = (&options.subsystem, &options.host.nqn);
            configured_authentication(self.config.as_deref(), subsystem, host, &given)?
        };
        Ok(options)
    }

    /// Target in one argument, if it is given so.
    pub fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    /// Same options, for another target.
    pub fn with_target(&self, target: &str) -> Self {
        let target = Some(target.to_owned());
        Self { target, traddr: None, trsvcid: None, nqn: None, ..self.clone() }
    }

    /// Same options, for a target beside this one, which has paths of its own.
    pub fn with_other_target(&self, target: &str) -> Self {
        let has_several = target_address::each_address(target).len() > 1;
        let iopolicy = self.iopolicy.filter(|_| has_several);
        Self { path: Vec::new(), iopolicy, ..self.with_target(target) }
    }

    /// Options for a measurement, unless the command line says otherwise: without reconnecting if
    /// there is one path, and holding commands for [`NO_PATH_TIMEOUT`] if there are several.
    pub fn measurement_options(&self) -> Result<SubsystemOptions, Failure> {
        let mut options = self.subsystem_options()?;
        let has_one_path = options.addresses().count() == 1;
        let reconnect = &mut options.connect_mut().reconnect;
        if has_one_path && self.reconnect.ctrl_loss_tmo.is_none() {
            reconnect.loss_timeout = Some(Duration::ZERO);
        }
        if !has_one_path && self.reconnect.fast_io_fail_tmo.is_none() {
            reconnect.fast_io_fail = Some(NO_PATH_TIMEOUT);
        }
        Ok(options)
    }

    fn target_address(&self) -> Result<TargetAddress, String> {
        if let Some(target) = &self.target {
            // There is always a first one.
            return target_address::parse_target(&target_address::each_address(target)[0]);
        }
        let missing = |what| {
            format!("no {what}; give nvmf-rdma://ADDRESS:PORT/NQN, or -a ADDRESS -s PORT -n NQN")
        };
        Ok(TargetAddress {
            address: self.traddr.clone().ok_or_else(|| missing("target address"))?,
            service: target_address::service(self.trsvcid.as_ref().and_then(OrNone::as_deref))?,
            nqn: self.nqn.clone().ok_or_else(|| missing("subsystem NQN"))?,
        })
    }
}

/// Parses the name of a transport, in any case.
pub fn transport(text: &str) -> Result<String, String> {
    if text.eq_ignore_ascii_case("rdma") {
        return Ok("rdma".to_owned());
    }
    Err("nvmf has one transport, rdma; nvme-cli connects the kernel's initiator by others"
        .to_owned())
}

/// Warns of names that do not conform to the specification, once.
pub fn warn_of_names(options: &ConnectOptions) {
    static WARNED: Once = Once::new();
    let names = [("subsystem", &options.subsystem), ("host", &options.host.nqn)];
    let wrong: Vec<_> = names
        .into_iter()
        .filter(|(_, nqn)| !nqn.has_prefix())
        .map(|(what, nqn)| format!("{what} NQN {:?}", nqn.as_str()))
        .collect();
    if !wrong.is_empty() {
        WARNED.call_once(|| {
            program::warn(format_args!(
                "{} should begin with \"nqn.\"; not every target takes other names",
                wrong.join(" and ")
            ));
        });
    }
}

fn path_policy(text: &str) -> Result<PathPolicy, String> {
    match text {
        "numa" => {
            Err("the paths have one RDMA device: use round-robin, queue-depth or latency"
                .to_owned())
        }
        _ => [PathPolicy::RoundRobin, PathPolicy::QueueDepth, PathPolicy::Latency]
            .into_iter()
            .find(|policy| policy.to_string() == text)
            .ok_or("use round-robin, queue-depth or latency".to_owned()),
    }
}

fn wait_mode(text: &str) -> Result<WaitMode, String> {
    match text {
        "adaptive" => Ok(WaitMode::default()),
        "event" => Ok(WaitMode::Event),
        "poll" => Ok(WaitMode::Poll),
        _ => Err("use poll, event or adaptive".to_owned()),
    }
}

fn fence(text: &str) -> Result<Fence, String> {
    [Fence::Proof, Fence::Linux, Fence::Time, Fence::Off]
        .into_iter()
        .find(|mode| mode.name() == text)
        .ok_or("use proof, linux, time or off".to_owned())
}

fn memory_mode(text: &str) -> Result<MemoryMode, String> {
    [MemoryMode::Pool, MemoryMode::Window]
        .into_iter()
        .find(|mode| mode.name() == text)
        .ok_or("use pool or window".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_modes_are_named_as_in_reports() {
        assert_eq!(memory_mode("window"), Ok(MemoryMode::Window));
        assert_eq!(memory_mode("pool"), Ok(MemoryMode::default()));
        assert!(memory_mode("windows").is_err());
    }
}
