//! Reads a whole namespace with eight tasks, each of which takes the next part that no other has
//! taken: `parallel_read nvmf-rdma://ADDRESS/NQN NSID`.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use nvmf_client::{ByteNamespace, Client};

const TASKS: usize = 8;

/// Bytes of a part.
const PART: usize = 1 << 20;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    support::exit(run().await)
}

async fn run() -> support::Result<()> {
    let [target, id] = support::arguments("usage: parallel_read nvmf-rdma://ADDRESS/NQN NSID")?;
    let client = Client::open(&target).await?;
    let namespace = client.namespace(id.parse()?).await?;
    let start = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        tasks.spawn(read_parts(namespace.clone(), Arc::clone(&next)));
    }
    let mut total = 0;
    while let Some(read) = tasks.join_next().await {
        total += read??;
    }
    let rate = total as f64 / start.elapsed().as_secs_f64() / f64::from(1 << 20);
    println!("{total} bytes read by {TASKS} tasks, {rate:.0} MiB/s");
    client.shutdown().await;
    Ok(())
}

/// Reads parts until none is left; returns the number of bytes.
async fn read_parts(namespace: ByteNamespace, next: Arc<AtomicU64>) -> std::io::Result<u64> {
    let mut buffer = vec![0; PART];
    let mut total = 0;
    loop {
        let offset = next.fetch_add(PART as u64, Ordering::Relaxed);
        let rest = namespace.size().saturating_sub(offset);
        let length = usize::try_from(rest).unwrap_or(PART).min(PART);
        if length == 0 {
            return Ok(total);
        }
        namespace.read_exact_at(&mut buffer[..length], offset).await?;
        total += length as u64;
    }
}
