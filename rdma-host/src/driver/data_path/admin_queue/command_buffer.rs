//! Registered memory for the data of admin and fabrics commands.

use verbs::Buffer;

use crate::{
    driver::data_path::command::{CommandCompletion, Data},
    error::Error,
    proto::{Execute, Transfer},
    wire::Cqe,
};

/// Buffer for the data of one command at a time.
pub(crate) struct CommandBuffer {
    /// Whole buffer, or the part that the command in flight does not use.
    buffer: Option<Buffer>,
}

impl CommandBuffer {
    /// Takes the data of a command: filled with the bytes to send, or zeroed.
    ///
    /// # Panics
    ///
    /// While another command has data.
    pub(crate) fn data(&mut self, transfer: &Transfer) -> Data {
        match transfer {
            Transfer::None => Data::None,
            Transfer::FromController(length) => {
                let mut buffer = self.take(*length);
                buffer.fill(0);
                Data::FromController(buffer)
            }
            Transfer::ToController(bytes) => {
                let mut buffer = self.take(bytes.len());
                buffer.copy_in(0, bytes);
                Data::ToController(buffer)
            }
        }
    }

    /// Returns the response of a command and the data received, and takes the memory back.
    ///
    /// # Errors
    ///
    /// The error of a command that has no response.
    pub(crate) fn response(
        &mut self,
        completion: CommandCompletion,
        execute: &Execute,
    ) -> Result<(Cqe, Vec<u8>), Error> {
        let CommandCompletion { outcome, data, .. } = completion;
        let mut bytes = Vec::new();
        if let Some(mut buffer) = data {
            if let Transfer::FromController(length) = execute.transfer {
                bytes.resize(length, 0);
                buffer.copy_out(0, &mut bytes);
            }
            if let Some(rest) = self.buffer.take() {
                buffer.unsplit(rest).expect("the rest is of the same buffer");
            }
            self.buffer = Some(buffer);
        }
        Ok((outcome?, bytes))
    }

    /// Takes the first `length` bytes.
    fn take(&mut self, length: usize) -> Buffer {
        let mut buffer = self.buffer.take().expect("no other command has data");
        if length < buffer.len() {
            self.buffer = Some(buffer.split_off(length));
        }
        buffer
    }
}

impl From<Buffer> for CommandBuffer {
    fn from(buffer: Buffer) -> Self {
        Self { buffer: Some(buffer) }
    }
}
