//! Namespace for I/O on one controller, or over the paths of a subsystem.

use rdma_host::{
    Buffer, Command, CommandCompletion, Error, Namespace, RangeCommands, SubsystemNamespace,
    TransferError,
    error::Misuse,
    wire::{NamespaceInfo, OptionalCommand},
};

/// Namespace of a controller, or of a subsystem with several paths.
#[derive(Clone)]
pub(crate) enum IoNamespace {
    Controller(Namespace),
    Subsystem(SubsystemNamespace),
}

impl IoNamespace {
    pub(crate) async fn read(&self, lba: u64, buffer: Buffer) -> Result<Buffer, TransferError> {
        match self {
            Self::Controller(namespace) => namespace.read(lba, buffer).await,
            Self::Subsystem(namespace) => namespace.read(lba, buffer).await,
        }
    }

    pub(crate) async fn write(&self, lba: u64, buffer: Buffer) -> Result<Buffer, TransferError> {
        match self {
            Self::Controller(namespace) => namespace.write(lba, buffer).await,
            Self::Subsystem(namespace) => namespace.write(lba, buffer).await,
        }
    }

    pub(crate) async fn write_with_force_unit_access(
        &self,
        lba: u64,
        buffer: Buffer,
    ) -> Result<Buffer, TransferError> {
        match self {
            Self::Controller(namespace) => {
                namespace.write_with_force_unit_access(lba, buffer).await
            }
            Self::Subsystem(namespace) => namespace.write_with_force_unit_access(lba, buffer).await,
        }
    }

    pub(crate) async fn compare(&self, lba: u64, buffer: Buffer) -> Result<Buffer, TransferError> {
        match self {
            Self::Controller(namespace) => namespace.compare(lba, buffer).await,
            Self::Subsystem(namespace) => namespace.compare(lba, buffer).await,
        }
    }

    pub(crate) async fn flush(&self) -> Result<(), Error> {
        match self {
            Self::Controller(namespace) => namespace.flush().await,
            Self::Subsystem(namespace) => namespace.flush().await,
        }
    }

    /// Checks that a range is within the namespace, as that of the controller does.
    pub(crate) fn check_range(&self, lba: u64, bytes: u64) -> Result<u64, Misuse> {
        match self {
            Self::Controller(namespace) => namespace.check_range(lba, bytes),
            Self::Subsystem(namespace) => namespace.check_range(lba, bytes),
        }
    }
}

impl RangeCommands for IoNamespace {
    fn info(&self) -> NamespaceInfo {
        match self {
            Self::Controller(namespace) => namespace.info(),
            Self::Subsystem(namespace) => namespace.info(),
        }
    }

    fn require(&self, command: OptionalCommand) -> Result<(), Error> {
        match self {
            Self::Controller(namespace) => namespace.require(command),
            Self::Subsystem(namespace) => namespace.require(command),
        }
    }

    fn check_blocks(&self, lba: u64, bytes: u64) -> Result<(), Misuse> {
        match self {
            Self::Controller(namespace) => namespace.check_blocks(lba, bytes),
            Self::Subsystem(namespace) => namespace.check_blocks(lba, bytes),
        }
    }

    fn transfer_bytes_max(&self) -> u64 {
        match self {
            Self::Controller(namespace) => namespace.transfer_bytes_max(),
            Self::Subsystem(namespace) => namespace.transfer_bytes_max(),
        }
    }

    async fn run(&self, command: Command) -> CommandCompletion {
        match self {
            Self::Controller(namespace) => namespace.run(command).await,
            Self::Subsystem(namespace) => namespace.run(command).await,
        }
    }
}
