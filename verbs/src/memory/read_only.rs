//! Buffers whose bytes can be borrowed.

use super::{Buffer, is_within};

/// A buffer that no device writes, so that its bytes can be borrowed.
#[derive(Debug)]
pub(crate) struct ReadOnly(pub(super) Buffer);

impl ReadOnly {
    /// Some of the bytes, if they are within.
    #[inline]
    pub(crate) fn bytes(&self, offset: usize, length: usize) -> Option<&[u8]> {
        let Buffer { region, offset: first, length: all, .. } = &self.0;
        if !is_within(offset, length, *all) {
            return None;
        }
        // SAFETY: the range is within the buffer's, which is within the allocation.
        let start = unsafe { region.memory.start.add(first + offset) };
        // SAFETY: the bytes live as long as `self`. The mapping is not writable, so no registration
        // of it lets a device write; they are this buffer's, whose owner writes by `&mut self`.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), length) })
    }

    /// Changes bytes.
    ///
    /// # Panics
    ///
    /// When they are not within.
    #[inline]
    pub(crate) fn copy_in(&mut self, offset: usize, bytes: &[u8]) {
        self.0.copy_in(offset, bytes);
    }

    /// The buffer, to tell a device of it.
    #[inline]
    pub(crate) fn buffer(&self) -> &Buffer {
        &self.0
    }
}
