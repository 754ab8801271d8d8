//! The command line of `nvmf bench`.

use std::{ops::Range, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{
    block_sizes::BlockSizes,
    fail_conditions::FailCondition,
    random_distribution::RandomDistribution,
    rank_position::{RankPosition, RankRegions},
    rate::Rate,
    result_format::ResultFormat,
    steady_state::SteadyStateDetector,
    sweep_points::{Axis, Point, expand},
};
use crate::{
    failure::Failure, load::LoadArguments, output_file, overwrite::OverwriteArguments, size,
};

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
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = size::duration)]
    pub(super) runtime: Duration,

    /// Bytes to transfer in all; ends the measurement before --runtime is over.
    #[arg(long, value_name = "BYTES", value_parser = size::positive_bytes)]
    pub(super) io_size: Option<u64>,

    /// Duration of the load before the measurement.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = size::seconds)]
    pub(super) ramp: Duration,

    /// End in a steady state, before --runtime is over: when the IOPS of all intervals of a window
    /// are within this share of their mean, as fio's steadystate=iops:2%.
    #[arg(long, value_name = "PERCENT", value_parser = size::percent)]
    pub(super) until: Option<f64>,

    /// Duration of the window of --until [default: 5 intervals].
    #[arg(long, value_name = "TIME", value_parser = size::duration, requires = "until")]
    until_window: Option<Duration>,

    /// Offsets of random commands: random (uniform), zipf:THETA or pareto:H, as in fio
    /// [default: random].
    #[arg(long, value_name = "DISTRIBUTION")]
    random_distribution: Option<RandomDistribution>,

    /// Bytes from the start of the namespace to use [default: all].
    #[arg(long, value_name = "BYTES", value_parser = size::positive_bytes)]
    pub(super) size: Option<u64>,

    /// Open loop: commands per second for each target, each due at a set time whether or not
    /// earlier ones are done; latency then counts from the due time. 10k are 10,000; 10k,5k are
    /// 10,000 reads and 5,000 writes of a mixed pattern.
    #[arg(long, value_name = "IOPS")]
    pub(super) rate: Option<Rate>,

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
    #[arg(long, value_name = "TIME", value_parser = size::duration)]
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

    /// Run the jobs of a TOML file one after the other: each section is one, and its keys are the
    /// options, as in iodepth = 8; those of the section global hold for all jobs, and the command
    /// line takes precedence
    #[arg(long, value_name = "FILE")]
    pub(crate) job: Option<PathBuf>,

    /// Compare two JSON reports instead of measuring: how much B differs from A, with confidence,
    /// and which settings differ.
    #[arg(long, num_args = 2, value_names = ["A", "B"],
          conflicts_with_all = ["target", "sweep", "also", "verify", "hlog", "json",
                                "baseline", "fail_if", "job"])]
    pub(super) compare: Option<Vec<PathBuf>>,

    /// Blocks of each rank, if a launcher starts several (srun --mpi=pmix, mpirun): all of them, or
    /// a part of its own [default: shared].
    #[arg(long, value_name = "BLOCKS")]
    ranks: Option<RankRegions>,

    /// Write the report of each rank, too, for --merge: PREFIX.RANK.json.
    #[arg(long, value_name = "PREFIX")]
    pub(super) rank_json: Option<PathBuf>,

    /// Time for which ranks wait for others that are late, to connect or with their results.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = size::duration)]
    pub(super) rank_timeout: Duration,

    /// Merge JSON reports of separate runs, one of each host, instead of measuring: histograms are
    /// added, and rates are summed over the time in which all measured.
    #[arg(long, num_args = 1.., value_name = "FILES",
          conflicts_with_all = ["target", "sweep", "also", "verify", "hlog", "baseline", "job",
                                "compare"])]
    pub(super) merge: Option<Vec<PathBuf>>,

    /// Compare the result with this JSON report of an earlier run, in the same way; the page of
    /// --html then has both curves and the differences.
    #[arg(long, value_name = "FILE")]
    pub(super) baseline: Option<PathBuf>,

    /// Fail (exit code 1) if a result is so, as in 'p99>200us' or 'iops<100k,errors>0': iops,
    /// bandwidth, errors, retried, or a latency as the report names it; read.p99 for one direction.
    #[arg(long, value_name = "CONDITION", value_delimiter = ',')]
    pub(super) fail_if: Vec<FailCondition>,

    /// Fail (exit code 1) if a result is worse than that of --baseline, or B worse than A, by more
    /// than this and not by chance alone.
    #[arg(long, value_name = "PERCENT", value_parser = size::percent)]
    pub(super) fail_if_worse: Option<f64>,

    /// Output format.
    #[arg(short, long, visible_alias = "format", value_name = "FORMAT", default_value = "normal")]
    pub(super) output_format: ResultFormat,

    #[command(flatten)]
    pub(super) load: LoadArguments,

    #[command(flatten)]
    pub(super) overwrite: OverwriteArguments,
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

/// Most intervals of a series, all of which are kept.
const INTERVALS_MAX: u32 = 1_000_000;

const REGION_TOO_SMALL: &str = "--size and the namespace must hold at least one --bs";

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
        let all = self.contradictions().into_iter().chain(self.given_twice());
        let mut all = all.chain(self.beyond_limits());
        match all.find(|(contradict, _)| *contradict) {
            Some((_, message)) => Err(Failure::usage(message)),
            None => Ok(()),
        }
    }

    /// Pairs of a contradiction, true if it is there, and its message.
    fn contradictions(&self) -> Vec<(bool, String)> {
        let pattern = value_name(self.rw);
        let sweeps_rate = self.sweep.iter().any(|axis| axis.name() == "rate");
        let has_two_rates = self.rate.and_then(Rate::each).is_some();
        vec![
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
                self.arrival.is_some() && self.rate.is_none() && !sweeps_rate,
                "--arrival is for an open loop; give --rate too".to_owned(),
            ),
            (
                has_two_rates && !self.rw.is_mixed(),
                format!("rates of reads and writes are for randrw and rw, not for --rw {pattern}"),
            ),
            (
                has_two_rates && self.rwmixread.is_some(),
                "--rwmixread contradicts rates of reads and writes".to_owned(),
            ),
            (
                self.random_distribution.is_some() && !self.rw.is_random(),
                format!("--random-distribution is for random patterns, not for --rw {pattern}"),
            ),
            (
                self.until.is_some() && self.window() > self.runtime,
                "--runtime is shorter than the window of --until, 5 intervals if no --until-window \
                 is given"
                    .to_owned(),
            ),
            (
                self.fail_if_worse.is_some() && self.baseline.is_none(),
                "--fail-if-worse is for --baseline FILE, or --compare A B".to_owned(),
            ),
            (self.has_same_file_twice(), "two results can't go to one file".to_owned()),
        ]
    }

    /// Settings that no measurement can have, as `contradictions`.
    fn beyond_limits(&self) -> [(bool, String); 3] {
        let is_empty = |point: &Point| point.bs.sizes().any(|bytes| bytes == 0);
        let is_too_large = |point: &Point| self.size.is_some_and(|size| size < point.bs.largest());
        [
            (
                self.interval().saturating_mul(INTERVALS_MAX) < self.runtime,
                format!("a series has at most {INTERVALS_MAX} intervals: give a longer --interval"),
            ),
            (self.points().iter().any(is_empty), "--bs must be at least one block".to_owned()),
            (self.points().iter().any(is_too_large), REGION_TOO_SMALL.to_owned()),
        ]
    }

    /// Settings that are given twice, as `contradictions`.
    fn given_twice(&self) -> [(bool, String); 4] {
        let swept = |name| self.sweep.iter().filter(|axis| axis.name() == name).count();
        let given = [
            ("iodepth", self.load.iodepth.is_some()),
            ("queues", self.load.target.nr_io_queues.is_some()),
            ("bs", self.bs.is_some()),
            ("rate", self.rate.is_some()),
        ];
        given.map(|(name, is_given)| {
            let twice = swept(name) + usize::from(is_given) > 1;
            (twice, format!("{name} is given twice; --sweep {name}=… has all its values"))
        })
    }

    fn has_same_file_twice(&self) -> bool {
        let files = [&self.hlog, &self.json, &self.html];
        let files: Vec<_> = files.into_iter().flatten().collect();
        files.iter().enumerate().any(|(index, file)| {
            files[..index].iter().any(|other| output_file::is_same(file, other))
        })
    }

    /// Refuses a region that does not fit the namespace, or holds no command of a point.
    pub(super) fn check_region(
        &self,
        namespace_bytes: u64,
        point: &Point,
        rank: RankPosition,
    ) -> Result<(), Failure> {
        if let Some(size) = self.size.filter(|&size| size > namespace_bytes) {
            return Err(Failure::usage(format!(
                "--size {} is more than the namespace has, {}",
                size::format_bytes(size),
                size::format_bytes(namespace_bytes)
            )));
        }
        let region = self.region(namespace_bytes, point, rank);
        if region.end - region.start >= point.bs.largest() {
            return Ok(());
        }
        Err(match rank.regions {
            RankRegions::Shared => Failure::usage(REGION_TOO_SMALL),
            RankRegions::Disjoint => Failure::usage(format!(
                "--size and the namespace must hold at least one --bs for each of the {} ranks",
                rank.count
            )),
        })
    }

    /// Duration of one interval of the series.
    pub(super) fn interval(&self) -> Duration {
        self.interval.unwrap_or(self.runtime.min(Duration::from_secs(1)))
    }

    /// Detector of the steady state that ends the measurement, if it is to end so.
    pub(super) fn steady_state(&self) -> Option<SteadyStateDetector> {
        let limit = self.until?;
        Some(SteadyStateDetector::new(limit, self.window(), self.interval()))
    }

    /// Window of the steady state, as it was asked.
    pub(super) fn window(&self) -> Duration {
        self.until_window.unwrap_or(self.interval().saturating_mul(5))
    }

    pub(super) fn random_distribution(&self) -> RandomDistribution {
        self.random_distribution.unwrap_or_default()
    }

    pub(super) fn ranks(&self) -> RankRegions {
        self.ranks.unwrap_or_default()
    }

    pub(super) fn arrival(&self) -> Arrival {
        self.arrival.unwrap_or_default()
    }

    /// Share of reads, in percent.
    pub(super) fn read_percent(&self) -> u8 {
        let by_rates = self.rate.and_then(Rate::read_percent);
        self.rw.read_percent(by_rates.or(self.rwmixread).unwrap_or(70))
    }

    pub(super) fn writes_files(&self) -> bool {
        self.hlog.is_some() || self.html.is_some() || self.json.is_some()
    }

    /// Bytes of a namespace that a rank uses, if the namespace has `namespace_bytes`.
    pub(super) fn region(
        &self,
        namespace_bytes: u64,
        point: &Point,
        rank: RankPosition,
    ) -> Range<u64> {
        let all = self.size.unwrap_or(u64::MAX).min(namespace_bytes);
        rank.region(all, point.bs.largest())
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
    use clap::{CommandFactory, Parser};

    use super::{super::report::Configuration, *};

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

    /// Options that a measurement depends on, and the key by which its result has them: settings
    /// that differ are named by a comparison.
    const SETTINGS: [(&str, &str); 52] = [
        ("ack_timeout", "ack_timeout"),
        ("also", "also"),
        ("arrival", "arrival"),
        ("bs", "bs"),
        ("capture", "capture"),
        ("capture_data", "capture"),
        ("capture_size", "capture"),
        ("cpus", "cpus"),
        ("dhchap_allow_unasked", "authentication"),
        ("dhchap_ctrl_secret", "authentication"),
        ("dhchap_ctrl_secret_fd", "authentication"),
        ("dhchap_ctrl_secret_file", "authentication"),
        ("dhchap_ctrl_secret_key", "authentication"),
        ("dhchap_min_group", "authentication"),
        ("dhchap_min_hash", "authentication"),
        ("dhchap_secret", "authentication"),
        ("dhchap_secret_fd", "authentication"),
        ("dhchap_secret_file", "authentication"),
        ("dhchap_secret_key", "authentication"),
        ("disable_sqflow", "disable_sqflow"),
        ("fence", "fence"),
        ("host_traddr", "source"),
        ("interval", "interval_s"),
        ("io_size", "io_size"),
        ("iodepth", "iodepth"),
        ("iopolicy", "iopolicy"),
        ("keep_alive_tmo", "keep_alive_s"),
        ("memory", "memory_mode"),
        ("nqn", "nqn"),
        ("nr_io_queues", "queues"),
        ("ns", "nsid"),
        ("path", "paths"),
        ("queue_size", "queue_entries"),
        ("ramp", "ramp_s"),
        ("random_distribution", "random_distribution"),
        ("ranks", "rank_regions"),
        ("rate", "rate"),
        ("retry_count", "retry_count"),
        ("runtime", "runtime_s"),
        ("rw", "rw"),
        ("rwmixread", "read_percent"),
        ("seed", "seed"),
        ("size", "region_bytes"),
        ("target", "target"),
        ("threads", "threads"),
        ("tos", "tos"),
        ("traddr", "target"),
        ("trsvcid", "target"),
        ("until", "until_percent"),
        ("until_window", "until_window_s"),
        ("verify", "verify"),
        ("wait", "wait"),
    ];
    /// Options on which no figure depends: outputs, permission, comparison, the host's name, and
    /// what happens once the connection is lost; --sweep has its settings by their own keys.
    #[rustfmt::skip]
    const NO_SETTINGS: [&str; 29] = [
        "baseline", "compare", "config", "ctrl_loss_tmo", "fail_if", "fail_if_worse",
        "fast_io_fail_tmo", "fence_cntlid", "fence_tmo", "force", "hlog", "hostid", "hostnqn",
        "html", "job", "json", "merge", "output_format", "overwrite", "rank_json",
        "rank_timeout", "reconnect_delay", "reconnect_delay_max", "reconnect_jitter",
        "reconnect_strict", "reconnect_time_limit",
        "retry_first_connect", "sweep", "transport",
    ];

    #[test]
    fn each_option_is_a_setting_of_the_result_or_none() {
        let settings = serde_json::to_value(Configuration::default()).expect("plain data");
        let program = Program::command();
        for option in program.get_arguments().map(|option| option.get_id().as_str()) {
            let key = SETTINGS.iter().find(|(known, _)| *known == option);
            match key {
                Some((_, key)) => assert!(settings.get(key).is_some(), "{option}: no {key}"),
                None => assert!(
                    NO_SETTINGS.contains(&option),
                    "{option} is no setting of a result, nor is it said that none depends on it"
                ),
            }
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for (line, message) in [
            ("--interval 5s --runtime 3s", "--interval is longer"),
            ("--rwmixread 30", "--rwmixread is for randrw and rw, not for --rw randread"),
            ("--rw write --verify", "reads nothing"),
            ("--rw randrw --rwmixread 0 --verify", "reads nothing"),
            ("--arrival poisson", "--rate"),
            ("--json x --html x", "one file"),
            ("--fail-if-worse 5%", "--baseline"),
            ("--rate 10k,5k", "not for --rw randread"),
            ("--rw randrw --rate 10k,5k --rwmixread 70", "contradicts"),
            ("--rw read --random-distribution zipf:1.2", "not for --rw read"),
            ("--until 2% --runtime 3s", "shorter than the window"),
            ("--until 2% --runtime 3s --until-window 4s", "shorter than the window"),
            ("--iodepth 4 --sweep iodepth=1,2", "iodepth is given twice"),
            ("--queues 4 --sweep queues=1,2", "queues is given twice"),
            ("--bs 4K --sweep bs=4K,8K", "bs is given twice"),
            ("--rate 100 --sweep rate=100,200", "rate is given twice"),
            ("--sweep rate=100 --sweep rate=200", "rate is given twice"),
            ("--interval 0.001ms --runtime 2s", "a longer --interval"),
            ("--bs 4K:70,0:30", "at least one block"),
            ("--sweep bs=512,0", "at least one block"),
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
            "--fail-if p99>200us,iops<100k --fail-if errors>0",
            "--baseline x --fail-if-worse 5%",
            "--rw randrw --rate 10k,5k",
            "--random-distribution pareto:0.2",
            "--until 2% --runtime 3s --interval 500ms",
            "--until 2% --runtime 3s --until-window 3s",
        ] {
            assert_eq!(contradiction(line), "", "{line}");
        }
    }
}
