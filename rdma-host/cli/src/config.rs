//! `nvmf config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::configuration::{Configuration, Connection, EndpointKind, INI, install};
use crate::failure::Failure;
use crate::{Format, host, print_json};

/// What to do with the configuration in /etc/nvme.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Write a configuration in the INI format of nvme-cli 3.
    ///
    /// Reads what `show` reads. What stands for the system's own identity goes to the main file,
    /// each other host to a file in the folder of that name with .d at its end. Files with secrets
    /// can be read by their owner alone.
    Convert(Convert),
    /// Show what a configuration means: this host, and each controller with all that applies to it.
    ///
    /// Without a file: /etc/nvme/nvme-fabrics.conf and its drop-ins, or if there are none,
    /// /etc/nvme/config.json and /etc/nvme/discovery.conf. Secrets are not shown.
    Show(Show),
}

#[derive(Args)]
pub(crate) struct Convert {
    /// The file to read: NAME.json, discovery.conf, or in the INI format.
    #[arg(value_name = "FILE")]
    input: Option<PathBuf>,

    /// Where to write it; - shows it instead.
    #[arg(short, long, value_name = "FILE", default_value = INI)]
    output: PathBuf,

    /// Overwrite what is there.
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
pub(crate) struct Show {
    /// The file to read: NAME.json, discovery.conf, or in the INI format.
    #[arg(value_name = "FILE")]
    input: Option<PathBuf>,

    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "normal")]
    output_format: Format,
}

pub(crate) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Convert(arguments) => convert(arguments),
        Command::Show(arguments) => show(arguments),
    }
}

/// Reads a configuration and reports what is not understood.
pub(crate) fn load(input: Option<&PathBuf>) -> Result<Configuration, Failure> {
    let configuration = match input {
        Some(path) => Configuration::load(path)?,
        None => Configuration::load_default()?,
    };
    for warning in &configuration.warnings {
        eprintln!("nvmf: warning: {warning}");
    }
    Ok(configuration)
}

fn convert(arguments: &Convert) -> Result<(), Failure> {
    let configuration = load(arguments.input.as_ref())?;
    if configuration.files.is_empty() {
        return Err(Failure::usage("there is nothing in /etc/nvme to convert; name a file"));
    }
    let shown = arguments.output.as_os_str() == "-";
    let main = if shown { INI.into() } else { arguments.output.clone() };
    let outputs = configuration.outputs(&main)?;
    if shown {
        for output in &outputs {
            println!("# {}\n{}", output.path.display(), output.text);
        }
        return Ok(());
    }
    install(&outputs, &main, arguments.force)?;
    for output in &outputs {
        eprintln!("nvmf: {} is written", output.path.display());
    }
    Ok(())
}

fn show(arguments: &Show) -> Result<(), Failure> {
    let (host, doubts) = host::of_system()?;
    for doubt in doubts {
        eprintln!("nvmf: warning: {doubt}");
    }
    let connections = load(arguments.input.as_ref())?.connections()?;
    match arguments.output_format {
        Format::Json => print_json(&json!({
            "hostnqn": host.nqn.as_str(),
            "hostid": host.id,
            "controllers": connections.iter().map(to_json).collect::<Vec<_>>(),
        }))?,
        Format::Normal => {
            println!("host {}, identifier {}", host.nqn, host.id);
            if connections.is_empty() {
                println!("no controllers are configured");
            }
            connections.iter().for_each(print);
        }
    }
    Ok(())
}

fn print(connection: &Connection) {
    let Connection { kind, subsystem, address, path, line, .. } = connection;
    println!("{} {subsystem}", kind_name(*kind));
    println!("    at {address}  ({}:{line})", path.display());
    let rows = [
        ("hostnqn", connection.hostnqn.as_deref()),
        ("hostid", connection.hostid.as_deref()),
        ("host-traddr", address.host_traddr.as_deref()),
        ("host-iface", address.host_iface.as_deref()),
    ];
    let rows = rows.into_iter().filter_map(|(name, value)| Some((name, value?)));
    for (name, value) in rows.chain(connection.parameters.shown()) {
        println!("    {name} = {}", if value.is_empty() { "(default)" } else { value });
    }
}

fn to_json(connection: &Connection) -> Value {
    let Connection { kind, subsystem, address, path, line, .. } = connection;
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
        "source": format!("{}:{line}", path.display()),
    })
}

fn kind_name(kind: EndpointKind) -> &'static str {
    match kind {
        EndpointKind::Discovery => "discovery",
        EndpointKind::Subsystem => "subsystem",
    }
}
