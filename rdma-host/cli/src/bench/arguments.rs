//! The command line of `nvmf bench`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{
    block_sizes::BlockSizes,
    sweep_points::{Axis, Point, expand},
};
use crate::{load::LoadArguments, overwrite::OverwriteArguments, size};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Access pattern.
    #[arg(long, value_name = "PATTERN", default_value = "randread")]
    pub(super) rw: AccessPattern,

    /// Share of reads in a mixed pattern, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 70,
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(super) rwmixread: u8,

    /// Bytes of one command; or several sizes with their weights: 4K:70,64K:30.
    #[arg(long, value_name = "BYTES", default_value = "4K")]
    pub(super) bs: BlockSizes,

    /// Duration of the measurement.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = size::seconds)]
    pub(super) runtime: Duration,

    /// Bytes to transfer in all; ends the measurement before --runtime is over.
    #[arg(long, value_name = "BYTES", value_parser = size::bytes)]
    pub(super) io_size: Option<u64>,

    /// Duration of the load before the measurement.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = size::seconds)]
    pub(super) ramp: Duration,

    /// Bytes from the start of the namespace to use [default: all].
    #[arg(long, value_name = "BYTES", value_parser = size::bytes)]
    pub(super) size: Option<u64>,

    /// Open loop: commands per second for each target, each due at a set time whether or not
    /// earlier ones are done; latency then counts from the due time. 10k are 10,000.
    #[arg(long, value_name = "IOPS", value_parser = size::rate)]
    pub(super) rate: Option<u64>,

    /// Distribution of the due times of an open loop.
    #[arg(long, value_name = "HOW", default_value = "constant", requires = "rate")]
    pub(super) arrival: Arrival,

    /// Measure once for each value of iodepth, queues, bs or rate, as in iodepth=1,8,32; given
    /// several times, for all combinations.
    #[arg(long, value_name = "WHAT=VALUES")]
    pub(super) sweep: Vec<Axis>,

    /// Another target to load at the same time, in the same way.
    #[arg(long, value_name = "TARGET")]
    pub(super) also: Vec<String>,

    /// Write a pattern first, and compare all data read with it. Overwrites the namespace.
    #[arg(long)]
    pub(super) verify: bool,

    /// Duration of one interval of the series.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = size::seconds)]
    pub(super) interval: Duration,

    /// Write the latencies of each interval to an HdrHistogram log, in nanoseconds.
    #[arg(long, value_name = "FILE")]
    pub(super) hlog: Option<PathBuf>,

    /// Write the JSON report to a file, too.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,

    /// Write a report for a browser: one file, with nothing to load from elsewhere.
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,

    /// Compare two JSON reports instead of measuring.
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    pub(super) compare: Option<Vec<PathBuf>>,

    #[command(flatten)]
    pub(super) overwrite: OverwriteArguments,

    #[command(flatten)]
    pub(super) load: LoadArguments,
}

/// Order and direction of the commands; names as in fio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum AccessPattern {
    /// Random reads.
    Randread,
    /// Random writes. Overwrites the namespace.
    Randwrite,
    /// Random reads and writes. Overwrites the namespace.
    Randrw,
    /// Sequential reads.
    Read,
    /// Sequential writes. Overwrites the namespace.
    Write,
    /// Sequential, reads and writes mixed. Overwrites the namespace.
    Rw,
}

/// Distribution of the due times of an open loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Arrival {
    /// Equal distances.
    #[default]
    Constant,
    /// Random distances, each independent of those before.
    Poisson,
}

impl Arguments {
    /// Points to measure: one, or those of the sweep.
    pub(super) fn points(&self) -> Vec<Point> {
        let start = Point {
            iodepth: self.load.iodepth,
            queues: None,
            bs: self.bs.clone(),
            rate: self.rate,
        };
        expand(start, &self.sweep)
    }

    /// True if blocks of the namespace are overwritten.
    pub(super) fn overwrites(&self) -> bool {
        self.verify || self.rw.read_percent(self.rwmixread) < 100
    }

    pub(super) fn writes_files(&self) -> bool {
        self.hlog.is_some() || self.html.is_some() || self.json.is_some()
    }

    /// Bytes to use of a namespace that has `namespace_bytes`.
    pub(super) fn region_bytes(&self, namespace_bytes: u64) -> u64 {
        self.size.unwrap_or(u64::MAX).min(namespace_bytes)
    }
}

/// Name of a value on the command line.
pub(super) fn value_name(value: impl ValueEnum) -> String {
    value.to_possible_value().expect("no value is skipped").get_name().to_owned()
}

impl AccessPattern {
    pub(super) fn is_random(self) -> bool {
        matches!(self, Self::Randread | Self::Randwrite | Self::Randrw)
    }

    /// Share of reads, in percent, if that of a mixed pattern is `mixed`.
    pub(super) fn read_percent(self, mixed: u8) -> u8 {
        match self {
            Self::Randread | Self::Read => 100,
            Self::Randwrite | Self::Write => 0,
            Self::Randrw | Self::Rw => mixed,
        }
    }
}
