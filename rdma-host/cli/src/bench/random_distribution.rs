//! Distribution of the offsets of random commands, in the words of fio.

use std::{convert::Infallible, fmt, str::FromStr};

use rand_core::TryRng;
use rand_distr::{Distribution, Zipf};

use crate::data_pattern::mix;

/// Distribution as on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum RandomDistribution {
    /// All offsets equally often.
    #[default]
    Random,
    /// The offset of rank N as often as 1 / N to the power of theta.
    Zipf { theta: f64 },
    /// A share of 1 - h of the commands to a share h of the offsets, and within these again.
    Pareto { h: f64 },
}

/// Values of fio, where none is given.
const THETA_DEFAULT: f64 = 1.1;
const H_DEFAULT: f64 = 0.2;
/// Theta from which on the first offset gets practically all commands.
const THETA_MAX: f64 = 100.0;

impl FromStr for RandomDistribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let number = |default: f64| match value {
            None => Ok(default),
            Some(value) => value.parse().map_err(|_| format!("{name}:NUMBER, as in zipf:1.2")),
        };
        let between = |number: f64, max: f64, inside: bool| {
            let fits = number > 0.0 && (number < max || (inside && number <= max));
            fits.then_some(number)
                .ok_or(format!("the number of {name} is above 0, and up to {max}"))
        };
        match name {
            "random" if value.is_none() => Ok(Self::Random),
            "zipf" => Ok(Self::Zipf { theta: between(number(THETA_DEFAULT)?, THETA_MAX, true)? }),
            "pareto" => Ok(Self::Pareto { h: between(number(H_DEFAULT)?, 1.0, false)? }),
            _ => Err("use random, zipf:THETA or pareto:H, as in zipf:1.2".to_owned()),
        }
    }
}

impl fmt::Display for RandomDistribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random => f.write_str("random"),
            Self::Zipf { theta } => write!(f, "zipf:{theta}"),
            Self::Pareto { h } => write!(f, "pareto:{h}"),
        }
    }
}

/// Chooses among some offsets that are not all equally frequent. Ranks that follow each other are
/// offsets far from each other, the same for all workers of a run.
pub(super) struct SkewedOffsets {
    ranks: Ranks,
    /// Number of offsets.
    count: u64,
    /// Factor and summand of the map from ranks to offsets; the factor has no divisor in common
    /// with the number, so that each offset has one rank.
    factor: u64,
    summand: u64,
}

enum Ranks {
    Zipf(Zipf<f64>),
    /// Exponent of the inverse of the distribution.
    Pareto(f64),
}

impl SkewedOffsets {
    /// Chooser of one of `count` offsets; none for a uniform distribution.
    pub(super) fn new(distribution: RandomDistribution, count: u64, seed: u64) -> Option<Self> {
        let ranks = match distribution {
            RandomDistribution::Random => return None,
            RandomDistribution::Zipf { theta } => {
                let zipf = Zipf::new(count.max(1) as f64, theta);
                Ranks::Zipf(zipf.expect("the number and theta were checked"))
            }
            RandomDistribution::Pareto { h } => Ranks::Pareto(h.ln() / (1.0 - h).ln()),
        };
        let factor = (count / 8 * 5..).find(|&factor| has_no_common_divisor(factor, count));
        let factor = factor.expect("the next prime number has none");
        Some(Self { ranks, count, factor, summand: mix(seed) % count.max(1) })
    }

    /// Offset that a random number selects.
    pub(super) fn choose(&self, random: u64) -> u64 {
        let rank = match &self.ranks {
            Ranks::Zipf(zipf) => zipf.sample(&mut Sequence(random)) - 1.0,
            // 53 bits: a number from 0 on and below 1.
            Ranks::Pareto(power) => {
                let uniform = (random >> 11) as f64 / (1u64 << 53) as f64;
                uniform.powf(*power) * self.count as f64
            }
        };
        let rank = floor(rank).min(self.count.saturating_sub(1));
        let place = u128::from(rank) * u128::from(self.factor) + u128::from(self.summand);
        // A division of 64 bits is a fraction of one of 128.
        match u64::try_from(place) {
            Ok(place) => place % self.count,
            Err(_) => low_half(place % u128::from(self.count)),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "ranks are not negative, and their fraction is left out"
)]
fn floor(rank: f64) -> u64 {
    rank as u64
}

#[expect(clippy::cast_possible_truncation, reason = "the remainder is below a number of 64 bits")]
fn low_half(remainder: u128) -> u64 {
    remainder as u64
}

fn has_no_common_divisor(mut one: u64, mut other: u64) -> bool {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one == 1
}

/// Random numbers that follow from the first.
struct Sequence(u64);

impl TryRng for Sequence {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let number = self.try_next_u64()?;
        Ok(u32::try_from(number >> 32).expect("32 bits"))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 = self.0.wrapping_add(1);
        Ok(mix(self.0))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            let number = self.try_next_u64()?.to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shares of the offsets, the most frequent ones first.
    fn shares(distribution: &str, count: u64, samples: u32) -> Vec<f64> {
        let offsets = SkewedOffsets::new(distribution.parse().unwrap(), count, 7).unwrap();
        let mut hits = vec![0_u32; usize::try_from(count).unwrap()];
        for index in 0..u64::from(samples) {
            hits[usize::try_from(offsets.choose(mix(index))).unwrap()] += 1;
        }
        hits.sort_by(|one, other| other.cmp(one));
        hits.into_iter().map(|hits| f64::from(hits) / f64::from(samples)).collect()
    }

    #[test]
    fn the_shares_of_zipf_fall_by_the_rank() {
        for theta in [0.5, 1.0, 1.2] {
            let shares = shares(&format!("zipf:{theta}"), 1000, 400_000);
            let sum: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-theta)).sum();
            for rank in [1, 2, 3, 10] {
                let due = f64::from(rank).powf(-theta) / sum;
                let found = shares[usize::try_from(rank - 1).unwrap()];
                assert!((found / due - 1.0).abs() < 0.08, "{theta}, {rank}: {found} {due}");
            }
        }
    }

    #[test]
    fn pareto_gives_a_share_of_one_less_h_to_a_share_of_h() {
        for h in [0.1, 0.2, 0.4] {
            let shares = shares(&format!("pareto:{h}"), 10_000, 400_000);
            for power in [1, 2] {
                let part = f64::powi(h, power) * 10_000.0;
                let found: f64 = shares[..usize::try_from(floor(part)).unwrap()].iter().sum();
                let due = (1.0 - h).powi(power);
                assert!((found - due).abs() < 0.02, "{h}: {found} {due}");
            }
        }
    }

    #[test]
    fn frequent_offsets_are_not_neighbours_and_all_are_reached() {
        for count in [1, 2, 3, 8, 1000, 65_536] {
            let distribution = RandomDistribution::Zipf { theta: 1.0 };
            let mut offsets = SkewedOffsets::new(distribution, count, 7).unwrap();
            offsets.ranks = Ranks::Pareto(1.0);
            let seen: std::collections::BTreeSet<_> = (0..count)
                .map(|rank| offsets.choose(u64::MAX / count * rank + u64::MAX / count / 2))
                .collect();
            assert_eq!(seen.len() as u64, count);
            if count > 100 {
                assert!(offsets.factor > count / 3 && offsets.factor < count / 4 * 3);
            }
        }
        let large = RandomDistribution::Pareto { h: 0.2 };
        let large = SkewedOffsets::new(large, u64::MAX, 7).unwrap();
        assert!(large.choose(u64::MAX) != large.choose(0));
    }

    #[test]
    fn distributions_are_read_as_fio_writes_them() {
        for (text, distribution) in [
            ("random", RandomDistribution::Random),
            ("zipf", RandomDistribution::Zipf { theta: 1.1 }),
            ("zipf:1.25", RandomDistribution::Zipf { theta: 1.25 }),
            ("pareto:0.3", RandomDistribution::Pareto { h: 0.3 }),
        ] {
            assert_eq!(text.parse(), Ok(distribution));
        }
        for wrong in
            ["", "zipf:", "zipf:0", "zipf:-1", "zipf:nan", "zipf:101", "pareto:1", "random:1", "x"]
        {
            assert!(wrong.parse::<RandomDistribution>().is_err(), "{wrong}");
        }
    }
}
