//! The command line of `nvmf bench`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{
    block_sizes::BlockSizes,
    sweep_points::{Axis, Point, expand},
};
use crate::{failure::Failure, load::LoadArguments, overwrite::OverwriteArguments, size};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Access pattern.
    #[arg(long, value_name = "PATTERN", default_value = "randread")]
    pub(super) rw: AccessPattern,

    /// Share of reads in a mixed pattern, in percent [default: 70].
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    rwmixread: Option<u8>,

    /// Bytes of one command; or several sizes with their weights: 4K:70,64K:30 [default: 4K].
    #[arg(long, value_name = "BYTES")]
    bs: Option<BlockSizes>,

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

    /// Distribution of the due times of an open loop [default: constant].
    #[arg(long, value_name = "HOW")]
    arrival: Option<Arrival>,

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

    /// Duration of one interval of the series [default: 1s, or the run time if that is less].
    #[arg(long, value_name = "TIME", value_parser = size::seconds)]
    interval: Option<Duration>,

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
    #[arg(long, num_args = 2, value_names = ["A", "B"],
          conflicts_with_all = ["target", "sweep", "also", "verify", "hlog", "json", "html"])]
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
            bs: self.bs.clone().unwrap_or_default(),
            rate: self.rate,
        };
        expand(start, &self.sweep)
    }

    /// True if blocks of the namespace are overwritten.
    pub(super) fn overwrites(&self) -> bool {
        self.verify || self.read_percent() < 100
    }

    /// Refuses options that contradict each other.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let swept = |name| self.sweep.iter().filter(|axis| axis.name() == name).count();
        let pattern = value_name(self.rw);
        let contradictions = [
            (
                self.interval().is_zero() || self.runtime.is_zero(),
                "--runtime and --interval must be more than nothing".to_owned(),
            ),
            (self.interval() > self.runtime, "--interval is longer than --runtime".to_owned()),
            (
                self.rwmixread.is_some() && !self.rw.is_mixed(),
                format!("--rwmixread is for randrw and rw, not for --rw {pattern}"),
            ),
            (
                self.verify && self.read_percent() == 0,
                format!("--verify compares what is read; --rw {pattern} reads nothing"),
            ),
            (
                self.arrival.is_some() && self.rate.is_none() && swept("rate") == 0,
                "--arrival is for an open loop; give --rate too".to_owned(),
            ),
            (self.has_same_file_twice(), "two results can't go to one file".to_owned()),
        ];
        let given = [
            ("iodepth", self.load.iodepth.is_some()),
            ("queues", self.load.target.nr_io_queues.is_some()),
            ("bs", self.bs.is_some()),
            ("rate", self.rate.is_some()),
        ];
        let twice = given.map(|(name, is_given)| {
            let twice = swept(name) + usize::from(is_given) > 1;
            (twice, format!("{name} is given twice; --sweep {name}=… has all its values"))
        });
        let mut all = contradictions.into_iter().chain(twice);
        match all.find(|(contradict, _)| *contradict) {
            Some((_, message)) => Err(Failure::usage(message)),
            None => Ok(()),
        }
    }

    fn has_same_file_twice(&self) -> bool {
        let files = [&self.hlog, &self.json, &self.html];
        let files: Vec<_> = files.into_iter().flatten().collect();
        files.iter().enumerate().any(|(index, file)| files[..index].contains(file))
    }

    /// Refuses a region that does not fit the namespace, or holds no command of `bytes` bytes.
    pub(super) fn check_region(&self, namespace_bytes: u64, bytes: u64) -> Result<(), Failure> {
        if let Some(size) = self.size.filter(|&size| size > namespace_bytes) {
            return Err(Failure::usage(format!(
                "--size {} is more than the namespace has, {}",
                size::format_bytes(size),
                size::format_bytes(namespace_bytes)
            )));
        }
        if self.region_bytes(namespace_bytes) < bytes {
            return Err(Failure::usage("--size and the namespace must hold at least one --bs"));
        }
        Ok(())
    }

    /// Duration of one interval of the series.
    pub(super) fn interval(&self) -> Duration {
        self.interval.unwrap_or(self.runtime.min(Duration::from_secs(1)))
    }

    pub(super) fn arrival(&self) -> Arrival {
        self.arrival.unwrap_or_default()
    }

    /// Share of reads, in percent.
    pub(super) fn read_percent(&self) -> u8 {
        self.rw.read_percent(self.rwmixread.unwrap_or(70))
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

    fn is_mixed(self) -> bool {
        matches!(self, Self::Randrw | Self::Rw)
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        arguments: Arguments,
    }

    /// Message of the contradiction in a command line.
    fn contradiction(line: &str) -> String {
        let words = ["bench", "nvmf-rdma://192.0.2.1/nqn.x"].into_iter();
        let program = Program::try_parse_from(words.chain(line.split_whitespace()));
        match program.unwrap_or_else(|error| panic!("{error}")).arguments.check() {
            Ok(()) => String::new(),
            Err(failure) => {
                assert_eq!(failure.exit_code(), 2, "{line}");
                failure.to_string()
            }
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for (line, message) in [
            ("--interval 5s --runtime 3s", "--interval is longer"),
            ("--runtime 0", "more than nothing"),
            ("--rwmixread 30", "--rwmixread is for randrw and rw, not for --rw randread"),
            ("--rw write --verify", "reads nothing"),
            ("--rw randrw --rwmixread 0 --verify", "reads nothing"),
            ("--arrival poisson", "--rate"),
            ("--json x --html x", "one file"),
            ("--iodepth 4 --sweep iodepth=1,2", "iodepth is given twice"),
            ("--queues 4 --sweep queues=1,2", "queues is given twice"),
            ("--bs 4K --sweep bs=4K,8K", "bs is given twice"),
            ("--rate 100 --sweep rate=100,200", "rate is given twice"),
            ("--sweep rate=100 --sweep rate=200", "rate is given twice"),
        ] {
            let found = contradiction(line);
            assert!(found.contains(message), "{line}: {found:?}");
        }
    }

    #[test]
    fn defaults_contradict_nothing() {
        for line in [
            "",
            "--runtime 100ms",
            "--rw randrw --rwmixread 30 --verify",
            "--arrival poisson --sweep rate=100,200",
            "--json x --html y --hlog z",
        ] {
            assert_eq!(contradiction(line), "", "{line}");
        }
    }
}
