//! Controllers of the scripted target: their ids, the medium, and default answers.

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
};

use super::{
    Answer, Authentication, BLOCKS, CAPSULE, Format, Hook, ReceivedCommand, Size, is_open,
    zns::{self, Zones},
};

/// Least id of a controller.
const ID_MIN: u16 = 7;

/// Largest id of a queue, more than a hook grants.
const QUEUE_ID_MAX: u16 = 1024;

/// State that all controllers share.
pub(super) struct ControllerState {
    /// Medium, which several targets may share.
    pub(super) disk: Arc<Mutex<Vec<u8>>>,
    pub(super) format: Format,
    /// Blocks that can't be read until they are written.
    pub(super) unreadable: BTreeSet<u64>,
    /// Queues that exist: ids of the controller, which exists as long as one of its queues, and of
    /// the queue.
    queues: BTreeSet<(u16, u16)>,
    /// Writes that are received, and not yet executed.
    held: Vec<HeldWrite>,
    pub(super) model: &'static str,
    pub(super) quiesce_ms: u16,
    /// ONCS and FUSES.
    pub(super) optional_commands: [u16; 2],
    pub(super) size: Size,
    /// Zones, if its namespace is a zoned one.
    pub(super) zones: Option<Zones>,
    pub(super) hook: Hook,
    pub(super) authentication: Option<Authentication>,
}

/// Write that is executed once its gate is open.
struct HeldWrite {
    /// Ids of controller and queue.
    queue: Option<(u16, u16)>,
    range: Range<usize>,
    data: Vec<u8>,
    gate: Arc<AtomicBool>,
}

impl ControllerState {
    pub(super) fn new(hook: Hook) -> Self {
        Self {
            disk: Arc::new(Mutex::new(Format::default().medium())),
            format: Format::default(),
            unreadable: BTreeSet::new(),
            queues: BTreeSet::new(),
            held: Vec::new(),
            model: "Linux",
            quiesce_ms: 0,
            optional_commands: [0x000c, 0],
            size: Size::default(),
            zones: None,
            hook,
            authentication: None,
        }
    }

    /// Executes a write, or keeps it until the gate is open.
    pub(super) fn begin_write(
        &mut self,
        queue: Option<(u16, u16)>,
        seen: ReceivedCommand,
        data: &[u8],
        gate: Option<Arc<AtomicBool>>,
    ) {
        let range = self.range(seen);
        let length = range.len().min(data.len());
        match gate {
            Some(gate) if !is_open(Some(&gate)) => {
                self.held.push(HeldWrite { queue, range, data: data[..length].to_vec(), gate });
            }
            _ => self.overwrite((range.start / self.format.size()) as u64, &data[..length]),
        }
    }

    /// Bytes of the medium that a command names.
    pub(super) fn range(&self, seen: ReceivedCommand) -> Range<usize> {
        let (size, all) = (self.format.size(), BLOCKS * self.format.size());
        let start = usize::try_from(seen.u64_at(40)).unwrap_or(usize::MAX).min(BLOCKS) * size;
        let blocks = (seen.u32_at(48) & 0xffff) as usize + 1;
        start..(start + blocks * size).min(all)
    }

    /// Bytes of the medium.
    pub(super) fn read(&self, range: Range<usize>) -> Vec<u8> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)[range].to_vec()
    }

    /// Executes the held writes whose gates are open; tells if there were any.
    pub(super) fn execute(&mut self) -> bool {
        let before = self.held.len();
        let open = |write: &mut HeldWrite| is_open(Some(&write.gate));
        for write in self.held.extract_if(.., open).collect::<Vec<_>>() {
            self.overwrite((write.range.start / self.format.size()) as u64, &write.data);
        }
        self.held.len() < before
    }

    /// Ends queues that have no connection and no command left.
    pub(super) fn free(&mut self, is_connected: impl Fn(u16, u16) -> bool) {
        let held = &self.held;
        self.queues.retain(|&(controller, queue)| {
            let is_left = held.iter().any(|write| write.queue == Some((controller, queue)));
            is_connected(controller, queue) || is_left
        });
    }

    /// Returns true if there is a controller of this id.
    fn has_controller(&self, id: u16) -> bool {
        self.queues.iter().any(|&(controller, _)| controller == id)
    }

    /// Controller of the queue on which Connect was answered like this.
    pub(super) fn connected(&mut self, queue: u16, answer: &Answer) -> Option<u16> {
        let message = answer.messages.first().filter(|message| message[14..16] == [0, 0])?;
        let id = u16::from_le_bytes([message[0], message[1]]);
        self.queues.insert((id, queue));
        Some(id)
    }

    /// Status and result of a Connect with this data: the controller's id.
    fn connect(&self, seen: ReceivedCommand, data: &[u8]) -> (u16, u64) {
        const INVALID_PARAMETERS: u16 = 0x4182;
        const CONTROLLER_ID_IN_DATA: u64 = 0x0001_0010;
        const QUEUE_ID: u64 = 0x0000_002a;
        const QUEUE_SIZE: u64 = 0x0000_002c;
        const COMMAND_SEQUENCE_ERROR: u16 = 0x400c;
        let at = |offset: usize| u16::from_le_bytes([seen.sqe[offset], seen.sqe[offset + 1]]);
        let (queue, last_entry) = (at(42), at(44));
        let id = data.get(16..18).map_or(0, |id| u16::from_le_bytes([id[0], id[1]]));
        if queue == 0 {
            let id = (ID_MIN..).find(|&id| !self.has_controller(id)).expect("few controllers");
            return (0, id.into());
        }
        if !self.has_controller(id) {
            return (INVALID_PARAMETERS, CONTROLLER_ID_IN_DATA);
        }
        if queue > QUEUE_ID_MAX {
            return (INVALID_PARAMETERS, QUEUE_ID);
        }
        if self.queues.contains(&(id, queue)) {
            return (COMMAND_SEQUENCE_ERROR, 0);
        }
        if last_entry >= self.size.entries {
            return (INVALID_PARAMETERS, QUEUE_SIZE);
        }
        (0, id.into())
    }

    /// Answer of a target that keeps to the protocol.
    pub(super) fn answer(
        &self,
        controller: Option<u16>,
        seen: ReceivedCommand,
        data: &[u8],
    ) -> Answer {
        let size = self.size;
        let mut answer = Answer::default();
        let mut status = 0;
        let result = match (seen.sqe[0], seen.sqe[4], seen.sqe[44]) {
            (0x7f, 0x01, _) => {
                let result;
                (status, result) = self.connect(seen, data);
                result
            }
            // MQES, ready within 0.5 s, NVM command set and others where it has zones; version 1.4;
            // enabled; shut down.
            (0x7f, 0x04, 0x00) => {
                let others = u64::from(self.zones.is_some()) << 43;
                0x0000_0020_0101_0000 | others | u64::from(size.entries - 1)
            }
            (0x7f, 0x04, 0x08) => 0x0001_0400,
            (0x7f, 0x04, 0x1c) => 0b1001,
            (0x09, ..) if seen.queue == 0 => u64::from(size.queues - 1) * 0x0001_0001,
            (0x06, ..) if seen.queue == 0 && self.is_of_zones(seen) => {
                answer.data = zns::identify(seen.sqe[40]);
                0
            }
            (0x06, ..) if seen.queue == 0 => {
                answer.data = self.identify(controller.unwrap_or(ID_MIN), seen.sqe[40]);
                0
            }
            (0x02, ..) if seen.is_io() => {
                status = self.nvm_status(seen, data);
                if status == 0 {
                    answer.data = self.format.returned(seen, self.read(self.range(seen)));
                }
                0
            }
            _ if seen.is_io() => {
                status = self.nvm_status(seen, data);
                match (seen.sqe[0], &self.zones) {
                    (0x7d, Some(zones)) if status == 0 => zones.appended_at(seen),
                    (0x7a, Some(zones)) if status == 0 => {
                        answer.data = zones.report(seen);
                        0
                    }
                    _ => 0,
                }
            }
            // The answer to a request for an event is the event.
            (0x0c, ..) if seen.queue == 0 => return answer,
            _ => 0,
        };
        answer.messages = vec![seen.response(status, result)];
        answer
    }

    /// Returns true for an Identify that the Zoned Namespace command set has an own answer to.
    fn is_of_zones(&self, seen: ReceivedCommand) -> bool {
        let is_named = seen.sqe[40] == 0x03 || matches!(seen.sqe[40], 5 | 6) && seen.sqe[47] == 2;
        self.zones.is_some() && is_named
    }

    fn identify(&self, controller: u16, structure: u8) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        match structure {
            0x00 => {
                bytes[..8].copy_from_slice(&(BLOCKS as u64).to_le_bytes());
                self.format.identify(&mut bytes);
                // Copy: 128 blocks a range, 256 a command, 16 ranges.
                bytes[74..81].copy_from_slice(&[128, 0, 0, 1, 0, 0, 15]);
            }
            0x01 => {
                bytes[4..10].copy_from_slice(b"SCRIPT");
                bytes[24..24 + self.model.len()].copy_from_slice(self.model.as_bytes());
                bytes[77] = 5;
                bytes[78..80].copy_from_slice(&controller.to_le_bytes());
                bytes[320] = 10;
                bytes[386..388].copy_from_slice(&self.quiesce_ms.to_le_bytes());
                bytes[514..516].copy_from_slice(&self.size.entries.to_le_bytes());
                let [oncs, fuses] = self.optional_commands;
                bytes[520..522].copy_from_slice(&oncs.to_le_bytes());
                bytes[522..524].copy_from_slice(&fuses.to_le_bytes());
                bytes[536..540].copy_from_slice(&[0x05, 0, 0x10, 0]);
                let units = u32::try_from(CAPSULE / 16).expect("small");
                bytes[1792..1796].copy_from_slice(&units.to_le_bytes());
                bytes[1796] = 1;
            }
            0x02 => bytes[0] = 1,
            0x05 => self.format.identify_extended(&mut bytes),
            _ => {}
        }
        bytes
    }
}
