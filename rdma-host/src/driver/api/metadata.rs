//! Reads and writes of blocks with their metadata, and protection information.

use verbs::Buffer;

use crate::{
    driver::{
        api::{
            namespace::{Direction, JoinedParts, Namespace, TransferError},
            protect::default_reference,
            request_channel::RequestCompletion,
        },
        data_path::command::{Command, ExecutionStatus},
    },
    error::{Error, Misuse},
    proto::ProtectedBlocks,
    wire::{NamespaceInfo, OptionalCommand, ProtectionChecks, ProtectionTags, ProtectionType},
};

/// Side that makes and checks protection information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProtectionAction {
    /// None: it is transferred as the caller has it.
    Caller,
    /// The controller (PRACT): it makes that of a write, and strips that of a read. If there is no
    /// other metadata, buffers hold data alone; otherwise extended blocks.
    Controller,
    /// This host: computed before a write, and checked after a read. The guard is computed by the
    /// processor, over a copy of each block; nothing is offloaded to the device.
    #[default]
    Host,
}

/// Options of a transfer with metadata. Without protection information, none has an effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProtectionOptions {
    /// Side that makes and checks protection information.
    pub action: ProtectionAction,
    /// Checks. By default those of what there is something to compare with: the guard, the
    /// reference tag unless the type is 3, the application tag by its mask, and a storage tag that
    /// is given; with [`ProtectionAction::Caller`] none. With [`ProtectionAction::Host`] this host
    /// makes those of a read, which name the block that fails, and the controller those of a write.
    pub checks: Option<ProtectionChecks>,
    /// Application tag.
    pub application_tag: u16,
    /// Bits of the application tag that are checked.
    pub application_tag_mask: u16,
    /// Reference tag of the first block; by default the low bits of its address, and 0 in type 3.
    pub reference_tag: Option<u64>,
    /// Storage tag.
    pub storage_tag: Option<u64>,
}

/// Extended transfer: what its commands have in common.
#[derive(Clone, Copy)]
struct Transfer {
    direction: Direction,
    /// First block.
    lba: u64,
    /// Bytes of a block in the buffer.
    block_bytes: usize,
    protection: Option<Protection>,
}

#[derive(Clone, Copy)]
struct Protection {
    blocks: ProtectedBlocks,
    action: ProtectionAction,
    checks: ProtectionChecks,
    /// Tags of the first block of the transfer.
    tags: ProtectionTags,
}

impl Namespace {
    /// Reads extended blocks, each with its data and its metadata, from `lba` on into the whole
    /// buffer, and checks their protection information as the options say.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), and [`Error::Protection`], with the buffer as it was read, for the
    /// first block whose protection information this host has found to differ. A check of the
    /// controller fails the command with the status of that check, which does not name the block.
    pub async fn read_extended(
        &self,
        lba: u64,
        buffer: Buffer,
        options: &ProtectionOptions,
    ) -> Result<Buffer, TransferError> {
        self.transfer_extended(Direction::Read, lba, buffer, options).await
    }

    /// Writes extended blocks, each with its data and its metadata, from `lba` on. With
    /// [`ProtectionAction::Host`] the protection information is computed in the buffer before.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write), and when the protection information fails a check of the
    /// controller.
    pub async fn write_extended(
        &self,
        lba: u64,
        buffer: Buffer,
        options: &ProtectionOptions,
    ) -> Result<Buffer, TransferError> {
        self.transfer_extended(Direction::Write, lba, buffer, options).await
    }

    /// Compares the extended blocks from `lba` on with the whole buffer (Compare), as
    /// [`compare`](Self::compare) does. The protection information of the buffer is that of a
    /// write.
    ///
    /// # Errors
    ///
    /// As [`compare`](Self::compare); the controller can't make protection information for it.
    pub async fn compare_extended(
        &self,
        lba: u64,
        buffer: Buffer,
        options: &ProtectionOptions,
    ) -> Result<Buffer, TransferError> {
        match self.require(OptionalCommand::Compare) {
            Ok(()) => self.transfer_extended(Direction::Compare, lba, buffer, options).await,
            Err(error) => Err(TransferError::unsent(error, buffer)),
        }
    }

    /// Reads blocks from `lba` on into `data`, and their metadata into `metadata`, through the
    /// bounce buffer, which has the size of both: over Fabrics they are transferred together, and
    /// copied apart by this host.
    ///
    /// # Errors
    ///
    /// As [`read_extended`](Self::read_extended), and when the sizes do not fit one another.
    pub async fn read_separate(
        &self,
        lba: u64,
        bounce: Buffer,
        data: &mut [u8],
        metadata: &mut [u8],
        options: &ProtectionOptions,
    ) -> Result<Buffer, TransferError> {
        if let Err(error) = self.check_separate(&bounce, data.len(), metadata.len(), options) {
            return Err(TransferError::unsent(error, bounce));
        }
        let bounce = self.read_extended(lba, bounce, options).await?;
        let (block, other) = (self.info().block_size as usize, self.info().metadata.bytes.into());
        let parts = data.chunks_exact_mut(block).zip(metadata.chunks_exact_mut(other));
        for (index, (data, metadata)) in parts.enumerate() {
            let at = index * (block + other);
            bounce.copy_out(at, data);
            bounce.copy_out(at + block, metadata);
        }
        Ok(bounce)
    }

    /// Writes blocks with `data`, and `metadata` for them, from `lba` on, through the bounce
    /// buffer, which has the size of both: over Fabrics they are transferred together, and copied
    /// there by this host.
    ///
    /// # Errors
    ///
    /// As [`write_extended`](Self::write_extended), and when the sizes do not fit one another.
    pub async fn write_separate(
        &self,
        lba: u64,
        mut bounce: Buffer,
        data: &[u8],
        metadata: &[u8],
        options: &ProtectionOptions,
    ) -> Result<Buffer, TransferError> {
        if let Err(error) = self.check_separate(&bounce, data.len(), metadata.len(), options) {
            return Err(TransferError::unsent(error, bounce));
        }
        let (block, other) = (self.info().block_size as usize, self.info().metadata.bytes.into());
        let parts = data.chunks_exact(block).zip(metadata.chunks_exact(other));
        for (index, (data, metadata)) in parts.enumerate() {
            let at = index * (block + other);
            bounce.copy_in(at, data);
            bounce.copy_in(at + block, metadata);
        }
        self.write_extended(lba, bounce, options).await
    }

    fn check_separate(
        &self,
        bounce: &Buffer,
        data: usize,
        metadata: usize,
        options: &ProtectionOptions,
    ) -> Result<(), Misuse> {
        let info = self.info();
        let refused = |reason| Err(Misuse::Protection { namespace: info.id, reason });
        if block_bytes(&info, options) != info.extended_block_size() as usize {
            return refused(
                "the controller strips all of its metadata (PRACT): there is none left",
            );
        }
        if info.metadata.bytes == 0 {
            return refused("it has no metadata");
        }
        let blocks = data / info.block_size as usize;
        if data != blocks * info.block_size as usize
            || metadata != blocks * usize::from(info.metadata.bytes)
            || bounce.len() != data + metadata
        {
            return refused("data, metadata and bounce buffer are not of the same blocks");
        }
        Ok(())
    }

    async fn transfer_extended(
        &self,
        direction: Direction,
        lba: u64,
        mut buffer: Buffer,
        options: &ProtectionOptions,
    ) -> Result<Buffer, TransferError> {
        let transfer = match self.plan(direction, lba, buffer.len(), options) {
            Ok(transfer) => transfer,
            Err(error) => return Err(TransferError::unsent(error, buffer)),
        };
        if let Some(protection) = transfer.host_protection()
            && !matches!(direction, Direction::Read)
        {
            protection.protect(&mut buffer);
        }
        let parts = self.start_extended(transfer, buffer).await;
        let mut joined = JoinedParts::default();
        for part in parts {
            joined.add(self.finish_extended(direction, part).await);
        }
        let buffer = joined.into_result()?;
        if let (Some(protection), Direction::Read) = (transfer.host_protection(), direction)
            && let Err(error) = protection.check(lba, &buffer)
        {
            let execution = ExecutionStatus::Responded;
            return Err(TransferError { error, buffer: Some(buffer), execution });
        }
        Ok(buffer)
    }

    /// Checks a transfer.
    fn plan(
        &self,
        direction: Direction,
        lba: u64,
        bytes: usize,
        options: &ProtectionOptions,
    ) -> Result<Transfer, Error> {
        let info = self.info();
        let block_bytes = block_bytes(&info, options);
        let bytes = bytes as u64;
        if bytes == 0 || !bytes.is_multiple_of(block_bytes as u64) {
            let block_size = u32::try_from(block_bytes).expect("a block is small");
            return Err(Misuse::BlockMultiple { bytes, block_size }.into());
        }
        let blocks = bytes / block_bytes as u64;
        self.check_replaced()?;
        self.check_range(lba, blocks.saturating_mul(info.block_size.into()))?;
        let protection = Protection::of(&info, lba, direction, options)?;
        Ok(Transfer { direction, lba, block_bytes, protection })
    }

    /// Sends the commands of a transfer.
    async fn start_extended(
        &self,
        transfer: Transfer,
        buffer: Buffer,
    ) -> Vec<RequestCompletion<'_>> {
        let bytes_max = usize::try_from(self.command_bytes_max()).unwrap_or(usize::MAX);
        let step = (bytes_max / transfer.block_bytes).clamp(1, 1 << 16) * transfer.block_bytes;
        let mut rest = Some(buffer);
        let mut pending = Vec::new();
        let mut done = 0;
        while let Some(mut part) = rest.take() {
            if part.len() > step {
                rest = Some(part.split_off(step));
            }
            let blocks = part.len() / transfer.block_bytes;
            pending.push(self.begin(self.extended_command(transfer, done, part)).await);
            done += blocks as u64;
        }
        pending
    }

    /// Command of a part of a transfer, `done` blocks after its first one.
    fn extended_command(&self, transfer: Transfer, done: u64, part: Buffer) -> Command {
        let blocks = u32::try_from(part.len() / transfer.block_bytes);
        let blocks = blocks.expect("a command has at most 65,536 blocks");
        let command = self.plain_command(transfer.direction, transfer.lba + done, blocks, part);
        let Some(Protection { blocks, action, checks, tags }) = transfer.protection else {
            return command;
        };
        let checks = match (action, transfer.direction) {
            (ProtectionAction::Host, Direction::Read) => ProtectionChecks::default(),
            _ => checks,
        };
        let reference = blocks.format().advance(tags.reference, done);
        let (inserts, tags) =
            (action == ProtectionAction::Controller, ProtectionTags { reference, ..tags });
        let sqe = command.sqe.with_protection(blocks.format(), inserts, checks, tags);
        Command { sqe, ..command }
    }

    async fn finish_extended(
        &self,
        direction: Direction,
        part: RequestCompletion<'_>,
    ) -> Result<Buffer, TransferError> {
        let done = part.await;
        TransferError::check(done, direction.name()).map(|(_, buffer)| buffer)
    }
}

/// Bytes of a block in the buffer of a transfer.
fn block_bytes(info: &NamespaceInfo, options: &ProtectionOptions) -> usize {
    let is_stripped =
        options.action == ProtectionAction::Controller && info.metadata.is_protection_only();
    if is_stripped { info.block_size as usize } else { info.extended_block_size() as usize }
}

impl Transfer {
    /// Protection information that this host makes and checks.
    fn host_protection(&self) -> Option<Protection> {
        self.protection.filter(|protection| protection.action == ProtectionAction::Host)
    }
}

impl Protection {
    /// Protection information of a transfer from `lba` on; `None` if the namespace has none.
    fn of(
        info: &NamespaceInfo,
        lba: u64,
        direction: Direction,
        options: &ProtectionOptions,
    ) -> Result<Option<Self>, Misuse> {
        let refused = |reason| Err(Misuse::Protection { namespace: info.id, reason });
        let Some(blocks) = ProtectedBlocks::of(info) else {
            return match options.action {
                ProtectionAction::Controller => refused("it has no protection information"),
                _ => Ok(None),
            };
        };
        let (format, action) = (blocks.format(), options.action);
        if action == ProtectionAction::Controller && matches!(direction, Direction::Compare) {
            return refused("the controller makes no protection information for Compare (PRACT)");
        }
        if options.reference_tag.is_some_and(|tag| tag > format.reference_tag_max()) {
            return refused("the reference tag has more bits than its format (STS)");
        }
        if options.storage_tag.is_some_and(|tag| tag > format.storage_tag_max()) {
            return refused("the storage tag has more bits than its format (STS)");
        }
        let by_address = default_reference(&blocks, lba);
        if format.protection_type == ProtectionType::Type1
            && options.reference_tag.is_some_and(|tag| tag != by_address)
        {
            return refused("the reference tag of type 1 is the low bits of the first block's LBA");
        }
        let tags = ProtectionTags {
            application: options.application_tag,
            application_mask: options.application_tag_mask,
            storage: options.storage_tag.unwrap_or(0),
            reference: options.reference_tag.unwrap_or(by_address),
        };
        let default = match action {
            ProtectionAction::Caller => ProtectionChecks::default(),
            _ => blocks.checks(&tags, options.storage_tag.is_some()),
        };
        Ok(Some(Self { blocks, action, checks: options.checks.unwrap_or(default), tags }))
    }

    /// Computes the protection information of all blocks in a buffer.
    fn protect(&self, buffer: &mut Buffer) {
        let size = self.blocks.size();
        let mut block = vec![0; size];
        for index in 0..buffer.len() / size {
            buffer.copy_out(index * size, &mut block);
            self.blocks.protect(&mut block, &self.tags_of(index));
            let place = self.blocks.place();
            buffer.copy_in(index * size + place.start, &block[place]);
        }
    }

    /// Checks the protection information of all blocks in a buffer, the first of which is `lba`.
    fn check(&self, lba: u64, buffer: &Buffer) -> Result<(), Error> {
        let size = self.blocks.size();
        let mut block = vec![0; size];
        for index in 0..buffer.len() / size {
            buffer.copy_out(index * size, &mut block);
            let tags = self.tags_of(index);
            self.blocks.check(lba + index as u64, &block, self.checks, &tags)?;
        }
        Ok(())
    }

    /// Tags of a block of the transfer.
    fn tags_of(&self, index: usize) -> ProtectionTags {
        let reference = self.blocks.format().advance(self.tags.reference, index as u64);
        ProtectionTags { reference, ..self.tags }
    }
}
