//! `nvmf config`.

use std::{fmt::Write, path::PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    Format,
    configuration::{Configuration, Connection, EndpointKind, INI, install},
    failure::Failure,
    host, output,
};

/// Operation on the configuration in /etc/nvme.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Write a configuration in the INI format of nvme-cli 3.
    ///
    /// Reads the same files as `show`. Connections with the system's own identity go to the main
    /// file, those of each other host to a drop-in in the folder NAME.d beside it. Files with
    /// secrets are readable by their owner only.
    Convert(Convert),
    /// Show this host, and each controller of a configuration with all its parameters.
    ///
    /// Without a file: /etc/nvme/nvme-fabrics.conf and its drop-ins, or if there are none,
    /// /etc/nvme/config.json and /etc/nvme/discovery.conf. Secrets are not shown.
    Show(Show),
}

#[derive(Args)]
pub(crate) struct Convert {
    /// File to read: NAME.json, discovery.conf, or in the INI format.
    #[arg(value_name = "FILE")]
    input: Option<PathBuf>,

    /// File to write, as /etc/nvme/nvme-fabrics.conf; - prints it instead.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Overwrite existing files.
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
pub(crate) struct Show {
    /// File to read: NAME.json, discovery.conf, or in the INI format.
    #[arg(value_name = "FILE")]
    input: Option<PathBuf>,

    /// Output format.
    #[arg(short, long, value_name = "FORMAT", default_value = "normal")]
    output_format: Format,
}

pub(crate) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Convert(arguments) => convert(arguments),
        Command::Show(arguments) => show(arguments),
    }
}

fn convert(arguments: &Convert) -> Result<(), Failure> {
    let configuration = Configuration::load_with_warnings(arguments.input.as_deref())?;
    if configuration.files.is_empty() {
        let text = "there is nothing to convert: no host and no controller is named";
        return Err(Failure::usage(text));
    }
    let Some(output) = &arguments.output else {
        return Err(Failure::usage(format!(
            "no file to write: --output {INI} installs the configuration, --output - prints it, \
             secrets included"
        )));
    };
    let shown = output.as_os_str() == "-";
    let main = if shown { INI.into() } else { output.clone() };
    let outputs = configuration.outputs(&main)?;
    if shown {
        for output in &outputs {
            output::try_print(&format!("# {}\n{}\n", output.path.display(), output.text))?;
        }
        return Ok(());
    }
    install(&outputs, &main, arguments.force)?;
    for output in &outputs {
        output::print_message(format_args!("nvmf: {} is written", output.path.display()));
    }
    Ok(())
}

fn show(arguments: &Show) -> Result<(), Failure> {
    let (host, warnings) = host::system_identity()?;
    for warning in warnings {
        output::print_message(format_args!("nvmf: warning: {warning}"));
    }
    let connections =
        Configuration::load_with_warnings(arguments.input.as_deref())?.connections()?;
    match arguments.output_format {
        Format::Json => output::print_json(&json!({
            "hostnqn": host.nqn.as_str(),
            "hostid": host.id,
            "controllers": connections.iter().map(to_json).collect::<Vec<_>>(),
        }))?,
        Format::Normal => {
            let mut text = format!("host {}, identifier {}\n", host.nqn, host.id);
            if connections.is_empty() {
                text.push_str("no controllers are configured\n");
            }
            connections.iter().for_each(|connection| describe(&mut text, connection));
            output::print_text(&text)?;
        }
    }
    Ok(())
}

/// Appends a controller as text, without secrets.
pub(super) fn describe(text: &mut String, connection: &Connection) {
    let Connection { kind, subsystem, address, .. } = connection;
    let _ = writeln!(text, "{} {subsystem}", kind_name(*kind));
    let _ = writeln!(text, "    at {address}  ({})", connection.place());
    let rows = [
        ("hostnqn", connection.hostnqn.as_deref()),
        ("hostid", connection.hostid.as_deref()),
        ("host-traddr", address.host_traddr.as_deref()),
        ("host-iface", address.host_iface.as_deref()),
    ];
    let rows = rows.into_iter().filter_map(|(name, value)| Some((name, value?)));
    for (name, value) in rows.chain(connection.parameters.shown()) {
        let value = if value.is_empty() { "(default)" } else { value };
        let _ = writeln!(text, "    {name} = {value}");
    }
}

fn to_json(connection: &Connection) -> Value {
    let Connection { kind, subsystem, address, .. } = connection;
    let parameters: serde_json::Map<_, _> = connection
        .parameters
        .shown()
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect();
    json!({
        "type": kind_name(*kind),
        "subnqn": subsystem,
        "transport": address.transport,
        "traddr": address.traddr,
        "trsvcid": address.trsvcid,
        "host_traddr": address.host_traddr,
        "host_iface": address.host_iface,
        "hostnqn": connection.hostnqn,
        "hostid": connection.hostid,
        "parameters": parameters,
        "source": connection.place(),
    })
}

fn kind_name(kind: EndpointKind) -> &'static str {
    match kind {
        EndpointKind::Discovery => "discovery",
        EndpointKind::Subsystem => "subsystem",
    }
}
