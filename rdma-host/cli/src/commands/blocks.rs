//! `nvmf flush`, `nvmf dsm` and `nvmf write-zeroes`: commands without a transfer of blocks.

use std::sync::Arc;

use clap::Args;
use rdma_host::{
    RangeCommands,
    wire::{BlockRange, CopyLimits, NvmLimits, OptionalCommand},
};

use super::block_file::{check_end, check_range};
use crate::{
    capture::{CaptureArguments, ConnectingCommand, SystemProvider},
    connect::NamespaceArguments,
    failure::Failure,
    io_namespace::IoNamespace,
    output,
    overwrite::OverwriteArguments,
    size,
};

/// Size of the smallest memory page, CAP.MPSMIN, of controllers over fabrics.
pub(super) const PAGE_SIZE_MIN: u64 = 4096;

#[derive(Args)]
pub(crate) struct FlushArguments {
    #[command(flatten)]
    namespace: NamespaceArguments,
}

#[derive(Args)]
pub(crate) struct DeallocateArguments {
    /// First block of each range.
    #[arg(long, visible_alias = "slbs", value_name = "LBA,…", value_delimiter = ',',
          required = true, value_parser = size::count)]
    lba: Vec<u64>,

    /// Number of blocks of each range.
    #[arg(long, value_name = "N,…", value_delimiter = ',', required = true,
          value_parser = size::positive)]
    blocks: Vec<u64>,

    #[command(flatten)]
    overwrite: OverwriteArguments,

    #[command(flatten)]
    namespace: NamespaceArguments,
}

#[derive(Args)]
pub(crate) struct WriteZeroesArguments {
    /// First block.
    #[arg(long, value_name = "LBA", value_parser = size::count)]
    lba: u64,

    /// Number of blocks.
    #[arg(long, value_name = "N", value_parser = size::positive)]
    blocks: u64,

    /// Permit the controller to deallocate the blocks.
    #[arg(long, visible_alias = "deac")]
    deallocate: bool,

    #[command(flatten)]
    overwrite: OverwriteArguments,

    #[command(flatten)]
    namespace: NamespaceArguments,
}

impl ConnectingCommand for FlushArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let (connected, namespace) = self.namespace.connect_paths(provider)?;
        connected.runtime.run(namespace.flush())?;
        output::print_message(format_args!("namespace {} is flushed", namespace.info().id));
        drop(namespace);
        connected.close();
        Ok(())
    }
}

impl ConnectingCommand for DeallocateArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let DeallocateArguments { lba, blocks, .. } = self;
        let ranges = ranges(lba, blocks)?;
        let mut consent = self.overwrite.consent("dsm", true)?;
        let (connected, namespace) = self.namespace.connect_paths(provider)?;
        namespace.require(OptionalCommand::DatasetManagement)?;
        check_ranges(&namespace, &ranges)?;
        consent.check(&connected, &namespace)?;
        let run = async {
            let limits = connected.controller.nvm_limits().await?;
            let mut buffer =
                connected.controller.allocate(BlockRange::SIZE * BlockRange::COUNT_MAX)?;
            for command in RangeLimits::from(limits).split(ranges.iter().copied()) {
                buffer = namespace.deallocate(&command, buffer).await?;
            }
            Ok::<_, Failure>(())
        };
        connected.runtime.run(run)?;
        let blocks = size::format_count(blocks.iter().sum(), "block");
        output::print_message(format_args!("{blocks} deallocated"));
        drop(namespace);
        connected.close();
        Ok(())
    }
}

impl ConnectingCommand for WriteZeroesArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let WriteZeroesArguments { lba, blocks, deallocate, .. } = *self;
        check_end(lba, blocks)?;
        let mut consent = self.overwrite.consent("write-zeroes", true)?;
        let (connected, namespace) = self.namespace.connect_paths(provider)?;
        namespace.require(OptionalCommand::WriteZeroes)?;
        check_range(&namespace, lba, blocks)?;
        consent.check(&connected, &namespace)?;
        let run = async {
            let limits = connected.controller.nvm_limits().await?;
            let bytes_max = limits.write_zeroes_bytes_max(PAGE_SIZE_MIN);
            namespace.write_zeroes(lba..lba + blocks, deallocate, bytes_max).await
        };
        connected.runtime.run(run)?;
        output::print_message(format_args!("{} set to zeros", size::format_count(blocks, "block")));
        drop(namespace);
        connected.close();
        Ok(())
    }
}

/// First block and number of blocks of each range of a command line.
///
/// # Errors
///
/// A usage error if the lists differ in length, or a range ends beyond all numbers of blocks.
pub(super) fn ranges(lba: &[u64], blocks: &[u64]) -> Result<Vec<(u64, u64)>, Failure> {
    if lba.len() != blocks.len() {
        return Err(Failure::usage(format!(
            "--lba names {} and --blocks {}; give a number of blocks for each range",
            size::format_count(lba.len() as u64, "range"),
            blocks.len()
        )));
    }
    let ranges: Vec<_> = lba.iter().copied().zip(blocks.iter().copied()).collect();
    ranges.iter().try_for_each(|&(lba, blocks)| check_end(lba, blocks))?;
    Ok(ranges)
}

/// Checks that all ranges fit the namespace.
pub(super) fn check_ranges(namespace: &IoNamespace, ranges: &[(u64, u64)]) -> Result<(), Failure> {
    ranges.iter().try_for_each(|&(lba, blocks)| check_range(namespace, lba, blocks).map(drop))
}

/// Limits of a command with a list of ranges.
#[derive(Clone, Copy)]
pub(super) struct RangeLimits {
    /// Ranges of one command.
    ranges: usize,
    /// Blocks of one range.
    range_blocks: u32,
    /// Blocks of all ranges of one command.
    blocks: u64,
}

impl From<NvmLimits> for RangeLimits {
    fn from(limits: NvmLimits) -> Self {
        Self {
            ranges: limits.ranges.map_or(BlockRange::COUNT_MAX, usize::from),
            range_blocks: limits.range_blocks.unwrap_or(u32::MAX),
            blocks: limits.blocks.unwrap_or(u64::MAX),
        }
    }
}

/// Limits of zero, which a controller with Copy does not report, are taken for one.
impl From<CopyLimits> for RangeLimits {
    fn from(limits: CopyLimits) -> Self {
        Self {
            ranges: limits.ranges.into(),
            range_blocks: limits.range_blocks.max(1),
            blocks: limits.blocks.max(1).into(),
        }
    }
}

impl RangeLimits {
    /// Ranges of each command.
    pub(super) fn split(self, ranges: impl Iterator<Item = (u64, u64)>) -> Vec<Vec<BlockRange>> {
        let mut commands: Vec<Vec<BlockRange>> = Vec::new();
        let mut room = 0;
        for (mut lba, mut rest) in ranges {
            while rest > 0 {
                if room == 0 || commands.last().is_none_or(|command| command.len() == self.ranges) {
                    commands.push(Vec::new());
                    room = self.blocks;
                }
                let blocks = u32::try_from(rest.min(room)).unwrap_or(u32::MAX);
                let blocks = blocks.min(self.range_blocks);
                let command = commands.last_mut().expect("one was pushed");
                command.push(BlockRange { lba, blocks });
                let blocks = u64::from(blocks);
                (lba, rest, room) = (lba + blocks, rest - blocks, room - blocks);
            }
        }
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_split_by_the_limits_of_the_controller() {
        let range = |lba, blocks| BlockRange { lba, blocks };
        let all = [(0, 10), (100, 3)];
        let split_by = |limits: NvmLimits| RangeLimits::from(limits).split(all.into_iter());
        assert_eq!(split_by(NvmLimits::default()), [[range(0, 10), range(100, 3)]]);
        let small = NvmLimits { range_blocks: Some(4), ..NvmLimits::default() };
        assert_eq!(split_by(small)[0].len(), 4);
        let single = NvmLimits { ranges: Some(1), ..NvmLimits::default() };
        assert_eq!(split_by(single), [[range(0, 10)], [range(100, 3)]]);
        let few = NvmLimits { blocks: Some(12), ..NvmLimits::default() };
        assert_eq!(split_by(few), [vec![range(0, 10), range(100, 2)], vec![range(102, 1)]]);
        let large = RangeLimits::from(NvmLimits::default()).split([(0, 1 << 33)].into_iter());
        assert_eq!(large[0].iter().map(|range| u64::from(range.blocks)).sum::<u64>(), 1 << 33);
        let copy = CopyLimits { range_blocks: 8, blocks: 12, ranges: 2 };
        let expected = [vec![range(0, 8), range(8, 2)], vec![range(100, 3)]];
        assert_eq!(RangeLimits::from(copy).split(all.into_iter()), expected);
        let none = CopyLimits { range_blocks: 0, blocks: 0, ranges: 1 };
        assert_eq!(RangeLimits::from(none).split(all.into_iter()).len(), 13);
    }
}
