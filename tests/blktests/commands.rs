//! Commands: what they do to blocks, and what the target says of itself.

use rdma_host::{
    Buffer, Command, CommandCompletion, Controller, Data, Poller, RangeCommands, WaitMode,
    wire::{BlockRange, NamespaceId, OptionalCommand},
};

use super::*;

/// blktests nvme/004 and nvme/008: the UUID and the NGUID are those of the target; nvme/026: they
/// are read as descriptors.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn namespaces_are_known_by_the_names_of_the_target() {
    in_runtime(async {
        let controller = connected().await;
        let info = controller.identify_namespace(FIRST).await.unwrap();
        assert_eq!(info.uuid.unwrap().to_string(), UUID);
        assert_eq!(info.nguid.unwrap().simple().to_string(), NGUID);
        assert_eq!(info.command_set, 0);
        let other = controller.identify_namespace(SECOND).await.unwrap();
        assert!(other.uuid.is_some() && other.uuid != info.uuid);
        controller.shutdown().await;
    });
    let shown = json(&["identify"]);
    let first = &shown["namespaces"][0];
    assert_eq!((first["uuid"].as_str(), first["nguid"].as_str()), (Some(UUID), Some(NGUID)));
    let shown = text(&["identify"]);
    assert!(shown.contains(UUID) && shown.contains(NGUID), "{shown}");
}

/// blktests nvme/014: what is flushed was written.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_namespace_is_filled_and_flushed() {
    in_runtime(async {
        let controller = connected().await;
        let namespace = controller.namespace(THIRD).await.unwrap();
        let data = blocks_of_noise(&namespace, namespace.info().blocks);
        write(&controller, &namespace, 0, &data).await;
        namespace.flush().await.unwrap();
        assert!(read(&controller, &namespace, 0, data.len()).await == data);
        controller.shutdown().await;
    });
}

/// Submits a command and waits for it.
async fn run(poller: &mut Poller, command: Command) -> CommandCompletion {
    poller.submit(command).expect("there is room");
    poller.ring_doorbells().expect("it is connected");
    loop {
        poller.poll().expect("it is connected");
        if let Some(done) = poller.take() {
            return done;
        }
        poller.ready(Duration::from_millis(100)).await.expect("it is connected");
    }
}

/// blktests nvme/018: a read past the last block is refused, and the queue goes on.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn reads_past_the_end_are_refused() {
    in_runtime(async {
        let controller = connected().await;
        let namespace = controller.namespace(FIRST).await.unwrap();
        let info = namespace.info();
        let buffer = controller.allocate(1024).unwrap();
        let failed = namespace.read(info.blocks - 1, buffer).await.unwrap_err();
        assert!(failed.error.to_string().contains("past the end"), "{failed}");
        controller.shutdown().await;

        // Past our own check, the target refuses.
        let (controller, mut pollers) = Controller::connect(&options()).polled(1).await.unwrap();
        let poller = &mut pollers[0];
        let beyond = |lba, buffer| Command::read(info.id, lba, 2, buffer);
        for lba in [info.blocks - 1, info.blocks, u64::MAX - 2] {
            let done = run(poller, beyond(lba, controller.allocate(1024).unwrap())).await;
            let status = done.outcome.expect("the target answers").status();
            println!("from block {lba} of {}: {status}", info.blocks);
            assert!(!status.is_success() && status.do_not_retry(), "{status}");
        }
        let done = run(poller, beyond(info.blocks - 2, controller.allocate(1024).unwrap())).await;
        assert!(done.outcome.unwrap().status().is_success());
        drop(pollers);
        controller.shutdown().await;
    });
}

/// blktests nvme/019: ranges of blocks are deallocated, 10 there; here also 1 and the most.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn ranges_of_blocks_are_deallocated() {
    const BLOCK: usize = 512;
    in_runtime(async {
        let controller = connected().await;
        let supported = controller.negotiated().info.optional_commands;
        assert!(supported.contains(OptionalCommand::DatasetManagement));
        let namespace = controller.namespace(FIRST).await.unwrap();
        let data = blocks_of_noise(&namespace, 256 * 16);
        for count in [1, 10, 256] {
            write(&controller, &namespace, 0, &data).await;
            // Whole pages of 4 KiB: a device may keep less.
            let ranges: Vec<_> =
                (0..count).map(|index| BlockRange { lba: index * 16, blocks: 8 }).collect();
            let buffer = controller.allocate(4096).unwrap();
            let buffer = namespace.deallocate(&ranges, buffer).await.unwrap();
            assert_eq!(buffer.len(), 4096, "the buffer comes back whole");
            let now = read(&controller, &namespace, 0, data.len()).await;
            for (index, (now, before)) in
                now.chunks(16 * BLOCK).zip(data.chunks(16 * BLOCK)).enumerate()
            {
                let gone = (index as u64) < count;
                let zeros = now[..8 * BLOCK].iter().all(|&byte| byte == 0);
                assert!(zeros == gone, "range {index} of {count}");
                assert!(gone || now == before, "range {index} of {count}");
                assert!(now[8 * BLOCK..] == before[8 * BLOCK..], "behind range {index}");
            }
        }
        let too_many = vec![BlockRange { lba: 0, blocks: 1 }; 257];
        for ranges in [&too_many[..], &[]] {
            let buffer = controller.allocate(8192).unwrap();
            let failed = namespace.deallocate(ranges, buffer).await.unwrap_err();
            assert!(failed.to_string().contains("1 to 256"), "{failed}");
        }
        let outside = [BlockRange { lba: namespace.info().blocks, blocks: 1 }];
        let buffer = controller.allocate(4096).unwrap();
        let failed = namespace.deallocate(&outside, buffer).await.unwrap_err();
        assert!(failed.to_string().contains("past the end"), "{failed}");
        controller.shutdown().await;
    });
}

/// blktests nvme/065: the limits of Write Zeroes are known, and kept.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn zeros_are_written_within_the_limits() {
    in_runtime(async {
        let controller = connected().await;
        let agreed = controller.negotiated();
        assert!(agreed.info.optional_commands.contains(OptionalCommand::WriteZeroes));
        let limits = controller.nvm_limits().await.unwrap();
        println!("{limits:?}");
        for id in [FIRST, SECOND] {
            let namespace = controller.namespace(id).await.unwrap();
            let block_size = namespace.info().block_size as usize;
            let page = agreed.capabilities.page_size_min();
            let limit = limits.write_zeroes_bytes_max(page);
            // With the least limit there can be, it takes three commands.
            let least = Some(2 * page);
            for (limit, deallocate) in [(limit, false), (least, false), (least, true)] {
                let data = blocks_of_noise(&namespace, 64);
                write(&controller, &namespace, 0, &data).await;
                let last = 10 + (5 * page / block_size as u64);
                namespace.write_zeroes(10..last, deallocate, limit).await.unwrap();
                let now = read(&controller, &namespace, 0, data.len()).await;
                let zeros = 10 * block_size..usize::try_from(last).unwrap() * block_size;
                assert!(now[zeros.clone()].iter().all(|&byte| byte == 0), "{deallocate}");
                assert!(now[..zeros.start] == data[..zeros.start]);
                assert!(now[zeros.end..] == data[zeros.end..]);
            }
        }
        controller.shutdown().await;
    });
}

/// blktests nvme/029: transfers of odd sizes from odd blocks on, on either side of what one command
/// and one page carry.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn transfers_of_odd_sizes_are_whole() {
    in_runtime(async {
        let controller = connected().await;
        for id in [FIRST, SECOND] {
            let namespace = controller.namespace(id).await.unwrap();
            for (index, blocks) in [1, 511, 512, 513, 1023, 1024, 1025].into_iter().enumerate() {
                let lba = 2 * index as u64 * 700 + 1;
                let data = blocks_of_noise(&namespace, blocks);
                write(&controller, &namespace, lba, &data).await;
                let back = read(&controller, &namespace, lba, data.len()).await;
                assert!(back == data, "{blocks} blocks from {lba} on of namespace {id} differ");
            }
        }
        controller.shutdown().await;
    });
}

/// blktests nvme/021 (list) and nvme/028 (list-subsys): what is connected to is shown; nvme/023
/// (smart-log) and nvme/025 (effects-log), with the other pages there are.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn what_the_target_says_of_itself_is_shown() {
    let shown = json(&["identify"]);
    assert_eq!(shown["subsystem_nqn"], SUBSYSTEM);
    let ids = shown["namespaces"].as_array().unwrap();
    assert_eq!(ids.iter().map(|one| one["nsid"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);

    let health = json(&["log", "health"]);
    assert_eq!(health["critical_warning"], 0);
    let warnings = |line: &str| line.starts_with("critical warnings ") && line.ends_with(" 0x00");
    assert!(text(&["log", "health"]).lines().any(warnings));

    let effects = json(&["log", "effects"]);
    let opcodes = |set: &str| -> Vec<u64> {
        let all = effects[set].as_array().unwrap().iter();
        all.map(|one| one["opcode"].as_u64().unwrap()).collect()
    };
    // Identify and Keep Alive; Flush, Write and Read.
    assert!([0x06, 0x18].iter().all(|opcode| opcodes("admin").contains(opcode)), "{effects}");
    assert!([0, 1, 2].iter().all(|opcode| opcodes("io").contains(opcode)), "{effects}");
    assert!(text(&["log", "effects"]).lines().any(|line| line.starts_with("I/O   0x01")));

    let firmware = json(&["log", "firmware"]);
    println!("firmware: {firmware}");
    assert!(firmware["revisions"].as_array().unwrap().len() == 7);
    let ana = json(&["log", "ana"]);
    let groups = ana["groups"].as_array().unwrap();
    assert!(groups.iter().any(|group| group["group"] == 2 && group["namespaces"][0] == 2), "{ana}");
    assert!(text(&["log", "ana"]).contains("group 1: optimized; namespaces: 1, 3"));
    assert_eq!(json(&["log", "changed"])["changed"], serde_json::json!([]));
    let errors = json(&["log", "error"]);
    println!("errors: {}", errors["errors"].as_array().unwrap().len());
}

/// blktests nvme/047: queues that are polled beside queues that wait for events.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn queues_are_polled_and_waited_for_side_by_side() {
    in_runtime(async {
        let mut options = options();
        options.io_queues = 2;
        let (controller, mut pollers) = Controller::connect(&options).polled(2).await.unwrap();
        assert_eq!(pollers.iter().map(Poller::queue_count).collect::<Vec<_>>(), [1, 1]);
        let (mut polled, mut waited) = (pollers.remove(0), pollers.remove(0));
        for lba in (0..2048).step_by(64) {
            let data = noise(32 << 10, lba);
            let mut buffer = controller.allocate(data.len()).unwrap();
            buffer.copy_in(0, &data);
            let done = run(&mut waited, Command::write(FIRST, lba, 64, buffer)).await;
            let (response, buffer) = (done.outcome.unwrap(), done.data.unwrap());
            assert!(response.status().is_success());
            let done = spin(&mut polled, Command::read(FIRST, lba, 64, buffer));
            assert!(done.outcome.unwrap().status().is_success());
            assert!(content(&done.data.unwrap()) == data, "block {lba}");
        }
        drop((polled, waited));
        controller.shutdown().await;
        for wait in [WaitMode::Poll, WaitMode::Event, WaitMode::default()] {
            options.wait = wait;
            let controller = Controller::connect(&options).await.unwrap();
            let namespace = controller.namespace(NamespaceId(2)).await.unwrap();
            let data = blocks_of_noise(&namespace, 1024);
            write(&controller, &namespace, 0, &data).await;
            assert!(read(&controller, &namespace, 0, data.len()).await == data);
            controller.shutdown().await;
        }
    });
}

/// Submits a command and polls until it is done.
fn spin(poller: &mut Poller, command: Command) -> CommandCompletion {
    assert!(matches!(command.data, Data::FromController(_)));
    poller.submit(command).expect("there is room");
    poller.ring_doorbells().expect("it is connected");
    loop {
        poller.poll().expect("it is connected");
        if let Some(done) = poller.take() {
            return done;
        }
        std::thread::yield_now();
    }
}

fn content(buffer: &Buffer) -> Vec<u8> {
    let mut data = vec![0; buffer.len()];
    buffer.copy_out(0, &mut data);
    data
}
