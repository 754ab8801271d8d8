//! Writes the first blocks of a namespace and reads them back, several at a time:
//! `read_write ADDRESS:PORT NQN NSID`. Overwrites what is there.

mod support;

use rdma_host::{Controller, wire::NamespaceId};

#[tokio::main]
async fn main() -> std::process::ExitCode {
    support::exit(run().await)
}

async fn run() -> support::Result<()> {
    let (options, [id]) = support::arguments("usage: read_write ADDRESS:PORT NQN NSID")?;
    let controller = Controller::connect(&options).await?;
    let namespace = controller.namespace(NamespaceId(id.parse()?)).await?;
    let block_size = namespace.info().block_size as usize;

    let mut writers = tokio::task::JoinSet::new();
    for lba in 0..16u64 {
        let mut buffer = controller.allocate(block_size)?;
        buffer.fill(u8::try_from(lba)?);
        let namespace = namespace.clone();
        writers.spawn(async move { namespace.write(lba, buffer).await });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    namespace.flush().await?;

    let mut buffer = controller.allocate(16 * block_size)?;
    buffer = namespace.read(0, buffer).await?;
    let mut bytes = vec![0; buffer.len()];
    buffer.copy_out(0, &mut bytes);
    for (lba, block) in bytes.chunks(block_size).enumerate() {
        if block.iter().any(|&byte| usize::from(byte) != lba) {
            return Err(format!("block {lba} is not what was written").into());
        }
    }
    println!("16 blocks written and read back");
    controller.shutdown().await;
    Ok(())
}
