//! Prints the controller and the namespaces of a subsystem: `identify ADDRESS:PORT NQN`.

mod support;

use rdma_host::Controller;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    support::exit(run().await)
}

async fn run() -> support::Result<()> {
    let (options, []) = support::arguments("usage: identify ADDRESS:PORT NQN")?;
    let controller = Controller::connect(&options).await?;
    println!("{} {}", controller.negotiated().info.model, controller.negotiated().info.serial);
    for id in controller.namespaces().await? {
        let namespace = controller.identify_namespace(id).await?;
        println!("{id}: {} blocks of {} bytes", namespace.blocks, namespace.block_size);
    }
    controller.shutdown().await;
    Ok(())
}
