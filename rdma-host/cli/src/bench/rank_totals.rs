//! Ranks of a job, or separate runs, that a report was merged from.

use serde::{Deserialize, Serialize};

use super::totals::Totals;

/// Ranks that a point was merged from.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Ranks {
    /// Number of ranks, with those that failed.
    pub(super) count: usize,
    /// True if a launcher started them together; false for the reports of separate runs.
    pub(super) started_together: bool,
    /// Time between the first start and the last one. Ranks that started together left a fence: it
    /// is the longest time that one of them was in it, and they started within that, whatever their
    /// clocks say. That of separate runs is by the clocks of their hosts.
    pub(super) start_spread_s: f64,
    /// Time in which all ranks measured, over which all rates are. Latencies and numbers of
    /// commands are those of the whole measurement of each rank.
    pub(super) common_span_s: f64,
    /// Keys of the settings in which ranks differ; the configuration is that of the first rank.
    pub(super) differing_settings: Vec<String>,
    pub(super) by_rank: Vec<RankTotals>,
    pub(super) by_host: Vec<HostTotals>,
    /// Ranks that are in no figure.
    pub(super) failed: Vec<FailedRank>,
}

/// Results of one rank.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct RankTotals {
    #[serde(flatten)]
    pub(super) totals: Totals,
    pub(super) rank: u32,
    /// Report that the rank was read from; null for a rank of a launcher's job.
    pub(super) file: Option<String>,
    pub(super) host: String,
    pub(super) device: String,
    pub(super) began: String,
    /// Duration of its measurement.
    pub(super) seconds: f64,
}

/// Results of all ranks of one host.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct HostTotals {
    #[serde(flatten)]
    pub(super) totals: Totals,
    pub(super) host: String,
    /// Number of its ranks.
    pub(super) ranks: usize,
}

/// Rank that has no results, or whose measurement ended early where that of others did not.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct FailedRank {
    pub(super) rank: u32,
    pub(super) file: Option<String>,
    /// Null if the rank never said.
    pub(super) host: Option<String>,
    pub(super) error: String,
}

impl Ranks {
    /// Hosts with the fewest and the most commands a second, if there are several.
    pub(super) fn slowest_and_fastest(&self) -> Option<[&HostTotals; 2]> {
        let by_iops = |a: &&HostTotals, b: &&HostTotals| a.totals.iops.total_cmp(&b.totals.iops);
        let slowest = self.by_host.iter().min_by(by_iops)?;
        let fastest = self.by_host.iter().max_by(by_iops)?;
        (self.by_host.len() > 1).then_some([slowest, fastest])
    }

    /// Words that name the ranks which failed; none if all were measured.
    pub(super) fn failure(&self) -> Option<String> {
        let (first, others) = self.failed.split_first()?;
        let others = match others.len() {
            0 => String::new(),
            count => format!("; and {count} more failed"),
        };
        Some(format!("{}: {}{others}", first.name(), first.error))
    }

    /// Start and spans in one sentence.
    pub(super) fn describe(&self) -> String {
        let spread = self.start_spread_s;
        let spread = match spread {
            spread if spread < 1.0 => format!("{:.3} ms", spread * 1000.0),
            spread => format!("{spread:.1} s"),
        };
        let started = if self.started_together {
            format!("started within {spread}")
        } else {
            format!("separate runs, begun within {spread} by their clocks")
        };
        format!(
            "{started}; rates are over the {:.3} s in which all measured, latencies are of all \
             their commands",
            self.common_span_s
        )
    }
}

impl RankTotals {
    pub(super) fn name(&self) -> String {
        name(self.rank, self.file.as_deref(), Some(&self.host))
    }
}

impl FailedRank {
    pub(super) fn name(&self) -> String {
        name(self.rank, self.file.as_deref(), self.host.as_deref())
    }
}

/// Name of a rank, or of the file that it was read from.
pub(super) fn name(rank: u32, file: Option<&str>, host: Option<&str>) -> String {
    match (file, host) {
        (Some(file), _) => file.to_owned(),
        (None, Some(host)) if !host.is_empty() => format!("rank {rank} on {host}"),
        (None, _) => format!("rank {rank}"),
    }
}
