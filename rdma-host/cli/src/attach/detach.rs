//! `nvmf detach` and `nvmf list`.

use clap::Args;
use serde_json::{Value, json};
use ublk::{Control, DeviceState};

use super::{device, device_name::DeviceName, registry::Entry};
use crate::{Format, failure::Failure, output, size};

#[derive(Args)]
pub(crate) struct DetachArguments {
    /// Block device: /dev/ublkbN, N, or /dev/nvmf/NAME.
    #[arg(value_name = "DEVICE", value_parser = number)]
    device: u32,

    /// End it though it is in use, or waits for its process: requests fail.
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
pub(crate) struct ListArguments {
    /// Output format.
    #[arg(short, long, value_name = "FORMAT", default_value = "normal")]
    output_format: Format,

    /// For the udev rule: user and group that own a device.
    #[arg(long, value_name = "DEVICE", hide = true, value_parser = number)]
    owner: Option<u32>,

    /// For the udev rule: name of the link to a device.
    #[arg(long, value_name = "DEVICE", hide = true, value_parser = number)]
    link: Option<u32>,
}

fn number(text: &str) -> Result<u32, String> {
    if let Some(name) = DeviceName::of_path(text) {
        let named = Entry::all().into_iter().find(|entry| entry.name.as_ref() == Some(&name));
        return named.map(|entry| entry.id).ok_or_else(|| "no device has this name".to_owned());
    }
    let number = text.strip_prefix("/dev/").unwrap_or(text);
    let number = number.strip_prefix("ublkb").unwrap_or(number);
    number
        .parse()
        .map_err(|_| "a device is /dev/ublkbN, its number N, or /dev/nvmf/NAME".to_owned())
}

/// Runs `nvmf detach`.
pub(crate) fn detach(arguments: &DetachArguments) -> Result<(), Failure> {
    let (id, path) = (arguments.device, device::path(arguments.device));
    let mut control = Control::open().map_err(device::failure)?;
    let info = match control.info(id) {
        Ok(info) => info,
        Err(error) if device::is_absent(&error) => {
            // Nothing is left to detach but the file.
            let _ = Entry::remove(id);
            return Err(Failure::usage(format!("there is no {path}; `nvmf list` shows all")));
        }
        Err(error) => return Err(device::failure(error)),
    };
    if Entry::read(id).is_none() && !arguments.force {
        return Err(Failure::usage(format!("{path} is not one of nvmf's; --force ends it anyway")));
    }
    if info.state() != DeviceState::Dead && !device::stop(&mut control, &info, arguments.force)? {
        return Err(Failure::failed(match info.state() {
            DeviceState::Live => {
                format!("{path} is in use: unmount it, or give --force, which fails its requests")
            }
            _ => format!(
                "{path} has no daemon, and its requests wait: `nvmf attach --recover {id} TARGET` \
                 serves it again, --force fails them"
            ),
        }));
    }
    let deleted = if arguments.force {
        control.delete_when_closed(&info).map(drop)
    } else {
        control.delete(&info)
    };
    deleted.map_err(device::failure)?;
    Entry::remove(id).map_err(|error| Failure::failed(format!("the entry of {path}: {error}")))
}

/// Runs `nvmf list`.
pub(crate) fn list(arguments: &ListArguments) -> Result<(), Failure> {
    if let Some(id) = arguments.owner {
        let mut control = Control::open().map_err(device::failure)?;
        let (user, group) = control.info(id).map_err(device::failure)?.owner();
        return output::print_text(&format!("{user} {group}\n"));
    }
    if let Some(id) = arguments.link {
        let identifier = Entry::read(id).and_then(|entry| entry.namespace);
        let unknown = || Failure::failed(format!("{} has no identifier", device::path(id)));
        return output::print_text(&format!("nvmf-{}\n", identifier.ok_or_else(unknown)?));
    }
    show(arguments.output_format)
}

/// Path of a device, and that of its name, if it has one.
fn paths(entry: &Entry) -> String {
    let name = entry.name.iter().map(|name| format!("  {}", name.path().display()));
    device::path(entry.id) + &name.collect::<String>()
}

fn show(format: Format) -> Result<(), Failure> {
    let entries = Entry::all();
    let mut control = if entries.is_empty() { None } else { Control::open().ok() };
    let mut devices = Vec::new();
    for entry in entries {
        let info = control.as_mut().and_then(|control| control.info(entry.id).ok());
        let Some((info, control)) = info.zip(control.as_mut()) else { continue };
        let bytes = control.parameters(&info).map_or(0, |parameters| parameters.sectors << 9);
        let state = match info.state() {
            DeviceState::Live if entry.failure.is_some() => "failing",
            DeviceState::Live => "live",
            DeviceState::Quiesced | DeviceState::FailIo => "waiting for its daemon",
            _ => "stopped",
        };
        devices.push((entry, state, bytes));
    }
    match format {
        Format::Json => {
            let values: Vec<_> = devices
                .iter()
                .map(|(entry, state, bytes)| {
                    json!({
                        "device": device::path(entry.id),
                        "name": entry.name,
                        "state": state,
                        "bytes": bytes,
                        "namespace_bytes": entry.namespace_bytes,
                        "failure": entry.failure,
                        "address": entry.address,
                        "subsystem": entry.subsystem,
                        "nsid": entry.nsid,
                        "namespace": entry.namespace,
                        "process": entry.process,
                    })
                })
                .collect();
            output::print_json(&Value::from(values))
        }
        Format::Normal => {
            let lines = devices.iter().map(|(entry, state, bytes)| {
                let (paths, size) = (paths(entry), size::format_bytes(*bytes));
                let Entry { nsid, subsystem, address, process, .. } = entry;
                let failure = entry.failure.iter().map(|reason| format!(": {reason}"));
                let other = Some(entry.namespace_bytes).filter(|other| other != bytes);
                let other = other.map(|bytes| {
                    let size = size::format_bytes(bytes);
                    format!(", which has {size} now: detach and attach it")
                });
                format!(
                    "{paths}  {size}  {state}{}  namespace {nsid} of {subsystem} at {address}, \
                     process {process}{}\n",
                    failure.collect::<String>(),
                    other.unwrap_or_default(),
                )
            });
            output::print_text(&lines.collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_three_names() {
        for name in ["/dev/ublkb7", "ublkb7", "7"] {
            assert_eq!(number(name), Ok(7), "{name}");
        }
        for name in ["/dev/sda", "ublkc7", "-1", ""] {
            assert!(number(name).is_err(), "{name}");
        }
    }
}
