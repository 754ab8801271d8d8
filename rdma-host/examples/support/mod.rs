//! Arguments and errors of the examples.

use std::{error::Error, process::ExitCode};

use rdma_host::{ConnectOptions, HostIdentity};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Returns the options for the arguments `ADDRESS:PORT NQN`, and the arguments that follow them.
pub(crate) fn arguments<const N: usize>(usage: &str) -> Result<(ConnectOptions, [String; N])> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(nqn)) = (arguments.next(), arguments.next()) else {
        return Err(usage.into());
    };
    let more = arguments.collect::<Vec<_>>().try_into().map_err(|_| usage)?;
    let host = HostIdentity::from_id(uuid::Uuid::new_v4());
    Ok((ConnectOptions::new(address.parse()?, nqn.parse()?, host), more))
}

/// Prints an error in one line, and returns the exit status.
pub(crate) fn exit(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
