//! Reads blocks at random through futures on the thread of their poller:
//! `local_futures ADDRESS:PORT NQN NSID`. A program with a thread for each core does this on each.

mod support;

use std::{cell::Cell, rc::Rc};

use rdma_host::{
    Buffer, Controller, LocalNamespace, LocalPoller, WaitMode, Waiter, wire::NamespaceId,
};
use tokio::sync::mpsc;

/// Number of reads, and of tasks that share them.
const READS: u64 = 10_000;
const TASKS: usize = 32;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    support::exit(run().await)
}

async fn run() -> support::Result<()> {
    let (options, [id]) = support::arguments("usage: local_futures ADDRESS:PORT NQN NSID")?;
    let connecting = Controller::connect(&options.io_queues(1));
    let (controller, mut pollers) = connecting.polled(1).await?;
    let info = controller.identify_namespace(NamespaceId(id.parse()?)).await?;
    let buffers = controller.allocate_many(TASKS, info.block_size as usize)?;

    let waiter = Waiter::new(WaitMode::default());
    let poller = LocalPoller::new(pollers.pop().expect("a poller was asked for"), waiter);
    let (next, (ended, mut results)) = (Rc::new(Cell::new(0)), mpsc::unbounded_channel());
    for buffer in buffers {
        let task = read(poller.namespace(info), buffer, Rc::clone(&next));
        let ended = ended.clone();
        poller.spawn_local(async move {
            let _ = ended.send(task.await); // not received after a failure
        });
    }
    drop(ended);
    let all = async {
        while let Some(result) = results.recv().await {
            result?;
        }
        Ok::<_, rdma_host::TransferError>(())
    };
    poller.run_until(all).await?;
    println!("{READS} blocks read by {TASKS} tasks");
    drop(poller);
    controller.shutdown().await;
    Ok(())
}

/// Reads one block after another until all tasks together have read enough.
async fn read(
    namespace: LocalNamespace,
    mut buffer: Buffer,
    next: Rc<Cell<u64>>,
) -> Result<(), rdma_host::TransferError> {
    while next.get() < READS {
        let index = next.replace(next.get() + 1);
        // A multiplicative hash of the index, for a block at random.
        let lba = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) % namespace.info().blocks;
        buffer = namespace.read(lba, buffer).await?;
    }
    Ok(())
}
