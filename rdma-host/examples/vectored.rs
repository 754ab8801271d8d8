//! Writes a header and a payload from buffers of their own by one operation, and reads them back:
//! `vectored ADDRESS:PORT NQN NSID`. Overwrites the first blocks.

mod support;

use rdma_host::{Controller, wire::NamespaceId};

#[tokio::main]
async fn main() -> std::process::ExitCode {
    support::exit(run().await)
}

async fn run() -> support::Result<()> {
    let (options, [id]) = support::arguments("usage: vectored ADDRESS:PORT NQN NSID")?;
    let controller = Controller::connect(&options).await?;
    let namespace = controller.namespace(NamespaceId(id.parse()?)).await?;
    let block = namespace.info().block_size as usize;

    let mut header = controller.allocate(block)?;
    header.copy_in(0, b"header");
    let mut payload = controller.allocate(16 * block)?;
    payload.fill(0xa5);
    let mut buffers = namespace.write_vectored(0, vec![header, payload]).await?;

    buffers.iter_mut().for_each(|buffer| buffer.fill(0));
    let buffers = namespace.read_vectored(0, buffers).await?;
    let mut start = [0; 6];
    buffers[0].copy_out(0, &mut start);
    println!("{}, and {} bytes", String::from_utf8_lossy(&start), buffers[1].len());
    controller.shutdown().await;
    Ok(())
}
