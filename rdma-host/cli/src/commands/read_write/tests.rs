use std::fs;

use rdma_fabric::Fabric;
use rdma_host::{ConnectOptions, Controller, HostIdentity, ReconnectOptions, wire::NamespaceId};
use scripted_target::{Hook, TARGET_ADDRESS, Target};
use uuid::Uuid;

use super::*;

const CHUNK: usize = 4096;

/// A target that answers with success, but sends data for the first read only.
fn silent_target(fabric: &Fabric) -> Target {
    let mut reads = 0;
    let hook: Hook = Box::new(move |seen, answer| {
        if seen.is_io() && !answer.data.is_empty() {
            answer.data.fill(0xaa);
            if reads > 0 {
                answer.data.clear();
            }
            reads += 1;
        }
    });
    Target::new(fabric, hook)
}

/// Zeroes stand for what was not sent, not the blocks that the buffer held before.
#[test]
fn a_read_without_data_holds_no_earlier_blocks() {
    let fabric = Fabric::auto(1);
    let provider = fabric.host("host", [10, 0, 0, 1].into());
    let target = silent_target(&fabric);
    let nqn = "nqn.2026-11.org.soft-roce:scripted".parse().unwrap();
    let identity = HostIdentity::from_id(Uuid::from_u128(1));
    let mut options = ConnectOptions::new(TARGET_ADDRESS.parse().unwrap(), nqn, identity);
    options.reconnect = ReconnectOptions::never();

    let runtime = InterruptibleRuntime::new().unwrap();
    runtime.runtime.spawn(target.run());
    let connecting = Controller::connect_over(&provider, &options).into_future();
    let controller = runtime.runtime.block_on(connecting).unwrap();
    let namespace = runtime.runtime.block_on(controller.namespace(NamespaceId(1))).unwrap();
    let buffers = controller.allocate_many(1, CHUNK).unwrap();
    let layout = BlockLayout::plain(&namespace.info());
    let (controller, subsystem) = (Arc::new(controller), options.subsystem);
    let connected = ConnectedController { runtime, controller, paths: None, subsystem };
    let mut transfer = RangeTransfer {
        connected,
        namespace: IoNamespace::Controller(namespace),
        layout,
        lba: 0,
        buffers,
        pending: VecDeque::new(),
        chunk: CHUNK as u64,
        is_forced: false,
        progress: ProgressBar::hidden(),
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let mut output = Output::open(&path).unwrap();
    assert!(transfer.read(3 * CHUNK as u64, &mut output, None).unwrap());
    assert!(output.flush().unwrap());
    let read = fs::read(&path).unwrap();
    let (sent, rest) = read.split_at(CHUNK);
    assert!(sent.iter().all(|byte| *byte == 0xaa), "the first one is sent");
    assert_eq!(rest.len(), 2 * CHUNK);
    assert!(rest.iter().all(|byte| *byte == 0));
}
