//! The buffers of sends that are out.

use crate::{Buffer, SgList};

/// The buffers of sends that are out, beside their slots: as many for each as it may have.
pub(super) struct InFlightBuffers {
    rows: Box<[Option<Buffer>]>,
    each: usize,
}

impl InFlightBuffers {
    #[inline]
    pub(super) fn new(slots: u32, each: u32) -> Self {
        Self { rows: (0..slots * each).map(|_| None).collect(), each: each as usize }
    }

    #[inline]
    pub(super) fn put(&mut self, slot: usize, buffers: SgList) {
        let row = self.rows[slot * self.each..].iter_mut();
        row.zip(buffers).for_each(|(place, buffer)| *place = Some(buffer));
    }

    /// Stores the only buffer of a message.
    #[inline]
    pub(super) fn put_one(&mut self, slot: usize, buffer: Buffer) {
        self.rows[slot * self.each] = Some(buffer);
    }

    /// The only one, if there is.
    #[inline]
    pub(super) fn take_one(&mut self, slot: usize) -> Option<Buffer> {
        self.rows.get_mut(slot * self.each)?.take()
    }

    #[inline]
    pub(super) fn take(&mut self, slot: usize) -> SgList {
        let row = &mut self.rows[slot * self.each..][..self.each];
        row.iter_mut().map_while(Option::take).collect()
    }
}
