//! Prints the subsystems that a discovery controller reports, and those of its referrals:
//! `discover ADDRESS:PORT nqn.2014-08.org.nvmexpress.discovery`.

mod support;

use rdma_host::{Discovery, config::REFERRAL_DEPTH};

#[tokio::main]
async fn main() -> std::process::ExitCode {
    support::exit(run().await)
}

async fn run() -> support::Result<()> {
    let (options, []) = support::arguments("usage: discover ADDRESS:PORT DISCOVERY-NQN")?;
    let mut discovery = Discovery::new(&options, REFERRAL_DEPTH);
    while let Some(discovered) = discovery.next().await {
        for entry in discovered.outcome?.entries {
            println!("{} at {} port {}", entry.subsystem, entry.address, entry.service);
        }
    }
    Ok(())
}
