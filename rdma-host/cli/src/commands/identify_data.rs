//! `nvmf id-ctrl` and `nvmf id-ns`: every field of an Identify data structure, with the keys of
//! nvme-cli, or its bytes.

use std::{
    fmt::Write,
    io::{self, IsTerminal},
    sync::Arc,
};

use clap::Args;
use rdma_host::wire::{
    IdentifyError, IdentifyField, IdentifyValue, controller_fields, lba_format_fields,
    namespace_fields, power_state_fields,
};
use serde_json::{Map, Value};

use crate::{
    Format,
    capture::{CaptureArguments, ConnectingCommand, SystemProvider},
    connect::{self, ConnectedController},
    failure::Failure,
    output, size,
    target::TargetArguments,
};

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
pub(crate) struct NamespaceArguments {
    /// Namespace id [default: the only one].
    #[arg(long, visible_alias = "namespace-id", value_name = "N",
          value_parser = size::namespace_id)]
    ns: Option<u32>,

    #[command(flatten)]
    form: FormArguments,

    #[command(flatten)]
    target: TargetArguments,

    #[command(flatten)]
    capture: CaptureArguments,
}

#[derive(Args)]
pub(super) struct FormArguments {
    /// Print the 4,096 bytes of the data structure.
    #[arg(short = 'b', long, visible_alias = "raw", conflicts_with = "output_format")]
    pub(super) raw_binary: bool,

    /// Output format; json has the keys of nvme-cli.
    #[arg(short, long, value_name = "FORMAT", default_value = "normal")]
    output_format: Format,
}

/// Fields of a data structure, and the list of smaller structures at its end.
pub(super) struct NamedFields {
    pub(super) fields: Vec<IdentifyField>,
    /// Name of the list; none if there is no list.
    pub(super) list: Option<&'static str>,
    pub(super) entries: Vec<Vec<IdentifyField>>,
}

impl ConnectingCommand for ControllerArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let Self { form, target, .. } = self;
        check_output(form.raw_binary)?;
        let connected = ConnectedController::connect(provider, target)?;
        let data = connected.runtime.run(connected.controller.identify_controller_data())?;
        connected.close();
        form.print(&data, |data| {
            let entries = power_state_fields(data)?;
            Ok(NamedFields { fields: controller_fields(data)?, list: Some("psds"), entries })
        })
    }
}

impl ConnectingCommand for NamespaceArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let Self { ns, form, target, .. } = self;
        check_output(form.raw_binary)?;
        let connected = ConnectedController::connect(provider, target)?;
        let read = async {
            let id = connect::namespace_id(&connected.controller, *ns).await?;
            let data = connected.controller.identify_namespace_data(id).await?;
            if data.iter().all(|&byte| byte == 0) {
                return Err(Failure::usage(format!("namespace {id} is not there")));
            }
            Ok(data)
        };
        let data = connected.runtime.run(read)?;
        connected.close();
        form.print(&data, |data| {
            let entries = lba_format_fields(data)?;
            Ok(NamedFields { fields: namespace_fields(data)?, list: Some("lbafs"), entries })
        })
    }
}

/// Refuses to print bytes on a terminal.
pub(crate) fn check_output(raw: bool) -> Result<(), Failure> {
    if raw && io::stdout().is_terminal() {
        return Err(Failure::usage("raw data is not for a terminal; redirect standard output"));
    }
    Ok(())
}

impl FormArguments {
    pub(super) fn print(
        &self,
        data: &[u8],
        named: impl FnOnce(&[u8]) -> Result<NamedFields, IdentifyError>,
    ) -> Result<(), Failure> {
        if self.raw_binary {
            return output::print_bytes(data);
        }
        let named = named(data).map_err(rdma_host::Error::from)?;
        match self.output_format {
            Format::Json => output::print_json(&named.to_json()),
            Format::Normal => output::print_text(&named.to_text()),
        }
    }
}

impl NamedFields {
    fn to_json(&self) -> Value {
        let mut object = to_object(&self.fields);
        let entries = self.entries.iter().map(|fields| Value::Object(to_object(fields)));
        if let Some(list) = self.list {
            object.insert(list.to_owned(), entries.collect());
        }
        Value::Object(object)
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.fields {
            let _ = writeln!(text, "{name:<10}: {value}");
        }
        for (index, entry) in self.entries.iter().enumerate() {
            let words = entry.iter().map(|(name, value)| format!("{name} {value}"));
            let words: Vec<_> = words.collect();
            let list = self.list.unwrap_or_default();
            let _ = writeln!(text, "{list} {index}: {}", words.join(", "));
        }
        text
    }
}

fn to_object(fields: &[IdentifyField]) -> Map<String, Value> {
    let value = |value: &IdentifyValue| match value {
        IdentifyValue::Number(number) => Value::from(*number),
        IdentifyValue::Text(text) => Value::from(text.as_str()),
        // A string as in nvme-cli: more than every JSON reader can hold.
        wide @ IdentifyValue::Wide(_) => Value::from(wide.to_string()),
    };
    fields.iter().map(|(name, field)| ((*name).to_owned(), value(field))).collect()
}
