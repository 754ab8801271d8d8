//! Place of this process among the ranks of a job: its share of the namespace, and random numbers
//! of its own.

use std::ops::Range;

use clap::ValueEnum;

/// Blocks that the ranks of a job use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum RankRegions {
    /// All ranks use all blocks, each in an order of its own.
    #[default]
    Shared,
    /// Each rank has a part of its own, of equal size.
    Disjoint,
}

/// Rank of this process, and the number of ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RankPosition {
    pub(super) rank: u32,
    pub(super) count: u32,
    pub(super) regions: RankRegions,
}

impl RankPosition {
    /// Position of a process that no launcher started.
    pub(super) const ALONE: Self = Self { rank: 0, count: 1, regions: RankRegions::Shared };

    /// Number by which random numbers of this rank differ from those of others; 0 for the first.
    pub(super) fn stream(self) -> u64 {
        u64::from(self.rank) << 32
    }

    /// Index of a worker among those of all ranks that share a region, and their number.
    pub(super) fn worker(self, index: usize, workers: usize) -> [usize; 2] {
        match self.regions {
            RankRegions::Shared => {
                let [rank, count] = [self.rank, self.count].map(|it| it as usize);
                [rank * workers + index, count * workers]
            }
            RankRegions::Disjoint => [index, workers],
        }
    }

    /// Time between the first rank and this one, as a share of the time between two commands.
    pub(super) fn phase(self) -> f64 {
        f64::from(self.rank) / f64::from(self.count)
    }

    /// Blocks of this rank among the first `bytes` bytes of a namespace. A part begins at a
    /// multiple of `command` bytes, and has whole ones.
    pub(super) fn region(self, bytes: u64, command: u64) -> Range<u64> {
        match self.regions {
            RankRegions::Shared => 0..bytes,
            RankRegions::Disjoint => {
                let part = bytes / u64::from(self.count) / command * command;
                let start = part * u64::from(self.rank);
                start..start + part
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn positions(count: u32, regions: RankRegions) -> Vec<RankPosition> {
        (0..count).map(|rank| RankPosition { rank, count, regions }).collect()
    }

    #[test]
    fn parts_are_disjoint_and_hold_whole_commands() {
        for (bytes, command) in [(1 << 20, 4096), (1_000_000, 65_536), (3 * 4096, 4096)] {
            let mut end = 0;
            for position in positions(3, RankRegions::Disjoint) {
                let region = position.region(bytes, command);
                assert_eq!(region.start, end);
                assert!(!region.is_empty() && region.end.is_multiple_of(command));
                end = region.end;
            }
            assert!(end <= bytes && bytes - end < 3 * command, "{bytes} {end}");
        }
        for position in positions(3, RankRegions::Shared) {
            assert_eq!(position.region(5000, 4096), 0..5000);
        }
        let two = RankPosition { rank: 1, count: 4, regions: RankRegions::Disjoint };
        assert!(two.region(3 * 4096, 4096).is_empty(), "no rank has a whole command");
    }

    #[test]
    fn workers_of_all_ranks_differ() {
        for regions in [RankRegions::Shared, RankRegions::Disjoint] {
            let all: HashSet<_> = positions(4, regions)
                .into_iter()
                .flat_map(|position| (0..2).map(move |index| (position, index)))
                .map(|(position, index)| (position.worker(index, 2)[0], position.stream()))
                .collect();
            assert_eq!(all.len(), 8);
        }
        assert_eq!(RankPosition::ALONE.worker(1, 2), [1, 2]);
        assert_eq!(RankPosition::ALONE.stream(), 0);
    }
}
