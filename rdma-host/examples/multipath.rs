//! Writes blocks of a namespace over two paths of its subsystem and reads them back, while a path
//! is reset: `multipath ADDRESS:PORT NQN NSID ADDRESS:PORT`. Overwrites what is there.

mod support;

use rdma_host::{PathId, PathPolicy, Subsystem, SubsystemOptions, wire::NamespaceId};

#[tokio::main]
async fn main() -> std::process::ExitCode {
    support::exit(run().await)
}

async fn run() -> support::Result<()> {
    let usage = "usage: multipath ADDRESS:PORT NQN NSID ADDRESS:PORT";
    let (mut connect, [id, second]) = support::arguments(usage)?;
    connect.reconnect.delay = std::time::Duration::from_millis(500);
    let options =
        SubsystemOptions::new(connect).path(second.parse()?, None).policy(PathPolicy::QueueDepth);
    let subsystem = Subsystem::connect(&options).await?;
    let namespace = subsystem.namespace(NamespaceId(id.parse()?)).await?;
    let block_size = namespace.info().block_size as usize;

    let mut writers = tokio::task::JoinSet::new();
    for lba in 0..64u64 {
        let mut buffer = subsystem.allocate(block_size)?;
        buffer.fill(u8::try_from(lba)?);
        let namespace = namespace.clone();
        writers.spawn(async move {
            let buffer = namespace.write(lba, buffer).await?;
            namespace.read(lba, buffer).await.map(|buffer| (lba, buffer))
        });
    }
    if let Some(controller) = subsystem.controller(PathId(0)) {
        controller.reset().await;
    }
    while let Some(done) = writers.join_next().await {
        let (lba, buffer) = done??;
        let mut bytes = vec![0; block_size];
        buffer.copy_out(0, &mut bytes);
        if bytes.iter().any(|&byte| u64::from(byte) != lba) {
            return Err(format!("block {lba} is not what was written").into());
        }
    }
    namespace.flush().await?;
    println!("64 blocks written and read back\n{}", subsystem.status());
    subsystem.shutdown().await;
    Ok(())
}
