//! `nvmf resv-register`, `resv-acquire`, `resv-release` and `resv-report`: reservations of a
//! namespace.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use rdma_host::{
    Namespace, Provider,
    wire::{
        AcquireAction, IdentifyValue, OptionalCommand, RegisterAction, ReleaseAction,
        ReservationCommand, ReservationReport, ReservationType, namespace_fields,
    },
};
use serde_json::json;

use crate::{
    Format,
    capture::{CaptureArguments, ConnectingCommand, SystemProvider},
    connect::{ConnectedController, NamespaceArguments},
    failure::Failure,
    output, size,
};

#[derive(Args)]
pub(crate) struct RegisterArguments {
    /// Current key of this host.
    #[arg(long, value_name = "KEY", default_value = "0", value_parser = size::number)]
    crkey: u64,

    /// New key.
    #[arg(long, value_name = "KEY", default_value = "0", value_parser = size::number)]
    nrkey: u64,

    /// Action.
    #[arg(long, value_name = "ACTION", default_value = "register")]
    rrega: Rrega,

    /// Keep registrations and reservation through a loss of power: 2 no, 3 yes [default: as it is].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=3))]
    cptpl: Option<u8>,

    #[command(flatten)]
    common: CommonArguments,
}

#[derive(Args)]
pub(crate) struct AcquireArguments {
    /// Current key of this host.
    #[arg(long, value_name = "KEY", value_parser = size::number)]
    crkey: u64,

    /// Key to preempt.
    #[arg(long, value_name = "KEY", default_value = "0", value_parser = size::number)]
    prkey: u64,

    #[command(flatten)]
    kind: TypeArguments,

    /// Action.
    #[arg(long, value_name = "ACTION", default_value = "acquire")]
    racqa: Racqa,

    #[command(flatten)]
    common: CommonArguments,
}

#[derive(Args)]
pub(crate) struct ReleaseArguments {
    /// Current key of this host.
    #[arg(long, value_name = "KEY", value_parser = size::number)]
    crkey: u64,

    #[command(flatten)]
    kind: TypeArguments,

    /// Action.
    #[arg(long, value_name = "ACTION", default_value = "release")]
    rrela: Rrela,

    #[command(flatten)]
    common: CommonArguments,
}

#[derive(Args)]
pub(crate) struct ReportArguments {
    /// Output format.
    #[arg(short, long, value_name = "FORMAT", default_value = "normal")]
    output_format: Format,

    #[command(flatten)]
    namespace: NamespaceArguments,
}

#[derive(Args)]
struct CommonArguments {
    /// Have the controller ignore the current key.
    #[arg(long)]
    iekey: bool,

    #[command(flatten)]
    namespace: NamespaceArguments,
}

#[derive(Args)]
struct TypeArguments {
    /// Reservation type: 1 write exclusive, 2 exclusive access; 3 and 4 the same for registrants
    /// only, 5 and 6 for all registrants.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=6))]
    rtype: u8,
}

/// Action of `resv-register`.
#[derive(Clone, Copy, ValueEnum)]
enum Rrega {
    /// Register the new key.
    #[value(alias = "0")]
    Register,
    /// Unregister the current key.
    #[value(alias = "1")]
    Unregister,
    /// Replace the current key by the new one.
    #[value(alias = "2")]
    Replace,
}

/// Action of `resv-acquire`.
#[derive(Clone, Copy, ValueEnum)]
enum Racqa {
    /// Acquire a reservation.
    #[value(alias = "0")]
    Acquire,
    /// Preempt the hosts with the key --prkey.
    #[value(alias = "1")]
    Preempt,
    /// Preempt them, and abort their commands first.
    #[value(alias = "2")]
    PreemptAndAbort,
}

/// Action of `resv-release`.
#[derive(Clone, Copy, ValueEnum)]
enum Rrela {
    /// Release the reservation.
    #[value(alias = "0")]
    Release,
    /// Clear the reservation and all registrations.
    #[value(alias = "1")]
    Clear,
}

impl ConnectingCommand for RegisterArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.common.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let (action, done) = match self.rrega {
            Rrega::Register => (RegisterAction::Register, "registered"),
            Rrega::Unregister => (RegisterAction::Unregister, "unregistered"),
            Rrega::Replace => (RegisterAction::Replace, "its key replaced"),
        };
        let command = ReservationCommand::Register {
            action,
            current_key: self.crkey,
            new_key: self.nrkey,
            persist: self.cptpl.map(|persist| persist == 3),
        };
        self.common.run(provider, command, &format!("this host is {done}"))
    }
}

impl ConnectingCommand for AcquireArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.common.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let (action, done) = match self.racqa {
            Racqa::Acquire => (AcquireAction::Acquire, "acquired"),
            Racqa::Preempt => (AcquireAction::Preempt, "preempted"),
            Racqa::PreemptAndAbort => {
                (AcquireAction::PreemptAndAbort, "preempted, and commands of its hosts aborted")
            }
        };
        let reservation = ReservationType(self.kind.rtype);
        let command = ReservationCommand::Acquire {
            action,
            reservation,
            current_key: self.crkey,
            preempt_key: self.prkey,
        };
        self.common.run(provider, command, &format!("{reservation}: {done}"))
    }
}

impl ConnectingCommand for ReleaseArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.common.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let (action, done) = match self.rrela {
            Rrela::Release => (ReleaseAction::Release, "released"),
            Rrela::Clear => (ReleaseAction::Clear, "cleared, with all registrations"),
        };
        let reservation = ReservationType(self.kind.rtype);
        let command = ReservationCommand::Release { action, reservation, current_key: self.crkey };
        self.common.run(provider, command, &format!("{reservation}: {done}"))
    }
}

impl ConnectingCommand for ReportArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let (connected, namespace) = self.namespace.connect(provider)?;
        require_reservations(&connected, &namespace)?;
        let report = connected.runtime.run(report(&connected, &namespace))?;
        let printed = match self.output_format {
            Format::Json => output::print_json(&json(&report)),
            Format::Normal => output::print_text(&text(&report)),
        };
        drop(namespace);
        connected.close();
        printed
    }
}

impl CommonArguments {
    fn run(
        &self,
        provider: &Arc<SystemProvider>,
        command: ReservationCommand,
        done: &str,
    ) -> Result<(), Failure> {
        let (connected, namespace) = self.namespace.connect(provider)?;
        require_reservations(&connected, &namespace)?;
        let keys = connected.controller.allocate(ReservationCommand::DATA_MAX)?;
        connected.runtime.run(namespace.reserve(&command, self.iekey, keys))?;
        output::print_message(format_args!("namespace {}: {done}", namespace.info().id));
        drop(namespace);
        connected.close();
        Ok(())
    }
}

/// Checks that controller and namespace support reservations.
fn require_reservations<P: Provider>(
    connected: &ConnectedController<P>,
    namespace: &Namespace,
) -> Result<(), Failure> {
    namespace.require(OptionalCommand::Reservations)?;
    let id = namespace.info().id;
    let data = connected.runtime.run(connected.controller.identify_namespace_data(id))?;
    let fields = namespace_fields(&data).map_err(Failure::failed)?;
    let is_none = |(name, value): &(&str, IdentifyValue)| {
        *name == "rescap" && *value == IdentifyValue::Number(0)
    };
    if fields.iter().any(is_none) {
        return Err(Failure::failed(format!(
            "namespace {id} does not support reservations (RESCAP)"
        )));
    }
    Ok(())
}

/// Reads the report with all registrants.
async fn report<P: Provider>(
    connected: &ConnectedController<P>,
    namespace: &Namespace,
) -> Result<ReservationReport, Failure> {
    /// Registrants that there is room for at first.
    const USUAL: usize = 15;
    let mut room = USUAL;
    loop {
        let bytes = ReservationReport::ENTRY_SIZE * (1 + room);
        let buffer = connected.controller.allocate(bytes)?;
        let (report, _) = namespace.reservation_report(buffer).await?;
        // Fewer than all only where there was no room for them.
        if usize::from(report.count) <= room {
            return Ok(report);
        }
        room = report.count.into();
    }
}

fn text(report: &ReservationReport) -> String {
    let persists = if report.persists { "yes" } else { "no" };
    let rows = [
        ("reservation", report.reservation.to_string()),
        ("generation", report.generation.to_string()),
        ("persists without power", persists.to_owned()),
    ];
    let mut text: String =
        rows.iter().map(|(name, value)| format!("{name:<24} {value}\n")).collect();
    for registrant in &report.registrants {
        let holds = if registrant.holds_reservation { ", holds the reservation" } else { "" };
        text += &format!(
            "host {}: controller {}, key {:#x}{holds}\n",
            hexadecimal(&registrant.host),
            registrant.controller.0,
            registrant.key
        );
    }
    text
}

/// Report with the keys of nvme-cli.
fn json(report: &ReservationReport) -> serde_json::Value {
    let registrants = report.registrants.iter().map(|registrant| {
        json!({
            "cntlid": registrant.controller.0,
            "rcsts": u8::from(registrant.holds_reservation),
            "rkey": registrant.key,
            "hostid": hexadecimal(&registrant.host),
        })
    });
    json!({
        "gen": report.generation,
        "rtype": report.reservation.0,
        "regctl": report.count,
        "ptpls": u8::from(report.persists),
        "regctlext": registrants.collect::<Vec<_>>(),
    })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdma_host::wire::{ControllerId, Registrant};

    #[test]
    fn a_report_has_the_keys_of_nvme_cli() {
        let report = ReservationReport {
            generation: 3,
            reservation: ReservationType::EXCLUSIVE_ACCESS,
            count: 1,
            persists: false,
            registrants: vec![Registrant {
                controller: ControllerId(7),
                holds_reservation: true,
                key: 0xabc,
                host: [0x1f; 16],
            }],
        };
        let host = "1f".repeat(16);
        let expected = json!({
            "gen": 3, "rtype": 2, "regctl": 1, "ptpls": 0,
            "regctlext": [{ "cntlid": 7, "rcsts": 1, "rkey": 2748, "hostid": host }],
        });
        assert_eq!(json(&report), expected);
        let text = text(&report);
        assert!(text.starts_with("reservation              exclusive access\n"), "{text}");
        let line = format!("\nhost {host}: controller 7, key 0xabc, holds the reservation\n");
        assert!(text.ends_with(&line), "{text}");
    }
}
