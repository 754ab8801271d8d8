//! Random numbers of a run, all of which follow from its seed.

use std::time::Duration;

/// Generator by Steele, Lea and Flood (SplitMix).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Generator with this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// Index of an element of a list with this length, which is not 0.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a length")
    }

    /// True once in `of` times.
    pub fn once_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    /// Time between two, of which short ones are as likely as long ones: both ends have the same
    /// share of each power of two.
    pub fn time(&mut self, from: Duration, to: Duration) -> Duration {
        let (from, to) = (nanoseconds(from).max(1), nanoseconds(to).max(1));
        let doublings = u64::from((to / from).max(1).ilog2()) + 1;
        let low = from << self.below(doublings);
        Duration::from_nanos((low + self.below(low)).min(to))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("below 500 years")
}

/// `count` bytes that differ with `seed`.
#[must_use]
pub fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}
