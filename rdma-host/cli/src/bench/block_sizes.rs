//! Sizes of commands, and their frequency.

use std::str::FromStr;

use crate::size;

/// Sizes in bytes, with weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BlockSizes {
    sizes: Vec<(u64, u64)>,
}

impl Default for BlockSizes {
    fn default() -> Self {
        Self { sizes: vec![(4096, 1)] }
    }
}

impl BlockSizes {
    /// The sizes, in bytes, as given.
    pub(super) fn sizes(&self) -> impl Iterator<Item = u64> + '_ {
        self.sizes.iter().map(|&(bytes, _)| bytes)
    }

    pub(super) fn largest(&self) -> u64 {
        self.sizes().max().unwrap_or_default()
    }

    /// Index of the size that a random number selects.
    pub(super) fn choose(&self, random: u64) -> usize {
        let all: u64 = self.sizes.iter().map(|&(_, weight)| weight).sum();
        let mut left = random % all.max(1);
        let chosen = self.sizes.iter().position(|&(_, weight)| {
            let here = left < weight;
            left = left.saturating_sub(weight);
            here
        });
        chosen.unwrap_or_default()
    }

    /// Sizes as on the command line, in bytes.
    pub(super) fn name(&self) -> String {
        match self.sizes.as_slice() {
            [(bytes, _)] => bytes.to_string(),
            several => {
                let parts: Vec<_> = several.iter().map(|(b, w)| format!("{b}:{w}")).collect();
                parts.join(",")
            }
        }
    }

    /// Sizes in readable units, weights in percent.
    pub(super) fn describe(&self) -> String {
        match self.sizes.as_slice() {
            [(bytes, _)] => size::format_bytes(*bytes),
            several => {
                let all: u64 = several.iter().map(|&(_, weight)| weight).sum();
                let share = |weight: u64| weight * 100 / all.max(1);
                let parts = several.iter().map(|&(bytes, weight)| {
                    format!("{} {} %", size::format_bytes(bytes), share(weight))
                });
                parts.collect::<Vec<_>>().join(" + ")
            }
        }
    }
}

impl FromStr for BlockSizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |part: &str| {
            let (bytes, weight) = part.split_once(':').unwrap_or((part, "1"));
            let weight = weight.parse().ok().filter(|weight| (1..=1_000_000).contains(weight));
            let weight = weight.ok_or(format!("{part:?}: a weight is a number from 1 on"))?;
            Ok::<_, String>((size::bytes(bytes)?, weight))
        };
        Ok(Self { sizes: text.split(',').map(parse).collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_by_weight() {
        let blocks: BlockSizes = "4K:70,64K:30".parse().unwrap();
        assert_eq!(blocks.sizes().collect::<Vec<_>>(), [4096, 65536]);
        let counts = (0..100).fold([0, 0], |mut counts, random| {
            counts[blocks.choose(random)] += 1;
            counts
        });
        assert_eq!(counts, [70, 30]);
        assert_eq!(blocks.name(), "4096:70,65536:30");
        assert_eq!(blocks.describe(), "4 KiB 70 % + 64 KiB 30 %");
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for wrong in ["", "4K:", "4K:0", "4K:x", "4K,", "x"] {
            assert!(wrong.parse::<BlockSizes>().is_err(), "{wrong}");
        }
        assert_eq!("8k".parse::<BlockSizes>().unwrap().name(), "8192");
    }
}
