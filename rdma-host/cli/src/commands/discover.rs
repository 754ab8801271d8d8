//! `nvmf discover`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use rdma_host::{
    ConnectOptions, Discovered, Discovery, DiscoveryEvent, DiscoveryLog, DiscoveryWatch, Provider,
    SkipReason, SkippedReferral,
    config::{AuthenticationOptions, REFERRAL_DEPTH},
    wire::{DiscoveryEntry, DiscoveryEntryError, Nqn, TransportSpecific},
};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::{
    Format,
    capture::{CaptureArguments, ConnectingCommand, SystemProvider},
    configuration::{Configuration, EndpointKind, GivenOptions},
    failure::Failure,
    host,
    option_value::{OrNone, or_none},
    output,
    output_file::OutputFile,
    progress::with_progress,
    secrets::SecretArguments,
    shutdown::{self, ShutdownSignal},
    size,
    target::{self, HostArguments, ReconnectArguments},
    target_address,
};

/// Ask discovery controllers for subsystems; text and JSON are those of nvme-cli.
///
/// Without an address, the discovery controllers of the configuration are asked (see `nvmf config
/// show`). JSON is one object as of nvme-cli, or a list of such objects, each with its address,
/// where several controllers may be asked.
#[derive(Args)]
pub(crate) struct Arguments {
    #[arg(help = "nvmf-rdma://ADDRESS[:PORT][/NQN], or \"trtype:RDMA traddr:…\"")]
    target: Option<String>,

    /// Transport, as in nvme-cli; only RDMA is supported.
    #[arg(short, long, value_name = "NAME", default_value = "rdma", hide_default_value = true,
          value_parser = target::transport)]
    transport: String,

    /// Address of the discovery controller; a link-local one with its interface: fe80::1%eth0.
    #[arg(short = 'a', long, value_name = "ADDRESS", conflicts_with = "target")]
    traddr: Option<String>,

    /// Port of the discovery controller [default: 4420].
    #[arg(short = 's', long, value_name = "PORT", requires = "traddr",
          value_parser = or_none::<String>)]
    trsvcid: Option<OrNone<String>>,

    /// NQN of the discovery subsystem, if it has a name of its own.
    #[arg(short = 'n', long, default_value = Nqn::DISCOVERY, conflicts_with = "target")]
    nqn: String,

    #[command(flatten)]
    host: HostArguments,

    /// Number of I/O queues, for the sake of nvme-cli: a discovery controller has none.
    #[arg(short = 'i', long, value_name = "N", value_parser = size::positive)]
    nr_io_queues: Option<u64>,

    /// Entries of an I/O queue, for the sake of nvme-cli: a discovery controller has none.
    #[arg(short = 'Q', long, value_name = "N", value_parser = size::positive)]
    queue_size: Option<u64>,

    /// Keep-alive time in seconds [default: 30 with --persistent, else off].
    #[arg(short = 'k', long, value_name = "SECONDS", value_parser = size::seconds)]
    keep_alive_tmo: Option<Duration>,

    /// Type of service of the connection.
    #[arg(short = 'T', long, value_name = "TOS")]
    tos: Option<u8>,

    /// Ask the target to disable submission queue flow control.
    #[arg(short = 'd', long)]
    disable_sqflow: bool,

    #[command(flatten)]
    reconnect: ReconnectArguments,

    #[command(flatten)]
    secrets: SecretArguments,

    /// Configuration to take the controllers from, instead of /etc/nvme.
    #[arg(short = 'J', long, value_name = "FILE", conflicts_with_all = ["target", "traddr"])]
    config: Option<PathBuf>,

    /// Follow referrals, at most this many in a row.
    #[arg(long, value_name = "DEPTH", default_value_t = 0)]
    referrals: u8,

    /// Follow referrals, at most 8 in a row.
    #[arg(long, conflicts_with = "referrals")]
    recursive: bool,

    /// Stay connected and print the log again whenever it changes; as JSON, on one line each time.
    #[arg(short, long, conflicts_with_all = ["referrals", "recursive", "config"])]
    persistent: bool,

    /// Write the log page to a file, as it was sent, and print nothing else of it.
    #[arg(short, long, value_name = "FILE",
          conflicts_with_all = ["referrals", "recursive", "persistent", "output_format", "json"])]
    raw: Option<PathBuf>,

    /// Output format.
    #[arg(short, long, value_name = "FORMAT", default_value = "normal")]
    output_format: Format,

    /// Short for --output-format json.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    capture: CaptureArguments,
}

impl ConnectingCommand for Arguments {
    fn capture(&self) -> &CaptureArguments {
        &self.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let raw = self.raw.as_deref().map(OutputFile::open).transpose()?;
        let runtime = shutdown::runtime()?;
        // Read once for all controllers: a descriptor can be read only once.
        let authentication = self.secrets.options()?;
        let target = self.target_options()?;
        let target = target.map(|options| options.authentication(authentication.clone()));
        if self.persistent {
            let missing = || Failure::usage("--persistent needs an address: give -a ADDRESS");
            let options = target.ok_or_else(missing)?;
            return runtime.block_on(self.watch(provider, &options));
        }
        let controllers = match target {
            Some(options) => DiscoveryControllers { options: vec![options], unusable: 0 },
            None => self.configured_options(authentication)?,
        };
        if let Some(mut file) = raw {
            let [options] = controllers.options.as_slice() else {
                return Err(Failure::usage("--raw takes one log: name its controller, with -a"));
            };
            let log = runtime.block_on(read_raw(provider, options))?;
            file.write(log, true)?;
            output::print_message("the discovery log is written");
            return Ok(());
        }
        let queried = runtime.block_on(self.query(provider, &controllers.options));
        if queried.is_ok() && controllers.unusable > 0 {
            return Err(Failure::failed("not all discovery controllers could be asked"));
        }
        queried
    }
}

/// Discovery controllers to ask.
struct DiscoveryControllers {
    options: Vec<ConnectOptions>,
    /// Number of those in the configuration that can't be asked.
    unusable: usize,
}

impl Arguments {
    fn is_json(&self) -> bool {
        self.json || self.output_format == Format::Json
    }

    fn depth(&self) -> u8 {
        if self.recursive { REFERRAL_DEPTH } else { self.referrals }
    }

    /// Options for the controller named on the command line.
    fn target_options(&self) -> Result<Option<ConnectOptions>, Failure> {
        let (address, nqn) = match (&self.target, &self.traddr) {
            (Some(target), _) => target_address::parse_with_default_nqn(target, Nqn::DISCOVERY)?,
            (None, Some(traddr)) => {
                let nqn = self.nqn.parse().map_err(Failure::usage)?;
                let service = self.trsvcid.as_ref().and_then(OrNone::as_deref);
                (target_address::address(traddr, service)?, nqn)
            }
            (None, None) => return Ok(None),
        };
        let given = self.host.given();
        let host = host::identity(given.hostnqn.as_deref(), given.hostid)?;
        let mut options = ConnectOptions::new(address, nqn, host);
        options.source = given.source;
        options.keep_alive = self.keep_alive_tmo.unwrap_or_default();
        options.type_of_service = self.tos;
        options.disable_flow_control = self.disable_sqflow;
        options.reconnect = self.reconnect.replace(options.reconnect);
        target::warn_of_names(&options);
        Ok(Some(options))
    }

    /// Options for the discovery controllers of the configuration. One that can't be used is told,
    /// and does not keep the others from being asked.
    fn configured_options(
        &self,
        authentication: AuthenticationOptions,
    ) -> Result<DiscoveryControllers, Failure> {
        let configuration = Configuration::load_with_warnings(self.config.as_deref())?;
        configuration.check_secrecy()?;
        let given = GivenOptions {
            keep_alive: self.keep_alive_tmo,
            type_of_service: self.tos,
            authentication,
            ..self.host.given()
        };
        let connections = configuration.connections()?;
        let mut options = Vec::new();
        let mut failures = Vec::new();
        for connection in &connections {
            if connection.kind != EndpointKind::Discovery {
                continue;
            }
            if !connection.address.transport.eq_ignore_ascii_case("rdma") {
                let transport = &connection.address.transport;
                output::print_message(format_args!(
                    "nvmf: {}: transport {transport} is not asked; rdma is",
                    connection.place()
                ));
                continue;
            }
            match connection.options(&given) {
                Ok(mut one) => {
                    one.disable_flow_control |= self.disable_sqflow;
                    options.push(one);
                }
                Err(failure) => failures.push(failure),
            }
        }
        if options.is_empty() {
            let none = Failure::usage(
                "no discovery controller to ask: give -a ADDRESS, or name one in \
                 /etc/nvme/nvme-fabrics.conf ([Discovery Controller])",
            );
            return Err(failures.into_iter().next().unwrap_or(none));
        }
        for failure in &failures {
            output::print_message(format_args!("nvmf: {failure}"));
        }
        Ok(DiscoveryControllers { options, unusable: failures.len() })
    }

    /// Reads the logs of all controllers, and of those they refer to. One that fails does not keep
    /// the others from being asked; the first failure is returned in the end.
    async fn query<P: Provider>(
        &self,
        provider: &Arc<P>,
        all: &[ConnectOptions],
    ) -> Result<(), Failure> {
        let several = self.depth() > 0 || (self.target.is_none() && self.traddr.is_none());
        let mut values = Vec::new();
        let (mut failure, mut skipped_bad) = (None, false);
        for options in all {
            let mut walk = Discovery::over(provider, options, self.depth());
            let describe = || "waiting for discovery controllers".to_owned();
            while let Some(discovered) = with_progress(describe, walk.next()).await {
                for skipped in discovered.skipped.iter().filter(|skipped| is_reportable(skipped)) {
                    output::print_message(format_args!("nvmf: {skipped}"));
                }
                skipped_bad |= discovered.skipped.iter().any(is_failure);
                match &discovered.outcome {
                    Ok(log) if !self.is_json() => output::print_text(&to_text(log))?,
                    Ok(_) => {}
                    Err(error) => {
                        let error = Failure::from(error.clone());
                        let error = if several { error.context(&discovered.target) } else { error };
                        if several {
                            output::print_message(format_args!("nvmf: {error}"));
                        }
                        failure.get_or_insert(error);
                    }
                }
                values.push(discovered);
            }
        }
        if self.is_json() {
            match (several, values.as_slice()) {
                (false, [Discovered { outcome: Ok(log), .. }]) => {
                    output::print_json(&to_json(log))?
                }
                (false, _) => {}
                (true, _) => output::print_json(
                    &values.iter().map(to_json_with_address).collect::<Vec<_>>(),
                )?,
            }
        }
        match failure {
            Some(_) if several && values.iter().any(|one| one.outcome.is_ok()) => {
                Err(Failure::failed("not all discovery controllers answered"))
            }
            Some(failure) => Err(failure),
            None if skipped_bad && self.depth() > 0 => {
                Err(Failure::failed("not all referrals could be followed"))
            }
            None => Ok(()),
        }
    }

    /// Stays connected until interrupted.
    async fn watch<P: Provider>(
        &self,
        provider: &Arc<P>,
        options: &ConnectOptions,
    ) -> Result<(), Failure> {
        let shutdown = ShutdownSignal::catch()?;
        let mut watch = tokio::select! {
            connected = DiscoveryWatch::connect_over(provider, options) => connected?,
            signal = shutdown.received() => {
                shutdown::print_end(signal);
                return Ok(());
            }
        };
        loop {
            let event = tokio::select! {
                event = watch.next() => event,
                signal = shutdown.received() => {
                    shutdown::print_end(signal);
                    watch.shutdown().await;
                    return Ok(());
                }
            };
            let printed = match event {
                DiscoveryEvent::Log(log) if self.is_json() => serde_json::to_string(&to_json(&log))
                    .map_err(Failure::failed)
                    .and_then(|line| output::try_print(&format!("{line}\n"))),
                DiscoveryEvent::Log(log) => output::try_print(&to_text(&log)),
                DiscoveryEvent::Lost { cause, attempt, max, delay } => {
                    let of_max = max.map_or_else(String::new, |max| format!(" of {max}"));
                    output::print_message(format_args!(
                        "nvmf: {cause}; attempt {attempt}{of_max} in {delay:.0?}"
                    ));
                    Ok(true)
                }
                DiscoveryEvent::Ended(error) => return Err(error.into()),
            };
            if !matches!(printed, Ok(true)) {
                watch.shutdown().await;
                return printed.map(drop);
            }
        }
    }
}

/// Bytes of a controller's discovery log page.
async fn read_raw<P: Provider>(
    provider: &Arc<P>,
    options: &ConnectOptions,
) -> Result<Vec<u8>, Failure> {
    let mut walk = Discovery::over(provider, options, 0).keeping_bytes();
    let describe = || "waiting for the discovery controller".to_owned();
    let discovered = with_progress(describe, walk.next()).await;
    Ok(discovered.expect("a walk has a first controller").outcome?.bytes)
}

/// True unless it is normal that a referral is not followed: none is to be followed, or this one
/// leads back, as between the two halves of a redundant target.
fn is_reportable(skipped: &SkippedReferral) -> bool {
    !matches!(skipped.reason, SkipReason::AlreadyQueried | SkipReason::Depth(0))
}

/// True for a referral that can't be followed. One of another transport is for another host.
fn is_failure(skipped: &SkippedReferral) -> bool {
    match &skipped.reason {
        SkipReason::Entry(error) => !matches!(error, DiscoveryEntryError::Transport(_)),
        reason => matches!(reason, SkipReason::TooMany(_)),
    }
}

/// Log in the layout of nvme-cli.
fn to_text(log: &DiscoveryLog) -> String {
    use std::fmt::Write as _;
    let DiscoveryLog { generation, entries, .. } = log;
    let count = entries.len();
    let mut text =
        format!("\nDiscovery Log Number of Records {count}, Generation counter {generation}\n");
    for (index, entry) in entries.iter().enumerate() {
        let _ = writeln!(text, "=====Discovery Log Entry {index}======");
        let family =
            if entry.address.is_empty() { String::new() } else { entry.family.to_string() };
        let rows = [
            ("trtype:  ", entry.transport.to_string()),
            ("adrfam:  ", family),
            ("subtype: ", entry.kind.to_string()),
            ("treq:    ", entry.requirements.to_string()),
            ("portid:  ", entry.port.to_string()),
            ("trsvcid: ", entry.service.clone()),
            ("subnqn:  ", entry.subsystem.clone()),
            ("traddr:  ", entry.address.clone()),
            ("eflags:  ", entry.flags.to_string()),
        ];
        for (name, value) in rows {
            let _ = writeln!(text, "{name}{value}");
        }
        match entry.specific {
            TransportSpecific::Rdma { service, provider, connection_management, partition_key } => {
                let management = management_name(connection_management);
                let _ = writeln!(text, "rdma_prtype: {provider}");
                let _ = writeln!(text, "rdma_qptype: {service}");
                let _ = writeln!(text, "rdma_cms:    {management}");
                let _ = writeln!(text, "rdma_pkey: {partition_key:#06x}");
            }
            TransportSpecific::Tcp(security) => {
                let _ = writeln!(text, "sectype: {security}");
            }
            TransportSpecific::None => {}
        }
    }
    text
}

/// Log with the keys of nvme-cli.
fn to_json(log: &DiscoveryLog) -> LogJson<'_> {
    LogJson { genctr: log.generation, records: Records(&log.entries) }
}

#[derive(Serialize)]
struct LogJson<'a> {
    genctr: u64,
    records: Records<'a>,
}

/// Entries of a log, each of which is made when it is written: there may be 65,536.
struct Records<'a>(&'a [DiscoveryEntry]);

impl Serialize for Records<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(entry_to_json))
    }
}

fn entry_to_json(entry: &DiscoveryEntry) -> Value {
    let mut value = json!({
        "trtype": entry.transport.to_string(),
        "adrfam": entry.family.to_string(),
        "subtype": entry.kind.to_string(),
        "treq": entry.requirements.to_string(),
        "portid": entry.port,
        "trsvcid": entry.service,
        "subnqn": entry.subsystem,
        "traddr": entry.address,
        "eflags": entry.flags.to_string(),
    });
    match entry.specific {
        TransportSpecific::Rdma { service, provider, connection_management, partition_key } => {
            value["rdma_prtype"] = provider.to_string().into();
            value["rdma_qptype"] = service.to_string().into();
            value["rdma_cms"] = management_name(connection_management).into();
            value["rdma_pkey"] = partition_key.into();
        }
        TransportSpecific::Tcp(security) => value["sectype"] = security.to_string().into(),
        TransportSpecific::None => {}
    }
    value
}

/// One of several logs, or the error in its place, with the address of its controller.
#[derive(Serialize)]
struct AddressedLogJson<'a> {
    depth: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    log: Option<LogJson<'a>>,
    subnqn: &'a str,
    traddr: String,
    trsvcid: String,
}

fn to_json_with_address(discovered: &Discovered) -> AddressedLogJson<'_> {
    let Discovered { target, outcome, .. } = discovered;
    AddressedLogJson {
        depth: target.depth,
        error: outcome.as_ref().err().map(ToString::to_string),
        log: outcome.as_ref().ok().map(to_json),
        subnqn: target.subsystem.as_str(),
        traddr: target.address.ip().to_string(),
        trsvcid: target.address.port().to_string(),
    }
}

fn management_name(number: u8) -> String {
    match number {
        1 => "rdma-cm".to_owned(),
        number => format!("unrecognized ({number:#04x})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries of a log: an honest one, and one of another transport with unknown numbers.
    fn log() -> DiscoveryLog {
        let mut honest = vec![0; DiscoveryEntry::SIZE];
        honest[..5].copy_from_slice(&[1, 1, 2, 4, 1]);
        honest[32..36].copy_from_slice(b"4420");
        honest[256..261].copy_from_slice(b"nqn.x");
        honest[512..522].copy_from_slice(b"10.10.10.1");
        honest[768..771].copy_from_slice(&[1, 1, 1]);
        let mut strange = vec![0; DiscoveryEntry::SIZE];
        strange[..4].copy_from_slice(&[3, 9, 1, 0]);
        strange[256..262].copy_from_slice(b"\x1b[31mn");
        let bytes = [honest, strange].concat();
        let entries = DiscoveryEntry::parse_all(&bytes).unwrap();
        DiscoveryLog { generation: 5, entries, bytes: Vec::new() }
    }

    #[test]
    fn a_bad_referral_is_a_failure() {
        let skipped = |reason| SkippedReferral { destination: "10.0.0.1".to_owned(), reason };
        let bad = DiscoveryEntryError::Service("x".to_owned());
        assert!(is_failure(&skipped(SkipReason::Entry(bad))));
        assert!(is_failure(&skipped(SkipReason::TooMany(64))));
        let tcp = DiscoveryEntryError::Transport(rdma_host::wire::TransportType(3));
        for reason in [SkipReason::AlreadyQueried, SkipReason::Depth(1), SkipReason::Entry(tcp)] {
            assert!(!is_failure(&skipped(reason)));
        }
    }

    #[test]
    fn the_layout_is_that_of_nvme_cli() {
        let expected = "
Discovery Log Number of Records 2, Generation counter 5
=====Discovery Log Entry 0======
trtype:  rdma
adrfam:  ipv4
subtype: nvme subsystem
treq:    not specified, sq flow control disable supported
portid:  1
trsvcid: 4420
subnqn:  nqn.x
traddr:  10.10.10.1
eflags:  none
rdma_prtype: not specified
rdma_qptype: connected
rdma_cms:    rdma-cm
rdma_pkey: 0x0000
=====Discovery Log Entry 1======
trtype:  tcp
adrfam:  
subtype: discovery subsystem referral
treq:    not specified
portid:  0
trsvcid: 
subnqn:  ?[31mn
traddr:  
eflags:  none
sectype: none
";
        assert_eq!(to_text(&log()), expected);
    }

    #[test]
    fn the_keys_are_those_of_nvme_cli() {
        let log = log();
        let value = serde_json::to_value(to_json(&log)).unwrap();
        assert_eq!(value["genctr"], 5);
        let first = value["records"][0].as_object().unwrap();
        let mut keys: Vec<_> = first.keys().map(String::as_str).collect();
        keys.sort_unstable();
        let mut expected = [
            "trtype",
            "adrfam",
            "subtype",
            "treq",
            "portid",
            "trsvcid",
            "subnqn",
            "traddr",
            "eflags",
            "rdma_prtype",
            "rdma_qptype",
            "rdma_cms",
            "rdma_pkey",
        ];
        expected.sort_unstable();
        assert_eq!(keys, expected);
        assert_eq!((first["rdma_pkey"].as_u64(), first["portid"].as_u64()), (Some(0), Some(1)));
        assert_eq!(value["records"][1]["sectype"], "none");
        assert_eq!(value["records"][1]["adrfam"], "unrecognized (0x09)");
    }
}
