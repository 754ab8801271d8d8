//! Submission queue entries (Base 4.1; NVM 3.2 for reads, writes and flush).

mod nvm;
mod passthrough;
mod protection;
mod zns;

use std::mem::offset_of;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32},
};

use super::{CommandId, ControllerId, ControllerInstance, NamespaceId, QueueId, SglDescriptor};

pub use passthrough::DataDirection;

/// Submission queue entry (command): 64 bytes, the same layout for all command sets.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Sqe {
    opcode: Opcode,
    flags: u8,
    command_id: U16,
    /// NSID; in Fabrics commands the Fabrics command type and three reserved bytes.
    namespace: U32,
    cdw2: U32,
    cdw3: U32,
    metadata: [u8; 8],
    sgl: SglDescriptor,
    cdw10: U32,
    cdw11: U32,
    cdw12: U32,
    cdw13: U32,
    cdw14: U32,
    cdw15: U32,
}

const _: () = assert!(size_of::<Sqe>() == 64);
const _: () = assert!(offset_of!(Sqe, command_id) == 2);
const _: () = assert!(offset_of!(Sqe, namespace) == 4);
const _: () = assert!(offset_of!(Sqe, sgl) == 24);
const _: () = assert!(offset_of!(Sqe, cdw10) == 40);

/// Opcode of a command (Base figures 140 and 94; NVM figure 21). Admin and I/O opcodes overlap; the
/// queue determines which is meant.
#[derive(
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct Opcode(pub u8);

/// PSDT = 01b: the data pointer is an SGL, the metadata pointer a contiguous buffer. Fabrics
/// transports use SGLs for every command (Base 4.1.1).
pub(super) const FLAGS_SGL: u8 = 0x40;

impl Sqe {
    /// Size of a command in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// A command without data and parameters; the driver sets the command id and the data pointer.
    #[inline]
    #[must_use]
    pub fn new(opcode: Opcode, namespace: NamespaceId) -> Self {
        Self {
            opcode,
            flags: FLAGS_SGL,
            command_id: U16::ZERO,
            namespace: U32::new(namespace.0),
            cdw2: U32::ZERO,
            cdw3: U32::ZERO,
            metadata: [0; 8],
            sgl: SglDescriptor::none(),
            cdw10: U32::ZERO,
            cdw11: U32::ZERO,
            cdw12: U32::ZERO,
            cdw13: U32::ZERO,
            cdw14: U32::ZERO,
            cdw15: U32::ZERO,
        }
    }

    /// Read of `blocks` logical blocks from `lba` on (NVM 3.2.4).
    ///
    /// # Panics
    ///
    /// If `blocks` is 0 or above 65,536, which the zero-based 16-bit field cannot hold.
    #[inline]
    #[must_use]
    pub fn read(namespace: NamespaceId, lba: u64, blocks: u32) -> Self {
        Self::new(Opcode::READ, namespace).with_blocks(lba, blocks)
    }

    /// Write of `blocks` logical blocks from `lba` on (NVM 3.2.6).
    ///
    /// # Panics
    ///
    /// As for [`read`](Self::read).
    #[inline]
    #[must_use]
    pub fn write(namespace: NamespaceId, lba: u64, blocks: u32) -> Self {
        Self::new(Opcode::WRITE, namespace).with_blocks(lba, blocks)
    }

    /// Flush: makes completed writes survive a loss of power (NVM 3.2.1 by way of Base 7).
    #[must_use]
    pub fn flush(namespace: NamespaceId) -> Self {
        Self::new(Opcode::FLUSH, namespace)
    }

    /// Write Zeroes for `blocks` logical blocks from `lba` on (NVM 3.2.8); with `deallocate` the
    /// controller may deallocate them (DEAC).
    ///
    /// # Panics
    ///
    /// As for [`read`](Self::read).
    #[must_use]
    pub fn write_zeroes(namespace: NamespaceId, lba: u64, blocks: u32, deallocate: bool) -> Self {
        let mut sqe = Self::new(Opcode::WRITE_ZEROES, namespace).with_blocks(lba, blocks);
        sqe.cdw12 |= U32::new(u32::from(deallocate) << 25);
        sqe
    }

    /// Dataset Management with the Deallocate attribute for `ranges` ranges (NVM 3.2.3); the data
    /// holds them in the layout of [`BlockRange::to_bytes`](super::BlockRange::to_bytes).
    ///
    /// # Panics
    ///
    /// If `ranges` is 0 or above 256, which the zero-based field cannot hold.
    #[must_use]
    pub fn deallocate(namespace: NamespaceId, ranges: usize) -> Self {
        const DEALLOCATE: u32 = 1 << 2;
        let count = nvm::zero_based_range_count(ranges);
        Self::new(Opcode::DATASET_MANAGEMENT, namespace).with_parameters(count.into(), DEALLOCATE)
    }

    /// Keep Alive (Base 5.1.14).
    #[must_use]
    pub fn keep_alive() -> Self {
        Self::new(Opcode::KEEP_ALIVE, NamespaceId(0))
    }

    /// Cross-Controller Reset of another controller of the subsystem (TP8028), the impacted one.
    /// [`is_immediate_reset`](super::is_immediate_reset) tells of its result whether that is reset.
    #[must_use]
    pub fn cross_controller_reset(impacted: ControllerId, instance: ControllerInstance) -> Self {
        let ControllerInstance { uniquifier, random } = instance;
        let which = u32::from(uniquifier) << 16 | u32::from(impacted.0);
        Self::new(Opcode::CROSS_CONTROLLER_RESET, NamespaceId(0))
            .with_parameters(which, 0)
            .with_log_offset(random, 0)
    }

    #[inline]
    fn with_blocks(mut self, lba: u64, blocks: u32) -> Self {
        assert!((1..=0x1_0000).contains(&blocks), "a command moves 1 to 65,536 blocks");
        let [low, high] = split(lba);
        self.cdw10 = U32::new(low);
        self.cdw11 = U32::new(high);
        self.cdw12 = U32::new(blocks - 1);
        self
    }

    pub(super) fn with_parameters(mut self, cdw10: u32, cdw11: u32) -> Self {
        self.cdw10 = U32::new(cdw10);
        self.cdw11 = U32::new(cdw11);
        self
    }

    /// Sets the log page offset in CDW12 and CDW13, and the command set in CDW14.
    pub(super) fn with_log_offset(mut self, offset: u64, command_set: u8) -> Self {
        let [low, high] = split(offset);
        self.cdw12 = U32::new(low);
        self.cdw13 = U32::new(high);
        self.cdw14 = U32::new(u32::from(command_set) << 24);
        self
    }

    /// Abort of a command in flight (Base 5.1.1). Bit 0 of the result is set if the command was not
    /// aborted.
    #[must_use]
    pub fn abort(queue: QueueId, command: CommandId) -> Self {
        let which = u32::from(command.0) << 16 | u32::from(queue.0);
        Self::new(Opcode::ABORT, NamespaceId(0)).with_parameters(which, 0)
    }

    /// Sets the command id.
    #[inline]
    pub fn set_command_id(&mut self, id: CommandId) {
        self.command_id = U16::new(id.0);
    }

    /// Command id, unique on its queue while the command is in flight.
    #[inline]
    #[must_use]
    pub fn command_id(&self) -> CommandId {
        CommandId(self.command_id.get())
    }

    /// Namespace of the command, or the broadcast value.
    #[inline]
    #[must_use]
    pub fn namespace(&self) -> NamespaceId {
        NamespaceId(self.namespace.get())
    }

    /// Sets Force Unit Access (FUA) of a Read, Write or Write Zeroes: the controller responds once
    /// the blocks are on non-volatile media (NVM 3.2.6).
    #[must_use]
    pub fn with_force_unit_access(mut self) -> Self {
        const FUA: u32 = 1 << 30;
        self.cdw12 |= U32::new(FUA);
        self
    }

    /// Sets the data pointer.
    #[inline]
    pub fn set_sgl(&mut self, sgl: SglDescriptor) {
        self.sgl = sgl;
    }

    /// Returns true if the data pointer is that of data.
    #[must_use]
    pub(crate) fn has_data(&self) -> bool {
        self.sgl != SglDescriptor::none()
    }

    /// Opcode.
    #[inline]
    #[must_use]
    pub fn opcode(&self) -> Opcode {
        self.opcode
    }

    /// Returns true for one of the two commands of a fused operation (FUSE is not 0, Base 3.4.2).
    #[must_use]
    #[inline]
    pub fn is_fused(&self) -> bool {
        self.flags & 0b11 != 0
    }

    /// Logical blocks of a command with a starting LBA and a number of blocks, such as Read, Write
    /// and Write Zeroes (SLBA and NLB).
    #[must_use]
    pub fn blocks(&self) -> std::ops::Range<u64> {
        let lba = u64::from(self.cdw11.get()) << 32 | u64::from(self.cdw10.get());
        let blocks = u64::from(self.cdw12.get() & 0xffff) + 1;
        lba..lba.saturating_add(blocks)
    }
}

impl Opcode {
    /// Flush (NVM).
    pub const FLUSH: Self = Self(0x00);
    /// Write (NVM).
    pub const WRITE: Self = Self(0x01);
    /// Read (NVM).
    pub const READ: Self = Self(0x02);
    /// Write Uncorrectable (NVM).
    pub const WRITE_UNCORRECTABLE: Self = Self(0x04);
    /// Compare (NVM).
    pub const COMPARE: Self = Self(0x05);
    /// Write Zeroes (NVM).
    pub const WRITE_ZEROES: Self = Self(0x08);
    /// Dataset Management (NVM).
    pub const DATASET_MANAGEMENT: Self = Self(0x09);
    /// Verify (NVM).
    pub const VERIFY: Self = Self(0x0c);
    /// Reservation Register (I/O).
    pub const RESERVATION_REGISTER: Self = Self(0x0d);
    /// Reservation Report (I/O).
    pub const RESERVATION_REPORT: Self = Self(0x0e);
    /// Reservation Acquire (I/O).
    pub const RESERVATION_ACQUIRE: Self = Self(0x11);
    /// Reservation Release (I/O).
    pub const RESERVATION_RELEASE: Self = Self(0x15);
    /// Copy (NVM).
    pub const COPY: Self = Self(0x19);
    /// Zone Management Send (ZNS).
    pub const ZONE_MANAGEMENT_SEND: Self = Self(0x79);
    /// Zone Management Receive (ZNS).
    pub const ZONE_MANAGEMENT_RECEIVE: Self = Self(0x7a);
    /// Zone Append (ZNS).
    pub const ZONE_APPEND: Self = Self(0x7d);
    /// Get Log Page (admin).
    pub const GET_LOG_PAGE: Self = Self(0x02);
    /// Identify (admin).
    pub const IDENTIFY: Self = Self(0x06);
    /// Abort (admin).
    pub const ABORT: Self = Self(0x08);
    /// Asynchronous Event Request (admin).
    pub const ASYNCHRONOUS_EVENT_REQUEST: Self = Self(0x0c);
    /// Set Features (admin).
    pub const SET_FEATURES: Self = Self(0x09);
    /// Get Features (admin).
    pub const GET_FEATURES: Self = Self(0x0a);
    /// Keep Alive (admin).
    pub const KEEP_ALIVE: Self = Self(0x18);
    /// Cross-Controller Reset (admin).
    pub const CROSS_CONTROLLER_RESET: Self = Self(0x38);
    /// Fabrics command; byte 4 holds its type.
    pub const FABRICS: Self = Self(0x7f);

    /// Returns true for admin commands without side effects, which may be sent again.
    #[must_use]
    pub fn is_idempotent(self) -> bool {
        matches!(self, Self::GET_LOG_PAGE | Self::IDENTIFY)
    }

    /// Returns true for the I/O commands of a block device. Each may be sent again after it failed;
    /// of others, such as those of reservations, that is not known.
    #[must_use]
    pub fn is_block_io(self) -> bool {
        matches!(
            self,
            Self::FLUSH | Self::WRITE | Self::READ | Self::WRITE_ZEROES | Self::DATASET_MANAGEMENT
        )
    }

    /// Returns true if the command transfers data from host to controller, if any (Base 3.1.2.1).
    #[must_use]
    pub fn sends_data(self) -> bool {
        self.0 & 0b11 == 0b01
    }
}

impl std::fmt::Debug for Opcode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opcode({:#04x})", self.0)
    }
}

/// Splits a 64-bit value into low and high dword.
#[inline]
fn split(value: u64) -> [u32; 2] {
    let bytes = value.to_le_bytes();
    [
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::RemoteKey;

    #[test]
    fn read_in_literal_bytes() {
        let mut sqe = Sqe::read(NamespaceId(1), 0x0000_0002_0000_0001, 8);
        sqe.set_command_id(CommandId(0x1234));
        sqe.set_sgl(SglDescriptor::keyed(0x1000, 4096, RemoteKey(7)));
        #[rustfmt::skip]
        let expected = [
            0x02, 0x40, 0x34, 0x12, 1, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0,
            0x00, 0x10, 0, 0, 0, 0, 0, 0,
            0x00, 0x10, 0, 7, 0, 0, 0, 0x40,
            1, 0, 0, 0, 2, 0, 0, 0,
            7, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(sqe.as_bytes(), expected);
    }

    #[test]
    fn commands_without_data_name_an_empty_keyed_descriptor() {
        let sqe = Sqe::flush(NamespaceId(3));
        assert_eq!(sqe.as_bytes()[..8], [0x00, 0x40, 0, 0, 3, 0, 0, 0]);
        assert_eq!(sqe.as_bytes()[39], 0x40);
        assert_eq!(Sqe::keep_alive().as_bytes()[0], 0x18);
    }

    #[test]
    fn cross_controller_reset_in_literal_bytes() {
        let instance = ControllerInstance { uniquifier: 0x56, random: 0x0807_0605_0403_0201 };
        let sqe = Sqe::cross_controller_reset(ControllerId(0x1234), instance);
        assert_eq!(sqe.as_bytes()[..8], [0x38, 0x40, 0, 0, 0, 0, 0, 0]);
        let expected = [0x34, 0x12, 0x56, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(sqe.as_bytes()[40..56], expected);
        assert_eq!(sqe.as_bytes()[56..], [0; 8]);
        assert!(!sqe.opcode().is_idempotent());
    }

    #[test]
    fn commands_without_blocks_in_literal_bytes() {
        let sqe = Sqe::write_zeroes(NamespaceId(1), 9, 0x1_0000, true);
        assert_eq!((sqe.as_bytes()[0], sqe.as_bytes()[40]), (0x08, 9));
        assert_eq!(sqe.as_bytes()[48..52], [0xff, 0xff, 0, 0x02]);
        assert!(!sqe.opcode().sends_data());
        let sqe = Sqe::deallocate(NamespaceId(1), 256);
        assert_eq!(sqe.as_bytes()[0], 0x09);
        assert_eq!(sqe.as_bytes()[40..48], [255, 0, 0, 0, 4, 0, 0, 0]);
        assert!(sqe.opcode().sends_data());
    }

    #[test]
    fn force_unit_access_in_literal_bytes() {
        let sqe = Sqe::write(NamespaceId(1), 9, 8).with_force_unit_access();
        assert_eq!(sqe.as_bytes()[48..52], [7, 0, 0, 0x40]);
    }

    #[test]
    #[should_panic(expected = "1 to 256 ranges")]
    fn too_many_ranges_are_a_caller_error() {
        let _ = Sqe::deallocate(NamespaceId(1), 257);
    }

    #[test]
    #[should_panic(expected = "1 to 65,536 blocks")]
    fn zero_blocks_is_a_caller_error() {
        let _ = Sqe::write(NamespaceId(1), 0, 0);
    }
}
