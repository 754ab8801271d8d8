//! `nvmf bench`: latency and cost of a given load.
//!
//! ```text
//!  arguments ─ sweep_points ──▶ measure ──▶ worker ─ arrivals, command_generator   a thread each
//!                                             ▼ counters
//!               text, html, compare ◀── report ◀── recorder
//! ```

mod arguments;
mod arrivals;
mod block_sizes;
mod command_generator;
mod compare;
mod counters;
mod hlog;
mod html;
mod measure;
mod point_report;
mod prefill;
mod progress;
mod recorder;
mod report;
mod sweep_points;
mod text;
mod worker;

use std::{fs, path::Path, time::SystemTime};

use serde_json::json;

pub(crate) use self::arguments::Arguments;
use self::{recorder::Outcome, report::PointReport, sweep_points::Point};
use crate::{Format, failure::Failure, load::Load, output, overwrite::OverwriteConsent};

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(files) = &arguments.compare {
        return compare::run(files, arguments.load.output_format);
    }
    if arguments.interval.is_zero() || arguments.runtime.is_zero() {
        return Err(Failure::usage("--runtime and --interval must be more than nothing"));
    }
    let overwrites = arguments.overwrites();
    let mut consent = overwrites.then(|| arguments.overwrite.consent("bench", true)).transpose()?;
    let mut reports = Vec::new();
    let mut histograms = Vec::new();
    let mut began: Option<SystemTime> = None;
    let mut printed = Ok(true);
    for point in arguments.points() {
        let (report, outcome) = measure_point(arguments, &point, consent.as_mut())?;
        let first = *began.get_or_insert(outcome.began);
        let shift = outcome.began.duration_since(first).unwrap_or_default();
        histograms.extend(outcome.histograms.into_iter().map(|mut interval| {
            interval.start += shift;
            interval
        }));
        if arguments.load.output_format == Format::Normal && matches!(printed, Ok(true)) {
            printed = output::try_print(&text::point(&report));
        }
        reports.push(report);
        if !matches!(printed, Ok(true)) && !arguments.writes_files() {
            break;
        }
    }
    if let (Some(path), Some(began)) = (&arguments.hlog, began) {
        hlog::write(path, began, &histograms)?;
    }
    write_reports(arguments, &reports)?;
    printed.map(drop)
}

fn write_reports(arguments: &Arguments, reports: &[PointReport]) -> Result<(), Failure> {
    let json =
        if arguments.sweep.is_empty() { json!(reports[0]) } else { json!({ "points": reports }) };
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&json).map_err(Failure::failed)?;
        write_file(path, &text)?;
    }
    if let Some(path) = &arguments.html {
        write_file(path, &html::page(reports))?;
    }
    match arguments.load.output_format {
        Format::Json => output::print_json(&json),
        Format::Normal => Ok(()),
    }
}

fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}

/// Connects to all targets, measures, and disconnects.
fn measure_point(
    arguments: &Arguments,
    point: &Point,
    mut consent: Option<&mut OverwriteConsent>,
) -> Result<(PointReport, Outcome), Failure> {
    let mut load_arguments = arguments.load.clone();
    load_arguments.iodepth = point.iodepth;
    let first = load_arguments.target.clone();
    let also = arguments.also.iter().map(|target| first.with_target(target));
    let mut loads = Vec::new();
    for target in [first.clone()].into_iter().chain(also) {
        // A measurement across a loss of the connection measures the loss.
        let mut options = target.options_without_reconnect()?;
        options.io_queues = point.queues.unwrap_or(options.io_queues);
        let mut load = Load::connect(&load_arguments, options, point.bs.largest())?;
        for bytes in point.bs.sizes() {
            load.check(bytes)?;
        }
        if arguments.region_bytes(load.namespace.bytes()) < point.bs.largest() {
            return Err(Failure::usage("--size and the namespace must hold at least one --bs"));
        }
        if let Some(consent) = &mut consent {
            consent.check_load(&mut load)?;
        }
        loads.push(load);
    }
    if arguments.verify {
        for load in &mut loads {
            let region_bytes = arguments.region_bytes(load.namespace.bytes());
            prefill::fill(load, region_bytes, arguments.load.seed)?;
        }
    }
    let outcome = measure::measure(&mut loads, arguments, point)?;
    let report = point_report::new(&loads, arguments, point, &outcome);
    loads.into_iter().for_each(Load::close);
    Ok((report, outcome))
}
