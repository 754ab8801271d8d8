//! `nvmf admin-passthru`, `io-passthru`, `get-feature`, `set-feature` and `get-log`: commands that
//! the user builds.

use std::{fs, path::PathBuf, sync::Arc};

use clap::{Args, ValueEnum};
use rdma_host::{
    Command, Controller, Data, Error, Provider,
    error::Rejected,
    proto::Transfer,
    wire::{
        DataDirection, EffectsLog, FeatureSelect, GetLogPage, LogPage, NamespaceId, Opcode, Sqe,
    },
};
use serde_json::json;

use super::identify_data::check_output;
use crate::{
    Format,
    capture::{CaptureArguments, ConnectingCommand, SystemProvider},
    connect::NamespaceArguments,
    failure::Failure,
    io_namespace::IoNamespace,
    output,
    overwrite::OverwriteArguments,
    size,
};

#[derive(Args)]
pub(crate) struct AdminArguments {
    #[command(flatten)]
    fields: CommandFields,

    /// Send a command that may change the controller or destroy data.
    #[arg(long)]
    overwrite: bool,

    /// Send a command that the controller does not list as supported.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    form: FormArguments,

    #[command(flatten)]
    namespace: NamespaceArguments,
}

#[derive(Args)]
pub(crate) struct IoArguments {
    #[command(flatten)]
    fields: CommandFields,

    #[command(flatten)]
    overwrite: OverwriteArguments,

    #[command(flatten)]
    form: FormArguments,

    #[command(flatten)]
    namespace: NamespaceArguments,
}

#[derive(Args)]
pub(crate) struct GetFeatureArguments {
    /// Feature identifier.
    #[arg(long, value_name = "FID", value_parser = number::<u8>)]
    feature_id: u8,

    /// Value to read.
    #[arg(long, value_name = "VALUE", default_value = "current")]
    sel: Select,

    /// Dword 11 of the command.
    #[arg(long, value_name = "N", default_value = "0", value_parser = number::<u32>)]
    cdw11: u32,

    /// Bytes of data [default: what the feature has].
    #[arg(long, value_name = "N", value_parser = size::number)]
    data_len: Option<u64>,

    #[command(flatten)]
    form: FormArguments,

    #[command(flatten)]
    namespace: NamespaceArguments,
}

#[derive(Args)]
pub(crate) struct SetFeatureArguments {
    /// Feature identifier.
    #[arg(long, value_name = "FID", value_parser = number::<u8>)]
    feature_id: u8,

    /// Value: dword 11 of the command.
    #[arg(long, value_name = "N", value_parser = number::<u32>, required_unless_present = "file")]
    value: Option<u32>,

    /// Dword 12 of the command.
    #[arg(long, value_name = "N", default_value = "0", value_parser = number::<u32>)]
    cdw12: u32,

    /// Keep the value through resets.
    #[arg(long)]
    save: bool,

    /// File with the data of the feature.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    namespace: NamespaceArguments,
}

#[derive(Args)]
pub(crate) struct GetLogArguments {
    /// Log page identifier.
    #[arg(long, value_name = "LID", value_parser = number::<u8>)]
    log_id: u8,

    /// Bytes to read.
    #[arg(long, value_name = "N", value_parser = number::<u32>)]
    log_len: u32,

    /// Offset of the first byte.
    #[arg(long, value_name = "N", default_value = "0", value_parser = size::number)]
    lpo: u64,

    /// Log specific parameter.
    #[arg(long, value_name = "N", default_value = "0", value_parser = number::<u8>)]
    lsp: u8,

    /// Log specific identifier.
    #[arg(long, value_name = "N", default_value = "0", value_parser = number::<u16>)]
    lsi: u16,

    /// Retain the asynchronous event of the page.
    #[arg(long)]
    rae: bool,

    #[command(flatten)]
    form: FormArguments,

    #[command(flatten)]
    namespace: NamespaceArguments,
}

/// Fields of a command.
#[derive(Args)]
struct CommandFields {
    /// Opcode.
    #[arg(long, value_name = "N", value_parser = number::<u8>)]
    opcode: u8,

    /// Bytes of data; of a file, all of it.
    #[arg(long, value_name = "N", default_value = "0", value_parser = number::<u32>)]
    data_len: u32,

    /// The data comes from the controller.
    #[arg(long, conflicts_with = "write")]
    read: bool,

    /// The data goes to the controller.
    #[arg(long)]
    write: bool,

    /// File with the data for the controller.
    #[arg(long, value_name = "FILE", requires = "write")]
    input_file: Option<PathBuf>,

    /// Dwords 2, 3 and 10 to 15 of the command.
    #[arg(long, value_name = "N", default_value = "0", value_parser = number::<u32>)]
    cdw2: u32,
    #[arg(long, value_name = "N", default_value = "0", value_parser = number::<u32>)]
    cdw3: u32,
    #[arg(long, value_name = "N", default_value = "0", value_parser = number::<u32>)]
    cdw10: u32,
    #[arg(long, value_name = "N", default_value = "0", value_parser = number::<u32>)]
    cdw11: u32,
    #[arg(long, value_name = "N", default_value = "0", value_parser = number::<u32>)]
    cdw12: u32,
    #[arg(long, value_name = "N", default_value = "0", value_parser = number::<u32>)]
    cdw13: u32,
    #[arg(long, value_name = "N", default_value = "0", value_parser = number::<u32>)]
    cdw14: u32,
    #[arg(long, value_name = "N", default_value = "0", value_parser = number::<u32>)]
    cdw15: u32,
}

/// Form of the data on standard output.
#[derive(Args)]
struct FormArguments {
    /// Print the bytes of the data.
    #[arg(short = 'b', long, conflicts_with = "output_format")]
    raw_binary: bool,

    /// Output format.
    #[arg(short, long, value_name = "FORMAT", default_value = "normal")]
    output_format: Format,
}

/// Value of a feature to read.
#[derive(Clone, Copy, ValueEnum)]
enum Select {
    #[value(alias = "0")]
    Current,
    #[value(alias = "1")]
    Default,
    #[value(alias = "2")]
    Saved,
    #[value(alias = "3")]
    Supported,
}

impl ConnectingCommand for AdminArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        /// Commands that change nothing.
        const READS: [Opcode; 3] = [Opcode::GET_LOG_PAGE, Opcode::IDENTIFY, Opcode::GET_FEATURES];
        check_output(self.form.raw_binary)?;
        let opcode = Opcode(self.fields.opcode);
        if !READS.contains(&opcode) && !self.overwrite {
            return Err(Failure::usage(format!(
                "opcode {:#04x} may change the controller or destroy data; give --overwrite if \
                 that is intended",
                opcode.0
            )));
        }
        let transfer = match (self.fields.direction()?, self.fields.data()?) {
            (DataDirection::FromController, data) => Transfer::FromController(data.len()),
            (DataDirection::ToController, data) => Transfer::ToController(data),
            _ => Transfer::None,
        };
        let connected = self.namespace.connect_controller(provider)?;
        let sqe = self.fields.sqe(NamespaceId(self.namespace.ns().unwrap_or(0)));
        if !self.force {
            let listed = |effects: EffectsLog| effects.admin;
            connected.runtime.run(check_supported(&connected.controller, 0, opcode, listed))?;
        }
        let sent = connected.runtime.run(connected.controller.admin_command(sqe, transfer))?;
        connected.close();
        self.form.print(sent.0.result_dword(), &sent.1)
    }
}

impl ConnectingCommand for IoArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        /// Commands that change no block.
        const READS: [Opcode; 6] = [
            Opcode::FLUSH,
            Opcode::READ,
            Opcode::COMPARE,
            Opcode::VERIFY,
            Opcode::RESERVATION_REPORT,
            Opcode::ZONE_MANAGEMENT_RECEIVE,
        ];
        check_output(self.form.raw_binary)?;
        let opcode = Opcode(self.fields.opcode);
        let (direction, data) = (self.fields.direction()?, self.fields.data()?);
        let consent = match READS.contains(&opcode) {
            true => None,
            false => Some(self.overwrite.consent("io-passthru", true)?),
        };
        let (connected, namespace) = self.namespace.connect(provider)?;
        let listed = |effects: EffectsLog| effects.io;
        let set = namespace.info().command_set;
        connected.runtime.run(check_supported(&connected.controller, set, opcode, listed))?;
        if let Some(mut consent) = consent {
            consent.check(&connected, &IoNamespace::Controller(namespace.clone()))?;
        }
        let sqe = self.fields.sqe(namespace.info().id);
        let mut buffer = None;
        if direction != DataDirection::None {
            let mut filled = connected.controller.allocate(data.len())?;
            filled.copy_in(0, &data);
            buffer = Some(filled);
        }
        let data = match (direction, buffer) {
            (DataDirection::FromController, Some(buffer)) => Data::FromController(buffer),
            (_, Some(buffer)) => Data::ToController(buffer),
            (_, None) => Data::None,
        };
        let command = Command { sqe, data, user: 0 };
        let sent = async { Ok::<_, Failure>(namespace.io_command(command).await) };
        let (outcome, buffer) = connected.runtime.run(sent)?.into_result("the I/O command");
        let mut bytes = Vec::new();
        if let Some(buffer) = buffer.filter(|_| direction == DataDirection::FromController) {
            bytes.resize(buffer.len(), 0);
            buffer.copy_out(0, &mut bytes);
        }
        drop(namespace);
        connected.close();
        self.form.print(outcome?.result_dword(), &bytes)
    }
}

impl ConnectingCommand for GetFeatureArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        check_output(self.form.raw_binary)?;
        let connected = self.namespace.connect_controller(provider)?;
        let select = match self.sel {
            Select::Current => FeatureSelect::Current,
            Select::Default => FeatureSelect::Default,
            Select::Saved => FeatureSelect::Saved,
            Select::Supported => FeatureSelect::Supported,
        };
        let usual =
            if select == FeatureSelect::Supported { 0 } else { data_length(self.feature_id) };
        let bytes = self.data_len.map_or(Ok(usual), usize::try_from).map_err(Failure::usage)?;
        let namespace = NamespaceId(self.namespace.ns().unwrap_or(0));
        let feature = self.feature_id;
        let read = connected.controller.get_feature(feature, select, namespace, self.cdw11, bytes);
        let (value, data) = connected.runtime.run(read)?;
        connected.close();
        self.form.print(value, &data)
    }
}

impl ConnectingCommand for SetFeatureArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let data = self.file.as_ref().map(read_file).transpose()?.unwrap_or_default();
        let connected = self.namespace.connect_controller(provider)?;
        let namespace = NamespaceId(self.namespace.ns().unwrap_or(0));
        let dwords = [self.value.unwrap_or(0), self.cdw12, 0, 0, 0];
        let (feature, save) = (self.feature_id, self.save);
        let set = connected.controller.set_feature(feature, save, namespace, dwords, data);
        let result = connected.runtime.run(set)?;
        connected.close();
        output::print_message(format_args!("feature {feature:#04x} is set, result {result:#010x}"));
        Ok(())
    }
}

impl ConnectingCommand for GetLogArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        check_output(self.form.raw_binary)?;
        if self.log_len == 0 || !self.log_len.is_multiple_of(4) || !self.lpo.is_multiple_of(4) {
            return Err(Failure::usage(
                "--log-len and --lpo count bytes in steps of 4, and the length is not 0",
            ));
        }
        let connected = self.namespace.connect_controller(provider)?;
        let page = GetLogPage {
            offset: self.lpo,
            specific_field: self.lsp,
            specific_identifier: self.lsi,
            retain_event: self.rae,
            ..GetLogPage::new(LogPage(self.log_id), self.log_len)
        };
        let data = connected.runtime.run(connected.controller.log_page(page))?;
        connected.close();
        self.form.print(0, &data)
    }
}

impl CommandFields {
    fn sqe(&self, namespace: NamespaceId) -> Sqe {
        let Self { cdw2, cdw3, cdw10, cdw11, cdw12, cdw13, cdw14, cdw15, .. } = *self;
        let dwords = [cdw10, cdw11, cdw12, cdw13, cdw14, cdw15];
        Sqe::with_dwords(Opcode(self.opcode), namespace, [cdw2, cdw3], dwords)
    }

    /// Direction of the data.
    ///
    /// # Errors
    ///
    /// A usage error if it is not that of the opcode, or is missing.
    fn direction(&self) -> Result<DataDirection, Failure> {
        let due = Opcode(self.opcode).direction();
        let given = match (self.read, self.write) {
            (true, _) => DataDirection::FromController,
            (_, true) => DataDirection::ToController,
            _ if self.data_len == 0 => DataDirection::None,
            _ => return Err(Failure::usage("the data has no direction; give --read or --write")),
        };
        let words = |direction| match direction {
            DataDirection::None => "transfers no data",
            DataDirection::ToController => "takes --write, data for the controller",
            DataDirection::FromController => "takes --read, data from the controller",
            DataDirection::Bidirectional => "transfers data both ways, which nvmf does not do",
        };
        if due == DataDirection::Bidirectional || ![due, DataDirection::None].contains(&given) {
            let (opcode, words) = (self.opcode, words(due));
            return Err(Failure::usage(format!("a command with opcode {opcode:#04x} {words}")));
        }
        Ok(given)
    }

    /// Data for the controller, or as many zeros as it sends.
    fn data(&self) -> Result<Vec<u8>, Failure> {
        let length = self.data_len as usize;
        let data = match &self.input_file {
            None => vec![0; length],
            Some(path) => read_file(path)?,
        };
        if data.is_empty() && (self.read || self.write) {
            return Err(Failure::usage("there is no data; give its length with --data-len"));
        }
        if length != 0 && data.len() != length {
            let bytes = data.len();
            return Err(Failure::usage(format!("the file has {bytes} bytes, --data-len {length}")));
        }
        Ok(data)
    }
}

impl FormArguments {
    fn print(&self, result: u32, data: &[u8]) -> Result<(), Failure> {
        if self.raw_binary {
            return output::print_bytes(data);
        }
        match self.output_format {
            Format::Json => output::print_json(&json!({ "result": result, "data": data })),
            Format::Normal => output::print_text(&format!("result {result:#010x}\n{}", dump(data))),
        }
    }
}

/// Checks that the controller lists a command as supported, if it has such a list of the command
/// set.
async fn check_supported<P: Provider>(
    controller: &Controller<P>,
    command_set: u8,
    opcode: Opcode,
    listed: impl FnOnce(EffectsLog) -> Vec<(Opcode, rdma_host::wire::CommandEffects)>,
) -> Result<(), Failure> {
    let effects = match controller.effects(command_set).await {
        Ok(effects) => effects,
        Err(Error::Rejected(Rejected::Command { .. })) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let listed = listed(effects);
    if listed.is_empty() || listed.iter().any(|(one, _)| *one == opcode) {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "the controller does not support opcode {:#04x} (its log page of effects)",
        opcode.0
    )))
}

fn read_file(path: &PathBuf) -> Result<Vec<u8>, Failure> {
    fs::read(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))
}

/// Bytes of data of a feature (Base figure 385); 0 for none.
fn data_length(feature: u8) -> usize {
    match feature {
        0x0c => 256,
        0x0e => 8,
        0x16 => 512,
        0x81 => 16,
        0x03 | 0x0d | 0x7d..=0x7f => 4096,
        _ => 0,
    }
}

/// Lines of 16 bytes, as hexadecimal numbers and as text.
fn dump(data: &[u8]) -> String {
    let lines = data.chunks(16).enumerate().map(|(index, line)| {
        let numbers: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' };
        let text: String = line.iter().map(shown).collect();
        format!("{:04x}: {:<47}  {text}\n", index * 16, numbers.join(" "))
    });
    lines.collect()
}

/// Parser of a number of this type, decimal or hexadecimal.
pub(super) fn number<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    T::try_from(size::number(text)?).map_err(|_| "too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_has_lines_of_16_bytes() {
        let dumped = dump(b"0123456789abcdef\x00~");
        let lines: Vec<_> = dumped.lines().collect();
        let first = "0000: 30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  0123456789abcdef";
        assert_eq!(lines[0], first);
        assert!(lines[1].starts_with("0010: 00 7e ") && lines[1].ends_with("  .~"), "{dumped}");
    }
}
