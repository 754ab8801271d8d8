//! Scatter/gather elements of buffers, with their checks.

use crate::{Access, Buffer, Error, provider::Sge};

/// Element that a device may write: of a receive, or of a read of the peer's memory.
#[inline]
pub(crate) fn receivable(domain: u64, buffer: &Buffer) -> Result<Sge, Error> {
    if !buffer.access().contains(Access::LOCAL_WRITE) {
        return Err(Error::Misuse(
            "a buffer to receive or read into must be registered with LOCAL_WRITE",
        ));
    }
    sge(domain, buffer)
}

/// Element that a device may read.
#[inline]
pub(crate) fn sge(domain: u64, buffer: &Buffer) -> Result<Sge, Error> {
    if buffer.domain() != domain {
        return Err(Error::Misuse("the buffer is of another protection domain"));
    }
    // Some devices take a length of 0 for two gigabytes.
    match u32::try_from(buffer.len()) {
        Ok(1..=SGE_LENGTH_MAX) => Ok(Sge::of(buffer)),
        _ => Err(Error::Misuse("a buffer to post has 1 to 2^31 - 1 bytes")),
    }
}

impl Sge {
    /// All of a buffer that is no longer than a message may be.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "what is posted is below 2^31 bytes")]
    pub(crate) fn of(buffer: &Buffer) -> Self {
        let length = buffer.len() as u32;
        Self { address: buffer.address(), length, local_key: buffer.local_key() }
    }
}

/// 2^31 - 1: the longest message of InfiniBand is 2^31, which some devices encode as 0.
const SGE_LENGTH_MAX: u32 = i32::MAX.cast_unsigned();
