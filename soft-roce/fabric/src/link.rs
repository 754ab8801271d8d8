//! The wire between two hosts: how long a message takes, and how often it is lost on the way.

use std::time::Duration;

/// What the wire does to messages.
///
/// A reliable connection hides all of it: what is lost is sent again, what is out of order is
/// put in order, what comes twice is thrown away. So each of these costs time, until the
/// sender's retries are used up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Link {
    /// How long a message takes at least.
    pub latency: Duration,
    /// How much longer it may take, drawn evenly.
    pub jitter: Duration,
    /// How many of 1,000 messages are lost; each loss costs the sender's acknowledge timeout.
    pub lost_per_mille: u16,
    /// How many of 1,000 messages are overtaken, and wait as long again.
    pub reordered_per_mille: u16,
    /// How many of 1,000 messages come twice, the copy occupying the wire.
    pub duplicated_per_mille: u16,
}

impl Default for Link {
    /// A quiet local network: 5 µs, a little jitter, and no loss.
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(5),
            jitter: Duration::from_micros(1),
            lost_per_mille: 0,
            reordered_per_mille: 0,
            duplicated_per_mille: 0,
        }
    }
}

impl Link {
    /// Sends one message over the wire.
    pub(super) fn transmit(&self, random: &mut Random) -> Transit {
        let mut delay = self.latency + random.up_to(self.jitter);
        if random.occurs(self.reordered_per_mille) {
            delay += self.latency;
        }
        if random.occurs(self.duplicated_per_mille) {
            delay += self.latency / 2;
        }
        let mut losses = 0;
        while losses < LOSSES_MAX && random.occurs(self.lost_per_mille) {
            losses += 1;
        }
        Transit { delay, losses }
    }
}

/// What became of one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transit {
    /// How long the copy that arrived took.
    pub(super) delay: Duration,
    /// How many copies were lost before it.
    pub(super) losses: u32,
}

/// The only randomness there is: a sequence that the seed determines.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, by Steele, Lea and Flood's SplitMix.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn occurs(&mut self, per_mille: u16) -> bool {
        per_mille > 0 && self.next() % 1000 < u64::from(per_mille)
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        let nanoseconds = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX - 1);
        Duration::from_nanos(self.next() % (nanoseconds + 1))
    }
}

/// More than any retry count, so that a wire that loses everything does not hang us.
const LOSSES_MAX: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_determines_everything() {
        let link = Link { lost_per_mille: 300, ..Link::default() };
        let run = |seed| {
            let mut random = Random::new(seed);
            let transits = (0..100).map(|_| link.transmit(&mut random));
            transits.map(|transit| (transit.delay, transit.losses)).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn about_as_many_are_lost_as_were_asked_for() {
        let link = Link { lost_per_mille: 100, ..Link::default() };
        let mut random = Random::new(7);
        let lost: u32 = (0..10_000).map(|_| link.transmit(&mut random).losses).sum();
        assert!((900..1_300).contains(&lost), "{lost}");
        let dead = Link { lost_per_mille: 1000, ..Link::default() };
        assert_eq!(dead.transmit(&mut random).losses, LOSSES_MAX);
    }
}
