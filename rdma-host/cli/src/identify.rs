//! `nvmf identify`.

use clap::Args;
use rdma_host::wire::NamespaceInfo;
use serde_json::{Value, json};

use crate::connect::{self, Session};
use crate::failure::Failure;
use crate::target::TargetArguments;
use crate::{Format, print_json, size};

#[derive(Args)]
pub(crate) struct Arguments {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "normal")]
    output_format: Format,

    #[command(flatten)]
    target: TargetArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let session = Session::connect(&arguments.target)?;
    let namespaces = session.runtime.block_on(namespaces(&session))?;
    match arguments.output_format {
        Format::Json => print_json(&to_json(&session, &namespaces))?,
        Format::Normal => print(&session, &namespaces),
    }
    session.close();
    Ok(())
}

async fn namespaces(session: &Session) -> Result<Vec<NamespaceInfo>, Failure> {
    let mut all = Vec::new();
    for id in session.controller.namespaces().await? {
        all.push(session.controller.identify_namespace(id).await?);
    }
    Ok(all)
}

fn print(session: &Session, namespaces: &[NamespaceInfo]) {
    let agreed = session.controller.negotiated();
    let info = &agreed.info;
    let in_capsule = match agreed.in_capsule_bytes {
        0 => "none".to_owned(),
        bytes => size::in_words(u64::from(bytes)),
    };
    let rows = [
        ("subsystem", info.subsystem_nqn.clone()),
        (
            "controller",
            format!(
                "{} ({} {}, serial {})",
                agreed.controller, info.model, info.firmware, info.serial
            ),
        ),
        ("NVMe version", agreed.version.to_string()),
        ("device", session.controller.device().to_owned()),
        ("I/O queues", format!("{} of {} entries", agreed.io_queues, agreed.queue_entries)),
        ("largest transfer", size::in_words(agreed.transfer_bytes_max)),
        ("in-capsule data", in_capsule),
        ("memory mode", session.controller.memory().to_string()),
        ("authentication", connect::authentication(&agreed)),
    ];
    for (name, value) in rows {
        println!("{name:<17} {value}");
    }
    println!("\n{:>9} {:>12} {:>14} {:>10}  names", "namespace", "size", "blocks", "block size");
    for namespace in namespaces {
        println!(
            "{:>9} {:>12} {:>14} {:>10}  {}",
            namespace.id.to_string(),
            size::in_words(namespace.bytes()),
            namespace.blocks,
            size::in_words(u64::from(namespace.block_size)),
            names(namespace),
        );
    }
}

/// By which names the namespace is known everywhere.
fn names(namespace: &NamespaceInfo) -> String {
    let all = [
        namespace.uuid.map(|uuid| format!("uuid {uuid}")),
        namespace.nguid.map(|nguid| format!("nguid {}", nguid.simple())),
        namespace.eui64.map(|eui64| format!("eui64 {eui64}")),
    ];
    let known: Vec<_> = all.into_iter().flatten().collect();
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}

fn to_json(session: &Session, namespaces: &[NamespaceInfo]) -> Value {
    let agreed = session.controller.negotiated();
    let info = &agreed.info;
    let namespaces: Vec<_> = namespaces
        .iter()
        .map(|namespace| {
            json!({
                "nsid": namespace.id.0,
                "blocks": namespace.blocks,
                "block_size": namespace.block_size,
                "bytes": namespace.bytes(),
                "nguid": namespace.nguid.map(|nguid| nguid.simple().to_string()),
                "eui64": namespace.eui64.map(|eui64| eui64.to_string()),
                "uuid": namespace.uuid,
                "command_set": namespace.command_set,
            })
        })
        .collect();
    json!({
        "subsystem_nqn": info.subsystem_nqn,
        "cntlid": agreed.controller.0,
        "model": info.model,
        "serial": info.serial,
        "firmware": info.firmware,
        "version": agreed.version.to_string(),
        "device": session.controller.device(),
        "io_queues": agreed.io_queues,
        "queue_entries": agreed.queue_entries,
        "transfer_bytes_max": agreed.transfer_bytes_max,
        "in_capsule_bytes": agreed.in_capsule_bytes,
        "memory_mode": session.controller.memory().mode.name(),
        "memory_fallback": session.controller.memory().fallback,
        "authentication": connect::authentication_json(&agreed),
        "namespaces": namespaces,
    })
}
