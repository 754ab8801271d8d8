//! All points of a run: each is measured and reported before the next one begins, so that neither a
//! signal nor a failure takes the results of the points before it.

use std::{path::PathBuf, slice, sync::Arc, time::SystemTime};

use quanta::Instant;
use rdma_host::{Provider, SubsystemOptions};
use serde_json::json;

use super::{
    arguments::{Arguments, value_name},
    compare::Comparison,
    fail_conditions, fio,
    hlog::{self, IntervalHistogram},
    html,
    job_file::Job,
    prefill,
    rank_group::RankGroup,
    rank_position::{RankPosition, RankRegions},
    rank_results::{Measured, NumberedPoint},
    report::{FailedPoint, PointReport, Report},
    report_file,
    result_format::ResultFormat,
    sweep_points::Point,
    text,
};
use crate::{
    failure::Failure,
    load::{self, Load},
    output,
    output_file::OutputFile,
    overwrite::OverwriteConsent,
    shutdown::InterruptibleRuntime,
};

pub(super) struct Session<'a, P> {
    provider: &'a Arc<P>,
    /// Ranks of which this process is one; none for a process alone.
    group: Option<&'a RankGroup>,
    jobs: &'a [Job],
    /// Options of all jobs, such as files; those of the first job.
    arguments: &'a Arguments,
    files: Files,
    runtime: InterruptibleRuntime,
    /// Consent to overwrite namespaces, if the load does.
    consent: Option<OverwriteConsent>,
    report: Report,
    /// Reports of the ranks, by rank.
    of_ranks: Vec<Report>,
    /// Points of an earlier run to compare with.
    baseline: Option<Vec<PointReport>>,
    /// Latencies of all points, by the time since the first one began.
    histograms: Vec<IntervalHistogram>,
    began: Option<SystemTime>,
    /// First failure of a point.
    failure: Option<Failure>,
    /// State of standard output: false if the reader has closed the pipe.
    printed: Result<bool, Failure>,
    /// First failure of a file in the latest writing of all.
    written: Result<(), Failure>,
}

/// Files of one run.
struct Files {
    json: Option<OutputFile>,
    html: Option<OutputFile>,
    hlog: Option<OutputFile>,
    /// Reports of the ranks, by rank.
    ranks: Vec<OutputFile>,
}

impl Files {
    /// Opens the files, and those of `ranks` ranks.
    fn open(arguments: &Arguments, ranks: u32) -> Result<Self, Failure> {
        let open = |path: &Option<PathBuf>| path.as_deref().map(OutputFile::open).transpose();
        let of_rank = |prefix: &PathBuf, rank| {
            let mut path = prefix.as_os_str().to_owned();
            path.push(format!(".{rank}.json"));
            OutputFile::open(path.as_ref())
        };
        let prefix = arguments.rank_json.iter();
        let of_ranks = prefix.flat_map(|prefix| (0..ranks).map(move |rank| of_rank(prefix, rank)));
        Ok(Self {
            json: open(&arguments.json)?,
            html: open(&arguments.html)?,
            hlog: open(&arguments.hlog)?,
            ranks: of_ranks.collect::<Result<_, _>>()?,
        })
    }

    /// No files: those of a job are written by its first rank.
    const fn none() -> Self {
        Self { json: None, html: None, hlog: None, ranks: Vec::new() }
    }
}

impl<'a, P: Provider> Session<'a, P> {
    /// Checks the options, opens all files and catches signals; nothing is connected yet.
    pub(super) fn new(
        provider: &'a Arc<P>,
        jobs: &'a [Job],
        group: Option<&'a RankGroup>,
    ) -> Result<Self, Failure> {
        for job in jobs {
            let name = |failure: Failure| match &job.name {
                Some(name) => failure.context(name),
                None => failure,
            };
            let checked = job.arguments.check().and_then(|()| check_points(&job.arguments));
            checked.and_then(|()| check_ranks(&job.arguments, group)).map_err(name)?;
        }
        let arguments = &jobs[0].arguments;
        let reports = group.is_none_or(RankGroup::is_first);
        let baseline = arguments.baseline.as_deref().filter(|_| reports);
        let baseline = baseline.map(report_file::read).transpose()?.map(|report| report.points);
        let ranks = group.map_or(0, RankGroup::count);
        let overwrites = jobs.iter().any(|job| job.arguments.overwrites());
        let consent = overwrites.then(|| arguments.overwrite.consent("bench", true));
        Ok(Self {
            provider,
            group,
            consent: consent.transpose()?,
            jobs,
            arguments,
            files: if reports { Files::open(arguments, ranks)? } else { Files::none() },
            runtime: InterruptibleRuntime::new()?,
            report: Report::default(),
            of_ranks: vec![Report::default(); ranks as usize],
            baseline,
            histograms: Vec::new(),
            began: None,
            failure: None,
            printed: Ok(true),
            written: Ok(()),
        })
    }

    /// Measures all points. Fails as the first point did that could not be measured to its end, or
    /// as standard output or a file did, once all others are done.
    pub(super) fn run(mut self) -> Result<(), Failure> {
        let jobs = self.jobs;
        let points = jobs
            .iter()
            .flat_map(|job| job.arguments.points().into_iter().map(move |point| (job, point)));
        let points: Vec<_> = points.collect();
        let count = points.len();
        for (index, (job, point)) in points.iter().enumerate() {
            let mut loads = Vec::new();
            match self.measure_point(index, job, point, &mut loads) {
                Ok(measured) => self.add(measured),
                Err(failure) => self.note_failure(job, point, failure),
            }
            let interrupted = self.runtime.shutdown.get();
            self.report.ended_by = interrupted.map(|signal| signal.to_string());
            let last = index + 1 == count || interrupted.is_some();
            self.write_results(last);
            // A launcher that ends all ranks leaves a second for what matters more.
            loads.into_iter().for_each(Load::close);
            if let (Some(group), Some(signal)) = (self.group, interrupted) {
                group.leave(index + 1, &Failure::interrupted(signal));
            }
            let has_reader = self.arguments.writes_files() || matches!(self.printed, Ok(true));
            if last || !(has_reader || self.group.is_some()) {
                break;
            }
        }
        let is_told = self.group.map(|group| group.finish(Some(&self.runtime.shutdown)));
        match (self.group, is_told) {
            // The first rank has said what there is to say.
            (Some(group), Some(true)) if !group.is_first() => Ok(()),
            (Some(group), _) if !group.is_first() => {
                let silent = || match self.runtime.shutdown.get() {
                    Some(signal) => Failure::interrupted(signal),
                    None => Failure::failed("rank 0 does not answer, it may have ended"),
                };
                Err(self.failure.unwrap_or_else(silent))
            }
            _ => self.outcome(count),
        }
    }

    fn add(&mut self, measured: Measured) {
        let Measured { report, began, histograms, failure, of_ranks } = measured;
        let first = *self.began.get_or_insert(began);
        let shift = began.duration_since(first).unwrap_or_default();
        self.histograms.extend(histograms.into_iter().map(|mut interval| {
            interval.start += shift;
            interval
        }));
        for (rank, point) in of_ranks {
            if let Some(report) = self.of_ranks.get_mut(rank as usize) {
                report.points.push(point);
            }
        }
        let reports = self.group.is_none_or(RankGroup::is_first);
        let is_text = self.arguments.output_format == ResultFormat::Normal;
        if reports && is_text && matches!(self.printed, Ok(true)) {
            self.printed = output::try_print_text(&text::point(&report));
        }
        if reports && !is_text {
            for warning in &report.warnings {
                output::print_message(format_args!("nvmf: warning: {warning}"));
            }
        }
        if let Some(failure) = failure {
            self.note_failure_of(&text::title(&report), failure);
        }
        self.report.points.push(report);
    }

    /// Notes that a point could not be measured.
    fn note_failure(&mut self, job: &Job, point: &Point, failure: Failure) {
        let name = job.name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        let point = format!("{name}{} {point}", value_name(job.arguments.rw));
        self.report
            .failed_points
            .push(FailedPoint { point: point.clone(), error: failure.to_string() });
        self.note_failure_of(&point, failure);
    }

    fn note_failure_of(&mut self, point: &str, failure: Failure) {
        // That of a single point, and a signal, is told at the end of the program.
        let reports = self.group.is_none_or(RankGroup::is_first);
        if reports && self.has_several_points() && self.runtime.shutdown.get().is_none() {
            output::print_message(format_args!("nvmf: {point}: {failure}"));
        }
        self.failure.get_or_insert(failure);
    }

    /// Writes what was measured up to now: standard output first.
    fn write_results(&mut self, last: bool) {
        if self.report.points.is_empty() || self.group.is_some_and(|group| !group.is_first()) {
            return;
        }
        let mut json = self.report.to_json(self.has_several_points());
        let comparison = comparison(self.baseline.as_deref(), &self.report);
        if let Some(comparison) = &comparison {
            json["comparison"] = json!(comparison);
        }
        let printed = match (self.arguments.output_format, &comparison) {
            _ if !last => Ok(()),
            (ResultFormat::Json, _) => output::print_json(&json),
            (ResultFormat::Fio, _) => {
                output::print_json(&fio::to_json(&self.report.points.iter().collect::<Vec<_>>()))
            }
            (ResultFormat::Normal, Some(comparison)) if matches!(self.printed, Ok(true)) => {
                comparison.print(ResultFormat::Normal)
            }
            (ResultFormat::Normal, _) => Ok(()),
        };
        if let Err(failure) = printed {
            self.printed = Err(failure);
        }
        let sweep = self.has_several_points();
        let Files { json: json_file, html, hlog, ranks } = &mut self.files;
        let write = |file: &mut Option<OutputFile>, content: &dyn Fn() -> Vec<u8>| {
            file.as_mut().map_or(Ok(()), |file| file.write(content(), last))
        };
        let began = self.began.unwrap_or(SystemTime::UNIX_EPOCH);
        let written = [
            write(json_file, &|| format!("{json:#}\n").into_bytes()),
            write(html, &|| {
                html::page(slice::from_ref(&self.report), comparison.as_ref()).into_bytes()
            }),
            write(hlog, &|| hlog::to_bytes(began, &self.histograms)),
        ];
        let of_ranks = ranks.iter_mut().zip(&self.of_ranks);
        let of_ranks = of_ranks.filter(|(_, report)| !report.points.is_empty());
        let of_ranks = of_ranks.map(|(file, report)| {
            file.write(format!("{:#}\n", report.to_json(sweep)).into_bytes(), last)
        });
        self.written = written.into_iter().chain(of_ranks).collect();
    }

    fn outcome(mut self, count: usize) -> Result<(), Failure> {
        let Report { points, failed_points, .. } = &self.report;
        let all_measured = points.len() + failed_points.len() == count;
        let signal = self.runtime.shutdown.get();
        // A launcher that ends all ranks since one has failed does so by a signal.
        let is_of_rank = |point: &PointReport| {
            point.ranks.as_ref().is_some_and(|ranks| !ranks.failed.is_empty())
        };
        let signal = signal.filter(|_| !points.iter().any(is_of_rank));
        match (signal, self.failure.take()) {
            (Some(signal), failure) if failure.is_some() || !all_measured => {
                let interrupted = Failure::interrupted(signal);
                return Err(if points.is_empty() {
                    interrupted.context("nothing was measured")
                } else {
                    interrupted
                });
            }
            (_, Some(failure)) if count == 1 || points.is_empty() => return Err(failure),
            (_, Some(_)) => {
                let failed = self.report.failed_count();
                return Err(Failure::failed(format!(
                    "{failed} of {count} points could not be measured to the end"
                )));
            }
            (_, None) => {}
        }
        self.check_conditions()?;
        self.written?;
        self.printed.map(drop)
    }

    /// True if there can be several points: a sweep, or jobs of a file.
    fn has_several_points(&self) -> bool {
        self.jobs.iter().any(|job| job.name.is_some() || !job.arguments.sweep.is_empty())
    }

    fn check_conditions(&self) -> Result<(), Failure> {
        for job in self.jobs {
            let is_of_job = |point: &&PointReport| point.configuration.name == job.name;
            let points = self.report.points.iter().filter(is_of_job).cloned();
            fail_conditions::check(&job.arguments.fail_if, &points.collect::<Vec<_>>())?;
        }
        let comparison = comparison(self.baseline.as_deref(), &self.report);
        match (self.arguments.fail_if_worse, comparison) {
            (Some(limit), Some(comparison)) => fail_conditions::check_worse(&comparison, limit),
            _ => Ok(()),
        }
    }

    /// Connects to all targets and measures.
    fn measure_point(
        &mut self,
        index: usize,
        job: &Job,
        point: &Point,
        loads: &mut Vec<Load<P>>,
    ) -> Result<Measured, Failure> {
        let arguments = &job.arguments;
        let numbered = NumberedPoint { index, arguments, point, name: job.name.as_deref() };
        let connected = self.connect(arguments, point, loads);
        let shutdown = self.runtime.shutdown.clone();
        let measured = match self.group {
            None => Ok(connected.and_then(|()| {
                numbered.measure(loads, RankPosition::ALONE, || Ok(Instant::now()))
            })),
            Some(group) => numbered.measure_as_rank(group, loads, connected, &shutdown),
        };
        match self.group {
            Some(group) => numbered.gather(group, measured?, &shutdown),
            None => measured?,
        }
    }

    /// Connects to all targets, and fills their namespaces if data is to be compared.
    fn connect(
        &mut self,
        arguments: &Arguments,
        point: &Point,
        loads: &mut Vec<Load<P>>,
    ) -> Result<(), Failure> {
        let rank = self.group.map(|group| group.position(arguments.ranks()));
        let rank = rank.unwrap_or(RankPosition::ALONE);
        let mut load_arguments = arguments.load.clone();
        load_arguments.iodepth = point.iodepth;
        for mut options in targets(arguments)? {
            let connect = options.connect_mut();
            connect.io_queues = point.queues.unwrap_or(connect.io_queues);
            let (runtime, largest) = (&self.runtime, point.bs.largest());
            let load =
                Load::connect(self.provider, runtime, &load_arguments, options, Some(largest))?;
            loads.push(load);
            let load = loads.last_mut().expect("just pushed");
            point.bs.sizes().try_for_each(|bytes| load.check(bytes))?;
            arguments.check_region(load.namespace.bytes(), point, rank)?;
            if let Some(consent) = self.consent.as_mut().filter(|_| arguments.overwrites()) {
                consent.check_load(load)?;
            }
        }
        if arguments.verify {
            for load in loads {
                let region = arguments.region(load.namespace.bytes(), point, rank);
                prefill::fill(load, &region, arguments.load.seed)?;
            }
        }
        Ok(())
    }
}

/// Refuses what is wrong in a point whatever the targets have. It is told once, and not for each
/// point.
fn check_points(arguments: &Arguments) -> Result<(), Failure> {
    for mut options in targets(arguments)? {
        let connect = options.connect_mut();
        let io_queues = connect.io_queues;
        for point in arguments.points() {
            connect.io_queues = point.queues.unwrap_or(io_queues);
            let mut load = arguments.load.clone();
            load.iodepth = point.iodepth;
            load.check(connect)?;
            point.bs.sizes().try_for_each(|bytes| load::check_blocks("--bs", bytes))?;
        }
    }
    Ok(())
}

/// Refuses what several ranks cannot do, or a single one.
fn check_ranks(arguments: &Arguments, group: Option<&RankGroup>) -> Result<(), Failure> {
    let shares = arguments.ranks() == RankRegions::Shared;
    Err(Failure::usage(match group {
        None if arguments.rank_json.is_some() => {
            "--rank-json is for several ranks, started by srun --mpi=pmix or mpirun; --json has \
             the report of a single process"
        }
        Some(_) if arguments.verify && shares => {
            "--verify compares with what this rank wrote, and others write to the same blocks: \
             give --ranks disjoint"
        }
        Some(_) if arguments.load.capture.is_on() => {
            "--capture writes one file, and each rank would: capture a process that no launcher \
             started"
        }
        _ => return Ok(()),
    }))
}

/// Options of the connections to all targets.
fn targets(arguments: &Arguments) -> Result<Vec<SubsystemOptions>, Failure> {
    let first = &arguments.load.target;
    let also = arguments.also.iter().map(|target| first.with_other_target(target));
    // A measurement across a loss of the connection measures the loss.
    let targets = [first.clone()].into_iter().chain(also);
    targets.map(|target| target.measurement_options()).collect()
}

/// Comparison with the points of a baseline, if there is one.
fn comparison<'a>(
    baseline: Option<&'a [PointReport]>,
    report: &'a Report,
) -> Option<Comparison<'a>> {
    Some(Comparison::new(baseline?, &report.points))
}
