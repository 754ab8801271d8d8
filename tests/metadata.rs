//! Namespaces with metadata and protection information: the library over the fabric against the
//! scripted target, whose checksums are its own.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use nvmf_client::Client;
use rdma_fabric::{Fabric, Host};
use rdma_host::{
    Buffer, Command, ConnectOptions, Controller, Error, ErrorClass, ExecutionStatus, HostIdentity,
    Namespace, ProtectionAction, ProtectionOptions, RangeCommands, ReconnectOptions, Subsystem,
    SubsystemOptions, TransferError,
    error::{Malformed, Misuse, ProtectionField, Rejected},
    wire::{BlockRange, IdentifyError, NamespaceId, ProtectionChecks, Status},
};
use tests::{
    noise,
    target::{Answer, Format, Guard, Protection, ReceivedCommand, TARGET_ADDRESS, Target},
};

/// ONCS of a controller with Compare, Dataset Management, Write Zeroes, Verify and Copy.
const ONCS: u16 = 0x018d;

/// Medium of the target.
type Medium = Arc<Mutex<Vec<u8>>>;

/// Controller and namespace, and the medium with its format.
struct Bed {
    controller: Controller<Host>,
    namespace: Namespace,
    medium: Medium,
    format: Format,
    /// Bytes of the longest transfer that was asked for.
    longest: Arc<AtomicUsize>,
}

impl Bed {
    fn filled(&self, data: &[u8]) -> Buffer {
        let mut buffer = self.controller.allocate(data.len()).expect("memory");
        buffer.copy_in(0, data);
        buffer
    }

    fn size(&self) -> usize {
        self.format.block + self.format.metadata
    }

    /// Extended blocks with this data, whose metadata is ones.
    fn extended(&self, data: &[u8]) -> Vec<u8> {
        let ones = vec![1; self.format.metadata];
        data.chunks(self.format.block).flat_map(|block| [block, &ones].concat()).collect()
    }

    /// Data of extended blocks.
    fn data(&self, extended: &[u8]) -> Vec<u8> {
        let blocks = extended.chunks(self.size());
        blocks.flat_map(|block| block[..self.format.block].to_vec()).collect()
    }

    async fn read_extended(
        &self,
        lba: u64,
        blocks: usize,
        options: &ProtectionOptions,
    ) -> Result<Vec<u8>, TransferError> {
        let buffer = self.controller.allocate(blocks * self.size()).expect("memory");
        self.namespace.read_extended(lba, buffer, options).await.map(|buffer| content(&buffer))
    }

    /// Flips bits of a byte of the medium.
    fn flip(&self, byte: usize, bits: u8) {
        self.medium.lock().expect("no test panics")[byte] ^= bits;
    }
}

fn content(buffer: &Buffer) -> Vec<u8> {
    let mut bytes = vec![0; buffer.len()];
    buffer.copy_out(0, &mut bytes);
    bytes
}

fn options() -> ConnectOptions {
    let nqn = "nqn.2026-11.org.soft-roce:scripted".parse().expect("an NQN");
    let identity = HostIdentity::from_id(uuid::Uuid::from_u128(1));
    let address = TARGET_ADDRESS.parse().expect("an address");
    let mut options = ConnectOptions::new(address, nqn, identity);
    options.reconnect = ReconnectOptions::default().delay(Duration::from_millis(10));
    options
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

/// Runs a test on a namespace of this format.
fn on_format<F: Future<Output = ()>>(format: Format, test: impl FnOnce(Bed) -> F) {
    let fabric = Fabric::auto(1);
    let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
    let longest = Arc::new(AtomicUsize::new(0));
    let noted = Arc::clone(&longest);
    let hook = move |seen: ReceivedCommand, _: &mut Answer| {
        if seen.is_io() {
            noted.fetch_max(seen.keyed().0, Ordering::Relaxed);
        }
    };
    let target = Target::new(&fabric, Box::new(hook)).supporting(ONCS, 1).formatted(format);
    let medium = target.medium();
    block_on(async {
        tokio::spawn(target.run());
        let controller = Controller::connect_over(&host, &options()).await.expect("it succeeds");
        let namespace = controller.namespace(NamespaceId(1)).await.expect("it succeeds");
        test(Bed { controller, namespace, medium, format, longest }).await;
    });
}

/// Format with protection information and this many bytes of other metadata.
fn protected(guard: Guard, kind: u8, first: bool, other: usize) -> Format {
    let (block, bytes, storage_tag_bits) = match guard {
        Guard::Short => (512, 8, 8),
        Guard::Medium => (4096, 16, 24),
        Guard::Long => (4096, 16, 0),
    };
    let protection = Some(Protection { guard, kind, first, storage_tag_bits });
    Format { block, metadata: bytes + other, protection }
}

/// Metadata of 64 bytes without protection information.
const OTHER: Format = Format { block: 512, metadata: 64, protection: None };

fn is_identify_namespace(seen: ReceivedCommand) -> bool {
    seen.queue == 0 && (seen.sqe[0], seen.sqe[40]) == (0x06, 0x00)
}

fn by(action: ProtectionAction) -> ProtectionOptions {
    ProtectionOptions { action, ..ProtectionOptions::default() }
}

fn status(error: &Error) -> Status {
    match error {
        Error::Rejected(Rejected::Command { status, .. }) => status.code(),
        error => panic!("{error}"),
    }
}

fn assert_metadata_refused(error: &Error) {
    assert!(matches!(error, Error::Misuse(Misuse::Metadata { .. })), "{error}");
    assert!(error.to_string().contains("bytes of metadata a block"), "{error}");
}

const GUARDS: [Guard; 3] = [Guard::Short, Guard::Medium, Guard::Long];

/// Each side makes protection information that the other finds right, in every format.
#[test]
fn each_side_checks_what_the_other_made() {
    for guard in GUARDS {
        for (kind, first, other) in [1, 2, 3].into_iter().flat_map(|kind| {
            [(false, 0), (true, 0), (false, 8), (true, 8)]
                .map(|(first, other)| (kind, first, other))
        }) {
            on_format(protected(guard, kind, first, other), |bed| async move {
                exchange(&bed, other == 0).await;
                bed.controller.shutdown().await;
            });
        }
    }
}

async fn exchange(bed: &Bed, is_protection_only: bool) {
    let (host, controller) = (by(ProtectionAction::Host), by(ProtectionAction::Controller));
    let caller = by(ProtectionAction::Caller);
    let data = noise(5 * bed.format.block, 1);
    let extended = bed.extended(&data);
    let what = bed.format;

    // Blocks that were never written have no checks.
    assert!(bed.read_extended(0, 3, &host).await.is_ok(), "{what:?}");

    // Made by this host: the controller checks it at the write, and at the read that strips it.
    bed.namespace.write_extended(7, bed.filled(&extended), &host).await.expect("it is right");
    let stripped = if is_protection_only { data.len() } else { extended.len() };
    let buffer = bed.controller.allocate(stripped).expect("memory");
    let read = bed.namespace.read_extended(7, buffer, &controller).await.expect("it is right");
    let read = content(&read);
    let read = if is_protection_only { read } else { bed.data(&read) };
    assert!(read == data, "{what:?}");

    // As it is on the medium.
    let stored = bed.read_extended(7, 5, &caller).await.expect("nothing is checked");
    let medium =
        bed.medium.lock().expect("no test panics")[7 * bed.size()..][..5 * bed.size()].to_vec();
    assert!(stored == medium && bed.data(&stored) == data, "{what:?}");

    // Made by the controller: checked by this host.
    let plain = if is_protection_only { data.clone() } else { extended };
    bed.namespace.write_extended(40, bed.filled(&plain), &controller).await.expect("it is made");
    let read = bed.read_extended(40, 5, &host).await.expect("it is right");
    assert!(bed.data(&read) == data, "{what:?}");
    let checks = Some(ProtectionChecks { guard: true, ..ProtectionChecks::default() });
    let checked = ProtectionOptions { checks, ..caller };
    bed.read_extended(40, 5, &checked).await.expect("the controller finds it right");
    bed.namespace.compare_extended(40, bed.filled(&read), &host).await.expect("it is equal");
}

#[test]
fn a_mismatch_names_block_and_values_and_returns_the_buffer() {
    for guard in GUARDS {
        on_format(protected(guard, 1, false, 0), |bed| async move {
            let host = by(ProtectionAction::Host);
            let data = noise(8 * bed.format.block, 2);
            let extended = bed.extended(&data);
            bed.namespace.write_extended(16, bed.filled(&extended), &host).await.unwrap();
            let place = 19 * bed.size() + bed.format.block - 1;
            bed.flip(place, 0x10);
            let buffer = bed.controller.allocate(extended.len()).unwrap();
            let failed = bed.namespace.read_extended(16, buffer, &host).await.unwrap_err();
            let Error::Protection(mismatch) = &failed.error else { panic!("{failed}") };
            assert_eq!((mismatch.lba, mismatch.field), (19, ProtectionField::Guard));
            assert_ne!(mismatch.found, mismatch.expected);
            let text = failed.to_string();
            assert!(text.starts_with("the guard of block 19 is 0x"), "{text}");
            assert_eq!(failed.execution, ExecutionStatus::Responded);
            assert_eq!(failed.error.class(), ErrorClass::Failed);
            assert_eq!(failed.buffer.map(|buffer| buffer.len()), Some(extended.len()));

            // The controller finds it, too.
            let buffer = bed.controller.allocate(data.len()).unwrap();
            let failed = bed.namespace.read(16, buffer).await.unwrap_err();
            assert_eq!(status(&failed.error), Status::GUARD_CHECK_ERROR);
            let error = bed.namespace.verify(16..24, None).await.unwrap_err();
            assert_eq!(status(&error), Status::GUARD_CHECK_ERROR);
            bed.flip(place, 0x10);
            bed.namespace.verify(16..24, None).await.unwrap();
            bed.controller.shutdown().await;
        });
    }
}

#[test]
fn wrong_tags_are_named() {
    for guard in [Guard::Short, Guard::Medium] {
        on_format(protected(guard, 2, false, 0), |bed| async move {
            let tags = ProtectionOptions {
                application_tag: 0x1234,
                application_tag_mask: 0xff00,
                reference_tag: Some(0x00c0_ffee & 0xffff),
                storage_tag: Some(0x5a),
                ..ProtectionOptions::default()
            };
            let data = bed.extended(&noise(3 * bed.format.block, 3));
            bed.namespace.write_extended(9, bed.filled(&data), &tags).await.unwrap();
            bed.read_extended(9, 3, &tags).await.unwrap();
            let wrong = async |tags: ProtectionOptions| match bed
                .read_extended(9, 3, &tags)
                .await
                .unwrap_err()
                .error
            {
                Error::Protection(mismatch) => mismatch,
                error => panic!("{error}"),
            };
            let mismatch = wrong(ProtectionOptions { application_tag: 0x1334, ..tags }).await;
            assert_eq!(mismatch.field, ProtectionField::ApplicationTag);
            assert_eq!((mismatch.lba, mismatch.found, mismatch.expected), (9, 0x1200, 0x1300));
            let mismatch = wrong(ProtectionOptions { reference_tag: Some(5), ..tags }).await;
            assert_eq!(mismatch.field, ProtectionField::ReferenceTag);
            assert_eq!((mismatch.found, mismatch.expected), (0xffee, 5));
            let mismatch = wrong(ProtectionOptions { storage_tag: Some(0x5b), ..tags }).await;
            assert_eq!(mismatch.field, ProtectionField::StorageTag);

            // By the controller, before a write and a comparison.
            let all = ProtectionChecks { storage_tag: true, ..ProtectionChecks::of_bits(0b111) };
            let (action, checks) = (ProtectionAction::Caller, Some(all));
            let stored = bed.read_extended(9, 3, &by(action)).await.unwrap();
            let write = async |tags| {
                let options = ProtectionOptions { action, checks, ..tags };
                bed.namespace.write_extended(9, bed.filled(&stored), &options).await
            };
            write(tags).await.unwrap();
            for (tags, expected) in [
                (
                    ProtectionOptions { application_tag: 0, ..tags },
                    Status::APPLICATION_TAG_CHECK_ERROR,
                ),
                (
                    ProtectionOptions { reference_tag: Some(1), ..tags },
                    Status::REFERENCE_TAG_CHECK_ERROR,
                ),
                (
                    ProtectionOptions { storage_tag: Some(1), ..tags },
                    Status::REFERENCE_TAG_CHECK_ERROR,
                ),
            ] {
                assert_eq!(status(&write(tags).await.unwrap_err().error), expected);
            }
            bed.controller.shutdown().await;
        });
    }
}

/// The first bytes that a user writes: nothing but protection information is no different.
#[test]
fn plain_buffers_are_protected_by_the_controller() {
    for kind in [1, 2, 3] {
        on_format(protected(Guard::Short, kind, false, 0), |bed| async move {
            let (namespace, block) = (&bed.namespace, bed.format.block);
            // More than a command transfers.
            let data = noise(600 * block, 4);
            namespace.write(3, bed.filled(&data)).await.unwrap();
            let read =
                namespace.read(3, bed.controller.allocate(data.len()).unwrap()).await.unwrap();
            assert!(content(&read) == data);
            let extended = bed.read_extended(3, 600, &by(ProtectionAction::Host)).await.unwrap();
            assert!(bed.data(&extended) == data);
            let reference_tag = (kind == 2).then_some(7);
            let counted = ProtectionOptions { reference_tag, ..ProtectionOptions::default() };
            namespace.write_extended(3, bed.filled(&extended), &counted).await.unwrap();
            bed.read_extended(3, 600, &counted).await.unwrap();
            namespace.write(3, bed.filled(&data)).await.unwrap();

            let one = bed.filled(&data[..block]);
            let one = namespace.write_with_force_unit_access(699, one).await.unwrap();
            assert!(content(&namespace.read(699, one).await.unwrap()) == data[..block]);

            let halves = vec![bed.filled(&data[..block]), bed.filled(&data[block..2 * block])];
            namespace.write_vectored(700, halves).await.unwrap();
            let halves = bed.controller.allocate_many(2, block).unwrap();
            let halves = namespace.read_vectored(700, halves).await.unwrap();
            assert!(content(&halves[1]) == data[block..2 * block]);

            namespace.write_zeroes(700..702, false, None).await.unwrap();
            let range = [BlockRange { lba: 703, blocks: 2 }];
            let list = bed.controller.allocate(4096).unwrap();
            let list = namespace.deallocate(&range, list).await.unwrap();
            let zeroes =
                namespace.read(700, bed.controller.allocate(5 * block).unwrap()).await.unwrap();
            assert!(content(&zeroes).iter().all(|&byte| byte == 0));
            bed.read_extended(700, 2, &by(ProtectionAction::Host)).await.unwrap();

            let failed = namespace.copy(&range, 800, list).await.unwrap_err();
            assert_metadata_refused(&failed.error);
            let pair = bed.filled(&data[..2 * block]);
            let failed = namespace.compare_and_write(3, pair).await.unwrap_err();
            assert_metadata_refused(&failed.error);
            let failed = namespace.compare(3, bed.filled(&data[..block])).await.unwrap_err();
            assert_metadata_refused(&failed.error);
            assert!(failed.buffer.is_some() && failed.execution == ExecutionStatus::NotSent);
            bed.controller.shutdown().await;
        });
    }
}

#[test]
fn a_subsystem_reads_and_writes_what_the_controller_protects() {
    for (format, is_usable) in [(protected(Guard::Long, 1, false, 0), true), (OTHER, false)] {
        let fabric = Fabric::auto(1);
        let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
        // Paths are only of a namespace that has an identifier.
        let hook = |seen: ReceivedCommand, answer: &mut Answer| {
            if is_identify_namespace(seen) {
                answer.data[104] = 1;
            }
        };
        let target = Target::new(&fabric, Box::new(hook)).supporting(ONCS, 0);
        block_on(async {
            tokio::spawn(target.formatted(format).run());
            let options = SubsystemOptions::new(options());
            let subsystem = Subsystem::connect_over(&host, &options).await.unwrap();
            let namespace = subsystem.namespace(NamespaceId(1)).await.unwrap();
            let data = noise(3 * format.block, 5);
            let mut buffer = subsystem.allocate(data.len()).unwrap();
            buffer.copy_in(0, &data);
            match namespace.write(5, buffer).await {
                Ok(buffer) => {
                    let buffer = namespace.read(5, buffer).await.unwrap();
                    assert!(is_usable && content(&buffer) == data);
                    let failed = namespace.compare(5, buffer).await.unwrap_err();
                    assert_metadata_refused(&failed.error);
                }
                Err(failed) => {
                    assert!(!is_usable);
                    assert_metadata_refused(&failed.error);
                }
            }
            match Client::of(subsystem).namespace(1).await {
                Ok(bytes) => {
                    bytes.write_all_at(b"of a block", 7).await.unwrap();
                    let read = bytes.read_bytes(8, 8).await.unwrap();
                    assert!(is_usable && &read[..] == b"f a bloc");
                }
                Err(error) => {
                    assert!(!is_usable);
                    assert_metadata_refused(&error);
                }
            }
        });
    }
}

#[test]
fn other_metadata_is_interleaved_with_the_data() {
    on_format(OTHER, |bed| async move {
        let (namespace, blocks) = (&bed.namespace, 300);
        let (data, metadata) = (noise(blocks * 512, 6), noise(blocks * 64, 7));
        let options = ProtectionOptions::default();
        let bounce = bed.controller.allocate(blocks * 576).unwrap();
        let bounce = namespace.write_separate(2, bounce, &data, &metadata, &options).await.unwrap();
        let (mut read, mut other) = (vec![0; data.len()], vec![0; metadata.len()]);
        let bounce =
            namespace.read_separate(2, bounce, &mut read, &mut other, &options).await.unwrap();
        assert!(read == data && other == metadata);
        // Of 227 blocks with their metadata: one more is above the controller's limit, 128 KiB.
        assert_eq!(bed.longest.load(Ordering::Relaxed), 227 * 576);
        let extended = bed.read_extended(3, 1, &options).await.unwrap();
        assert!(extended == [&data[512..1024], &metadata[64..128]].concat());
        let buffer = namespace.compare_extended(3, bed.filled(&extended), &options).await.unwrap();

        let range = [BlockRange { lba: 2, blocks: 2 }];
        let list = bed.controller.allocate(4096).unwrap();
        namespace.copy(&range, 900, list).await.unwrap();
        assert!(bed.read_extended(901, 1, &options).await.unwrap() == extended);

        // Without it, blocks are not transferred.
        for failed in [
            namespace.read(3, bed.filled(&data[..512])).await.unwrap_err(),
            namespace.write(3, bed.filled(&data[..512])).await.unwrap_err(),
            namespace.compare(3, buffer).await.unwrap_err(),
        ] {
            assert_metadata_refused(&failed.error);
            assert!(failed.buffer.is_some());
        }
        let vectored = namespace.read_vectored(3, vec![bed.filled(&data[..512])]).await;
        assert_metadata_refused(&vectored.unwrap_err().error);
        let controller = by(ProtectionAction::Controller);
        let failed =
            namespace.read_extended(3, bed.filled(&extended), &controller).await.unwrap_err();
        assert!(failed.to_string().contains("no protection information"), "{failed}");
        let short = namespace.write_separate(2, bounce, &data, &metadata[1..], &options).await;
        let failed = short.unwrap_err();
        assert!(failed.to_string().contains("not of the same blocks"), "{failed}");
        let failed =
            namespace.read_extended(3, bed.filled(&data[..512]), &options).await.unwrap_err();
        assert!(failed.to_string().contains("multiple of the block size, 576 bytes"), "{failed}");
        bed.controller.shutdown().await;
    });
}

#[test]
fn tags_that_the_format_does_not_have_are_refused() {
    on_format(protected(Guard::Short, 1, false, 0), |bed| async move {
        let namespace = &bed.namespace;
        let refused = async |options: ProtectionOptions, words: &str| {
            let failed = bed.read_extended(9, 1, &options).await.unwrap_err();
            assert!(matches!(failed.error, Error::Misuse(Misuse::Protection { .. })), "{failed}");
            assert!(failed.to_string().contains(words), "{failed}");
        };
        let host = by(ProtectionAction::Host);
        refused(ProtectionOptions { reference_tag: Some(1 << 24), ..host }, "more bits").await;
        refused(ProtectionOptions { storage_tag: Some(256), ..host }, "more bits").await;
        refused(ProtectionOptions { reference_tag: Some(8), ..host }, "low bits").await;
        let controller = by(ProtectionAction::Controller);
        let compared = namespace.compare_extended(9, bed.filled(&[0; 512]), &controller).await;
        assert!(compared.unwrap_err().to_string().contains("Compare"));
        let stripped = namespace
            .read_separate(9, bed.filled(&[0; 512]), &mut [0; 512], &mut [], &controller)
            .await;
        assert!(stripped.unwrap_err().to_string().contains("strips all"));

        // Commands of the caller's own have the length that their fields ask for.
        let io = async |length: usize, inserts: bool| {
            let command = Command::read(NamespaceId(1), 9, 1, bed.filled(&vec![0; length]));
            let format = namespace.info().metadata.protection.unwrap();
            let (checks, tags) = Default::default();
            let sqe = command.sqe.with_protection(format, inserts, checks, tags);
            namespace.io_command(Command { sqe, ..command }).await.outcome
        };
        assert!(io(512, true).await.is_ok() && io(520, false).await.is_ok());
        assert!(io(520, true).await.is_err() && io(512, false).await.is_err());
        bed.controller.shutdown().await;
    });
}

#[test]
fn metadata_apart_from_its_blocks_is_refused() {
    let fabric = Fabric::auto(1);
    let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
    let hook = |seen: ReceivedCommand, answer: &mut Answer| {
        if is_identify_namespace(seen) {
            answer.data[26] = 0;
        }
    };
    let target = Target::new(&fabric, Box::new(hook)).formatted(OTHER);
    block_on(async {
        tokio::spawn(target.run());
        let controller = Controller::connect_over(&host, &options()).await.unwrap();
        let error = controller.namespace(NamespaceId(1)).await.err().expect("it can't be used");
        let namespace = NamespaceId(1);
        let expected = IdentifyError::SeparateMetadata { namespace, bytes: 64 };
        let is_it =
            matches!(&error, Error::Malformed(Malformed::Identify(one)) if *one == expected);
        assert!(is_it, "{error}");
        controller.shutdown().await;
    });
}
