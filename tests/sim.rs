//! A target that breaks the protocol, fails or falls silent: every request ends once, with its
//! buffer, and the error says whose fault it was. Over the fabric, so it needs no device and runs
//! anywhere.

use std::{sync::Arc, time::Duration};

use rdma_fabric::{Fabric, Host, Recorder, Trace};
use rdma_host::{
    ConnectOptions, Controller, Error, ErrorClass, Fence, FenceOptions, HostIdentity,
    ReconnectOptions,
    error::{Malformed, TargetMisbehaved},
    wire::NamespaceId,
};
use tests::target::{Answer, BLOCKS, Hook, ReceivedCommand, TARGET_ADDRESS, Target};

/// A fabric with a target on it, and the host to connect from.
fn bed(
    hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static,
) -> (Fabric, Arc<Host>, Target) {
    let fabric = Fabric::auto(1);
    let host = fabric.host("host", "10.0.0.1".parse().expect("an address"));
    let hook: Hook = Box::new(hook);
    let target = Target::new(&fabric, hook);
    (fabric, host, target)
}

fn options() -> ConnectOptions {
    let nqn = "nqn.2026-11.org.soft-roce:scripted".parse().expect("an NQN");
    let host = HostIdentity::from_id(uuid::Uuid::from_u128(1));
    let mut options = ConnectOptions::new(TARGET_ADDRESS.parse().expect("an address"), nqn, host);
    options.io_queues = 2;
    options.io_timeout = Duration::from_millis(500);
    options.reconnect = ReconnectOptions::never();
    // With it, the ids of queues do not begin with 1.
    options.fence = FenceOptions::default().mode(Fence::Off);
    options
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(test)
}

/// Connects to a target with this hook; the connect must fail.
fn refused(hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static) -> Error {
    let (_fabric, host, target) = bed(hook);
    run(async {
        tokio::spawn(target.run());
        Controller::connect_over(&host, &options()).await.err().expect("the connect fails")
    })
}

/// Reads while the target answers I/O with this hook; returns the error, once all have ended.
fn failed(mut hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static) -> Error {
    let (_fabric, host, target) = bed(move |seen, answer| {
        if seen.is_io() {
            hook(seen, answer);
        }
    });
    run(async {
        tokio::spawn(target.run());
        let controller =
            Controller::connect_over(&host, &options()).await.expect("an honest connect");
        let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
        let mut readers = tokio::task::JoinSet::new();
        for lba in 0..20 {
            let (namespace, mut buffer) =
                (namespace.clone(), controller.allocate(512).expect("memory"));
            readers.spawn(async move {
                for _ in 0..50 {
                    buffer = match namespace.read(lba, buffer).await {
                        Ok(buffer) => buffer,
                        Err(failed) => return Err(failed),
                    };
                }
                Ok(())
            });
        }
        let mut ended = 0;
        while let Some(outcome) = readers.join_next().await {
            let failed = outcome.expect("no task panics").expect_err("the controller is lost");
            assert!(failed.buffer.is_some(), "the buffer comes back");
            ended += 1;
        }
        assert_eq!(ended, 20);
        let cause = controller.failed().await;
        controller.shutdown().await;
        cause
    })
}

#[test]
fn an_honest_target_keeps_what_it_is_given() {
    let (_fabric, host, target) = bed(|_, _| {});
    run(async {
        tokio::spawn(target.run());
        let controller = Controller::connect_over(&host, &options()).await.unwrap();
        assert_eq!(controller.negotiated().queue_entries, 32);
        let namespace = controller.namespace(NamespaceId(1)).await.unwrap();
        assert_eq!(namespace.info().blocks, BLOCKS as u64);
        // In-capsule, keyed, and split: 4 KiB go with the command, 128 KiB are the most of one.
        for (lba, blocks) in [(3, 1), (11, 8), (100, 9), (200, 300)] {
            let data = tests::noise(blocks * 512, lba);
            let mut buffer = controller.allocate(data.len()).unwrap();
            buffer.copy_in(0, &data);
            let mut buffer = namespace.write(lba, buffer).await.unwrap();
            buffer.fill(0);
            let buffer = namespace.read(lba, buffer).await.unwrap();
            let mut read = vec![0; data.len()];
            buffer.copy_out(0, &mut read);
            assert!(read == data, "{blocks} blocks from {lba} on differ");
        }
        controller.shutdown().await;
    });
}

#[test]
fn responses_to_nothing_end_the_controller() {
    let mut count = 0;
    let error = failed(move |_, answer| {
        count += 1;
        if count == 7 {
            answer.messages[0][12..14].copy_from_slice(&[0xff, 0x7f]);
        }
    });
    assert!(matches!(&error, Error::TargetMisbehaved(TargetMisbehaved::UnknownCommand { .. })));
}

#[test]
fn a_response_sent_twice_completes_nothing_twice() {
    let mut count = 0;
    let error = failed(move |_, answer| {
        count += 1;
        if count == 30 {
            let again = answer.messages[0].clone();
            answer.messages.push(again);
        }
    });
    assert!(matches!(error, Error::TargetMisbehaved(TargetMisbehaved::UnknownCommand { .. })));
}

#[test]
fn responses_of_another_length_are_refused() {
    for length in [0u32, 8, 15, 17, 32] {
        let mut count = 0;
        let error = failed(move |_, answer| {
            count += 1;
            if count == 5 {
                answer.messages[0].resize(usize::try_from(length).expect("small"), 0);
            }
        });
        match error {
            Error::Malformed(Malformed::ResponseLength(seen, _)) => assert_eq!(seen, length),
            // Some transports do not carry empty messages.
            other => assert!(length == 0, "{length} bytes: {other}"),
        }
    }
}

#[test]
fn a_response_longer_than_its_buffer_breaks_the_queue() {
    for length in [33, 64, 200] {
        let mut count = 0;
        let error = failed(move |_, answer| {
            count += 1;
            if count == 5 {
                answer.messages[0].resize(length, 0);
            }
        });
        assert_eq!(error.class(), ErrorClass::Transport, "{length} bytes: {error}");
    }
}

#[test]
fn silence_ends_by_the_timeout() {
    let mut count = 0;
    let error = failed(move |_, answer| {
        count += 1;
        if count > 10 {
            answer.messages.clear();
            answer.data.clear();
        }
    });
    assert!(matches!(error, Error::CommandTimeout { .. }), "{error}");
}

#[test]
fn data_written_past_the_buffer_is_stopped() {
    let mut count = 0;
    let error = failed(move |_, answer| {
        count += 1;
        if count == 5 {
            // 20 buffers of one registration each: a page is not enough for this.
            answer.data = vec![0; 1 << 20];
        }
    });
    assert_eq!(error.class(), ErrorClass::Transport, "{error}");
}

#[test]
fn every_status_of_a_read_reaches_the_caller() {
    let (_fabric, host, target) = bed(|seen, answer| {
        if seen.is_io() && seen.sqe[0] == 0x02 {
            let status = u16::from_le_bytes([seen.sqe[40], seen.sqe[41]]);
            answer.messages = vec![seen.response(status, 0)];
            answer.data.clear();
        }
    });
    run(async {
        tokio::spawn(target.run());
        let controller = Controller::connect_over(&host, &options()).await.unwrap();
        let namespace = controller.namespace(NamespaceId(1)).await.unwrap();
        let mut buffer = controller.allocate(512).unwrap();
        for lba in 1..BLOCKS as u64 {
            let failed = namespace.read(lba, buffer).await.expect_err("the status is an error");
            assert!(failed.error.to_string().contains(&format!("{lba:#05x}")), "{failed}");
            buffer = failed.buffer.expect("the buffer comes back");
        }
        controller.shutdown().await;
    });
}

#[test]
fn a_demand_for_authentication_is_understood() {
    let error = refused(|seen, answer| {
        if seen.is_fabrics(0x01) {
            answer.messages = vec![seen.response(0, 0x0002_0007)];
        }
    });
    assert!(matches!(error, Error::Authentication { .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::Access);
}

#[test]
fn private_data_that_is_none_of_nvme_is_refused() {
    for (private_data, expected) in
        [(vec![9; 32], "record format 0x0909"), (vec![0xff; 4], "record format 0xffff")]
    {
        let (_fabric, host, target) = bed(|_, _| {});
        let target = target.accepting_with(&private_data);
        let error = run(async {
            tokio::spawn(target.run());
            Controller::connect_over(&host, &options()).await.err().expect("the connect fails")
        });
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// SPDK refuses without DNR; another attempt meets the same.
#[test]
fn a_refusal_that_stays_is_one_of_access_with_or_without_dnr() {
    use ErrorClass::{Access, Failed};
    for (status, class, words) in [
        (0x180, Access, "incompatible format"),
        (0x182, Access, "invalid parameters"),
        (0x184, Access, "allowed hosts, or this address to its listeners"),
        (0x181, Failed, "controller busy"),
        (0x006, Failed, "internal error"),
    ] {
        for do_not_retry in [0, 0x4000] {
            let error = refused(move |seen, answer| {
                if seen.is_fabrics(0x01) {
                    answer.messages = vec![seen.response(status | do_not_retry, 0)];
                }
            });
            assert!(error.to_string().contains(words), "{error}");
            let class = if status == 0x006 && do_not_retry != 0 { Access } else { class };
            assert_eq!(error.class(), class, "{error}");
        }
    }
}

/// The connection manager rejects what no listener takes, with private data of zeroes or none.
#[test]
fn a_rejection_without_private_data_of_nvme_says_that_nothing_listens() {
    for private_data in [vec![], vec![0; 148]] {
        let (_fabric, host, target) = bed(|_, _| {});
        let target = target.rejecting(Box::new(move |_| Some(private_data.clone())));
        let error = run(async {
            tokio::spawn(target.run());
            Controller::connect_over(&host, &options()).await.err().expect("the connect fails")
        });
        let expected = "nothing listens for NVMe at this address (rejected by the connection \
                        manager, reason 28)";
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.class(), ErrorClass::Transport, "{error}");
    }
}

/// Connects to a target that receives this number of commands at once, and reads.
fn connect_with_receive_size(size: u8) -> Result<(), Error> {
    let mut private_data = vec![0; 32];
    private_data[2] = size;
    let (_fabric, host, target) = bed(|_, _| {});
    let target = target.accepting_with(&private_data);
    run(async {
        tokio::spawn(target.run());
        let controller = Controller::connect_over(&host, &options()).await?;
        let namespace = controller.namespace(NamespaceId(1)).await?;
        for _ in 0..3 {
            let reads = (0..20).map(|lba| {
                let (namespace, buffer) = (namespace.clone(), controller.allocate(512));
                tokio::spawn(async move { namespace.read(lba, buffer.expect("memory")).await })
            });
            for read in reads.collect::<Vec<_>>() {
                read.await.expect("no task panics").map_err(|failed| failed.error)?;
            }
        }
        controller.shutdown().await;
        Ok(())
    })
}

#[test]
fn a_target_that_receives_too_few_commands_is_refused_by_name() {
    for size in [1, 3] {
        let error = connect_with_receive_size(size).expect_err("the admin queue needs four");
        assert!(error.to_string().contains("(CRQSIZE); 4 are needed"), "{error}");
        assert_eq!(error.class(), ErrorClass::Failed);
    }
    for size in [0, 4, 5, 32] {
        connect_with_receive_size(size).expect("that is enough");
    }
}

#[test]
fn a_queue_of_another_controller_is_refused_by_name() {
    let error = refused(|seen, answer| {
        if seen.is_fabrics(0x01) && seen.queue == 2 {
            answer.messages = vec![seen.response(0, 8)];
        }
    });
    let expected = "Connect on queue 2 was answered by controller 8, not by 7";
    assert!(error.to_string().contains(expected), "{error}");
}

/// A read is never answered. What becomes of its Abort is part of the error.
#[test]
fn silence_is_told_with_the_outcome_of_the_abort() {
    for (result, expected) in [
        (None, "within 500ms, nor to its Abort"),
        (Some(0), "within 500ms, though the target says that it has aborted it"),
        (Some(1), "within 500ms; the target answered its Abort, but did not abort it"),
    ] {
        let (_fabric, host, target) = bed(move |seen, answer| {
            let is_abort = seen.queue == 0 && seen.sqe[0] == 0x08;
            match result {
                Some(result) if is_abort => answer.messages = vec![seen.response(0, result)],
                _ if seen.is_io() || is_abort => *answer = Answer::default(),
                _ => {}
            }
        });
        run(async {
            tokio::spawn(target.run());
            let controller = Controller::connect_over(&host, &options()).await.unwrap();
            let namespace = controller.namespace(NamespaceId(1)).await.unwrap();
            let read = namespace.read(0, controller.allocate(512).unwrap()).await;
            let failed = read.expect_err("there is no answer");
            assert!(failed.to_string().contains(expected), "{failed}");
            assert_eq!(failed.error.class(), ErrorClass::Transport);
            controller.shutdown().await;
        });
    }
}

#[test]
fn nonsense_in_identify_is_refused() {
    for seed in 0..20 {
        let error = refused(move |seen, answer| {
            if seen.queue == 0 && seen.sqe[0] == 0x06 {
                answer.data = tests::noise(4096, seed);
            }
        });
        let class = error.class();
        assert!(class == ErrorClass::Failed, "seed {seed}: {error}");
    }
}

#[test]
fn a_list_of_namespaces_that_goes_in_circles_ends() {
    let (_fabric, host, target) = bed(|seen, answer| {
        if seen.queue == 0 && seen.sqe[0] == 0x06 && seen.sqe[40] == 0x02 {
            answer.data = (1..=1024u32).flat_map(u32::to_le_bytes).collect();
        }
    });
    run(async {
        tokio::spawn(target.run());
        let controller = Controller::connect_over(&host, &options()).await.unwrap();
        let error = controller.namespaces().await.unwrap_err();
        assert!(matches!(error, Error::TargetMisbehaved(TargetMisbehaved::NamespaceList)));
        controller.shutdown().await;
    });
}

#[test]
fn a_partition_is_noticed() {
    let (fabric, host, target) = bed(|_, _| {});
    run(async {
        tokio::spawn(target.run());
        let controller = Controller::connect_over(&host, &options()).await.unwrap();
        let namespace = controller.namespace(NamespaceId(1)).await.unwrap();
        fabric.partition("host", "target");
        let buffer = controller.allocate(512).unwrap();
        let failed = namespace.read(0, buffer).await.expect_err("nobody answers");
        assert_eq!(failed.error.class(), ErrorClass::Transport, "{failed}");
        assert!(failed.buffer.is_some());
        controller.shutdown().await;
    });
}

/// Connects to an honest target, reads once, and shuts down: every call, in order.
fn trace(options: &ConnectOptions) -> String {
    let (_fabric, host, target) = bed(|_, _| {});
    let trace = Trace::default();
    let recorder = Recorder::new(host, &trace);
    run(async {
        tokio::spawn(target.run());
        let controller = Controller::connect_over(&recorder, options).await;
        let controller = controller.expect("an honest connect");
        let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
        let buffer = controller.allocate(512).expect("memory");
        namespace.read(0, buffer).await.expect("it reads");
        controller.shutdown().await;
    });
    trace.text()
}

#[test]
fn a_queue_is_disconnected_and_drained_before_it_is_gone() {
    let trace = trace(&options());
    let lines: Vec<_> = trace.lines().collect();
    let count =
        |from: usize, what: &str| lines[from..].iter().filter(|line| line.contains(what)).count();
    let first = lines.iter().position(|line| line.contains(": Disconnect: ok"));
    let first = first.expect("it disconnects");
    assert_eq!(count(first, ": Disconnect: ok"), 3, "the admin queue and two more:\n{trace}");
    assert_eq!(count(0, "FLUSHED"), count(first, "FLUSHED"), "no failure comes before\n{trace}");
    // What the device was given and did not use, all of it comes back.
    let given = lines
        .iter()
        .filter_map(|line| line.split_once(": receive ["))
        .map(|(_, list)| list.split(", ").count());
    let used = count(0, ": receive of number") - count(first, "FLUSHED");
    assert_eq!(count(first, "FLUSHED"), given.sum::<usize>() - used, "{trace}");
}

#[test]
fn the_options_of_the_connection_reach_the_device() {
    let mut options = options();
    options.source = Some("10.0.0.1".parse().unwrap());
    options.type_of_service = Some(0x68);
    options.ack_timeout = Some(14);
    (options.retry_count, options.rnr_retry_count) = (3, 2);
    let trace = trace(&options);
    for words in [
        "source: Some(10.0.0.1:0)",
        "SetTypeOfService(104)",
        "SetAckTimeout(14)",
        "retry_count: 3, rnr_retry_count: 2",
    ] {
        let found = trace.lines().filter(|line| line.contains(words)).count();
        assert_eq!(found, 3, "{words}, for each of three queues:\n{trace}");
    }
    let (_fabric, host, _target) = bed(|_, _| {});
    for change in [
        |options: &mut ConnectOptions| options.ack_timeout = Some(32),
        |options: &mut ConnectOptions| options.retry_count = 8,
        |options: &mut ConnectOptions| options.rnr_retry_count = 8,
    ] {
        let mut options = options.clone();
        change(&mut options);
        let refused = run(Controller::connect_over(&host, &options).into_future())
            .err()
            .expect("out of range");
        assert!(matches!(refused, Error::Misuse(_)), "{refused}");
    }
}
