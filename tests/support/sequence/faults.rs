//! Faults, and the requirements that do not hold after them.

use std::time::Duration;

use rdma_fabric::{Fault, Link, Point};
use verbs::Status;

use super::{Run, host::NAMES};

/// Faults that are allowed, and those that have been injected.
pub(super) struct Faults {
    /// Completions may be duplicated, delayed or suppressed.
    completions: bool,
    /// Devices may be removed.
    devices: bool,
    /// The network may fail.
    network: bool,
    /// A completion may come twice.
    pub(super) duplicates: bool,
    /// A completion may be overtaken.
    pub(super) reorders: bool,
    /// A completion may never come.
    pub(super) suppresses: bool,
}

impl Faults {
    /// Faults that these bits allow; none is injected yet.
    pub(super) fn allowed(bits: u8) -> Self {
        Self {
            completions: bits & 3 == 3,
            devices: bits & 12 == 12,
            network: bits & 48 != 48,
            duplicates: false,
            reorders: false,
            suppresses: false,
        }
    }

    fn allows(&self, value: u8) -> bool {
        match value & 31 {
            6..10 | 25 | 26 => self.completions,
            13 | 23 => self.devices,
            0 | 3..6 | 10..13 | 17 | 18 | 24 => self.network,
            _ => true,
        }
    }
}

impl Run<'_> {
    pub(super) fn inject_fault(&mut self, value: u8) {
        if !self.faults.allows(value) {
            return;
        }
        let (name, other) = (NAMES[usize::from(value >> 7)], NAMES[usize::from(1 - (value >> 7))]);
        let nth = u32::from(value >> 5 & 3) + 1;
        let fabric = &self.fabric;
        let completion = || Point::completion(name, nth);
        match value & 31 {
            0 => fabric.partition(name, other),
            1 | 2 => fabric.heal(name, other),
            3 => fabric.at(Point::message(name, nth), Fault::Drop),
            4 => fabric.at(Point::message(name, nth), Fault::Delay(Duration::from_secs(1))),
            5 => fabric.at(Point::message(name, nth), Fault::Duplicate),
            6 => {
                fabric.at(completion(), Fault::Duplicate);
                self.faults.duplicates = true;
            }
            7 => {
                fabric.at(completion(), Fault::Suppress);
                self.faults.suppresses = true;
            }
            8 => fabric.at(completion(), Fault::Fail(Status::GENERAL)),
            9 => {
                fabric.at(completion(), Fault::Delay(Duration::from_millis(10)));
                self.faults.reorders = true;
            }
            10 => fabric.at(Point::connect(name, nth), Fault::Drop),
            11 => fabric.at(Point::connect(name, nth), Fault::Reject(10)),
            12 => fabric.at(Point::connect(name, nth), Fault::Delay(Duration::from_secs(5))),
            13 if nth == 1 => self.remove_device(name),
            14..17 => fabric.restore_device(name),
            17 | 18 => fabric.set_port(name, false),
            19..23 => fabric.set_port(name, true),
            23 => fabric.change_address(name),
            24 => fabric.set_link(Link { lost_per_mille: 100, ..Link::default() }),
            25 => {
                fabric.at(Point::Time(Duration::ZERO), Fault::QueuePairsDie(name.to_owned()));
                self.faults.suppresses = true;
            }
            26 => {
                let fault = Fault::CompletionQueuesFail(name.to_owned());
                fabric.at(Point::Time(Duration::ZERO), fault);
                self.faults.suppresses = true;
            }
            _ => fabric.set_link(Link::default()),
        }
        self.count(format!("fault {}", value & 31));
    }

    fn remove_device(&mut self, name: &str) {
        self.fabric.remove_device(name);
        for host in self.hosts.iter_mut().filter(|host| host.name == name) {
            host.removals += 1;
        }
    }
}
