//! Commands that the caller builds.

use std::{
    process::Command as Process,
    sync::{Arc, Mutex},
};

use rdma_host::{
    Command, Data, Error, ExecutionStatus,
    error::{Incompatible, Misuse},
    proto::Transfer,
    wire::{FeatureSelect, GetLogPage, LogPage, NamespaceId, Opcode, OptionalCommand, Sqe},
};
use serde_json::Value;
use tests::{
    KernelInitiator, SUBSYSTEM, noise, run,
    target::{Answer, ReceivedCommand},
    uri,
};

use super::{
    BLOCK,
    bed::{done, refused},
    on_controller, on_target,
};

const FIRST: NamespaceId = NamespaceId(1);

/// ONCS of a controller with saved values of features.
const SAVES: u16 = 1 << 4;

/// Admin commands that arrived, and the data of each.
type AdminCommands = Arc<Mutex<Vec<(ReceivedCommand, Vec<u8>)>>>;

/// Hook that notes the commands with these opcodes on the admin queue.
fn noting(
    opcodes: &'static [u8],
) -> (AdminCommands, impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static) {
    let noted = AdminCommands::default();
    let inner = Arc::clone(&noted);
    let hook = move |seen: ReceivedCommand, answer: &mut Answer| {
        if seen.queue != 0 || !opcodes.contains(&seen.sqe[0]) {
            return;
        }
        let mut noted = inner.lock().expect("no test panics");
        noted.push((seen, answer.carried.clone()));
        if seen.sqe[0] & 0b11 == 0b10 {
            answer.data = noise(seen.keyed().0, u64::from(seen.u32_at(52)));
            answer.messages = vec![seen.response(0, 0x1234_5678)];
        }
    };
    (noted, hook)
}

fn is_refused<T: std::fmt::Debug>(result: Result<T, Error>) {
    let error = result.expect_err("it is refused");
    assert!(matches!(error, Error::Misuse(Misuse::Passthrough { .. })), "{error}");
}

#[test]
fn features_are_read_and_set_with_their_data() {
    let (noted, hook) = noting(&[0x09, 0x0a]);
    on_target((SAVES, 0), hook, |controller, _| async move {
        noted.lock().unwrap().clear();
        let (value, data) =
            controller.get_feature(0x0e, FeatureSelect::Saved, FIRST, 5, 8).await.unwrap();
        assert_eq!((value, data), (0x1234_5678, noise(8, 0)));
        let data = noise(512, 3);
        controller.set_feature(0x85, true, FIRST, [6, 7, 0, 0, 0], data.clone()).await.unwrap();
        is_refused(controller.set_feature(0x85, true, FIRST, [0; 5], vec![0; 3]).await);
        let noted = std::mem::take(&mut *noted.lock().unwrap());
        let [(get, _), (set, carried)] = noted.as_slice() else { panic!("{}", noted.len()) };
        assert_eq!((get.u32_at(40), get.u32_at(44), get.u32_at(4)), (0x020e, 5, 1));
        let fields = (set.u32_at(40), set.u32_at(44), set.u32_at(48));
        assert_eq!(fields, (0x8000_0085, 6, 7));
        assert!(*carried == data);
        controller.shutdown().await;
    });
}

#[test]
fn a_controller_that_saves_nothing_is_not_asked_to() {
    let (noted, hook) = noting(&[0x09, 0x0a]);
    on_target((!SAVES, 0), hook, |controller, _| async move {
        noted.lock().unwrap().clear();
        let get = controller.get_feature(7, FeatureSelect::Default, FIRST, 0, 0).await;
        let set = controller.set_feature(7, true, FIRST, [0; 5], Vec::new()).await;
        for error in [get.map(drop).unwrap_err(), set.map(drop).unwrap_err()] {
            let command = OptionalCommand::SaveAndSelect;
            assert!(matches!(error, Error::Incompatible(Incompatible::NoCommand(one))
                if one == command));
        }
        assert!(noted.lock().unwrap().is_empty());
        controller.shutdown().await;
    });
}

#[test]
fn admin_commands_have_the_direction_of_their_opcode() {
    let (noted, hook) = noting(&[0xc0, 0xc1, 0xc2]);
    on_target((0, 0), hook, |controller, _| async move {
        let command = |opcode| Sqe::with_dwords(Opcode(opcode), FIRST, [1, 2], [3, 4, 5, 6, 7, 8]);
        let send = |opcode, transfer| controller.admin_command(command(opcode), transfer);
        let to = |bytes: usize| Transfer::ToController(noise(bytes, 1));
        send(0xc0, Transfer::None).await.unwrap();
        send(0xc1, to(64)).await.unwrap();
        let (response, data) = send(0xc2, Transfer::FromController(4096)).await.unwrap();
        assert_eq!((response.result_dword(), data), (0x1234_5678, noise(4096, 6)));
        is_refused(send(0xc0, to(64)).await);
        is_refused(send(0xc1, Transfer::FromController(64)).await);
        is_refused(send(0xc2, to(64)).await);
        is_refused(send(0xc3, to(64)).await);
        is_refused(send(0xc1, to(0)).await);
        is_refused(send(0xc1, to(63)).await);
        for opcode in [Opcode::FABRICS, Opcode::KEEP_ALIVE, Opcode::ASYNCHRONOUS_EVENT_REQUEST] {
            is_refused(send(opcode.0, Transfer::None).await);
        }
        let large = send(0xc2, Transfer::FromController(16_388)).await.unwrap_err();
        assert!(matches!(large, Error::Misuse(Misuse::CommandBytes { .. })), "{large}");
        let noted = std::mem::take(&mut *noted.lock().unwrap());
        assert_eq!(noted.len(), 3);
        assert!(noted[1].1 == noise(64, 1));
        assert_eq!([8, 12, 40, 60].map(|at| noted[0].0.u32_at(at)), [1, 2, 3, 8]);
        controller.shutdown().await;
    });
}

#[test]
fn a_long_log_page_is_read_in_parts() {
    let (noted, hook) = noting(&[0x02]);
    on_target((0, 0), hook, |controller, _| async move {
        let page = GetLogPage { offset: 4, ..GetLogPage::new(LogPage(0xc5), 40_000) };
        assert_eq!(controller.log_page(page).await.unwrap().len(), 40_000);
        is_refused(controller.log_page(GetLogPage { bytes: 6, ..page }).await);
        let noted = std::mem::take(&mut *noted.lock().unwrap());
        let parts = noted.iter().map(|(seen, _)| {
            let retains = seen.sqe[41] & 0x80 != 0;
            (seen.u64_at(48), seen.keyed().0, retains)
        });
        let expected = [(4, 16_384, true), (16_388, 16_384, true), (32_772, 7232, false)];
        assert_eq!(parts.collect::<Vec<_>>(), expected);
        controller.shutdown().await;
    });
}

#[test]
fn io_commands_are_checked_and_an_unknown_one_is_sent_once() {
    let hook = |seen: ReceivedCommand, answer: &mut Answer| {
        if seen.sqe[0] == 0x81 {
            answer.messages.clear();
            answer.disconnect = true;
        }
    };
    on_controller((0, 0), hook, |controller, namespace, arrived| async move {
        let buffer = |blocks: usize| controller.allocate(blocks * BLOCK).unwrap();
        let command = |sqe, data| namespace.io_command(Command { sqe, data, user: 0 });
        let read = |namespace, blocks| Sqe::read(NamespaceId(namespace), 0, blocks);
        let sent = command(read(1, 2), Data::FromController(buffer(2))).await;
        assert!(sent.into_result("Read").0.is_ok());
        for (sqe, data) in [
            (read(2, 2), Data::FromController(buffer(2))),
            (read(1, 2), Data::FromController(buffer(1))),
            (read(1, 2), Data::None),
            (read(1, 2), Data::ToController(buffer(2))),
            (Sqe::flush(FIRST), Data::FromController(buffer(1))),
        ] {
            let completion = command(sqe, data).await;
            assert_eq!(completion.execution, ExecutionStatus::NotSent);
            is_refused(completion.outcome);
        }
        let vendor = Sqe::with_dwords(Opcode(0x81), FIRST, [0; 2], [0; 6]);
        let completion = command(vendor, Data::ToController(buffer(1))).await;
        assert_eq!(completion.execution, ExecutionStatus::Unknown);
        assert!(completion.data.is_some());
        // After the reconnect.
        let sent = command(read(1, 1), Data::FromController(buffer(1))).await;
        assert!(sent.into_result("Read").0.is_ok());
        assert_eq!(*arrived.lock().unwrap(), [0x02, 0x81, 0x02]);
        controller.shutdown().await;
    });
}

/// The bytes are those that nvme-cli gets through the kernel's initiator.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn passthrough_has_the_bytes_of_nvme_cli() {
    let target = uri(SUBSYSTEM);
    let data = noise(2 * BLOCK, 8);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &data).unwrap();
    let write = format!(
        "io-passthru --ns 1 --opcode 1 --cdw10 5 --cdw12 1 --data-len 1024 --write --input-file {}",
        file.path().display()
    );
    refused(&target, &write, &[], 2, "--overwrite");
    done(&target, &format!("{write} --overwrite --force"), &[]);
    assert!(done(&target, "read --ns 1 --lba 5 --blocks 2", &[]) == data);

    let kernel = KernelInitiator::connect();
    let device = kernel.device(1);
    let theirs = |line: &str| {
        let mut nvme = Process::new("nvme");
        let mut words = line.split(' ');
        nvme.arg(words.next().expect("a command")).arg(&device).args(words);
        run(&mut nvme, &[]).stdout
    };
    let read = "io-passthru --opcode 2 --cdw10 5 --cdw12 1 --data-len 1024 --read --raw-binary";
    assert!(done(&target, &format!("{read} --ns 1"), &[]) == data);
    assert!(theirs(&format!("{read} --namespace-id 1")) == data);
    let identify = "admin-passthru --opcode 6 --cdw10 1 --data-len 4096 --read --raw-binary";
    let (ours, others) = (done(&target, identify, &[]), theirs(identify));
    let without_id = |data: &[u8]| [&data[..78], &data[80..]].concat();
    assert!(ours.len() == 4096 && without_id(&ours) == without_id(&others));
    let log = "get-log --log-id 5 --log-len 4096 --raw-binary";
    assert!(done(&target, log, &[]) == theirs(log), "commands supported and effects");
    drop(kernel);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn features_are_read_and_set() {
    let target = uri(SUBSYSTEM);
    let shown = done(&target, "get-feature --feature-id 7 -o json", &[]);
    let shown: Value = serde_json::from_slice(&shown).expect("JSON");
    let queues = shown["result"].as_u64().expect("a number");
    assert!(queues & 0xffff == queues >> 16 && queues > 0, "{shown}");
    let id = "00000000-0000-0000-0000-00000000000c";
    let line = format!("get-feature --feature-id 0x81 --cdw11 1 --hostid {id} --raw-binary");
    let (code, message, output) = super::bed::nvmf_on(&target, &line, &[]);
    assert!(code == Some(0), "{message}");
    assert_eq!((output.stdout.len(), output.stdout.last()), (16, Some(&0x0c)));
    done(&target, "set-feature --feature-id 0x0b --value 0x100", &[]);
    refused(&target, "set-feature --feature-id 0xee --value 0", &[], 1, "Set Features failed");
    refused(&target, "get-feature --feature-id 7 --sel saved", &[], 1, "(ONCS bit 4)");
    refused(&target, "set-feature --feature-id 11 --value 0 --save", &[], 1, "(ONCS bit 4)");
    let format = "admin-passthru --opcode 0x80 --ns 1 --overwrite";
    refused(&target, format, &[], 1, "does not support opcode 0x80");
    refused(&target, &format!("{format} --force"), &[], 1, "invalid command opcode");
}
