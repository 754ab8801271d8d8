//! `nvmf show-hostnqn` and `nvmf gen-hostnqn`, as in nvme-cli.

use rdma_host::HostIdentity;
use uuid::Uuid;

use crate::{failure::Failure, host, output};

/// Prints the NQN that this host has without options.
pub(crate) fn show() -> Result<(), Failure> {
    let identity = host::identity(None, None)?;
    output::print_text(&format!("{}\n", identity.nqn))
}

/// Prints a new NQN.
pub(crate) fn generate() -> Result<(), Failure> {
    output::print_text(&format!("{}\n", HostIdentity::from_id(Uuid::new_v4()).nqn))
}
