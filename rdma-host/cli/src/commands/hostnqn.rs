//! `nvmf show-hostnqn` and `nvmf gen-hostnqn`, as in nvme-cli.

use rdma_host::HostIdentity;

use crate::{failure::Failure, host, output};

/// Prints the NQN that this host has without options.
pub(crate) fn show() -> Result<(), Failure> {
    let identity = host::identity(None, None)?;
    output::print_text(&format!("{}\n", identity.nqn))
}

/// Prints a new NQN.
pub(crate) fn generate() -> Result<(), Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(Failure::failed)?;
    let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
    output::print_text(&format!("{}\n", HostIdentity::from_id(id).nqn))
}
