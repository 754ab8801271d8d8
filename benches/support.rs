//! Fixtures for the benches.

pub mod fabric_bed;
pub mod load;
pub mod marked_provider;

use rdma_host::wire::{CommandId, Cqe, NamespaceId, RemoteKey, SglDescriptor, Sqe, Status};

/// A read as the driver builds it, for the slot and address given.
#[must_use]
pub fn read(slot: u16, address: u64) -> Sqe {
    let mut sqe = Sqe::read(NamespaceId(1), u64::from(slot) * 8, 8);
    sqe.set_command_id(CommandId(slot));
    sqe.set_sgl(SglDescriptor::keyed(address, 4096, RemoteKey(7)));
    sqe
}

/// The successful response to a command.
#[must_use]
pub fn response(command: CommandId) -> Cqe {
    Cqe::new(command, Status::SUCCESS, 0)
}
