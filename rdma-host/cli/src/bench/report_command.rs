//! `nvmf report`: results of earlier runs in other forms.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::{
    csv, fail_conditions,
    fail_conditions::FailCondition,
    fio,
    html::{self, ChartFile},
    report::{PointReport, Report},
    report_file,
    result_format::ResultFormat,
    text,
};
use crate::{
    failure::Failure,
    output,
    output_file::{self, OutputFile},
    secret_text,
};

/// Show results that `nvmf bench` wrote as JSON, and write them in other forms.
#[derive(Args)]
pub(crate) struct ReportArguments {
    /// JSON reports, of this version or an older one.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Output format.
    #[arg(short, long, visible_alias = "format", value_name = "FORMAT", default_value = "normal")]
    output_format: ResultFormat,

    /// Write a report for a browser: one file, with nothing to load from elsewhere.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Write each chart as a file of its own: PREFIX-latency-by-percentile.svg and so on.
    #[arg(long, value_name = "PREFIX")]
    svg: Option<PathBuf>,

    /// Write a table: a line for each point and direction, times in nanoseconds.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,

    /// Write the logs that fio's plotters read: PREFIX_iops.N.log, PREFIX_bw.N.log and
    /// PREFIX_lat.N.log for point N.
    #[arg(long, value_name = "PREFIX")]
    fio_log: Option<PathBuf>,

    /// Fail (exit code 1) if a result is so, as in 'p99>200us' or 'iops<100k,errors>0'.
    #[arg(long, value_name = "CONDITION", value_delimiter = ',')]
    fail_if: Vec<FailCondition>,
}

/// Reports every file that can be read. Fails if another one can't, or a condition is met.
pub(crate) fn run(arguments: &ReportArguments) -> Result<(), Failure> {
    let written: Vec<_> = [&arguments.html, &arguments.csv].into_iter().flatten().collect();
    refuse_same(&arguments.files, &written)?;
    let count = arguments.files.len();
    let (reports, failures) = read_all(&arguments.files);
    let unread = failures.len();
    match failures.into_iter().next() {
        Some(failure) if count == 1 => return Err(failure),
        _ if reports.is_empty() => return Err(Failure::failed("no file could be reported")),
        _ => {}
    }
    let points: Vec<_> = reports.iter().flat_map(|report| &report.points).collect();
    let json = joined(&reports, &points).to_json(true);
    print(&points, &json, arguments.output_format)?;
    write_files(arguments, &reports, &points)?;
    let points: Vec<_> = points.into_iter().cloned().collect();
    fail_conditions::check(&arguments.fail_if, &points)?;
    if unread > 0 {
        return Err(Failure::failed(format!("{unread} of {count} files could not be reported")));
    }
    Ok(())
}

/// Refuses results that would replace a report that is read, or each other.
pub(super) fn refuse_same(
    read: &[impl AsRef<Path>],
    written: &[impl AsRef<Path>],
) -> Result<(), Failure> {
    let mut taken: Vec<&Path> = read.iter().map(AsRef::as_ref).collect();
    for file in written.iter().map(AsRef::as_ref) {
        if taken.iter().any(|other| output_file::is_same(file, other)) {
            let file = secret_text::shown_path(file);
            return Err(Failure::usage(format!(
                "{file} would be written over a report that is read, or another result; give each \
                 a file of its own"
            )));
        }
        taken.push(file);
    }
    Ok(())
}

/// Reports of the files that can be read, and the failures of the others; those of several files
/// are printed. Points of several files are named by their files.
fn read_all(files: &[PathBuf]) -> (Vec<Report>, Vec<Failure>) {
    let (mut reports, mut failures) = (Vec::new(), Vec::new());
    for file in files {
        match report_file::read(file) {
            Ok(mut report) => {
                if files.len() > 1 {
                    let name = name_among(file, files);
                    report.points.iter_mut().for_each(|point| name_by_file(point, &name));
                }
                reports.push(report);
            }
            Err(failure) => {
                if files.len() > 1 {
                    output::print_message(format_args!("nvmf: {failure}"));
                }
                failures.push(failure);
            }
        }
    }
    (reports, failures)
}

/// Name of a file without folder and suffix, or its path where several have that name.
fn name_among(file: &Path, files: &[PathBuf]) -> String {
    let is_alike = |other: &&PathBuf| other.file_stem() == file.file_stem();
    let name = match files.iter().filter(is_alike).count() {
        0 | 1 => file.file_stem().unwrap_or_default(),
        _ => file.as_os_str(),
    };
    name.to_string_lossy().into_owned()
}

fn name_by_file(point: &mut PointReport, file_name: &str) {
    let name = &mut point.configuration.name;
    *name = Some(match name.take() {
        Some(name) => format!("{file_name}/{name}"),
        None => file_name.to_owned(),
    });
}

/// All points as one report.
fn joined(reports: &[Report], points: &[&PointReport]) -> Report {
    Report {
        points: points.iter().map(|&point| point.clone()).collect(),
        failed_points: reports.iter().flat_map(|it| it.failed_points.clone()).collect(),
        ended_by: reports.iter().find_map(|report| report.ended_by.clone()),
    }
}

/// Prints points, of which `json` is the JSON.
pub(super) fn print(
    points: &[&PointReport],
    json: &Value,
    format: ResultFormat,
) -> Result<(), Failure> {
    match format {
        ResultFormat::Normal => {
            let texts: Vec<_> = points.iter().map(|point| text::point(point)).collect();
            output::print_text(&texts.concat())
        }
        ResultFormat::Json => output::print_json(json),
        ResultFormat::Fio => output::print_json(&fio::to_json(points)),
    }
}

/// Writes every file that can be written. Fails with the first of the others, and prints the rest.
fn write_files(
    arguments: &ReportArguments,
    reports: &[Report],
    points: &[&PointReport],
) -> Result<(), Failure> {
    let mut failures = Vec::new();
    let mut write = |path: &Path, content: Vec<u8>| {
        let written = OutputFile::open(path).and_then(|mut file| file.write(content, true));
        failures.extend(written.err());
    };
    if let Some(path) = &arguments.html {
        write(path, html::page(reports, None).into_bytes());
    }
    if let Some(prefix) = &arguments.svg {
        for ChartFile { name, svg } in html::charts(reports) {
            write(&with_suffix(prefix, &format!("-{name}.svg")), svg.into_bytes());
        }
    }
    if let Some(path) = &arguments.csv {
        write(path, csv::to_bytes(points)?);
    }
    if let Some(prefix) = &arguments.fio_log {
        for (index, point) in points.iter().enumerate() {
            for (name, log) in fio::logs(point) {
                let path = with_suffix(prefix, &format!("_{name}.{}.log", index + 1));
                write(&path, log.into_bytes());
            }
        }
    }
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else { return Ok(()) };
    failures.for_each(|failure| output::print_message(format_args!("nvmf: {failure}")));
    Err(first)
}

fn with_suffix(prefix: &Path, suffix: &str) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

#[cfg(test)]
mod tests {
    use std::slice;

    use serde_json::json;

    use super::{super::compare::Comparison, *};

    #[test]
    fn points_of_files_with_one_name_are_told_apart() {
        let files = ["a/run.json", "b/run.json", "other.json"].map(PathBuf::from);
        let names = files.each_ref().map(|file| name_among(file, &files));
        assert_eq!(names, ["a/run.json", "b/run.json", "other"]);
    }

    /// Replaces number `index` of a report, counted through; returns false if there are fewer.
    fn replace(value: &mut Value, index: &mut usize, with: &Value) -> bool {
        match value {
            Value::Number(_) if *index == 0 => {
                *value = with.clone();
                true
            }
            Value::Number(_) => {
                *index -= 1;
                false
            }
            Value::Array(values) => values.iter_mut().any(|value| replace(value, index, with)),
            Value::Object(fields) => fields.values_mut().any(|value| replace(value, index, with)),
            _ => false,
        }
    }

    /// No number of a report, however odd, makes a form of it panic. Pages take long: each place of
    /// a number is on one with one of the odd ones.
    #[test]
    fn odd_numbers_are_reported_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("odd.json");
        let sample: Value = serde_json::from_str(include_str!("report-sample.json")).unwrap();
        let mut reported = 0;
        let odds = [json!(0), json!(u64::MAX), json!(-1), json!(1e308), json!(-0.5)];
        for (number, odd) in odds.iter().enumerate() {
            for index in 0.. {
                let mut damaged = sample.clone();
                if !replace(&mut damaged, &mut index.clone(), odd) {
                    break;
                }
                std::fs::write(&path, damaged.to_string()).unwrap();
                let Ok(report) = report_file::read(&path) else { continue };
                let points: Vec<_> = report.points.iter().collect();
                let _ = (fio::to_json(&points), csv::to_bytes(&points).unwrap());
                for point in points {
                    let _ = (text::point(point), fio::logs(point));
                }
                let compared = Comparison::new(&report.points, &report.points);
                let _ = compared.to_text();
                if (index + number) % odds.len() == 0 {
                    let _ = html::comparison(&compared);
                    let _ = html::page(slice::from_ref(&report), Some(&compared));
                }
                reported += 1;
            }
        }
        assert!(reported > 500, "{reported}");
    }
}
