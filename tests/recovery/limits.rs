//! Limits of the target that change from one connection to the next, in both directions, while
//! data is written and read back.

use std::sync::Arc;

use rdma_host::Namespace;
use tests::noise;

use super::*;

/// Writers at once, each with blocks of its own.
const WRITERS: u64 = 48;
/// Bytes of each.
const SHARE: u64 = 128 << 10;

/// Writes and reads back until it is told to stop; returns how often.
async fn write_and_read(
    controller: Arc<Controller>,
    namespace: Namespace,
    writer: u64,
    over: Arc<AtomicBool>,
) -> u64 {
    let mut rounds = 0;
    while !over.load(Ordering::Relaxed) {
        // In a capsule, in one command, and in several where the limit is low.
        let bytes = [4096, 16 << 10, 128 << 10][(rounds % 3) as usize];
        let data = noise(bytes, writer << 32 | rounds);
        let mut buffer = controller.allocate(bytes).expect("memory");
        buffer.copy_in(0, &data);
        let lba = writer * SHARE / u64::from(namespace.info().block_size);
        let mut buffer = namespace.write(lba, buffer).await.expect("it is held");
        buffer.fill(0);
        let buffer = namespace.read(lba, buffer).await.expect("it is held");
        let mut back = vec![0; bytes];
        buffer.copy_out(0, &mut back);
        assert!(back == data, "writer {writer}, round {rounds}");
        rounds += 1;
    }
    rounds
}

/// A change of the port, and what the next connection must have.
struct Step {
    attribute: &'static str,
    value: &'static str,
    queue_entries: u16,
    in_capsule_bytes: u32,
    transfer_bytes_max: u64,
}

const fn step(attribute: &'static str, value: &'static str, granted: (u16, u32, u64)) -> Step {
    let (queue_entries, in_capsule_bytes, transfer_bytes_max) = granted;
    Step { attribute, value, queue_entries, in_capsule_bytes, transfer_bytes_max }
}

const MIB: u64 = 1 << 20;

/// Each limit goes down, up, and back to what it was.
const STEPS: [Step; 9] = [
    step("max_queue_size", "16", (16, 4096, MIB)),
    step("max_queue_size", "64", (64, 4096, MIB)),
    step("inline_data_size", "0", (64, 0, MIB)),
    step("inline_data_size", "16384", (64, 16384, MIB)),
    step("max_queue_size", "128", (128, 16384, MIB)),
    step("inline_data_size", "4096", (128, 4096, MIB)),
    // The rest needs 7.x.
    step("mdts", "1", (128, 4096, 8192)),
    step("mdts", "5", (128, 4096, 128 << 10)),
    step("mdts", "8", (128, 4096, MIB)),
];

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn limits_change_and_data_does_not() {
    let known = std::path::Path::new("/sys/kernel/config/nvmet/ports/1/param_mdts").exists();
    in_runtime(async {
        let controller = Arc::new(Controller::connect(&quick()).await.expect("it connects"));
        let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
        let mut changes = controller.changes();
        let over = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (controller, over) = (Arc::clone(&controller), Arc::clone(&over));
                tokio::spawn(write_and_read(controller, namespace.clone(), writer, over))
            })
            .collect();
        for step in STEPS.iter().filter(|step| known || step.attribute != "mdts") {
            change_target(&["unlink", "port", "1", SUBSYSTEM]).await;
            change_target(&["set", "port", "1", step.attribute, step.value]).await;
            change_target(&["link", "port", "1", SUBSYSTEM]).await;
            reach(&mut changes, LifecycleState::Live).await;
            let agreed = controller.negotiated();
            let seen = (agreed.queue_entries, agreed.in_capsule_bytes, agreed.transfer_bytes_max);
            let due = (step.queue_entries, step.in_capsule_bytes, step.transfer_bytes_max);
            assert_eq!(seen, due, "{} = {}", step.attribute, step.value);
            // For the load to meet it.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        over.store(true, Ordering::Relaxed);
        let mut rounds = 0;
        for writer in writers {
            rounds += writer.await.expect("nothing differs");
        }
        println!("{rounds} times written and read back through all changes of the limits");
        assert!(rounds > WRITERS);
    });
}
