//! Wire between two hosts: latency and loss of messages.

use std::time::Duration;

/// Properties of the wire.
///
/// A reliable connection hides all of them: lost messages are resent, reordered ones are sorted,
/// duplicates are dropped. Each costs time, until the sender's retries are exceeded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Link {
    /// Minimum delay of a message.
    pub latency: Duration,
    /// Maximum additional delay, drawn uniformly.
    pub jitter: Duration,
    /// Lost messages per 1,000; each loss costs the sender's ACK timeout.
    pub lost_per_mille: u16,
    /// Reordered messages per 1,000; each is delayed by the latency once more.
    pub reordered_per_mille: u16,
    /// Duplicated messages per 1,000; each copy occupies the wire.
    pub duplicated_per_mille: u16,
}

impl Default for Link {
    /// Idle local network: latency 5 µs, jitter 1 µs, no loss.
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
    /// Draws delay and losses of one message.
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

/// Transit of one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transit {
    /// Delay of the copy that arrived.
    pub(super) delay: Duration,
    /// Number of copies lost before it.
    pub(super) losses: u32,
}

/// Pseudo-random number generator, the only source of randomness; determined by the seed.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number, by Steele, Lea and Flood's SplitMix.
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

/// Maximum number of losses of a message: more than any retry count, so that a wire that loses
/// everything does not loop forever.
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
    fn the_loss_rate_is_about_that_of_the_link() {
        let link = Link { lost_per_mille: 100, ..Link::default() };
        let mut random = Random::new(7);
        let lost: u32 = (0..10_000).map(|_| link.transmit(&mut random).losses).sum();
        assert!((900..1_300).contains(&lost), "{lost}");
        let dead = Link { lost_per_mille: 1000, ..Link::default() };
        assert_eq!(dead.transmit(&mut random).losses, LOSSES_MAX);
    }
}
