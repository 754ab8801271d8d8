//! Reading from a scripted controller: each test changes its responses.

use proptest::prelude::*;

use super::*;
use crate::wire::{CommandId, IntoBytes, Sqe};

/// Discovery log that may change while it is read.
struct Log {
    generation: u64,
    records: u64,
    /// Returns true if the generation is incremented before the command of this number completes.
    moves: fn(usize) -> bool,
    status: fn(usize) -> Status,
    /// Offset, length and RAE of each command.
    seen: Vec<(u64, u32, bool)>,
}

impl Default for Log {
    fn default() -> Self {
        let (moves, status) = (|_| false, |_| Status::SUCCESS);
        Self { generation: 7, records: 3, moves, status, seen: Vec::new() }
    }
}

impl Log {
    fn answer(&mut self, sqe: &Sqe) -> (Cqe, Vec<u8>) {
        let bytes = sqe.as_bytes();
        assert_eq!((bytes[0], bytes[40]), (0x02, 0x70), "Get Log Page of the discovery log");
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let length = (((word(44) & 0xffff) << 16 | word(40) >> 16) + 1) * 4;
        let offset = u64::from(word(48)) | u64::from(word(52)) << 32;
        let index = self.seen.len();
        self.seen.push((offset, length, bytes[41] & 0x80 != 0));
        self.generation += u64::from((self.moves)(index));
        let response = Cqe::new(CommandId(0), (self.status)(index), 0);
        (response, self.bytes(offset, length))
    }

    fn bytes(&self, offset: u64, length: u32) -> Vec<u8> {
        if offset == 0 {
            let mut header = vec![0; length as usize];
            header[..8].copy_from_slice(&self.generation.to_le_bytes());
            header[8..16].copy_from_slice(&self.records.to_le_bytes());
            return header;
        }
        assert!(offset + u64::from(length) <= 1024 * (1 + self.records), "never past the end");
        let first = offset / 1024 - 1;
        let entry = |index: u64| {
            let mut entry = vec![0; 1024];
            entry[..3].copy_from_slice(&[1, 1, 2]);
            let name = format!("nqn.{index}");
            entry[256..256 + name.len()].copy_from_slice(name.as_bytes());
            entry
        };
        (first..first + u64::from(length) / 1024).flat_map(entry).collect()
    }

    fn read(&mut self, transfer_bytes_max: u64) -> Result<DiscoveryLog, Error> {
        self.read_by(DiscoveryRead::new(transfer_bytes_max))
    }

    fn read_by(&mut self, mut read: DiscoveryRead) -> Result<DiscoveryLog, Error> {
        for _ in 0..100_000 {
            match read.action()? {
                DiscoveryAction::Done(log) => {
                    return Ok(log);
                }
                DiscoveryAction::Execute(execute) => {
                    let (response, data) = self.answer(&execute.sqe);
                    assert_eq!(execute.transfer, Transfer::FromController(data.len()));
                    read.handle(response, &data)?;
                }
            }
        }
        panic!("the reading does not end")
    }
}

#[test]
fn the_event_is_released_by_the_last_command_only() {
    let mut controller = Log::default();
    let log = controller.read(4096).unwrap();
    assert_eq!((log.generation, log.entries.len()), (7, 3));
    assert_eq!(controller.seen, [(0, 20, true), (1024, 3072, true), (0, 20, false)]);
}

#[test]
fn any_number_of_entries_is_read_in_order() {
    for records in [0, 1, 3, 4, 5, 63, 64, 65, 200, DISCOVERY_RECORDS_MAX] {
        let mut controller = Log { records, ..Log::default() };
        let log = controller.read(16 << 10).unwrap();
        let names = log.entries.iter().map(|entry| entry.subsystem.clone());
        assert!(names.eq((0..records).map(|index| format!("nqn.{index}"))), "{records} entries");
        let chunks = u64::try_from(controller.seen.len()).unwrap() - 2;
        assert_eq!(chunks, records.div_ceil(16), "{records} entries");
    }
}

#[test]
fn the_bytes_of_the_page_are_kept_if_asked_for() {
    let mut controller = Log { moves: |index| index == 2, ..Log::default() };
    assert!(controller.read(2048).unwrap().bytes.is_empty());
    let mut controller = Log { moves: |index| index == 2, ..Log::default() };
    let log = controller.read_by(DiscoveryRead::new(2048).keeping_bytes(true)).unwrap();
    let page = [controller.bytes(0, 1024), controller.bytes(1024, 3 * 1024)].concat();
    assert_eq!((log.generation, log.bytes == page), (8, true));
}

#[test]
fn a_changed_log_is_read_again() {
    // Commands 0 to 2 read generation 7; the repeated header has generation 8.
    let mut controller = Log { moves: |index| index == 2, ..Log::default() };
    let log = controller.read(4096).unwrap();
    assert_eq!((log.generation, log.entries.len()), (8, 3));
    assert_eq!(controller.seen.len(), 6);
}

#[test]
fn a_log_that_always_changes_is_given_up() {
    let mut controller = Log { moves: |_| true, ..Log::default() };
    let error = controller.read(4096).unwrap_err();
    let expected = TargetMisbehaved::DiscoveryLogChanges(DISCOVERY_ATTEMPTS);
    assert!(matches!(error, Error::TargetMisbehaved(seen) if seen == expected), "{error}");
    assert_eq!(controller.seen.len(), 3 * usize::from(DISCOVERY_ATTEMPTS));
}

#[test]
fn a_log_too_long_is_refused_before_it_is_read() {
    for records in [DISCOVERY_RECORDS_MAX + 1, 1 << 54, u64::MAX] {
        let mut controller = Log { records, ..Log::default() };
        let error = controller.read(4096).unwrap_err();
        assert!(error.to_string().contains(&records.to_string()), "{error}");
        assert_eq!(controller.seen.len(), 1);
    }
}

#[test]
fn a_page_refused_because_the_log_shrank_is_no_failure() {
    fn status(index: usize) -> Status {
        if index == 1 { Status(0x4002) } else { Status::SUCCESS }
    }
    let mut controller = Log { status, moves: |index| index == 1, ..Log::default() };
    assert_eq!(controller.read(4096).unwrap().generation, 8);

    let mut controller = Log { status, ..Log::default() };
    let error = controller.read(4096).unwrap_err();
    assert!(error.to_string().contains("0x002"), "the same log: {error}");
}

#[test]
fn the_controller_may_ask_for_another_start() {
    let status = |index| if index == 1 { Status::DISCOVER_RESTART } else { Status::SUCCESS };
    let mut controller = Log { status, ..Log::default() };
    assert_eq!(controller.read(4096).unwrap().entries.len(), 3);
    let mut controller = Log { status: |_| Status::DISCOVER_RESTART, ..Log::default() };
    let error = controller.read(4096).unwrap_err();
    assert!(error.to_string().contains("keeps changing"), "{error}");
}

#[test]
fn refusals_and_unknown_formats_end_it_for_good() {
    let mut controller = Log { status: |_| Status(0x4001), ..Log::default() };
    assert!(controller.read(4096).unwrap_err().to_string().contains("0x001"));

    let mut read = DiscoveryRead::new(4096);
    let mut header = [0; 20];
    header[16] = 1;
    let success = Cqe::new(CommandId(0), Status::SUCCESS, 0);
    let error = read.handle(success, &header).unwrap_err();
    assert!(error.to_string().contains("format 1"), "{error}");
    assert_eq!(read.action().unwrap_err().to_string(), error.to_string());
}

#[test]
fn a_part_of_the_log_is_asked_for_in_every_command() {
    let mut read = DiscoveryRead::new(4096).with_specific_field(0x02);
    let DiscoveryAction::Execute(execute) = read.action().unwrap() else { panic!("a command") };
    assert_eq!(execute.sqe.as_bytes()[41] & 0x7f, 0x02);
}

proptest! {
    /// Any responses of any length end the reading without a panic.
    #[test]
    fn any_responses_are_handled_without_panic(
        answers in proptest::collection::vec(
            (any::<u16>(), 0usize..4200, any::<[u8; 20]>()),
            1..60,
        ),
        few: bool,
    ) {
        let mut read = DiscoveryRead::new(4096);
        for (status, length, mut start) in answers {
            if few {
                start[1..].fill(0);
                start[8] = start[0] % 4;
            }
            let mut data = start.to_vec();
            data.resize(length, 0);
            let status = Status(if status % 3 == 0 { status >> 1 } else { 0 });
            match read.action() {
                Ok(DiscoveryAction::Execute(_)) => {
                    let _ = read.handle(Cqe::new(CommandId(0), status, 0), &data);
                }
                Ok(DiscoveryAction::Done(_)) | Err(_) => break,
            }
        }
    }
}
