//! `nvmf bench`: load of a set shape, and what it costs.
//!
//! ```text
//!  arguments ─ sweep_points ──▶ measure ─┬─ worker ─ arrivals, command_generator   a thread each
//!                                        └─ counters ──▶ report (JSON) ──▶ text, html, compare
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
mod prefill;
mod progress;
mod report;
mod sweep_points;
mod text;
mod worker;

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use serde_json::{Value, json};

pub(crate) use self::arguments::Arguments;
use self::measure::Outcome;
use self::sweep_points::Point;
use crate::failure::Failure;
use crate::load::Load;
use crate::{Format, print_json, print_text};

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(files) = &arguments.compare {
        return compare::run(files, arguments.load.output_format);
    }
    if arguments.interval.is_zero() || arguments.runtime.is_zero() {
        return Err(Failure::usage("--runtime and --interval must be more than nothing"));
    }
    let mut reports = Vec::new();
    let mut lines = Vec::new();
    let mut began: Option<SystemTime> = None;
    for point in sweep_points::points(arguments) {
        let (report, outcome) = measure_point(arguments, &point)?;
        let shift = match began {
            None => {
                began = Some(outcome.began);
                Default::default()
            }
            Some(first) => outcome.began.duration_since(first).unwrap_or_default(),
        };
        lines.extend(outcome.lines.into_iter().map(|mut line| {
            line.start += shift;
            line
        }));
        if arguments.load.output_format == Format::Normal {
            print_text(&text::point(&report))?;
        }
        reports.push(report);
    }
    if let (Some(path), Some(began)) = (&arguments.hlog, began) {
        hlog::write(path, began, &lines)?;
    }
    write_reports(arguments, reports)
}

fn write_reports(arguments: &Arguments, mut reports: Vec<Value>) -> Result<(), Failure> {
    let report = match arguments.sweep.is_empty() {
        true => reports.remove(0),
        false => json!({ "points": reports }),
    };
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report).map_err(Failure::failed)?;
        write_file(path, &text)?;
    }
    if let Some(path) = &arguments.html {
        write_file(path, &html::page(&report))?;
    }
    match arguments.load.output_format {
        Format::Json => print_json(&report),
        Format::Normal => Ok(()),
    }
}

fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}

/// Connects to all targets, measures, and disconnects.
fn measure_point(arguments: &Arguments, point: &Point) -> Result<(Value, Outcome), Failure> {
    let mut shape = arguments.load.clone();
    shape.iodepth = point.iodepth;
    let also = arguments.also.iter().map(|target| shape.target.at(target));
    let mut loads = Vec::new();
    for target in [shape.target.clone()].into_iter().chain(also) {
        // A measurement across a loss of the connection measures the loss.
        let mut options = target.options_without_reconnect()?;
        options.io_queues = point.queues.unwrap_or(options.io_queues);
        let load = Load::connect(&shape, options, point.bs.largest())?;
        for bytes in point.bs.sizes() {
            load.check(bytes)?;
        }
        if measure::region(&load, arguments) < point.bs.largest() {
            return Err(Failure::usage("--size and the namespace must hold at least one --bs"));
        }
        loads.push(load);
    }
    if arguments.verify {
        for load in &mut loads {
            let region = measure::region(load, arguments);
            prefill::fill(load, region, arguments.load.seed)?;
        }
    }
    let outcome = measure::measure(&mut loads, arguments, point)?;
    let report = report::point(&loads, arguments, point, &outcome);
    loads.into_iter().for_each(Load::close);
    Ok((report, outcome))
}

/// All points of a report, which may be one.
fn points(report: &Value) -> &[Value] {
    match report["points"].as_array() {
        Some(points) => points,
        None => std::slice::from_ref(report),
    }
}
