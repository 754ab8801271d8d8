//! Commands that the caller builds: features, log pages, and any other.

use verbs::Provider;

use crate::{
    config::ADMIN_TRANSFER_MAX,
    driver::{
        api::{controller::Controller, namespace::Namespace},
        data_path::command::{Command, CommandCompletion, Data},
    },
    error::{Error, Incompatible, Misuse},
    proto::Transfer,
    wire::{
        Cqe, DataDirection, FeatureSelect, GetFeatures, GetLogPage, NamespaceId, Opcode,
        OptionalCommand, SetFeatures, Sqe,
    },
};

impl<P: Provider> Controller<P> {
    /// Executes any admin command; returns the response, of status success, and the data from the
    /// controller. Only Identify and Get Log Page are sent again if the connection is lost.
    ///
    /// # Errors
    ///
    /// [`Misuse::Passthrough`] if the data does not have the direction of the opcode, its length is
    /// 0, not a multiple of 4 or above [`ADMIN_TRANSFER_MAX`], or the command is one of those that
    /// hold the connection: Fabrics commands, Keep Alive and Asynchronous Event Request. When the
    /// controller refuses or is gone.
    pub async fn admin_command(
        &self,
        sqe: Sqe,
        transfer: Transfer,
    ) -> Result<(Cqe, Vec<u8>), Error> {
        let (direction, bytes) = match &transfer {
            Transfer::None => (DataDirection::None, 0),
            Transfer::FromController(bytes) => (DataDirection::FromController, *bytes),
            Transfer::ToController(bytes) => (DataDirection::ToController, bytes.len()),
        };
        check(sqe.opcode(), direction, bytes as u64)?;
        if bytes > ADMIN_TRANSFER_MAX {
            let (bytes, max) = (bytes as u64, ADMIN_TRANSFER_MAX as u64);
            return Err(Misuse::CommandBytes { bytes, max }.into());
        }
        let holds_connection =
            [Opcode::FABRICS, Opcode::KEEP_ALIVE, Opcode::ASYNCHRONOUS_EVENT_REQUEST];
        if holds_connection.contains(&sqe.opcode()) {
            let reason = "the library itself sends it, to hold the connection";
            return Err(Misuse::Passthrough { opcode: sqe.opcode(), reason }.into());
        }
        self.admin().execute("the admin command", sqe, transfer).await
    }

    /// Reads a feature: its value, and `bytes` bytes of data if the feature has some.
    ///
    /// # Errors
    ///
    /// [`Incompatible::NoCommand`] if another value than the current one is asked of a controller
    /// that has no others; otherwise as [`admin_command`](Self::admin_command).
    pub async fn get_feature(
        &self,
        feature: u8,
        select: FeatureSelect,
        namespace: NamespaceId,
        cdw11: u32,
        bytes: usize,
    ) -> Result<(u32, Vec<u8>), Error> {
        if select != FeatureSelect::Current {
            self.require_save_and_select()?;
        }
        let sqe = GetFeatures::any(feature, select, namespace, cdw11);
        let transfer = if bytes > 0 { Transfer::FromController(bytes) } else { Transfer::None };
        check_length(sqe.opcode(), bytes as u64)?;
        let outcome = self.admin().execute("Get Features", sqe, transfer).await;
        outcome.map(|(response, data)| (response.result_dword(), data))
    }

    /// Sets a feature to a value (`dwords` 11 to 15 of the command), and data if the feature has
    /// some. With `save` the value survives resets. What the library has negotiated, such as the
    /// number of queues, is not to be changed.
    ///
    /// # Errors
    ///
    /// As [`get_feature`](Self::get_feature), `save` being what a controller may not support.
    pub async fn set_feature(
        &self,
        feature: u8,
        save: bool,
        namespace: NamespaceId,
        dwords: [u32; 5],
        data: Vec<u8>,
    ) -> Result<u32, Error> {
        if save {
            self.require_save_and_select()?;
        }
        let sqe = SetFeatures::any(feature, save, namespace, dwords);
        check_length(sqe.opcode(), data.len() as u64)?;
        let transfer = if data.is_empty() { Transfer::None } else { Transfer::ToController(data) };
        let outcome = self.admin().execute("Set Features", sqe, transfer).await;
        outcome.map(|(response, _)| response.result_dword())
    }

    /// Reads a log page, or a part of it, by as many commands as it needs. Only the last of them
    /// clears the event of the page, if `retain_event` is not set.
    ///
    /// # Errors
    ///
    /// [`Misuse::Passthrough`] if offset or length is not a multiple of 4, or the length is 0; when
    /// the controller refuses or is gone.
    pub async fn log_page(&self, page: GetLogPage) -> Result<Vec<u8>, Error> {
        let bytes = u64::from(page.bytes);
        if bytes == 0 || !bytes.is_multiple_of(4) || !page.offset.is_multiple_of(4) {
            let (opcode, reason) = (Opcode::GET_LOG_PAGE, "whole dwords of a log page are read");
            return Err(Misuse::Passthrough { opcode, reason }.into());
        }
        let limit = self.negotiated().transfer_bytes_max.min(ADMIN_TRANSFER_MAX as u64);
        let mut data = Vec::new();
        while (data.len() as u64) < bytes {
            let done = data.len() as u64;
            let length = u32::try_from(limit.min(bytes - done)).unwrap_or(u32::MAX);
            let is_last = done + u64::from(length) == bytes;
            let part = GetLogPage {
                offset: page.offset.saturating_add(done),
                bytes: length,
                retain_event: page.retain_event || !is_last,
                ..page
            };
            let transfer = Transfer::FromController(length as usize);
            let (_, part) = self.admin().execute("Get Log Page", part.to_sqe(), transfer).await?;
            data.extend(part);
        }
        Ok(data)
    }

    fn require_save_and_select(&self) -> Result<(), Error> {
        let command = OptionalCommand::SaveAndSelect;
        match self.negotiated().info.optional_commands.contains(command) {
            true => Ok(()),
            false => Err(Incompatible::NoCommand(command).into()),
        }
    }
}

impl Namespace {
    /// Executes any I/O command on the namespace; its response may have any status. After a loss of
    /// the connection it is sent again as its opcode allows: a Read, a Flush or a Verify at once, a
    /// Write, Write Zeroes or Dataset Management behind the fence, any other never.
    ///
    /// The outcome is [`Misuse::Passthrough`] if the command names another namespace, is one of a
    /// fused operation, or its data does not have the direction of the opcode, or a length that is
    /// 0 or not a multiple of 4, or of a Read, Write or Compare that of its blocks.
    pub async fn io_command(&self, command: Command) -> CommandCompletion {
        match self.check_command(&command) {
            Ok(()) => self.run(command).await,
            Err(error) => CommandCompletion::unsent(error, command),
        }
    }

    fn check_command(&self, command: &Command) -> Result<(), Error> {
        let Command { sqe, data, .. } = command;
        let opcode = sqe.opcode();
        let direction = match data {
            Data::None => DataDirection::None,
            Data::FromController(_) => DataDirection::FromController,
            Data::ToController(_) => DataDirection::ToController,
        };
        let bytes = data.len() as u64;
        check(opcode, direction, bytes)?;
        let refused = |reason| Err(Misuse::Passthrough { opcode, reason }.into());
        if sqe.namespace() != self.id() {
            return refused("it names another namespace");
        }
        if sqe.is_fused() {
            return refused("one command of a fused operation is not sent alone");
        }
        let blocks = sqe.blocks();
        let info = self.info();
        let is_stripped = info.metadata.is_protection_only() && sqe.inserts_protection();
        let block_size = if is_stripped { info.block_size } else { info.extended_block_size() };
        let block_bytes = (blocks.end - blocks.start) * u64::from(block_size);
        if matches!(opcode, Opcode::READ | Opcode::WRITE | Opcode::COMPARE) && bytes != block_bytes
        {
            return refused("the length of its data is not that of its blocks");
        }
        let max = self.command_bytes_max();
        if bytes > max {
            return Err(Misuse::CommandBytes { bytes, max }.into());
        }
        Ok(())
    }
}

/// Checks that data has the direction of the opcode, and a length that a command can have.
fn check(opcode: Opcode, direction: DataDirection, bytes: u64) -> Result<(), Error> {
    let reason = match (opcode.direction(), direction) {
        (DataDirection::Bidirectional, _) => "it transfers data both ways, which is not supported",
        // A command of an opcode with data may do without.
        (_, DataDirection::None) => return Ok(()),
        (due, given) if due != given => "its data goes the other way, or it has none",
        _ if bytes == 0 => "its data has no bytes",
        _ => return check_length(opcode, bytes),
    };
    Err(Misuse::Passthrough { opcode, reason }.into())
}

fn check_length(opcode: Opcode, bytes: u64) -> Result<(), Error> {
    if !bytes.is_multiple_of(4) {
        let reason = "the length of its data is not a multiple of 4";
        return Err(Misuse::Passthrough { opcode, reason }.into());
    }
    let max = u64::from(crate::wire::SglDescriptor::KEYED_LENGTH_MAX);
    if bytes > max {
        return Err(Misuse::CommandBytes { bytes, max }.into());
    }
    Ok(())
}
