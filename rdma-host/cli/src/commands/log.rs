//! `nvmf log`: log pages of a controller.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use rdma_host::{
    Controller, Error, Provider,
    wire::{
        AnaLog, ChangedNamespaceList, CommandEffects, EffectsLog, EnduranceGroupLog, ErrorLogEntry,
        FeatureEffectsLog, FirmwareSlotLog, HealthLog, NamespaceId, Opcode,
        ReservationNotification, ReservationNotificationKind, RotationalMediaLog,
        SupportedLogPages,
    },
};
use serde_json::{Value, json};

use crate::{
    Format,
    capture::{CaptureArguments, ConnectingCommand, SystemProvider},
    connect::ConnectedController,
    failure::Failure,
    output, size,
    target::TargetArguments,
};

#[derive(Args)]
pub(crate) struct Arguments {
    #[arg(help = format!("{}; before or after TARGET", LogPage::names()))]
    page: String,

    /// Endurance group of the pages endurance and rotational, from 1.
    #[arg(short, long, visible_alias = "endg-id", value_name = "ID")]
    group_id: Option<u16>,

    /// Output format.
    #[arg(short, long, value_name = "FORMAT", default_value = "normal")]
    output_format: Format,

    #[command(flatten)]
    target: TargetArguments,

    #[command(flatten)]
    capture: CaptureArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogPage {
    /// Asymmetric Namespace Access: state of the access to each group of namespaces.
    Ana,
    /// Namespaces that changed since the page was last read.
    Changed,
    /// Commands supported, and what they may change.
    Effects,
    /// Endurance group: its wear, and what was read and written.
    Endurance,
    /// Error information: latest errors of the controller.
    Error,
    /// Features supported, and what setting them may change.
    Features,
    /// Firmware slots, and the active one.
    Firmware,
    /// SMART / Health information.
    Health,
    /// Reservation notification: the oldest that was not read.
    Reservation,
    /// Media of an endurance group that rotate.
    Rotational,
    /// Log pages supported.
    Supported,
}

impl LogPage {
    fn names() -> String {
        let values = Self::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<_> = values.map(|value| value.get_name().to_owned()).collect();
        let (last, others) = names.split_last().expect("there are log pages");
        format!("{} or {last}", others.join(", "))
    }

    /// Returns true for a page of one endurance group.
    fn has_group(self) -> bool {
        matches!(self, Self::Endurance | Self::Rotational)
    }
}

/// Log page as text and as JSON.
struct RenderedPage {
    text: String,
    json: Value,
}

impl ConnectingCommand for Arguments {
    fn capture(&self) -> &CaptureArguments {
        &self.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let (page, target) = self.page_and_target()?;
        self.check_group(page)?;
        let connected = ConnectedController::connect(provider, &target)?;
        let rendered =
            connected.runtime.run(read(&connected.controller, page, self.group_id.unwrap_or(0)))?;
        let printed = match self.output_format {
            Format::Json => output::print_json(&rendered.json),
            Format::Normal => output::print_text(&rendered.text),
        };
        connected.close();
        printed
    }
}

impl Arguments {
    /// Page and target, which may stand in either order.
    fn page_and_target(&self) -> Result<(LogPage, TargetArguments), Failure> {
        let page = |word: &str| LogPage::from_str(word, true).ok();
        if let Some(page) = page(&self.page) {
            return Ok((page, self.target.clone()));
        }
        match self.target.target().and_then(page) {
            Some(page) => Ok((page, self.target.with_target(&self.page))),
            None => Err(Failure::usage(format!("which log page? give {}", LogPage::names()))),
        }
    }

    fn check_group(&self, page: LogPage) -> Result<(), Failure> {
        match self.group_id {
            None | Some(0) if page.has_group() => Err(Failure::usage(
                "of which endurance group? give --group-id, from 1; `nvmf id-ns` shows endgid",
            )),
            Some(_) if !page.has_group() => {
                Err(Failure::usage("--group-id is of the log pages endurance and rotational"))
            }
            _ => Ok(()),
        }
    }
}

async fn read<P: Provider>(
    controller: &Controller<P>,
    page: LogPage,
    group: u16,
) -> Result<RenderedPage, Error> {
    Ok(match page {
        LogPage::Ana => ana(&controller.ana_log().await?),
        LogPage::Changed => changed(&controller.changed_namespaces().await?),
        LogPage::Endurance => endurance(&controller.endurance_group(group).await?),
        LogPage::Features => features(&controller.feature_effects().await?),
        LogPage::Reservation => reservation(controller.reservation_notification().await?),
        LogPage::Rotational => rotational(controller.rotational_media(group).await?),
        LogPage::Supported => supported(&controller.supported_log_pages().await?),
        LogPage::Effects => effects(&controller.effects(0).await?),
        LogPage::Error => errors(&controller.error_log().await?),
        LogPage::Firmware => firmware(&controller.firmware_slots().await?),
        LogPage::Health => health(&controller.health().await?),
    })
}

fn ana(log: &AnaLog) -> RenderedPage {
    let mut text = format!("change count {}\n", log.change_count);
    for group in &log.groups {
        let ids = joined(&group.namespaces);
        text += &format!("group {}: {}; namespaces: {ids}\n", group.id, group.state);
    }
    let groups = log.groups.iter().map(|group| {
        json!({
            "group": group.id,
            "state": group.state.to_string(),
            "change_count": group.change_count,
            "namespaces": numbers(&group.namespaces),
        })
    });
    let json = json!({ "change_count": log.change_count, "groups": groups.collect::<Vec<_>>() });
    RenderedPage { text, json }
}

fn changed(changed: &ChangedNamespaceList) -> RenderedPage {
    match changed {
        ChangedNamespaceList::These(ids) => RenderedPage {
            text: format!("{}\n", joined(ids)),
            json: json!({ "changed": numbers(ids) }),
        },
        ChangedNamespaceList::TooMany => {
            let text = "more than the page can list: any may have changed\n".to_owned();
            RenderedPage { text, json: json!({ "changed": Value::Null }) }
        }
    }
}

fn effects(effects: &EffectsLog) -> RenderedPage {
    let mut text = String::new();
    for (set, commands) in [("admin", &effects.admin), ("I/O", &effects.io)] {
        for (opcode, effect) in commands {
            let (name, words) = (name(set, *opcode), changes(*effect).join(", "));
            text += format!("{set:<5} {:#04x}  {name:<26}  {words}", opcode.0).trim_end();
            text.push('\n');
        }
    }
    let list = |commands: &[_]| commands.iter().map(command).collect::<Vec<_>>();
    RenderedPage { text, json: json!({ "admin": list(&effects.admin), "io": list(&effects.io) }) }
}

/// Name of a command in the specification; empty for one that is unknown here.
fn name(set: &str, opcode: Opcode) -> &'static str {
    match (set, opcode.0) {
        ("admin", 0x02) => "Get Log Page",
        ("admin", 0x06) => "Identify",
        ("admin", 0x08) => "Abort",
        ("admin", 0x09) => "Set Features",
        ("admin", 0x0a) => "Get Features",
        ("admin", 0x0c) => "Asynchronous Event Request",
        ("admin", 0x18) => "Keep Alive",
        ("I/O", 0x00) => "Flush",
        ("I/O", 0x01) => "Write",
        ("I/O", 0x02) => "Read",
        ("I/O", 0x05) => "Compare",
        ("I/O", 0x08) => "Write Zeroes",
        ("I/O", 0x09) => "Dataset Management",
        ("I/O", 0x0c) => "Verify",
        ("I/O", 0x0d) => "Reservation Register",
        ("I/O", 0x0e) => "Reservation Report",
        ("I/O", 0x11) => "Reservation Acquire",
        ("I/O", 0x15) => "Reservation Release",
        _ => "",
    }
}

fn command((opcode, effect): &(Opcode, CommandEffects)) -> Value {
    json!({
        "opcode": opcode.0,
        "changes": changes(*effect),
        "bits": effect.0,
    })
}

/// Names of what a command, or setting a feature, may change.
fn changes(effect: CommandEffects) -> Vec<&'static str> {
    let all = [
        (effect.changes_content(), "content"),
        (effect.changes_namespace(), "namespace"),
        (effect.changes_inventory(), "inventory"),
        (effect.changes_controller(), "controller"),
    ];
    all.into_iter().filter(|(changes, _)| *changes).map(|(_, word)| word).collect()
}

fn errors(entries: &[ErrorLogEntry]) -> RenderedPage {
    let mut text = String::new();
    for entry in entries {
        text += &format!("{}: {}", entry.count, entry.status);
        if let Some(queue) = entry.queue {
            text += &format!(", queue {queue}");
        }
        if let Some(command) = entry.command {
            text += &format!(", command {command}");
        }
        if let Some(namespace) = entry.namespace {
            text += &format!(", namespace {namespace}, block {}", entry.lba);
        }
        if let Some(byte) = entry.parameter_byte {
            text += &format!(", byte {byte} of the command");
        }
        text.push('\n');
    }
    if text.is_empty() {
        text = "no errors\n".to_owned();
    }
    let one = |entry: &ErrorLogEntry| {
        json!({
            "count": entry.count,
            "status": entry.status.0,
            "status_text": entry.status.to_string(),
            "queue": entry.queue.map(|queue| queue.0),
            "command": entry.command.map(|command| command.0),
            "namespace": entry.namespace.map(|namespace| namespace.0),
            "lba": entry.lba,
            "parameter_byte": entry.parameter_byte,
        })
    };
    RenderedPage { text, json: json!({ "errors": entries.iter().map(one).collect::<Vec<_>>() }) }
}

fn firmware(slots: &FirmwareSlotLog) -> RenderedPage {
    let mut text = match slots.active {
        0 => "no slot is told to run".to_owned(),
        slot => format!("slot {slot} runs"),
    };
    if let Some(next) = slots.next {
        text += &format!("; slot {next} is next");
    }
    text.push('\n');
    for (slot, revision) in (1..).zip(&slots.revisions) {
        if let Some(revision) = revision {
            text += &format!("slot {slot}: {revision}\n");
        }
    }
    let json = json!({ "active": slots.active, "next": slots.next, "revisions": slots.revisions });
    RenderedPage { text, json }
}

fn health(health: &HealthLog) -> RenderedPage {
    let percent = |percent: u8| format!("{percent} %");
    let mut rows = vec![
        ("critical warnings", format!("{:#04x}", health.critical_warning)),
        ("temperature", temperature(health.temperature_kelvin)),
        ("spare left", percent(health.available_spare_percent)),
        ("spare threshold", percent(health.spare_threshold_percent)),
        ("life used", percent(health.percentage_used)),
        ("endurance group warnings", format!("{:#04x}", health.endurance_group_warning)),
        ("data read", data_units(health.data_units_read)),
        ("data written", data_units(health.data_units_written)),
        ("read commands", health.host_read_commands.to_string()),
        ("write commands", health.host_write_commands.to_string()),
        ("controller busy", format!("{} min", health.controller_busy_minutes)),
        ("power cycles", health.power_cycles.to_string()),
        ("power on", format!("{} h", health.power_on_hours)),
        ("unsafe shutdowns", health.unsafe_shutdowns.to_string()),
        ("media errors", health.media_errors.to_string()),
        ("errors logged", health.error_entries.to_string()),
        ("too warm for", format!("{} min", health.warning_temperature_minutes)),
        ("critically warm for", format!("{} min", health.critical_temperature_minutes)),
    ];
    let sensors = [
        "sensor 1", "sensor 2", "sensor 3", "sensor 4", "sensor 5", "sensor 6", "sensor 7",
        "sensor 8",
    ];
    let sensors = sensors.into_iter().zip(health.sensors_kelvin).filter(|(_, kelvin)| *kelvin != 0);
    rows.extend(sensors.map(|(name, kelvin)| (name, temperature(kelvin))));
    let thermal = health.thermal_transitions.iter().zip(health.thermal_seconds);
    let names = ["throttled to level 1", "throttled to level 2"];
    rows.extend(names.into_iter().zip(thermal).map(|(name, (times, seconds))| {
        (name, format!("{}, {seconds} s", size::format_count(u64::from(*times), "time")))
    }));
    RenderedPage { text: table(&rows), json: health_to_json(health) }
}

fn endurance(log: &EnduranceGroupLog) -> RenderedPage {
    let percent = |percent: u8| format!("{percent} %");
    let bytes = |bytes: u128| size::format_bytes(u64::try_from(bytes).unwrap_or(u64::MAX));
    let units = |units: u128| format!("{units} units of 10^9 bytes");
    let text = table(&[
        ("critical warnings", format!("{:#04x}", log.critical_warning)),
        ("spare left", percent(log.available_spare_percent)),
        ("spare threshold", percent(log.spare_threshold_percent)),
        ("life used", percent(log.percentage_used)),
        ("domain", log.domain.to_string()),
        ("endurance estimate", units(log.endurance_estimate)),
        ("data read", units(log.data_units_read)),
        ("data written", units(log.data_units_written)),
        ("written to media", units(log.media_units_written)),
        ("read commands", log.host_read_commands.to_string()),
        ("write commands", log.host_write_commands.to_string()),
        ("media errors", log.media_errors.to_string()),
        ("errors logged", log.error_entries.to_string()),
        ("total capacity", bytes(log.total_bytes)),
        ("unallocated capacity", bytes(log.unallocated_bytes)),
    ]);
    let wide = |number: u128| Value::from(number.to_string());
    let json = json!({
        "critical_warning": log.critical_warning,
        "avl_spare": log.available_spare_percent,
        "avl_spare_threshold": log.spare_threshold_percent,
        "percent_used": log.percentage_used,
        "domain_identifier": log.domain,
        "endurance_estimate": wide(log.endurance_estimate),
        "data_units_read": wide(log.data_units_read),
        "data_units_written": wide(log.data_units_written),
        "media_units_written": wide(log.media_units_written),
        "host_read_cmds": wide(log.host_read_commands),
        "host_write_cmds": wide(log.host_write_commands),
        "media_data_integrity_err": wide(log.media_errors),
        "num_err_info_log_entries": wide(log.error_entries),
        "total_end_grp_cap": wide(log.total_bytes),
        "unalloc_end_grp_cap": wide(log.unallocated_bytes),
    });
    RenderedPage { text, json }
}

fn rotational(log: RotationalMediaLog) -> RenderedPage {
    let speed = match log.revolutions_per_minute {
        0 => "not told".to_owned(),
        1 => "does not rotate".to_owned(),
        speed => format!("{speed} revolutions a minute"),
    };
    let text = table(&[
        ("endurance group", log.endurance_group.to_string()),
        ("actuators", log.actuators.to_string()),
        ("nominal speed", speed),
        ("spin-ups", format!("{}, {} failed", log.spin_ups, log.failed_spin_ups)),
        ("loads", format!("{}, {} failed", log.loads, log.failed_loads)),
    ]);
    let json = json!({
        "endgid": log.endurance_group,
        "numa": log.actuators,
        "nrs": log.revolutions_per_minute,
        "spinc": log.spin_ups,
        "fspinc": log.failed_spin_ups,
        "ldc": log.loads,
        "fldc": log.failed_loads,
    });
    RenderedPage { text, json }
}

fn reservation(log: ReservationNotification) -> RenderedPage {
    let text = match log.kind {
        ReservationNotificationKind::NONE => "no notification\n".to_owned(),
        kind => {
            let (count, namespace) = (log.count, log.namespace);
            let left = size::format_count(log.left.into(), "notification");
            format!("{count}: {kind}, namespace {namespace}; {left} left\n")
        }
    };
    let json = json!({
        "count": log.count,
        "rn_log_type": log.kind.0,
        "kind": log.kind.to_string(),
        "num_logs": log.left,
        "nsid": log.namespace.0,
    });
    RenderedPage { text, json }
}

fn features(FeatureEffectsLog(all): &FeatureEffectsLog) -> RenderedPage {
    let mut text = String::new();
    let mut json = Vec::new();
    for &(id, effects) in all {
        let (scope, changes) = (effects.scope(), changes(effects));
        let line = format!("{id:#04x}  {:<24}  {}", scope.join(", "), changes.join(", "));
        text += line.trim_end();
        text.push('\n');
        let bits = effects.0;
        json.push(json!({ "fid": id, "scope": scope, "changes": changes, "bits": bits }));
    }
    RenderedPage { text, json: json!({ "features": json }) }
}

fn supported(SupportedLogPages(pages): &SupportedLogPages) -> RenderedPage {
    let line = |page: &rdma_host::wire::LogPage| format!("{:#04x}  {page}\n", page.0);
    let text = pages.iter().map(line).collect();
    let one = |page: &rdma_host::wire::LogPage| json!({ "lid": page.0, "name": page.to_string() });
    RenderedPage { text, json: json!({ "pages": pages.iter().map(one).collect::<Vec<_>>() }) }
}

/// Text of a page with a value a line.
fn table(rows: &[(&str, String)]) -> String {
    rows.iter().map(|(name, value)| format!("{name:<24} {value}\n")).collect()
}

/// Data units, with the bytes that they stand for.
fn data_units(units: u128) -> String {
    let bytes = u64::try_from(units.saturating_mul(512_000)).unwrap_or(u64::MAX);
    format!("{units} units of 512,000 bytes ({})", size::format_bytes(bytes))
}

/// Page with the keys and types of nvme-cli 2.
fn health_to_json(health: &HealthLog) -> Value {
    // Strings, since these counters exceed the integers that every JSON reader can hold.
    let wide = |number: u128| Value::from(number.to_string());
    let mut json = json!({
        "critical_warning": health.critical_warning,
        "temperature": health.temperature_kelvin,
        "avail_spare": health.available_spare_percent,
        "spare_thresh": health.spare_threshold_percent,
        "percent_used": health.percentage_used,
        "endurance_grp_critical_warning_summary": health.endurance_group_warning,
        "data_units_read": wide(health.data_units_read),
        "data_units_written": wide(health.data_units_written),
        "host_read_commands": wide(health.host_read_commands),
        "host_write_commands": wide(health.host_write_commands),
        "controller_busy_time": wide(health.controller_busy_minutes),
        "power_cycles": wide(health.power_cycles),
        "power_on_hours": wide(health.power_on_hours),
        "unsafe_shutdowns": wide(health.unsafe_shutdowns),
        "media_errors": wide(health.media_errors),
        "num_err_log_entries": wide(health.error_entries),
        "warning_temp_time": health.warning_temperature_minutes,
        "critical_comp_time": health.critical_temperature_minutes,
        "thm_temp1_trans_count": health.thermal_transitions[0],
        "thm_temp2_trans_count": health.thermal_transitions[1],
        "thm_temp1_total_time": health.thermal_seconds[0],
        "thm_temp2_total_time": health.thermal_seconds[1],
    });
    let sensors = (1..).zip(health.sensors_kelvin).filter(|(_, kelvin)| *kelvin != 0);
    for (number, kelvin) in sensors {
        json[format!("temperature_sensor_{number}")] = kelvin.into();
    }
    json
}

fn temperature(kelvin: u16) -> String {
    match kelvin {
        0 => "not told".to_owned(),
        kelvin => format!("{} °C", i32::from(kelvin) - 273),
    }
}

fn numbers(ids: &[NamespaceId]) -> Vec<u32> {
    ids.iter().map(|id| id.0).collect()
}

fn joined(ids: &[NamespaceId]) -> String {
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdma_host::wire::{QueueId, Status};

    #[test]
    fn an_error_is_one_line() {
        let entry = ErrorLogEntry {
            count: 4,
            queue: Some(QueueId(1)),
            command: None,
            status: Status::LBA_OUT_OF_RANGE,
            parameter_byte: Some(40),
            lba: 99,
            namespace: Some(NamespaceId(2)),
        };
        let rendered = errors(&[entry]);
        assert!(rendered.text.starts_with("4: "), "{}", rendered.text);
        let rest = ", queue 1, namespace 2, block 99, byte 40 of the command\n";
        assert!(
            rendered.text.ends_with(rest) && rendered.text.lines().count() == 1,
            "{}",
            rendered.text
        );
        assert_eq!(rendered.json["errors"][0]["command"], Value::Null);
        assert_eq!(errors(&[]).text, "no errors\n");
    }

    #[test]
    fn effects_are_named() {
        let table = EffectsLog {
            admin: vec![(Opcode::GET_LOG_PAGE, CommandEffects(1))],
            io: vec![(Opcode::WRITE, CommandEffects(0b11))],
        };
        let rendered = effects(&table);
        let lines: Vec<Vec<_>> =
            rendered.text.lines().map(|line| line.split_whitespace().collect()).collect();
        let expected: [&[&str]; 2] =
            [&["admin", "0x02", "Get", "Log", "Page"], &["I/O", "0x01", "Write", "content"]];
        assert_eq!(lines, expected);
        assert_eq!(rendered.json["io"][0]["changes"], json!(["content"]));
    }

    #[test]
    fn temperatures_are_in_degrees() {
        assert_eq!((temperature(0), temperature(263)), ("not told".into(), "-10 °C".into()));
    }
}
