//! Reservations of a namespace.

use verbs::Buffer;

use crate::{
    driver::{
        api::{
            namespace::{Namespace, TransferError},
            ranges::run_with_list,
        },
        data_path::command::{Command, Data},
    },
    error::{Error, Malformed, Misuse},
    wire::{OptionalCommand, ReservationCommand, ReservationReport},
};

impl Namespace {
    /// Changes the registration of this host, or the reservation of the namespace. Reservations are
    /// of a host, by its Host Identifier: all its controllers share them. The command is never sent
    /// again by itself.
    ///
    /// With `ignore_key` the controller does not check the current key. `buffer` takes the keys, 16
    /// bytes; its content is undefined afterwards.
    ///
    /// # Errors
    ///
    /// When the controller does not support reservations, or the buffer is too small; when the
    /// controller refuses, with the status "reservation conflict" where a key does not match or
    /// another host holds a reservation; when the connection is lost.
    pub async fn reserve(
        &self,
        command: &ReservationCommand,
        ignore_key: bool,
        buffer: Buffer,
    ) -> Result<Buffer, TransferError> {
        let least = ReservationCommand::DATA_MAX;
        if let Err(error) = self.check_reservation(buffer.len() >= least, &buffer) {
            return Err(TransferError::unsent(error, buffer));
        }
        let keys = command.to_bytes();
        let sqe = command.to_sqe(self.id(), ignore_key);
        let with_keys = |mut list: Buffer| {
            list.copy_in(0, &keys);
            Command { sqe, data: Data::ToController(list), user: 0 }
        };
        run_with_list(self, command.name(), keys.len(), buffer, with_keys).await
    }

    /// Reads the reservation and the registrants of the namespace, as many as the whole buffer has
    /// room for: 64 bytes, and 64 for each.
    ///
    /// # Errors
    ///
    /// When the controller does not support reservations, or the length of the buffer is not a
    /// multiple of 64 or 0; when the controller refuses, or the connection is lost.
    pub async fn reservation_report(
        &self,
        buffer: Buffer,
    ) -> Result<(ReservationReport, Buffer), TransferError> {
        let length = buffer.len();
        let fits = length > 0 && length.is_multiple_of(ReservationReport::ENTRY_SIZE);
        if let Err(error) = self.check_reservation(fits, &buffer) {
            return Err(TransferError::unsent(error, buffer));
        }
        let sqe = ReservationReport::command(self.id(), u32::try_from(length).unwrap_or(u32::MAX));
        let mut buffer = buffer;
        buffer.fill(0);
        let done = self.run(Command { sqe, data: Data::FromController(buffer), user: 0 }).await;
        let (_, buffer) = TransferError::check(done, "Reservation Report")?;
        let mut bytes = vec![0; length];
        buffer.copy_out(0, &mut bytes);
        match ReservationReport::parse(&bytes) {
            Ok(report) => Ok((report, buffer)),
            Err(error) => Err(TransferError::answered(Malformed::from(error), buffer)),
        }
    }

    fn check_reservation(&self, fits: bool, buffer: &Buffer) -> Result<(), Error> {
        self.require(OptionalCommand::Reservations)?;
        if !fits || u32::try_from(buffer.len()).is_err() {
            let (option, value) = ("bytes of a buffer for reservations", buffer.len() as u64);
            let range = "16 for keys; a multiple of 64 for a report";
            return Err(Misuse::Option { option, value, range }.into());
        }
        Ok(())
    }
}
