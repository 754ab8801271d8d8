//! `nvmf zns`: commands of the Zoned Namespace command set, by the names of nvme-cli.

use std::{path::PathBuf, sync::Arc};

use clap::{Args, Subcommand, ValueEnum};
use rdma_host::{
    Error, RangeCommands, ZoneSelection, ZonedNamespace,
    error::Rejected,
    wire::{
        Zone, ZoneAction, ZoneFilter, ZoneLimits, ZoneState, zoned_controller_fields,
        zoned_format_fields, zoned_namespace_fields,
    },
};
use serde_json::json;

use super::{
    block_file::Input,
    identify_data::{FormArguments, NamedFields, check_output},
};
use crate::{
    Format,
    capture::{self, CaptureArguments, ConnectingCommand, SystemProvider},
    connect::{ConnectedController, NamespaceArguments},
    failure::Failure,
    io_namespace::IoNamespace,
    output,
    overwrite::OverwriteArguments,
    size,
    target::TargetArguments,
};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Close zones: they are open no longer, and take data still.
    #[command(after_help = "Example:\n  nvmf zns close-zone TARGET --ns 1 --start-lba 0")]
    CloseZone(CloseArguments),
    /// Finish zones: they become full, and take no data until they are reset.
    #[command(after_help = "Example:\n  nvmf zns finish-zone TARGET --ns 1 --start-lba 0")]
    FinishZone(FinishArguments),
    /// Show the fields of Identify Controller of the command set, with the keys of nvme-cli.
    #[command(after_help = "Example:\n  nvmf zns id-ctrl TARGET -o json")]
    IdCtrl(ControllerArguments),
    /// Show the fields of Identify Namespace of the command set, with the keys of nvme-cli.
    #[command(after_help = "Example:\n  nvmf zns id-ns TARGET --ns 1 -o json")]
    IdNs(IdentifyArguments),
    /// Take zones that are read only offline: their data can no longer be read.
    #[command(
        after_help = "Example:\n  nvmf zns offline-zone TARGET --ns 1 --start-lba 0 --overwrite"
    )]
    OfflineZone(OfflineArguments),
    /// Open zones, so that they stay open between writes.
    #[command(after_help = "Example:\n  nvmf zns open-zone TARGET --ns 1 --start-lba 0")]
    OpenZone(OpenArguments),
    /// Show zones: first block, write pointer, capacity and state.
    #[command(after_help = "Example:\n  nvmf zns report-zones TARGET --ns 1 --descs 4 -o json")]
    ReportZones(ReportArguments),
    /// Reset zones: they become empty, and their data is lost.
    #[command(
        after_help = "Example:\n  nvmf zns reset-zone TARGET --ns 1 --start-lba 0 --overwrite"
    )]
    ResetZone(ResetArguments),
    /// Append data from a file or standard input to a zone, by one command, and print its block.
    ///
    /// The controller limits the size of the data (`nvmf zns id-ctrl`, ZASL).
    #[command(after_help = "Example:\n  nvmf zns zone-append TARGET --ns 1 --zslba 0 --file image")]
    ZoneAppend(AppendArguments),
}

#[derive(Args)]
pub(crate) struct ControllerArguments {
    #[command(flatten)]
    form: FormArguments,

    #[command(flatten)]
    target: TargetArguments,

    #[command(flatten)]
    capture: CaptureArguments,
}

#[derive(Args)]
pub(crate) struct IdentifyArguments {
    #[command(flatten)]
    form: FormArguments,

    #[command(flatten)]
    namespace: NamespaceArguments,
}

#[derive(Args)]
pub(crate) struct ReportArguments {
    /// Block of the first zone to show.
    #[arg(long, value_name = "LBA", default_value_t = 0, value_parser = size::count)]
    start_lba: u64,

    /// Number of zones to show [default: all].
    #[arg(long, value_name = "N", value_parser = size::count)]
    descs: Option<u64>,

    /// State of the zones to show.
    #[arg(long, value_name = "STATE", default_value = "all")]
    state: State,

    /// Have nr_zones count the zones that are shown, not all in that state.
    #[arg(long)]
    partial: bool,

    /// Output format; json has the keys of nvme-cli.
    #[arg(short, long, value_name = "FORMAT", default_value = "normal")]
    output_format: Format,

    #[command(flatten)]
    namespace: NamespaceArguments,
}

#[derive(Args)]
pub(crate) struct AppendArguments {
    /// First block of the zone.
    #[arg(long, value_name = "LBA", value_parser = size::count)]
    zslba: u64,

    /// Bytes to append [default: all of the file].
    #[arg(long, value_name = "BYTES", value_parser = size::positive)]
    data_size: Option<u64>,

    /// File with the data; - for standard input.
    #[arg(short, long, visible_alias = "data", default_value = "-")]
    file: PathBuf,

    #[command(flatten)]
    namespace: NamespaceArguments,
}

/// Zones that a command is for, and their namespace.
#[derive(Args)]
struct ZoneArguments {
    /// First block of the zone.
    #[arg(long, value_name = "LBA", value_parser = size::count,
          required_unless_present = "select_all", conflicts_with = "select_all")]
    start_lba: Option<u64>,

    /// All zones whose state allows it.
    #[arg(long)]
    select_all: bool,

    #[command(flatten)]
    namespace: NamespaceArguments,
}

#[derive(Args)]
pub(crate) struct CloseArguments {
    #[command(flatten)]
    zones: ZoneArguments,
}

#[derive(Args)]
pub(crate) struct FinishArguments {
    #[command(flatten)]
    zones: ZoneArguments,
}

#[derive(Args)]
pub(crate) struct OpenArguments {
    #[command(flatten)]
    zones: ZoneArguments,
}

#[derive(Args)]
pub(crate) struct OfflineArguments {
    #[command(flatten)]
    overwrite: OverwriteArguments,

    #[command(flatten)]
    zones: ZoneArguments,
}

#[derive(Args)]
pub(crate) struct ResetArguments {
    #[command(flatten)]
    overwrite: OverwriteArguments,

    #[command(flatten)]
    zones: ZoneArguments,
}

/// State of zones, by name or by the number of nvme-cli.
#[derive(Clone, Copy, ValueEnum)]
enum State {
    #[value(alias = "0")]
    All,
    #[value(alias = "1")]
    Empty,
    #[value(alias = "2")]
    ImplicitlyOpen,
    #[value(alias = "3")]
    ExplicitlyOpen,
    #[value(alias = "4")]
    Closed,
    #[value(alias = "5")]
    Full,
    #[value(alias = "6")]
    ReadOnly,
    #[value(alias = "7")]
    Offline,
}

impl From<State> for ZoneFilter {
    fn from(state: State) -> Self {
        match state {
            State::All => Self::ALL,
            State::Empty => Self::EMPTY,
            State::ImplicitlyOpen => Self::IMPLICITLY_OPEN,
            State::ExplicitlyOpen => Self::EXPLICITLY_OPEN,
            State::Closed => Self::CLOSED,
            State::Full => Self::FULL,
            State::ReadOnly => Self::READ_ONLY,
            State::Offline => Self::OFFLINE,
        }
    }
}

/// Executes a command of the group.
pub(crate) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::CloseZone(arguments) => capture::run(arguments),
        Command::FinishZone(arguments) => capture::run(arguments),
        Command::IdCtrl(arguments) => capture::run(arguments),
        Command::IdNs(arguments) => capture::run(arguments),
        Command::OfflineZone(arguments) => capture::run(arguments),
        Command::OpenZone(arguments) => capture::run(arguments),
        Command::ReportZones(arguments) => capture::run(arguments),
        Command::ResetZone(arguments) => capture::run(arguments),
        Command::ZoneAppend(arguments) => capture::run(arguments),
    }
}

/// Connected controller, and a zoned namespace of it.
struct Connection {
    connected: ConnectedController<SystemProvider>,
    zoned: ZonedNamespace<IoNamespace>,
}

impl Connection {
    fn open(
        arguments: &NamespaceArguments,
        provider: &Arc<SystemProvider>,
    ) -> Result<Self, Failure> {
        let (connected, namespace) = arguments.connect_paths(provider)?;
        let zoned = connected.runtime.run(connected.controller.zoned_namespace(namespace))?;
        Ok(Self { connected, zoned })
    }

    /// Reads zones, at most `max`.
    fn report(&self, lba: u64, filter: ZoneFilter, max: u64) -> Result<Vec<Zone>, Failure> {
        /// Bytes of a report, for 1,023 zones.
        const BYTES: usize = 64 << 10;
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let buffer = self.connected.controller.allocate(BYTES)?;
        let read = self.zoned.report(lba, filter, max, buffer);
        let (zones, _) = self.connected.runtime.run(read)?;
        Ok(zones)
    }

    /// Failure of a command on a zone, after the state of the zone where the target refused it:
    /// some give no reason.
    fn describe(&self, zone: u64, error: Error) -> Failure {
        let is_refusal = matches!(error, Error::Rejected(Rejected::Command { .. }));
        let failure = Failure::from(error);
        if !is_refusal {
            return failure;
        }
        match self.report(0, ZoneFilter::ALL, u64::MAX) {
            Ok(zones) => match state_of(zone, &zones, self.zoned.limits()) {
                Some(state) => failure.context(state),
                None => failure,
            },
            Err(_) => failure,
        }
    }

    fn close(self) {
        drop(self.zoned);
        self.connected.close();
    }
}

impl ConnectingCommand for ControllerArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        check_output(self.form.raw_binary)?;
        let connected = ConnectedController::connect(provider, &self.target)?;
        let data = connected.runtime.run(connected.controller.identify_zoned_controller_data())?;
        connected.close();
        self.form.print(&data, |data| {
            let fields = zoned_controller_fields(data)?;
            Ok(NamedFields { fields, list: None, entries: Vec::new() })
        })
    }
}

impl ConnectingCommand for IdentifyArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        check_output(self.form.raw_binary)?;
        let (connected, namespace) = self.namespace.connect(provider)?;
        let info = namespace.info();
        let read = async {
            let zoned = connected.controller.identify_zoned_namespace_data(&info).await?;
            Ok::<_, Error>((zoned, connected.controller.identify_namespace_data(info.id).await?))
        };
        let (zoned, common) = connected.runtime.run(read)?;
        drop(namespace);
        connected.close();
        self.form.print(&zoned, |zoned| {
            let entries = zoned_format_fields(zoned, &common)?;
            Ok(NamedFields { fields: zoned_namespace_fields(zoned)?, list: Some("lbafe"), entries })
        })
    }
}

impl ConnectingCommand for ReportArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let connection = Connection::open(&self.namespace, provider)?;
        // Without --partial, all are counted.
        let shown = self.descs.unwrap_or(u64::MAX);
        let max = if self.partial { shown } else { u64::MAX };
        let mut zones = connection.report(self.start_lba, self.state.into(), max)?;
        let (count, limits) = (zones.len(), connection.zoned.limits());
        zones.truncate(usize::try_from(shown).unwrap_or(usize::MAX));
        connection.close();
        match self.output_format {
            Format::Json => output::print_json(&json(count, &zones)),
            Format::Normal => output::print_text(&text(count, &zones, limits)),
        }
    }
}

impl ConnectingCommand for AppendArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let mut input = Input::open(&self.file)?;
        if self.data_size.or(input.bytes()) == Some(0) {
            return Err(input.no_data());
        }
        let connection = Connection::open(&self.namespace, provider)?;
        let Connection { connected, zoned } = &connection;
        let data = self.read(&connection, &mut input)?;
        let mut buffer = connected.controller.allocate(data.len())?;
        buffer.copy_in(0, &data);
        let appended = connected
            .runtime
            .run(async { Ok::<_, Failure>(zoned.append(self.zslba, buffer).await) })?;
        let (lba, _) = appended.map_err(|failed| connection.describe(self.zslba, failed.error))?;
        let blocks = data.len() as u64 / u64::from(zoned.namespace().info().block_size);
        let blocks = size::format_count(blocks, "block");
        output::print_message(format_args!("{blocks} appended, from block {lba} on"));
        connection.close();
        Ok(())
    }
}

impl AppendArguments {
    /// Reads the data, once its size is known to be one that the namespace takes.
    fn read(&self, connection: &Connection, input: &mut Input) -> Result<Vec<u8>, Failure> {
        let Connection { connected, zoned } = connection;
        let check = |bytes| zoned.check_append(self.zslba, bytes).map_err(Error::from);
        let max = zoned.append_bytes_max();
        let wanted = self.data_size.or(input.bytes());
        wanted.map_or(Ok(()), check)?;
        // A pipe is asked for a byte more than there may be.
        let mut data = vec![0; usize::try_from(wanted.unwrap_or(max + 1)).unwrap_or(usize::MAX)];
        let shutdown = &connected.runtime.shutdown;
        let Some(length) = input.fill(&mut data, || shutdown.get().is_some())? else {
            let signal = shutdown.get().expect("a signal ended the wait");
            return Err(Failure::interrupted(signal));
        };
        data.truncate(length);
        match wanted {
            _ if length == 0 => Err(input.no_data()),
            Some(wanted) if (length as u64) < wanted => {
                let name = input.name();
                Err(Failure::usage(format!("{name} ended after {length} of {wanted} bytes")))
            }
            None if length as u64 > max => Err(Failure::usage(format!(
                "{} has more than {max} bytes, the most of one Zone Append; give --data-size",
                input.name()
            ))),
            _ => Ok(data),
        }
    }
}

impl ConnectingCommand for CloseArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.zones.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        self.zones.manage(provider, (ZoneAction::CLOSE, "closed"), None)
    }
}

impl ConnectingCommand for FinishArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.zones.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        self.zones.manage(provider, (ZoneAction::FINISH, "finished"), None)
    }
}

impl ConnectingCommand for OpenArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.zones.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        self.zones.manage(provider, (ZoneAction::OPEN, "opened"), None)
    }
}

impl ConnectingCommand for OfflineArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.zones.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let consent = Some(("zns offline-zone", &self.overwrite));
        self.zones.manage(provider, (ZoneAction::OFFLINE, "offline"), consent)
    }
}

impl ConnectingCommand for ResetArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.zones.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let consent = Some(("zns reset-zone", &self.overwrite));
        self.zones.manage(provider, (ZoneAction::RESET, "reset"), consent)
    }
}

impl ZoneArguments {
    /// Changes the state of the zones; `consent` names a command by which data is lost.
    fn manage(
        &self,
        provider: &Arc<SystemProvider>,
        (action, done): (ZoneAction, &str),
        consent: Option<(&'static str, &OverwriteArguments)>,
    ) -> Result<(), Failure> {
        let consent = consent.map(|(name, arguments)| arguments.consent(name, true)).transpose()?;
        let connection = Connection::open(&self.namespace, provider)?;
        let Connection { connected, zoned } = &connection;
        if let Some(mut consent) = consent {
            consent.check(connected, zoned.namespace())?;
        }
        let zones = self.start_lba.map_or(ZoneSelection::All, ZoneSelection::Zone);
        let managed =
            connected.runtime.run(async { Ok::<_, Failure>(zoned.manage(action, zones).await) })?;
        match (managed, self.start_lba) {
            (Err(error), Some(zone)) => return Err(connection.describe(zone, error)),
            (Err(error), None) => return Err(error.into()),
            (Ok(()), Some(zone)) => {
                output::print_message(format_args!("the zone at block {zone} is {done}"));
            }
            (Ok(()), None) => {
                output::print_message(format_args!("all zones whose state allows it are {done}"));
            }
        }
        connection.close();
        Ok(())
    }
}

/// State of a zone and, where they are limited, of how many are open and active, in one line.
fn state_of(lba: u64, zones: &[Zone], limits: ZoneLimits) -> Option<String> {
    let zone = zones.iter().find(|zone| zone.start == lba)?;
    let mut text = format!("the zone at block {lba} is {}", zone.state);
    if zone.state.has_write_pointer() {
        let written = zone.write_pointer.saturating_sub(zone.start);
        text += &format!(", {written} of its {} blocks are written", zone.capacity);
    }
    let open = [ZoneState::IMPLICITLY_OPEN, ZoneState::EXPLICITLY_OPEN];
    let active = [open[0], open[1], ZoneState::CLOSED];
    for (what, states, max) in [
        ("open", &open[..], limits.open_zones_max),
        ("active", &active[..], limits.active_zones_max),
    ] {
        if let Some(max) = max {
            let count = zones.iter().filter(|zone| states.contains(&zone.state)).count();
            text += &format!(", {count} of at most {max} zones are {what}");
        }
    }
    Some(text)
}

fn text(count: usize, zones: &[Zone], limits: ZoneLimits) -> String {
    let count = size::format_count(count as u64, "zone");
    let mut text = format!("{count}, {} blocks apart\n", limits.zone_blocks);
    for zone in zones {
        let Zone { start, capacity, write_pointer, state, .. } = zone;
        let pointer = match state.has_write_pointer() {
            true => format!("write pointer {write_pointer}"),
            false => "no write pointer".to_owned(),
        };
        text += &format!("zone at block {start}: {state}, {pointer}, capacity {capacity}\n");
    }
    text
}

/// Report with the keys and words of nvme-cli.
fn json(count: usize, zones: &[Zone]) -> serde_json::Value {
    let state = |state| match state {
        ZoneState::EMPTY => "EMPTY".to_owned(),
        ZoneState::IMPLICITLY_OPEN => "IMP_OPENED".to_owned(),
        ZoneState::EXPLICITLY_OPEN => "EXP_OPENED".to_owned(),
        ZoneState::CLOSED => "CLOSED".to_owned(),
        ZoneState::READ_ONLY => "READONLY".to_owned(),
        ZoneState::FULL => "FULL".to_owned(),
        ZoneState::OFFLINE => "OFFLINE".to_owned(),
        ZoneState(other) => format!("{other:#x}"),
    };
    let kind = |kind| match kind {
        2 => "SEQWRITE_REQ".to_owned(),
        other => format!("{other:#x}"),
    };
    let zones = zones.iter().map(|zone| {
        json!({
            "slba": zone.start,
            "wp": zone.write_pointer,
            "cap": zone.capacity,
            "state": state(zone.state),
            "type": kind(zone.kind),
            "attrs": zone.attributes,
        })
    });
    json!({ "nr_zones": count, "zone_list": zones.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(start: u64, state: ZoneState) -> Zone {
        let write_pointer = start + 3;
        Zone { start, capacity: 8, write_pointer, state, kind: 2, attributes: 0 }
    }

    #[test]
    fn a_report_has_the_keys_of_nvme_cli() {
        let zones = [zone(0, ZoneState::CLOSED), zone(16, ZoneState::FULL)];
        let expected = json!({ "nr_zones": 9, "zone_list": [
            { "slba": 0, "wp": 3, "cap": 8, "state": "CLOSED", "type": "SEQWRITE_REQ", "attrs": 0 },
            { "slba": 16, "wp": 19, "cap": 8, "state": "FULL", "type": "SEQWRITE_REQ", "attrs": 0 },
        ] });
        assert_eq!(json(9, &zones), expected);
        let limits = ZoneLimits {
            zone_blocks: 16,
            active_zones_max: None,
            open_zones_max: Some(2),
            append_bytes_max: None,
        };
        let expected = "9 zones, 16 blocks apart\n\
                        zone at block 0: closed, write pointer 3, capacity 8\n\
                        zone at block 16: full, no write pointer, capacity 8\n";
        assert_eq!(text(9, &zones, limits), expected);
        let state = |lba| state_of(lba, &zones, limits);
        let closed = "the zone at block 0 is closed, 3 of its 8 blocks are written, 0 of at most 2 \
                      zones are open";
        assert_eq!(state(0).as_deref(), Some(closed));
        let full = "the zone at block 16 is full, 0 of at most 2 zones are open";
        assert_eq!(state(16).as_deref(), Some(full));
        assert_eq!(state(5), None);
    }
}
