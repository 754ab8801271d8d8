//! All points of a run: each is measured and reported before the next one begins, so that neither a
//! signal nor a failure takes the results of the points before it.

use std::{path::PathBuf, time::SystemTime};

use super::{
    arguments::{Arguments, value_name},
    hlog::{self, IntervalHistogram},
    html, measure,
    output_file::OutputFile,
    point_report, prefill,
    recorder::Outcome,
    report::{FailedPoint, PointReport, Report},
    sweep_points::Point,
    text,
};
use crate::{
    Format, failure::Failure, load::Load, output, overwrite::OverwriteConsent,
    shutdown::InterruptibleRuntime,
};

pub(super) struct Session<'a> {
    arguments: &'a Arguments,
    files: Files,
    runtime: InterruptibleRuntime,
    /// Consent to overwrite namespaces, if the load does.
    consent: Option<OverwriteConsent>,
    report: Report,
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
}

impl Files {
    fn open(arguments: &Arguments) -> Result<Self, Failure> {
        let open = |path: &Option<PathBuf>| path.as_deref().map(OutputFile::open).transpose();
        Ok(Self {
            json: open(&arguments.json)?,
            html: open(&arguments.html)?,
            hlog: open(&arguments.hlog)?,
        })
    }
}

impl<'a> Session<'a> {
    /// Checks the options, opens all files and catches signals; nothing is connected yet.
    pub(super) fn new(arguments: &'a Arguments) -> Result<Self, Failure> {
        arguments.check()?;
        let overwrites = arguments.overwrites();
        let consent = overwrites.then(|| arguments.overwrite.consent("bench", true));
        Ok(Self {
            consent: consent.transpose()?,
            arguments,
            files: Files::open(arguments)?,
            runtime: InterruptibleRuntime::new()?,
            report: Report::default(),
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
        let points = self.arguments.points();
        let count = points.len();
        for (index, point) in points.iter().enumerate() {
            match self.measure_point(point) {
                Ok((report, outcome)) => self.add(report, outcome),
                Err(failure) => self.note_failure(point, failure),
            }
            let interrupted = self.runtime.shutdown.get();
            self.report.ended_by = interrupted.map(|signal| signal.to_string());
            let last = index + 1 == count || interrupted.is_some();
            self.write_results(last);
            let has_reader = self.arguments.writes_files() || matches!(self.printed, Ok(true));
            if last || !has_reader {
                break;
            }
        }
        self.outcome(count)
    }

    fn add(&mut self, report: PointReport, outcome: Outcome) {
        let first = *self.began.get_or_insert(outcome.began);
        let shift = outcome.began.duration_since(first).unwrap_or_default();
        self.histograms.extend(outcome.histograms.into_iter().map(|mut interval| {
            interval.start += shift;
            interval
        }));
        if self.arguments.load.output_format == Format::Normal && matches!(self.printed, Ok(true)) {
            self.printed = output::try_print_text(&text::point(&report));
        }
        if self.arguments.load.output_format == Format::Json {
            for warning in &report.warnings {
                output::print_message(format_args!("nvmf: warning: {warning}"));
            }
        }
        if let Some(failure) = outcome.failure {
            self.note_failure_of(&text::title(&report), failure);
        }
        self.report.points.push(report);
    }

    /// Notes that a point could not be measured.
    fn note_failure(&mut self, point: &Point, failure: Failure) {
        let point = format!("{} {point}", value_name(self.arguments.rw));
        self.report
            .failed_points
            .push(FailedPoint { point: point.clone(), error: failure.to_string() });
        self.note_failure_of(&point, failure);
    }

    fn note_failure_of(&mut self, point: &str, failure: Failure) {
        // That of a single point, and a signal, is told at the end of the program.
        if !self.arguments.sweep.is_empty() && self.runtime.shutdown.get().is_none() {
            output::print_message(format_args!("nvmf: {point}: {failure}"));
        }
        self.failure.get_or_insert(failure);
    }

    /// Writes what was measured up to now: standard output first.
    fn write_results(&mut self, last: bool) {
        if self.report.points.is_empty() {
            return;
        }
        let json = self.report.to_json(!self.arguments.sweep.is_empty());
        if last && self.arguments.load.output_format == Format::Json {
            self.printed = output::print_json(&json).map(|()| true);
        }
        let Files { json: json_file, html, hlog } = &mut self.files;
        let write = |file: &mut Option<OutputFile>, content: &dyn Fn() -> Vec<u8>| {
            file.as_mut().map_or(Ok(()), |file| file.write(content(), last))
        };
        let began = self.began.unwrap_or(SystemTime::UNIX_EPOCH);
        let written = [
            write(json_file, &|| format!("{json:#}\n").into_bytes()),
            write(html, &|| html::page(&self.report.points).into_bytes()),
            write(hlog, &|| hlog::to_bytes(began, &self.histograms)),
        ];
        self.written = written.into_iter().collect();
    }

    fn outcome(self, count: usize) -> Result<(), Failure> {
        let Report { points, failed_points, .. } = &self.report;
        let all_measured = points.len() + failed_points.len() == count;
        match (self.runtime.shutdown.get(), self.failure) {
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
        self.written?;
        self.printed.map(drop)
    }

    /// Connects to all targets, measures, and disconnects.
    fn measure_point(&mut self, point: &Point) -> Result<(PointReport, Outcome), Failure> {
        let mut loads = Vec::new();
        let connected = self.connect(point, &mut loads);
        let measured = connected.and_then(|()| {
            let outcome = measure::measure(&mut loads, self.arguments, point)?;
            Ok((point_report::new(&loads, self.arguments, point, &outcome), outcome))
        });
        loads.into_iter().for_each(Load::close);
        measured
    }

    /// Connects to all targets, and fills their namespaces if data is to be compared.
    fn connect(&mut self, point: &Point, loads: &mut Vec<Load>) -> Result<(), Failure> {
        let arguments = self.arguments;
        let mut load_arguments = arguments.load.clone();
        load_arguments.iodepth = point.iodepth;
        let first = &load_arguments.target;
        let also = arguments.also.iter().map(|target| first.with_target(target));
        for target in [first.clone()].into_iter().chain(also) {
            // A measurement across a loss of the connection measures the loss.
            let mut options = target.options_without_reconnect()?;
            options.io_queues = point.queues.unwrap_or(options.io_queues);
            let load = Load::connect(&self.runtime, &load_arguments, options, point.bs.largest())?;
            loads.push(load);
            let load = loads.last_mut().expect("just pushed");
            point.bs.sizes().try_for_each(|bytes| load.check(bytes))?;
            arguments.check_region(load.namespace.bytes(), point.bs.largest())?;
            if let Some(consent) = &mut self.consent {
                consent.check_load(load)?;
            }
        }
        if arguments.verify {
            for load in loads {
                let region_bytes = arguments.region_bytes(load.namespace.bytes());
                prefill::fill(load, region_bytes, arguments.load.seed)?;
            }
        }
        Ok(())
    }
}
