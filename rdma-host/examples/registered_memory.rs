//! Writes and reads memory of the program in place, without a copy:
//! `registered_memory ADDRESS:PORT NQN NSID`. Overwrites the first blocks.

mod support;

use rdma_host::{Controller, wire::NamespaceId};

#[tokio::main]
async fn main() -> std::process::ExitCode {
    support::exit(run().await)
}

async fn run() -> support::Result<()> {
    let (options, [id]) = support::arguments("usage: registered_memory ADDRESS:PORT NQN NSID")?;
    let controller = Controller::connect(&options).await?;
    let namespace = controller.namespace(NamespaceId(id.parse()?)).await?;
    let length = 64 * namespace.info().block_size as usize;

    let checkpoint: Vec<u8> = (0..=255).cycle().take(length).collect();
    // The vector is moved into a buffer, so that nothing reads or writes it during the transfer.
    let buffer = controller.register(checkpoint)?;
    let buffer = namespace.write(0, buffer).await?;
    let checkpoint: Vec<u8> = buffer.deregister()?;

    let buffer = controller.register(vec![0; length])?;
    let restored: Vec<u8> = namespace.read(0, buffer).await?.deregister()?;
    if restored != checkpoint {
        return Err("the bytes read are not those written".into());
    }
    println!("{length} bytes written from a vector and read into one");
    controller.shutdown().await;
    Ok(())
}
