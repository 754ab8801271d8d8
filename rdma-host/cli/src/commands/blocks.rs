//! `nvmf flush`, `nvmf dsm` and `nvmf write-zeroes`: commands without a transfer of blocks.

use std::sync::Arc;

use clap::Args;
use rdma_host::wire::{BlockRange, NvmLimits};

use super::read_write::check_range;
use crate::{
    capture::{CaptureArguments, ConnectingCommand, SystemProvider},
    connect::ConnectedController,
    failure::Failure,
    output,
    overwrite::OverwriteArguments,
    size,
    target::TargetArguments,
};

#[derive(Args)]
pub(crate) struct FlushArguments {
    /// Namespace id [default: the only one].
    #[arg(long, value_name = "N")]
    ns: Option<u32>,

    #[command(flatten)]
    target: TargetArguments,

    #[command(flatten)]
    capture: CaptureArguments,
}

#[derive(Args)]
pub(crate) struct DeallocateArguments {
    /// Namespace id [default: the only one].
    #[arg(long, value_name = "N")]
    ns: Option<u32>,

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
    target: TargetArguments,

    #[command(flatten)]
    capture: CaptureArguments,
}

#[derive(Args)]
pub(crate) struct WriteZeroesArguments {
    /// Namespace id [default: the only one].
    #[arg(long, value_name = "N")]
    ns: Option<u32>,

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
    target: TargetArguments,

    #[command(flatten)]
    capture: CaptureArguments,
}

impl ConnectingCommand for FlushArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let connected = ConnectedController::connect(provider, &self.target)?;
        let namespace = connected.namespace(self.ns)?;
        connected.runtime.run(namespace.flush())?;
        output::print_message(format_args!("namespace {} is flushed", namespace.info().id));
        drop(namespace);
        connected.close();
        Ok(())
    }
}

impl ConnectingCommand for DeallocateArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let DeallocateArguments { lba, blocks, .. } = self;
        if lba.len() != blocks.len() {
            return Err(Failure::usage(format!(
                "--lba names {} and --blocks {}; give a number of blocks for each range",
                size::format_count(lba.len() as u64, "range"),
                blocks.len()
            )));
        }
        let mut consent = self.overwrite.consent("dsm", true)?;
        let connected = ConnectedController::connect(provider, &self.target)?;
        let namespace = connected.namespace(self.ns)?;
        for (&lba, &blocks) in lba.iter().zip(blocks) {
            check_range(&namespace, lba, blocks)?;
        }
        consent.check(&connected, &namespace)?;
        let run = async {
            let limits = connected.controller.nvm_limits().await?;
            let mut buffer =
                connected.controller.allocate(BlockRange::SIZE * BlockRange::COUNT_MAX)?;
            for command in split(lba.iter().copied().zip(blocks.iter().copied()), limits) {
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
        &self.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        /// Size of the smallest memory page, CAP.MPSMIN, of controllers over fabrics.
        const PAGE_SIZE_MIN: u64 = 4096;
        let WriteZeroesArguments { lba, blocks, deallocate, .. } = *self;
        let mut consent = self.overwrite.consent("write-zeroes", true)?;
        let connected = ConnectedController::connect(provider, &self.target)?;
        let namespace = connected.namespace(self.ns)?;
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

/// Ranges of each command, within the limits of the controller.
fn split(ranges: impl Iterator<Item = (u64, u64)>, limits: NvmLimits) -> Vec<Vec<BlockRange>> {
    let of_range = limits.range_blocks.unwrap_or(u32::MAX);
    let of_command = limits.blocks.unwrap_or(u64::MAX);
    let count = limits.ranges.map_or(BlockRange::COUNT_MAX, usize::from);
    let mut commands: Vec<Vec<BlockRange>> = Vec::new();
    let mut room = 0;
    for (mut lba, mut rest) in ranges {
        while rest > 0 {
            if room == 0 || commands.last().is_none_or(|command| command.len() == count) {
                commands.push(Vec::new());
                room = of_command;
            }
            let blocks = u32::try_from(rest.min(room)).unwrap_or(u32::MAX).min(of_range);
            let command = commands.last_mut().expect("one was pushed");
            command.push(BlockRange { lba, blocks });
            let blocks = u64::from(blocks);
            (lba, rest, room) = (lba + blocks, rest - blocks, room - blocks);
        }
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_split_by_the_limits_of_the_controller() {
        let range = |lba, blocks| BlockRange { lba, blocks };
        let all = [(0, 10), (100, 3)];
        let split_by = |limits| split(all.into_iter(), limits);
        assert_eq!(split_by(NvmLimits::default()), [[range(0, 10), range(100, 3)]]);
        let small = NvmLimits { range_blocks: Some(4), ..NvmLimits::default() };
        assert_eq!(split_by(small)[0].len(), 4);
        let single = NvmLimits { ranges: Some(1), ..NvmLimits::default() };
        assert_eq!(split_by(single), [[range(0, 10)], [range(100, 3)]]);
        let few = NvmLimits { blocks: Some(12), ..NvmLimits::default() };
        assert_eq!(split_by(few), [vec![range(0, 10), range(100, 2)], vec![range(102, 1)]]);
        let large = split([(0, 1 << 33)].into_iter(), NvmLimits::default());
        assert_eq!(large[0].iter().map(|range| u64::from(range.blocks)).sum::<u64>(), 1 << 33);
    }
}
