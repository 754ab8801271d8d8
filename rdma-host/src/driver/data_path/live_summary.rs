//! Part of the controller's state that the path of each command reads.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::wire::OptionalCommands;

/// Values of the live connection that the path of each command reads, without a lock.
#[derive(Default)]
pub(crate) struct LiveSummary {
    /// Generation, 0 without a connection; [`FENCED`] is set while the write fence is closed, and
    /// [`REPLACED`] while a namespace in use is replaced.
    generation: AtomicU64,
    /// Maximum data transfer of one command in bytes; that of the last connection without one.
    transfer_bytes_max: AtomicU64,
    /// Optional commands of the controller of the live or last connection: ONCS, above it FUSES.
    optional_commands: AtomicU32,
}

/// Bit of the generation that is set while the write fence is closed.
const FENCED: u64 = 1 << 63;

/// Bit of the generation that is set while the id of a namespace in use belongs to another one.
const REPLACED: u64 = 1 << 62;

impl LiveSummary {
    /// Returns true if the connection of this generation is the live one. Relaxed: a thread that
    /// was told of a loss by another that knew of it sees it here.
    #[inline]
    pub(crate) fn is_live(&self, generation: u64) -> bool {
        self.generation.load(Ordering::Relaxed) & !(FENCED | REPLACED) == generation
    }

    /// Returns true if the connection of this generation is the live one, the write fence is open
    /// and no namespace in use is replaced. Relaxed, as [`is_live`](Self::is_live).
    #[inline]
    pub(crate) fn is_unguarded(&self, generation: u64) -> bool {
        self.generation.load(Ordering::Relaxed) == generation
    }

    pub(crate) fn set_fenced(&self, is_fenced: bool) {
        self.set(FENCED, is_fenced);
    }

    /// Returns true if the id of a namespace in use belongs to another one.
    pub(crate) fn has_replaced(&self) -> bool {
        self.generation.load(Ordering::Relaxed) & REPLACED != 0
    }

    pub(crate) fn set_replaced(&self, has_replaced: bool) {
        self.set(REPLACED, has_replaced);
    }

    fn set(&self, bit: u64, is_set: bool) {
        if is_set {
            self.generation.fetch_or(bit, Ordering::Relaxed);
        } else {
            self.generation.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// Maximum data transfer of one command in bytes.
    #[inline]
    pub(crate) fn transfer_bytes_max(&self) -> u64 {
        self.transfer_bytes_max.load(Ordering::Relaxed)
    }

    /// Sets the generation of the live connection; 0 without one.
    pub(crate) fn set_generation(&self, generation: u64) {
        let with_bits = |before: u64| Some(before & (FENCED | REPLACED) | generation);
        let _ = self.generation.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with_bits);
    }

    pub(crate) fn set_transfer_bytes_max(&self, bytes: u64) {
        self.transfer_bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// Optional commands that the controller supports.
    pub(crate) fn optional_commands(&self) -> OptionalCommands {
        let [a, b, c, d] = self.optional_commands.load(Ordering::Relaxed).to_le_bytes();
        OptionalCommands { oncs: u16::from_le_bytes([a, b]), fuses: u16::from_le_bytes([c, d]) }
    }

    pub(crate) fn set_optional_commands(&self, commands: OptionalCommands) {
        let bits = u32::from(commands.fuses) << 16 | u32::from(commands.oncs);
        self.optional_commands.store(bits, Ordering::Relaxed);
    }
}
