//! Prints the state changes and events of a controller, which it resets once:
//! `events ADDRESS:PORT NQN`.

mod support;

use rdma_host::{Controller, LifecycleState, ReconnectOptions};
use std::time::Duration;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    support::exit(run().await)
}

async fn run() -> support::Result<()> {
    let (options, []) = support::arguments("usage: events ADDRESS:PORT NQN")?;
    let reconnect = ReconnectOptions::default()
        .delay(Duration::from_secs(1))
        .loss_timeout(Some(Duration::from_secs(60)));
    let connecting = Controller::connect(&options.reconnect(reconnect));
    let (mut changes, mut events) = (connecting.changes(), connecting.events());
    let controller = connecting.await?;
    controller.reset().await;

    // Live for the first time, and after the reset.
    let mut lives = 0;
    while lives < 2 {
        tokio::select! {
            Some(change) = changes.next() => {
                println!("{change}");
                lives += usize::from(change.state == LifecycleState::Live);
            }
            Some(event) = events.next() => println!("{event}"),
            else => return Err(controller.failed().await.into()),
        }
    }
    controller.shutdown().await;
    Ok(())
}
