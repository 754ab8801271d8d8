//! Connects with DH-HMAC-CHAP: `authenticate ADDRESS:PORT NQN HOST-NQN SECRET-FILE`, where the file
//! has a secret as `DHHC-1:…`.

mod support;

use std::sync::Arc;

use rdma_host::{
    AuthenticationOptions, Controller,
    auth::{Credentials, Secret},
};

#[tokio::main]
async fn main() -> std::process::ExitCode {
    support::exit(run().await)
}

async fn run() -> support::Result<()> {
    let usage = "usage: authenticate ADDRESS:PORT NQN HOST-NQN SECRET-FILE";
    let (mut options, [host_nqn, file]) = support::arguments(usage)?;
    options.host.nqn = host_nqn.parse()?;
    let secret = Secret::parse(std::fs::read_to_string(file)?.trim_end())?;
    let credentials = Arc::new(Credentials::one_way(secret));
    let authentication = AuthenticationOptions::default().credentials(Some(credentials));

    let controller = Controller::connect(&options.authentication(authentication)).await?;
    let negotiated = controller.negotiated();
    let queues = negotiated.authenticated.iter().flatten().count();
    println!("{queues} queues authenticated");
    controller.shutdown().await;
    Ok(())
}
