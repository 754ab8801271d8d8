//! `nvmf identify`.

use std::{cell::Cell, fmt::Write, sync::Arc};

use clap::Args;
use rdma_host::{
    Error, Provider, SubsystemStatus,
    config::NAMESPACES_TIMEOUT,
    wire::{NamespaceId, NamespaceInfo, ProtectionFormat},
};
use serde_json::{Value, json};

use super::identify_data;
use crate::{
    Format,
    capture::{CaptureArguments, ConnectingCommand, SystemProvider},
    connect::{self, ConnectedController},
    failure::Failure,
    output,
    path_report::PathReport,
    progress::with_progress,
    size,
    target::TargetArguments,
};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Print the 4,096 bytes of Identify Controller; `id-ns --raw` has those of a namespace.
    #[arg(short = 'b', long, visible_alias = "raw-binary", conflicts_with = "output_format")]
    raw: bool,

    /// Output format.
    #[arg(short, long, value_name = "FORMAT", default_value = "normal")]
    output_format: Format,

    #[command(flatten)]
    target: TargetArguments,

    #[command(flatten)]
    capture: CaptureArguments,
}

/// Namespace, or why it can't be used.
struct IdentifiedNamespace {
    id: NamespaceId,
    outcome: Result<NamespaceInfo, Error>,
}

impl ConnectingCommand for Arguments {
    fn capture(&self) -> &CaptureArguments {
        &self.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        identify_data::check_output(self.raw)?;
        let connected = ConnectedController::connect_paths(provider, &self.target)?;
        if self.raw {
            let data = connected.runtime.run(connected.controller.identify_controller_data())?;
            connected.close();
            return output::print_bytes(&data);
        }
        let namespaces = connected.runtime.run(namespaces(&connected))?;
        let printed = match self.output_format {
            Format::Json => output::print_json(&to_json(&connected, &namespaces)),
            Format::Normal => output::print_text(&to_text(&connected, &namespaces)),
        };
        connected.close();
        printed?;
        let unusable: Vec<_> = namespaces
            .iter()
            .filter(|one| one.outcome.is_err())
            .map(|one| one.id.to_string())
            .collect();
        if unusable.is_empty() {
            return Ok(());
        }
        Err(Failure::failed(format!("not all namespaces can be used: {}", unusable.join(", "))))
    }
}

/// Identifies all namespaces. One that can't be used does not hide the others; a lost connection
/// does. If the time for all is over, the rest is told and passed over.
async fn namespaces<P: Provider>(
    connected: &ConnectedController<P>,
) -> Result<Vec<IdentifiedNamespace>, Failure> {
    let controller = &connected.controller;
    let listing = controller.identify_namespaces(NAMESPACES_TIMEOUT);
    let mut walk = with_progress(|| "listing the namespaces".to_owned(), listing).await?;
    let (total, count) = (walk.remaining().len(), Cell::new(0));
    let identifying = async {
        let mut all = Vec::new();
        loop {
            let next = match &connected.paths {
                Some(paths) => walk.next_by(async |id| Ok(paths.namespace(id).await?.info())).await,
                None => walk.next().await,
            };
            let Some((id, outcome)) = next else { break };
            match outcome {
                Err(error @ Error::Timeout { .. }) => {
                    let left = walk.remaining().len();
                    output::print_message(format_args!(
                        "nvmf: {left} of {total} namespaces were not identified: {error}"
                    ));
                    all.push(IdentifiedNamespace { id, outcome: Err(error) });
                }
                Err(error) if !is_of_namespace(&error) => return Err(error.into()),
                outcome => all.push(IdentifiedNamespace { id, outcome }),
            }
            count.set(all.len());
        }
        Ok(all)
    };
    with_progress(|| format!("{} of {total} namespaces identified", count.get()), identifying).await
}

/// True for an error of one namespace: another one may be fine.
fn is_of_namespace(error: &Error) -> bool {
    matches!(error, Error::Malformed(_) | Error::Misuse(_) | Error::Path(_) | Error::Rejected(_))
}

fn to_text<P: Provider>(
    connected: &ConnectedController<P>,
    namespaces: &[IdentifiedNamespace],
) -> String {
    let negotiated = connected.controller.negotiated();
    let info = &negotiated.info;
    let in_capsule = match negotiated.in_capsule_bytes {
        0 => "none".to_owned(),
        bytes => size::format_bytes(u64::from(bytes)),
    };
    let rows = [
        ("subsystem", info.subsystem_nqn.clone()),
        (
            "controller",
            format!(
                "{} ({} {}, serial {})",
                negotiated.controller, info.model, info.firmware, info.serial
            ),
        ),
        ("NVMe version", negotiated.version.to_string()),
        ("device", connected.controller.device()),
        (
            "MTU",
            connected
                .controller
                .mtu()
                .map_or_else(|| "unknown".to_owned(), |mtu| size::format_bytes(mtu.into())),
        ),
        ("I/O queues", format!("{} of {} entries", negotiated.io_queues, negotiated.queue_entries)),
        ("largest transfer", size::format_bytes(negotiated.transfer_bytes_max)),
        ("in-capsule data", in_capsule),
        ("memory mode", connected.controller.memory().to_string()),
        ("authentication", connect::describe_authentication(&negotiated)),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        let _ = writeln!(text, "{name:<17} {value}");
    }
    if let Some(paths) = &connected.paths {
        text.push_str(&paths_to_text(&paths.status()));
    }
    text.push_str("\nnamespace         size         blocks block size  names\n");
    for IdentifiedNamespace { id, outcome } in namespaces {
        let id = id.to_string();
        let _ = match outcome {
            Ok(namespace) => writeln!(
                text,
                "{id:>9} {:>12} {:>14} {:>10}  {}",
                size::format_bytes(namespace.bytes()),
                namespace.blocks,
                size::format_bytes(u64::from(namespace.block_size)),
                names(namespace),
            ),
            Err(error) => writeln!(text, "{id:>9} {error}"),
        };
    }
    text
}

/// Choice among the paths, and a line for each.
fn paths_to_text(status: &SubsystemStatus) -> String {
    let paths = PathReport::all(status);
    let paths: String = paths.iter().map(|path| format!("{}\n", path.describe_state())).collect();
    format!("{:<17} {}\n{paths}", "I/O policy", status.policy)
}

/// Globally unique identifiers of a namespace, and its metadata if it has any.
fn names(namespace: &NamespaceInfo) -> String {
    let all = [
        namespace.uuid.map(|uuid| format!("uuid {uuid}")),
        namespace.nguid.map(|nguid| format!("nguid {}", nguid.simple())),
        namespace.eui64.map(|eui64| format!("eui64 {eui64}")),
    ];
    let known: Vec<_> = all.into_iter().flatten().collect();
    let names = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    match namespace.metadata.bytes {
        0 => names,
        _ => format!("{names}; metadata {}", namespace.metadata),
    }
}

fn protection_to_json(format: ProtectionFormat) -> Value {
    json!({
        "type": format.protection_type.number(),
        "guard_bits": format.guard.bits(),
        "first": format.is_first,
        "storage_tag_bits": format.storage_tag_bits,
        "reference_tag_bits": format.reference_tag_bits(),
    })
}

fn to_json<P: Provider>(
    connected: &ConnectedController<P>,
    namespaces: &[IdentifiedNamespace],
) -> Value {
    let negotiated = connected.controller.negotiated();
    let info = &negotiated.info;
    let namespaces: Vec<_> = namespaces
        .iter()
        .map(|IdentifiedNamespace { id, outcome }| match outcome {
            Err(error) => json!({ "nsid": id.0, "error": error.to_string() }),
            Ok(namespace) => json!({
                "nsid": id.0,
                "blocks": namespace.blocks,
                "block_size": namespace.block_size,
                "bytes": namespace.bytes(),
                "metadata_bytes": namespace.metadata.bytes,
                "protection": namespace.metadata.protection.map(protection_to_json),
                "nguid": namespace.nguid.map(|nguid| nguid.simple().to_string()),
                "eui64": namespace.eui64.map(|eui64| eui64.to_string()),
                "uuid": namespace.uuid,
                "command_set": namespace.command_set,
            }),
        })
        .collect();
    json!({
        "subsystem_nqn": info.subsystem_nqn,
        "cntlid": negotiated.controller.0,
        "model": info.model,
        "serial": info.serial,
        "firmware": info.firmware,
        "version": negotiated.version.to_string(),
        "device": connected.controller.device(),
        "mtu": connected.controller.mtu(),
        "io_queues": negotiated.io_queues,
        "queue_entries": negotiated.queue_entries,
        "transfer_bytes_max": negotiated.transfer_bytes_max,
        "in_capsule_bytes": negotiated.in_capsule_bytes,
        "memory_mode": connected.controller.memory().mode.name(),
        "memory_fallback": connected.controller.memory().fallback,
        "authentication": connect::queue_authentication(&negotiated),
        "namespaces": namespaces,
        "iopolicy": connected.paths.as_ref().map(|paths| paths.status().policy.to_string()),
        "paths": connected.paths.as_ref().map(|paths| PathReport::all(&paths.status())),
    })
}
