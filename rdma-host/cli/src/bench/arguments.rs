//! The command line of `nvmf bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::block_sizes::Blocks;
use super::sweep_points::Axis;
use crate::load::LoadArguments;
use crate::size;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The pattern of access.
    #[arg(long, value_name = "PATTERN", default_value = "randread")]
    pub(super) rw: Access,

    /// Reads among mixed commands, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 70,
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(super) rwmixread: u8,

    /// Bytes of one command; or several sizes with their weights: 4K:70,64K:30.
    #[arg(long, value_name = "BYTES", default_value = "4K")]
    pub(super) bs: Blocks,

    /// How long to measure.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = size::seconds)]
    pub(super) runtime: Duration,

    /// End when so many bytes are asked for, if that is before the time is over.
    #[arg(long, value_name = "BYTES", value_parser = size::bytes)]
    pub(super) io_size: Option<u64>,

    /// How long to run before measuring.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = size::seconds)]
    pub(super) ramp: Duration,

    /// Bytes from the start of the namespace to use [default: all].
    #[arg(long, value_name = "BYTES", value_parser = size::bytes)]
    pub(super) size: Option<u64>,

    /// Open loop: commands a second for each target, at set times whether or not earlier ones
    /// are done; latency then counts from the set time.
    #[arg(long, value_name = "IOPS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) rate: Option<u64>,

    /// How the set times follow each other.
    #[arg(long, value_name = "HOW", default_value = "constant", requires = "rate")]
    pub(super) arrival: Arrival,

    /// Measure once for each value, as in iodepth=1,8,32; given several times, for all
    /// combinations. Of iodepth, queues, bs and rate.
    #[arg(long, value_name = "WHAT=VALUES")]
    pub(super) sweep: Vec<Axis>,

    /// Another target to load at the same time, in the same way.
    #[arg(long, value_name = "TARGET")]
    pub(super) also: Vec<String>,

    /// Write a pattern first and check it in everything read. Overwrites the namespace.
    #[arg(long)]
    pub(super) verify: bool,

    /// Seconds of one point of the series.
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
    pub(super) load: LoadArguments,
}

/// Which blocks, in which direction; names as in fio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Access {
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

/// How the set times of an open loop follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Arrival {
    /// At equal distances.
    #[default]
    Constant,
    /// At random, each independent of those before.
    Poisson,
}

impl Access {
    pub(super) fn is_random(self) -> bool {
        matches!(self, Self::Randread | Self::Randwrite | Self::Randrw)
    }

    /// Reads in percent, where the mix is `mixed`.
    pub(super) fn reads_percent(self, mixed: u8) -> u8 {
        match self {
            Self::Randread | Self::Read => 100,
            Self::Randwrite | Self::Write => 0,
            Self::Randrw | Self::Rw => mixed,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Randread => "randread",
            Self::Randwrite => "randwrite",
            Self::Randrw => "randrw",
            Self::Read => "read",
            Self::Write => "write",
            Self::Rw => "rw",
        }
    }
}

impl Arrival {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Poisson => "poisson",
        }
    }
}
