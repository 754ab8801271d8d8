//! Zoned namespaces: report, state changes and appends of zones (ZNS).

use verbs::{Buffer, Provider};

use crate::{
    driver::{
        api::{
            controller::Controller,
            namespace::{Namespace, TransferError},
            ranges::{RangeCommands, run_with_list},
        },
        data_path::command::{Command, Data},
    },
    error::{Error, Malformed, Misuse, ZoneMisuse},
    wire::{
        Identify, NamespaceInfo, Sqe, Zone, ZoneAction, ZoneFilter, ZoneLimits, ZoneReportError,
    },
};

/// Commands on the zones of a zoned namespace, which is one of a controller, or of a subsystem with
/// several paths.
///
/// Blocks of a zone are written in their order, from its write pointer on; those below it are read
/// in any order. Writes of the [`namespace`](Self::namespace) are such writes, and those larger
/// than one command are sent part by part. A write whose connection was lost is sent again behind
/// the fence, as any other: its zone takes it once at most. If the first one was executed, the zone
/// refuses the second, with [`Status::ZONE_INVALID_WRITE`](crate::wire::Status::ZONE_INVALID_WRITE)
/// on targets that tell; the error says then that the execution is unknown
/// ([`ExecutionStatus::Unknown`](crate::ExecutionStatus::Unknown)), and the write pointer in
/// [`report`](Self::report) tells what was written.
#[derive(Clone, Debug)]
pub struct ZonedNamespace<N = Namespace> {
    namespace: N,
    limits: ZoneLimits,
}

/// Zones that an action is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneSelection {
    /// All zones whose state allows the action.
    All,
    /// Zone whose first block this is.
    Zone(u64),
}

impl<P: Provider> Controller<P> {
    /// Reads the limits of a zoned namespace, for commands on its zones.
    ///
    /// # Errors
    ///
    /// [`ZoneMisuse::NotZoned`] for any other namespace; when the controller refuses or is gone.
    pub async fn zoned_namespace<N: RangeCommands>(
        &self,
        namespace: N,
    ) -> Result<ZonedNamespace<N>, Error> {
        let info = namespace.info();
        let zoned = self.identify_zoned_namespace_data(&info).await?;
        let common = self.identify_namespace_data(info.id).await?;
        let controller = self.identify_zoned_controller_data().await?;
        let page_size = self.negotiated().capabilities.page_size_min();
        let limits = ZoneLimits::parse(&common, &zoned, &controller, page_size)?;
        Ok(ZonedNamespace { namespace, limits })
    }

    /// Reads the Identify Namespace data structure of the Zoned Namespace command set, 4,096 bytes
    /// as the controller sends them.
    ///
    /// # Errors
    ///
    /// As [`zoned_namespace`](Self::zoned_namespace).
    pub async fn identify_zoned_namespace_data(
        &self,
        namespace: &NamespaceInfo,
    ) -> Result<Vec<u8>, Error> {
        check_zoned(namespace)?;
        let sqe = Identify::zoned_namespace(namespace.id);
        self.identify("Identify (zoned namespace)", sqe).await
    }

    /// Reads the Identify Controller data structure of the Zoned Namespace command set, 4,096 bytes
    /// as the controller sends them.
    ///
    /// # Errors
    ///
    /// When the controller refuses, as one without the command set does, or is gone.
    pub async fn identify_zoned_controller_data(&self) -> Result<Vec<u8>, Error> {
        let sqe = Identify::zoned_controller();
        self.identify("Identify (controller, Zoned Namespace command set)", sqe).await
    }
}

impl<N: RangeCommands> ZonedNamespace<N> {
    /// Namespace, for reads and writes.
    pub fn namespace(&self) -> &N {
        &self.namespace
    }

    /// Limits of the namespace and its controller.
    pub fn limits(&self) -> ZoneLimits {
        self.limits
    }

    /// Maximum data of one Zone Append in bytes: that of the controller (ZASL), or of any command.
    /// A reconnect may change the latter.
    pub fn append_bytes_max(&self) -> u64 {
        let any = self.namespace.transfer_bytes_max();
        self.limits.append_bytes_max.map_or(any, |max| max.min(any))
    }

    /// Reads the descriptors of the zones that the filter selects, from the zone of the block `lba`
    /// on, at most `max` of them, by as many commands as that takes (Zone Management Receive).
    ///
    /// `buffer` takes the report of one command: 64 bytes, and 64 for each zone. The content is
    /// undefined afterwards.
    ///
    /// # Errors
    ///
    /// When the block is past the end, or the buffer has no room for a zone; when the controller
    /// refuses, or the connection is lost.
    pub async fn report(
        &self,
        lba: u64,
        filter: ZoneFilter,
        max: usize,
        buffer: Buffer,
    ) -> Result<(Vec<Zone>, Buffer), TransferError> {
        let room = match self.check_report(lba, buffer.len()) {
            Ok(room) => room,
            Err(error) => return Err(TransferError::unsent(error, buffer)),
        };
        let (mut zones, mut buffer) = (Vec::new(), buffer);
        let mut at = lba - lba % self.limits.zone_blocks;
        while zones.len() < max && at < self.namespace.info().blocks {
            let part;
            (part, buffer) = self.report_part(at, filter, room, buffer).await?;
            let found = part.len();
            zones.extend(part);
            match zones.last() {
                Some(last) if found == room => {
                    at = last.start.saturating_add(self.limits.zone_blocks);
                }
                _ => break,
            }
        }
        zones.truncate(max);
        Ok((zones, buffer))
    }

    /// Reads a report with as many zones as there is room for.
    async fn report_part(
        &self,
        lba: u64,
        filter: ZoneFilter,
        room: usize,
        mut buffer: Buffer,
    ) -> Result<(Vec<Zone>, Buffer), TransferError> {
        let bytes = Zone::DESCRIPTOR_SIZE * (1 + room);
        let length = u32::try_from(bytes).expect("it is less than a transfer");
        let sqe = Sqe::zone_report(self.namespace.info().id, lba, filter, length);
        // A target that sends nothing must not leave the zones of an earlier command.
        buffer.fill(0);
        let command = |data| Command { sqe, data: Data::FromController(data), user: 0 };
        let name = "Zone Management Receive";
        let buffer = run_with_list(&self.namespace, name, bytes, buffer, command).await?;
        let mut report = vec![0; bytes];
        buffer.copy_out(0, &mut report);
        match Zone::parse_report(lba, &report) {
            Ok(zones) => Ok((zones, buffer)),
            Err(error) => Err(TransferError::answered(Malformed::from(error), buffer)),
        }
    }

    /// Changes the state of one zone, or of all whose state allows it (Zone Management Send). It is
    /// never sent again by itself: a reset that is executed late destroys what was written since.
    ///
    /// # Errors
    ///
    /// When the block is not the first one of a zone, or past the end; when the controller refuses,
    /// or the connection is lost.
    pub async fn manage(&self, action: ZoneAction, zones: ZoneSelection) -> Result<(), Error> {
        let zone = match zones {
            ZoneSelection::All => None,
            ZoneSelection::Zone(zone) => {
                self.check_zone(zone, u64::from(self.namespace.info().block_size))?;
                Some(zone)
            }
        };
        let sqe = Sqe::manage_zone(self.namespace.info().id, action, zone);
        let done = self.namespace.run(Command { sqe, data: Data::None, user: 0 }).await;
        done.into_result(action.command()).0.map(drop)
    }

    /// Writes the whole buffer to the zone whose first block is `zone`, by one command (Zone
    /// Append); returns the first block that was written. Several may be in flight: the controller
    /// determines their order. It is never sent again by itself, as it would be written twice.
    ///
    /// # Errors
    ///
    /// When the block is not the first one of a zone, or the buffer is not a multiple of the block
    /// size or larger than [`append_bytes_max`](Self::append_bytes_max), or the blocks have
    /// metadata; when the controller refuses, or the connection is lost.
    pub async fn append(&self, zone: u64, buffer: Buffer) -> Result<(u64, Buffer), TransferError> {
        if let Err(error) = self.check_append(zone, buffer.len() as u64) {
            return Err(TransferError::unsent(error, buffer));
        }
        let info = self.namespace.info();
        let blocks = info.blocks_in(buffer.len());
        let sqe = Sqe::zone_append(info.id, zone, blocks);
        let done =
            self.namespace.run(Command { sqe, data: Data::ToController(buffer), user: 0 }).await;
        let (response, buffer) = TransferError::check(done, "Zone Append")?;
        let lba = response.result();
        let end = lba.checked_add(u64::from(blocks));
        let is_inside = end.is_some_and(|end| end <= zone + self.limits.zone_blocks);
        if lba < zone || !is_inside {
            let error = ZoneReportError::Appended { lba, zone };
            return Err(TransferError::answered(Malformed::from(error), buffer));
        }
        Ok((lba, buffer))
    }

    /// Checks that an append of `bytes` bytes to the zone whose first block is `zone` is one that
    /// the namespace takes.
    ///
    /// # Errors
    ///
    /// When it is not, as [`append`](Self::append) says.
    pub fn check_append(&self, zone: u64, bytes: u64) -> Result<(), Misuse> {
        Misuse::check_no_metadata(&self.namespace.info())?;
        self.check_zone(zone, bytes)?;
        let max = self.append_bytes_max();
        match self.limits.append_bytes_max {
            _ if bytes <= max => Ok(()),
            Some(limit) if limit <= max => Err(ZoneMisuse::AppendBytes { bytes, max }.into()),
            _ => Err(Misuse::CommandBytes { bytes, max }),
        }
    }

    /// Checks that a block is the first one of a zone, and `bytes` from there on in the namespace.
    fn check_zone(&self, lba: u64, bytes: u64) -> Result<(), Misuse> {
        self.namespace.check_blocks(lba, bytes)?;
        let zone_blocks = self.limits.zone_blocks;
        if !lba.is_multiple_of(zone_blocks) {
            return Err(ZoneMisuse::Unaligned { lba, zone_blocks }.into());
        }
        Ok(())
    }

    /// Checks the arguments of a report; returns the number of zones that one command has room for.
    fn check_report(&self, lba: u64, bytes: usize) -> Result<usize, Misuse> {
        self.namespace.check_blocks(lba, u64::from(self.namespace.info().block_size))?;
        let max = usize::try_from(self.namespace.transfer_bytes_max()).unwrap_or(usize::MAX);
        match (bytes.min(max) / Zone::DESCRIPTOR_SIZE).saturating_sub(1) {
            0 => {
                let (option, value) = ("bytes of a buffer for zones", bytes as u64);
                Err(Misuse::Option { option, value, range: "128 or more" })
            }
            room => Ok(room),
        }
    }
}

/// Checks that a namespace is a zoned one.
fn check_zoned(namespace: &NamespaceInfo) -> Result<(), Misuse> {
    if namespace.is_zoned() { Ok(()) } else { Err(ZoneMisuse::NotZoned(namespace.id).into()) }
}
