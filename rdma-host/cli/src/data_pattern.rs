//! Test data that depends on where and in which pass it was written.

/// Data of one pass. Each 8 bytes depend on the seed, the pass and their offset on the namespace,
/// so that stale, misplaced and torn data is found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DataPattern {
    seed: u64,
}

/// First difference found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PatternMismatch {
    /// Offset on the namespace, in bytes.
    pub(crate) offset: u64,
    pub(crate) expected: u64,
    pub(crate) found: u64,
}

impl DataPattern {
    pub(crate) fn new(seed: u64, pass: u64) -> Self {
        Self { seed: mix(seed ^ mix(pass)) }
    }

    /// Fills `bytes`, whose offset on the namespace is `offset` bytes.
    pub(crate) fn fill(self, offset: u64, bytes: &mut [u8]) {
        for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&self.word(offset, index).to_le_bytes());
        }
    }

    /// Compares `bytes` with the data that [`fill`](Self::fill) makes.
    pub(crate) fn check(self, offset: u64, bytes: &[u8]) -> Result<(), PatternMismatch> {
        for (index, word) in bytes.chunks_exact(8).enumerate() {
            let expected = self.word(offset, index);
            let found = u64::from_le_bytes(word.try_into().expect("chunks are 8 bytes"));
            if found != expected {
                return Err(PatternMismatch { offset: offset + index as u64 * 8, expected, found });
            }
        }
        Ok(())
    }

    fn word(self, offset: u64, index: usize) -> u64 {
        mix(self.seed.wrapping_add(offset + index as u64 * 8))
    }
}

/// Bijection of 64 bits in which every input bit affects every output bit (variant 13 of Stafford's
/// finalizers).
#[inline]
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Maps a random number to those below `count`, by its high bits: each comes equally often, but for
/// one part in 2^64 / `count`.
#[inline]
pub(crate) fn random_below(random: u64, count: u64) -> u64 {
    ((u128::from(random) * u128::from(count)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_it_made_and_nothing_else() {
        let pattern = DataPattern::new(1, 0);
        let mut bytes = [0; 4096];
        pattern.fill(8192, &mut bytes);
        assert_eq!(pattern.check(8192, &bytes), Ok(()));
        assert!(pattern.check(4096, &bytes).is_err(), "misplaced");
        assert!(DataPattern::new(1, 1).check(8192, &bytes).is_err(), "stale");
        assert!(DataPattern::new(2, 0).check(8192, &bytes).is_err(), "another run");
        bytes[4000] ^= 1;
        assert_eq!(pattern.check(8192, &bytes).unwrap_err().offset, 8192 + 4000);
    }

    #[test]
    fn parts_can_be_checked_alone() {
        let pattern = DataPattern::new(7, 3);
        let mut bytes = [0; 1024];
        pattern.fill(0, &mut bytes);
        assert_eq!(pattern.check(512, &bytes[512..]), Ok(()));
    }
}
