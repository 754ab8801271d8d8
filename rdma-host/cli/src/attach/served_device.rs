//! Changes of a device while it is served: of its controller, and of its namespace.

use clap::ValueEnum;
use rdma_host::{
    Controller, ControllerEvent, EventDetail, LifecycleState, StateChange,
    wire::{NamespaceId, NamespaceInfo},
};
use ublk::{Control, DeviceInfo};

use super::{
    daemon, device,
    registry::{Entry, sectors},
};
use crate::output;

/// Fate of a device whose controller is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OnLoss {
    /// The device stays until it is detached.
    Fail,
    /// The device is removed, though it may be in use.
    Remove,
}

/// End of a device, or of its process.
#[derive(Debug)]
pub(super) enum End {
    /// `nvmf detach` has stopped the device, and deletes it.
    Detached,
    /// The device is in use, and is left to the next process.
    Left,
    /// This process has stopped the device, and is to delete it.
    Stopped,
    /// The controller was given up, for this reason: this process has stopped the device, and is to
    /// delete it.
    Lost(String),
}

/// Device that this process serves.
pub(super) struct ServedDevice<'a> {
    pub(super) control: &'a mut Control,
    pub(super) info: DeviceInfo,
    pub(super) controller: &'a Controller,
    pub(super) namespace: NamespaceId,
    /// Size of the device in sectors of 512 bytes.
    pub(super) sectors: u64,
    pub(super) entry: Entry,
    pub(super) is_background: bool,
}

impl ServedDevice<'_> {
    /// Tells a change of the controller's state. Returns the reason once it is given up.
    pub(super) fn change_state(&mut self, change: &StateChange) -> Option<String> {
        self.tell(change.to_string());
        match change.state {
            LifecycleState::Live => {
                self.entry.add_controller(self.controller.negotiated().controller);
                self.write_entry();
                self.follow_namespace();
                None
            }
            LifecycleState::Dead => {
                let cause = change.cause.as_ref().map(ToString::to_string);
                let reason = cause.unwrap_or_else(|| "the controller was given up".to_owned());
                self.fail(reason.clone());
                Some(reason)
            }
            _ => None,
        }
    }

    /// Tells an event that is about the namespace.
    pub(super) fn event(&mut self, event: &ControllerEvent) {
        let EventDetail::Namespaces(changes) = &event.detail else { return };
        for (_, change) in changes.iter().filter(|(id, _)| *id == self.namespace) {
            self.tell(format!("namespace {} {change}", self.namespace));
        }
        self.follow_namespace();
    }

    /// Gives the device the size that the namespace has, or notes that another namespace has its
    /// id: the pollers refuse commands to that.
    pub(super) fn follow_namespace(&mut self) {
        match self.controller.latest_namespace(self.namespace) {
            Ok(namespace) => self.resize(&namespace),
            Err(_) => self.fail(format!(
                "namespace {} is another one now: detach and attach the device to use that",
                self.namespace
            )),
        }
    }

    fn resize(&mut self, namespace: &NamespaceInfo) {
        let sectors = sectors(namespace);
        let bytes = sectors << 9;
        if self.entry.namespace_bytes != bytes {
            self.entry.namespace_bytes = bytes;
            self.write_entry();
        } else if self.sectors == sectors {
            return;
        }
        let before = self.sectors << 9;
        self.sectors = sectors;
        if before == bytes {
            return;
        }
        let resized = match self.control.features() {
            Ok(features) if features.update_size() => self.control.resize(&self.info, sectors),
            _ => {
                return self.tell(format!(
                    "the namespace has {bytes} bytes now, and the device {before}: this kernel's \
                     ublk driver cannot change that (Linux 6.16 can); detach and attach it"
                ));
            }
        };
        self.tell(match resized {
            Ok(()) => format!("{bytes} bytes now, {before} before"),
            Err(error) => format!("the namespace has {bytes} bytes now, the device not: {error}"),
        });
    }

    /// Notes the reason for which all requests fail from now on.
    fn fail(&mut self, reason: String) {
        if self.entry.failure.is_none() {
            self.tell(format!("all requests fail: {reason}"));
            self.entry.failure = Some(reason);
            self.write_entry();
        }
    }

    fn write_entry(&self) {
        if let Err(error) = self.entry.write() {
            self.tell(format!("its entry for `nvmf list`: {error}"));
        }
    }

    fn tell(&self, what: String) {
        let message =
            output::message_text(format_args!("{}: {what}", device::path(self.info.id())));
        output::print_message(format_args!("nvmf: {message}"));
        if self.is_background {
            daemon::log(&message);
        }
    }
}
