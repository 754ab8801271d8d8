//! Requests of the block layer as NVMe commands, without I/O.

use rdma_host::{
    Buffer, Command,
    wire::{BlockRange, NamespaceId},
};
use ublk::{Operation, Request};

/// Namespace that requests go to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    pub(super) namespace: NamespaceId,
    /// Block size in bytes.
    pub(super) size: u32,
}

/// NVMe command for a request, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Translated {
    Read { lba: u64, blocks: u32 },
    Write { lba: u64, blocks: u32, force_unit_access: bool },
    Flush,
    Deallocate(BlockRange),
    WriteZeroes { lba: u64, blocks: u32, deallocate: bool },
}

/// Reason for which there is no command, as the number of errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Untranslated {
    /// EOPNOTSUPP: nothing of NVMe's does that.
    Unsupported,
    /// EINVAL: not whole blocks, or too many of them.
    Invalid,
}

/// Maximum number of blocks of a command whose number of blocks has 16 bits.
const BLOCKS_MAX: u32 = 1 << 16;

impl Untranslated {
    /// Result of the request.
    pub(super) fn result(self) -> i32 {
        let errno = match self {
            Self::Unsupported => rustix::io::Errno::OPNOTSUPP,
            Self::Invalid => rustix::io::Errno::INVAL,
        };
        -errno.raw_os_error()
    }
}

impl Blocks {
    /// Command for a request.
    pub(super) fn translate(self, request: &Request) -> Result<Translated, Untranslated> {
        Ok(match request.operation {
            Operation::Flush => Translated::Flush,
            Operation::Read => {
                let BlockRange { lba, blocks } = self.range(request, BLOCKS_MAX)?;
                Translated::Read { lba, blocks }
            }
            Operation::Write { force_unit_access } => {
                let BlockRange { lba, blocks } = self.range(request, BLOCKS_MAX)?;
                Translated::Write { lba, blocks, force_unit_access }
            }
            Operation::Discard => Translated::Deallocate(self.range(request, u32::MAX)?),
            Operation::WriteZeroes { no_unmap } => {
                let BlockRange { lba, blocks } = self.range(request, BLOCKS_MAX)?;
                Translated::WriteZeroes { lba, blocks, deallocate: !no_unmap }
            }
            _ => return Err(Untranslated::Unsupported),
        })
    }

    fn range(self, request: &Request, blocks_max: u32) -> Result<BlockRange, Untranslated> {
        let sectors = u64::from(self.size >> 9);
        let count = u64::from(request.sectors);
        let (lba, blocks) = (request.sector / sectors, count / sectors);
        let whole = request.sector.is_multiple_of(sectors) && count.is_multiple_of(sectors);
        match u32::try_from(blocks) {
            Ok(blocks @ 1..) if whole && blocks <= blocks_max => Ok(BlockRange { lba, blocks }),
            _ => Err(Untranslated::Invalid),
        }
    }

    /// Command with its data: `data` gives the memory of the request, `ranges` that of a range.
    pub(super) fn command(
        self,
        translated: Translated,
        data: impl FnOnce() -> Buffer,
        ranges: impl FnOnce() -> Buffer,
    ) -> Command {
        let namespace = self.namespace;
        match translated {
            Translated::Read { lba, blocks } => Command::read(namespace, lba, blocks, data()),
            Translated::Write { lba, blocks, force_unit_access } => {
                let command = Command::write(namespace, lba, blocks, data());
                if force_unit_access { command.with_force_unit_access() } else { command }
            }
            Translated::Flush => Command::flush(namespace),
            Translated::Deallocate(range) => Command::deallocate(namespace, &[range], ranges()),
            Translated::WriteZeroes { lba, blocks, deallocate } => {
                Command::write_zeroes(namespace, lba, blocks, deallocate)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(operation: Operation, sector: u64, sectors: u32) -> Result<Translated, i32> {
        let blocks = Blocks { namespace: NamespaceId(1), size: 4096 };
        let request = Request { tag: 0, operation, sector, sectors, shared_offset: None };
        blocks.translate(&request).map_err(Untranslated::result)
    }

    #[test]
    fn each_request_has_its_command() {
        let (lba, blocks) = (2, 3);
        let write = |force_unit_access| Operation::Write { force_unit_access };
        for (operation, command) in [
            (Operation::Read, Translated::Read { lba, blocks }),
            (write(false), Translated::Write { lba, blocks, force_unit_access: false }),
            (write(true), Translated::Write { lba, blocks, force_unit_access: true }),
            (Operation::Flush, Translated::Flush),
            (Operation::Discard, Translated::Deallocate(BlockRange { lba, blocks })),
            (
                Operation::WriteZeroes { no_unmap: false },
                Translated::WriteZeroes { lba, blocks, deallocate: true },
            ),
            (
                Operation::WriteZeroes { no_unmap: true },
                Translated::WriteZeroes { lba, blocks, deallocate: false },
            ),
        ] {
            assert_eq!(translated(operation, 16, 24), Ok(command));
        }
    }

    #[test]
    fn what_has_no_command_is_an_error_number() {
        for (operation, sector, sectors, errno) in [
            (Operation::Other(15), 0, 8, 95),
            (Operation::Read, 1, 8, 22),
            (Operation::Read, 8, 9, 22),
            (Operation::Read, 8, 0, 22),
            (Operation::WriteZeroes { no_unmap: true }, 0, 8 * 0x1_0001, 22),
        ] {
            assert_eq!(translated(operation, sector, sectors), Err(-errno), "{operation:?}");
        }
    }
}
