//! Command as it arrived, by the specification's offsets.

use verbs::{RemoteAddress, RemoteKey};

/// A command that arrived.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedCommand {
    /// Queue it arrived on; 0 is the admin queue.
    pub queue: u16,
    /// The 64 bytes of the command.
    pub sqe: [u8; 64],
}

impl ReceivedCommand {
    /// Tells if this is a Fabrics command of this type.
    #[must_use]
    pub fn is_fabrics(&self, fabrics_type: u8) -> bool {
        self.sqe[0] == 0x7f && self.sqe[4] == fabrics_type
    }

    /// Tells if this is an NVM command, on an I/O queue.
    #[must_use]
    pub fn is_io(&self) -> bool {
        self.queue != 0 && self.sqe[0] != 0x7f
    }

    /// Tells if this is a write of the NVM command set.
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.is_io() && self.sqe[0] == 0x01
    }

    /// FUSE of an I/O command: 1 and 2 are the first and the second of a fused operation.
    #[must_use]
    pub fn fuse(&self) -> u8 {
        if self.is_io() { self.sqe[1] & 0b11 } else { 0 }
    }

    /// Tells if this sets the Host Behavior Support feature.
    #[must_use]
    pub fn is_host_behavior(&self) -> bool {
        self.queue == 0 && self.sqe[0] == 0x09 && self.sqe[40] == 0x16
    }

    /// Tells if this is Identify Controller.
    #[must_use]
    pub fn is_identify_controller(&self) -> bool {
        self.queue == 0 && self.sqe[0] == 0x06 && self.sqe[40] == 0x01
    }

    /// The default response with this status and result.
    #[must_use]
    pub fn response(&self, status: u16, result: u64) -> Vec<u8> {
        let mut bytes = vec![0; 16];
        bytes[..8].copy_from_slice(&result.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.sqe[2..4]);
        bytes[14..].copy_from_slice(&(status << 1).to_le_bytes());
        bytes
    }

    /// Address and key of the data in the host's memory, if the command has any.
    #[must_use]
    pub fn place(&self) -> Option<(u64, u32)> {
        let (length, RemoteAddress { address, key }) = self.keyed();
        (self.sqe[39] & 0xf0 == 0x40 && length > 0).then_some((address, key.0))
    }

    /// Key that the host asks the target to invalidate.
    #[must_use]
    pub fn to_invalidate(&self) -> Option<u32> {
        self.place().filter(|_| self.sqe[39] == 0x4f).map(|(_, key)| key)
    }

    /// The 64-bit number at this byte of the command.
    #[must_use]
    pub fn u64_at(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.sqe[offset..offset + 8].try_into().expect("8 bytes"))
    }

    /// The 32-bit number at this byte of the command.
    #[must_use]
    pub fn u32_at(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.sqe[offset..offset + 4].try_into().expect("4 bytes"))
    }

    /// The keyed descriptor: length and place.
    #[must_use]
    pub fn keyed(&self) -> (usize, RemoteAddress) {
        let length = self.u32_at(32) & 0x00ff_ffff;
        let key = RemoteKey(self.u32_at(35));
        (length as usize, RemoteAddress { address: self.u64_at(24), key })
    }
}
