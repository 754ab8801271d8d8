//! `nvmf compare`, `nvmf copy`, `nvmf verify` and `nvmf write-uncor`: commands of the NVM command
//! set that a controller need not support.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use rdma_host::{
    Buffer, Error, Provider, RangeCommands, TransferError,
    error::Rejected,
    wire::{BlockRange, OptionalCommand, Status},
};

use super::{
    block_file::{Input, check_end, check_range},
    blocks::{PAGE_SIZE_MIN, RangeLimits, check_ranges, ranges},
    metadata::{MetadataArguments, read_joined},
    read_write::CHUNK_BYTES,
};
use crate::{
    block_layout::BlockLayout,
    capture::{CaptureArguments, ConnectingCommand, SystemProvider},
    connect::{ConnectedController, NamespaceArguments},
    failure::Failure,
    io_namespace::IoNamespace,
    output,
    overwrite::OverwriteArguments,
    size,
};

#[derive(Args)]
pub(crate) struct CompareArguments {
    /// First block.
    #[arg(long, value_name = "LBA", default_value_t = 0, value_parser = size::count)]
    lba: u64,

    /// Number of blocks [default: all of the file].
    #[arg(long, value_name = "N", value_parser = size::positive)]
    blocks: Option<u64>,

    /// File to compare the blocks with; - for standard input.
    #[arg(short, long, default_value = "-")]
    file: PathBuf,

    #[command(flatten)]
    metadata: MetadataArguments,

    #[command(flatten)]
    namespace: NamespaceArguments,
}

#[derive(Args)]
pub(crate) struct CopyArguments {
    /// First block of the destination.
    #[arg(long, value_name = "LBA", value_parser = size::count)]
    sdlba: u64,

    /// First block of each source range.
    #[arg(long, visible_alias = "slbs", value_name = "LBA,…", value_delimiter = ',',
          required = true, value_parser = size::count)]
    lba: Vec<u64>,

    /// Number of blocks of each source range.
    #[arg(long, value_name = "N,…", value_delimiter = ',', required = true,
          value_parser = size::positive)]
    blocks: Vec<u64>,

    #[command(flatten)]
    overwrite: OverwriteArguments,

    #[command(flatten)]
    namespace: NamespaceArguments,
}

#[derive(Args)]
pub(crate) struct VerifyArguments {
    /// First block.
    #[arg(long, value_name = "LBA", default_value_t = 0, value_parser = size::count)]
    lba: u64,

    /// Number of blocks [default: to the end of the namespace].
    #[arg(long, value_name = "N", value_parser = size::positive)]
    blocks: Option<u64>,

    #[command(flatten)]
    namespace: NamespaceArguments,
}

#[derive(Args)]
pub(crate) struct WriteUncorrectableArguments {
    /// First block.
    #[arg(long, value_name = "LBA", value_parser = size::count)]
    lba: u64,

    /// Number of blocks.
    #[arg(long, value_name = "N", value_parser = size::positive)]
    blocks: u64,

    #[command(flatten)]
    overwrite: OverwriteArguments,

    #[command(flatten)]
    namespace: NamespaceArguments,
}

impl ConnectingCommand for CompareArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let input = Input::open(&self.file)?;
        input.check(self.lba, self.blocks)?;
        let (connected, namespace) = self.namespace.connect_paths(provider)?;
        namespace.require(OptionalCommand::Compare)?;
        let bytes = input.bytes_to_write(&namespace, self.lba, self.blocks)?;
        let layout = self.metadata.layout(&namespace, self.lba)?;
        let metadata = self.metadata.input(&namespace, &layout, bytes)?;
        let mut comparison = Comparison { layout, input, metadata };
        let end = compare(&connected, &namespace, &mut comparison, self.lba, bytes)?;
        let blocks = size::format_count(end - self.lba, "block");
        output::print_message(format_args!("{blocks} compared: no difference"));
        drop(namespace);
        connected.close();
        Ok(())
    }
}

impl ConnectingCommand for CopyArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let ranges = ranges(&self.lba, &self.blocks)?;
        let all = self.blocks.iter().fold(0, |all: u64, blocks| all.saturating_add(*blocks));
        check_end(self.sdlba, all)?;
        let mut consent = self.overwrite.consent("copy", true)?;
        let (connected, namespace) = self.namespace.connect_paths(provider)?;
        namespace.require(OptionalCommand::Copy)?;
        check_ranges(&namespace, &ranges)?;
        check_range(&namespace, self.sdlba, all)?;
        consent.check(&connected, &namespace)?;
        let run = async {
            let limits = connected.controller.copy_limits(namespace.info().id).await?;
            let bytes = BlockRange::COPY_SIZE * BlockRange::COUNT_MAX;
            let mut buffer = connected.controller.allocate(bytes)?;
            let mut lba = self.sdlba;
            for sources in RangeLimits::from(limits).split(ranges.iter().copied()) {
                buffer = namespace.copy(&sources, lba, buffer).await?;
                lba += sources.iter().map(|range| u64::from(range.blocks)).sum::<u64>();
            }
            Ok::<_, Failure>(())
        };
        connected.runtime.run(run)?;
        output::print_message(format_args!("{} copied", size::format_count(all, "block")));
        drop(namespace);
        connected.close();
        Ok(())
    }
}

impl ConnectingCommand for VerifyArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        check_end(self.lba, self.blocks.unwrap_or(0))?;
        let (connected, namespace) = self.namespace.connect_paths(provider)?;
        namespace.require(OptionalCommand::Verify)?;
        let blocks = self.blocks.unwrap_or(namespace.info().blocks.saturating_sub(self.lba));
        check_range(&namespace, self.lba, blocks)?;
        let run = async {
            let limits = connected.controller.nvm_limits().await?;
            let range = self.lba..self.lba + blocks;
            namespace.verify(range, limits.verify_bytes_max(PAGE_SIZE_MIN)).await
        };
        connected.runtime.run(run)?;
        output::print_message(format_args!("{} verified", size::format_count(blocks, "block")));
        drop(namespace);
        connected.close();
        Ok(())
    }
}

impl ConnectingCommand for WriteUncorrectableArguments {
    fn capture(&self) -> &CaptureArguments {
        &self.namespace.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let WriteUncorrectableArguments { lba, blocks, .. } = *self;
        check_end(lba, blocks)?;
        let mut consent = self.overwrite.consent("write-uncor", true)?;
        let (connected, namespace) = self.namespace.connect_paths(provider)?;
        namespace.require(OptionalCommand::WriteUncorrectable)?;
        check_range(&namespace, lba, blocks)?;
        consent.check(&connected, &namespace)?;
        let run = async {
            let limits = connected.controller.nvm_limits().await?;
            let bytes_max = limits.write_uncorrectable_bytes_max(PAGE_SIZE_MIN);
            namespace.write_uncorrectable(lba..lba + blocks, bytes_max).await
        };
        connected.runtime.run(run)?;
        let blocks = size::format_count(blocks, "block");
        output::print_message(format_args!("{blocks} can't be read until they are written"));
        drop(namespace);
        connected.close();
        Ok(())
    }
}

/// Inputs of a comparison.
struct Comparison {
    layout: BlockLayout,
    input: Input,
    metadata: Option<Input>,
}

/// Compares the blocks from `lba` on with `bytes` of the input, or all of it; returns the end.
fn compare<P: Provider>(
    connected: &ConnectedController<P>,
    namespace: &IoNamespace,
    comparison: &mut Comparison,
    mut lba: u64,
    bytes: Option<u64>,
) -> Result<u64, Failure> {
    let Comparison { layout, input, metadata } = comparison;
    let chunk = CHUNK_BYTES.min(namespace.transfer_bytes_max());
    let shutdown = &connected.runtime.shutdown;
    let mut data = vec![0; usize::try_from(chunk).map_err(Failure::failed)?];
    let (begin, mut rest) = (lba, bytes);
    while rest != Some(0) {
        let want =
            usize::try_from(rest.map_or(chunk, |rest| rest.min(chunk))).unwrap_or(data.len());
        let got = input.fill(&mut data[..want], || shutdown.get().is_some())?;
        match (got, shutdown.get()) {
            (_, Some(signal)) => return Err(Failure::interrupted(signal)),
            (None | Some(0), None) if rest.is_none() && lba == begin => {
                return Err(input.no_data());
            }
            (None | Some(0), None) if rest.is_none() => break,
            (None | Some(0), None) => {
                return Err(Failure::failed(format!("{} ended early", input.name())));
            }
            (Some(_), None) => {}
        }
        let data = &data[..got.unwrap_or(0)];
        namespace.check_range(lba, data.len() as u64).map_err(Error::from)?;
        let joined = read_joined(layout, data, metadata.as_mut(), || shutdown.get().is_some())?;
        let blocks = joined.as_deref().unwrap_or(data);
        let difference = difference(connected, (namespace, *layout), lba, blocks);
        if let Some(block) = connected.runtime.run(difference)? {
            return Err(Failure::mismatch(format!("block {block} differs from {}", input.name())));
        }
        lba += data.len() as u64 / u64::from(namespace.info().block_size);
        rest = rest.map(|rest| rest - data.len() as u64);
    }
    Ok(lba)
}

/// First block from `lba` on that differs from the data. The status of Compare does not say which:
/// it is found by further ones, block by block.
async fn difference<P: Provider>(
    connected: &ConnectedController<P>,
    (namespace, layout): (&IoNamespace, BlockLayout),
    lba: u64,
    data: &[u8],
) -> Result<Option<u64>, Failure> {
    let buffer = connected.controller.allocate(data.len())?;
    if is_equal((namespace, layout), lba, buffer, data).await? {
        return Ok(None);
    }
    let block_size = layout.buffer_bytes(namespace.info().block_size as usize);
    for (block, data) in (lba..).zip(data.chunks(block_size)) {
        let buffer = connected.controller.allocate(block_size)?;
        if !is_equal((namespace, layout), block, buffer, data).await? {
            return Ok(Some(block));
        }
    }
    // Written since the first Compare.
    Ok(Some(lba))
}

async fn is_equal(
    (namespace, layout): (&IoNamespace, BlockLayout),
    lba: u64,
    mut buffer: Buffer,
    data: &[u8],
) -> Result<bool, TransferError> {
    buffer.copy_in(0, data);
    match layout.compare(namespace, lba, buffer).await {
        Ok(_) => Ok(true),
        Err(TransferError { error: Error::Rejected(Rejected::Command { status, .. }), .. })
            if status.code() == Status::COMPARE_FAILURE =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
