//! Connects to a subsystem and prints what is there: `identify ADDRESS:PORT NQN`.

use rdma_host::{ConnectOptions, Controller, HostIdentity};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(nqn)) = (arguments.next(), arguments.next()) else {
        return Err("usage: identify ADDRESS:PORT NQN".into());
    };
    let host = HostIdentity::from_id(uuid::Uuid::new_v4());
    let options = ConnectOptions::new(address.parse()?, nqn.parse()?, host);
    let controller = Controller::connect(&options).await?;
    println!("{} {}", controller.negotiated().info.model, controller.negotiated().info.serial);
    for id in controller.namespaces().await? {
        let namespace = controller.identify_namespace(id).await?;
        println!("{id}: {} blocks of {} bytes", namespace.blocks, namespace.block_size);
    }
    controller.shutdown().await;
    Ok(())
}
