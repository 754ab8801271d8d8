//! Reads blocks at random by polling, on a thread that does nothing else:
//! `polled ADDRESS:PORT NQN NSID`.

mod support;

use rdma_host::{
    Command, Controller, Poller, WaitMode, Waiter,
    wire::{NamespaceId, NamespaceInfo},
};
use verbs::Buffer;

/// Number of reads, and how many of them are in flight.
const READS: u64 = 10_000;
const DEPTH: usize = 32;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    support::exit(run().await)
}

async fn run() -> support::Result<()> {
    let (options, [id]) = support::arguments("usage: polled ADDRESS:PORT NQN NSID")?;
    let connecting = Controller::connect(&options.io_queues(1));
    let (controller, mut pollers) = connecting.polled(1).await?;
    let poller = pollers.pop().expect("a poller was asked for");
    let id = NamespaceId(id.parse()?);
    let namespace = controller.identify_namespace(id).await?;
    let depth = poller.depth().min(DEPTH);
    let buffers = controller.allocate_many(depth, namespace.block_size as usize)?;

    // The runtime's threads serve the admin queue and reconnect meanwhile.
    let thread = std::thread::spawn(move || read(poller, id, namespace, buffers));
    thread.join().expect("no panic")?;
    println!("{READS} blocks read, {depth} at a time");
    controller.shutdown().await;
    Ok(())
}

fn read(
    mut poller: Poller,
    id: NamespaceId,
    namespace: NamespaceInfo,
    mut buffers: Vec<Buffer>,
) -> support::Result<()> {
    let mut waiter = Waiter::on_own_thread(WaitMode::Poll, 1);
    let (mut submitted, mut completed) = (0, 0);
    let mut failed = None;
    while completed < READS && failed.is_none() {
        while submitted < READS
            && let Some(buffer) = buffers.pop()
        {
            // A multiplicative hash of the index, for a block at random.
            let lba = submitted.wrapping_mul(0x9e37_79b9_7f4a_7c15) % namespace.blocks;
            let command = Command::read(id, lba, 1, buffer);
            poller.submit(command)?;
            submitted += 1;
        }
        poller.ring_doorbells()?; // one doorbell for all of them
        let polled = poller.poll_with(|completion| {
            completed += 1;
            buffers.extend(completion.data);
            failed = match completion.outcome {
                Ok(response) if response.status().is_success() => failed.take(),
                Ok(response) => Some(format!("read failed: {}", response.status())),
                Err(error) => Some(error.to_string()),
            };
        });
        if polled? > 0 {
            waiter.busy();
        } else {
            waiter.spins();
        }
    }
    failed.map_or(Ok(()), |reason| Err(reason.into()))
}
