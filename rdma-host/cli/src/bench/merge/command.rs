//! `nvmf bench --merge`: reports of separate runs, one of each host, as one report.

use std::{
    path::{Path, PathBuf},
    slice,
    time::{Duration, SystemTime},
};

use super::{
    super::{
        arguments::Arguments,
        fail_conditions, html,
        report::{PointReport, Report},
        report_command, report_file,
    },
    RankPoint, Start,
};
use crate::{
    failure::Failure,
    output_file::{self, OutputFile},
    secret_text,
};

/// Report of a file.
struct MergedFile {
    name: String,
    report: Report,
}

/// Merges the files, and writes what the options ask for. Fails if a rank has failed, or a
/// condition is met.
pub(crate) fn run(arguments: &Arguments, paths: &[PathBuf]) -> Result<(), Failure> {
    let written: Vec<_> = [&arguments.json, &arguments.html].into_iter().flatten().collect();
    report_command::refuse_same(paths, &written)?;
    let report = merge_files(paths)?;
    let [json, page] = [&arguments.json, &arguments.html]
        .map(|path| path.as_deref().map(OutputFile::open).transpose());
    let (json, page) = (json?, page?);
    let points: Vec<_> = report.points.iter().collect();
    let value = report.to_json(points.len() > 1);
    report_command::print(&points, &value, arguments.output_format)?;
    if let Some(mut json) = json {
        json.write(format!("{value:#}\n").into_bytes(), true)?;
    }
    if let Some(mut page) = page {
        page.write(html::page(slice::from_ref(&report), None).into_bytes(), true)?;
    }
    check(&report)?;
    fail_conditions::check(&arguments.fail_if, &report.points)
}

/// Reads and merges reports of separate runs of one job.
pub(super) fn merge_files(paths: &[PathBuf]) -> Result<Report, Failure> {
    refuse_twice(paths)?;
    let files = paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    refuse_copies(&files)?;
    let count = files.iter().map(|file| file.report.points.len()).max().unwrap_or_default();
    let mut merged = Report::default();
    for index in 0..count {
        let mut ranks = Vec::new();
        for (number, file) in files.iter().enumerate() {
            let point = file.report.points.get(index).ok_or_else(|| fewer(file, &files, count))?;
            ranks.push(rank(number, file, point)?);
        }
        let start = place_in_time(&mut ranks)?;
        merged.points.push(super::merge(&ranks, Vec::new(), start).map_err(Failure::usage)?);
    }
    merged.ended_by = merged.points.iter().find_map(|point| point.ended_by.clone());
    Ok(merged)
}

/// Failure if a rank of a point has failed, by its name.
pub(crate) fn check(report: &Report) -> Result<(), Failure> {
    let ranks = report.points.iter().filter_map(|point| point.ranks.as_ref());
    match ranks.filter_map(|ranks| ranks.failure()).next() {
        Some(failure) => Err(Failure::failed(failure)),
        None => Ok(()),
    }
}

fn refuse_twice(paths: &[PathBuf]) -> Result<(), Failure> {
    if paths.len() < 2 {
        return Err(Failure::usage(
            "--merge makes one report of several: give the reports of all hosts, two at least",
        ));
    }
    for (index, path) in paths.iter().enumerate() {
        if paths[..index].iter().any(|other| output_file::is_same(other, path)) {
            let path = secret_text::shown_path(path);
            return Err(Failure::usage(format!("{path} is given twice; its commands count once")));
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<MergedFile, Failure> {
    let report = report_file::read(path)?;
    let name = secret_text::shown_path(path).to_string();
    if report.points.iter().any(|point| point.ranks.is_some()) {
        return Err(Failure::usage(format!(
            "{name} is a merged report; give those of the single runs instead"
        )));
    }
    Ok(MergedFile { name, report })
}

/// Refuses copies of one report under different names.
fn refuse_copies(files: &[MergedFile]) -> Result<(), Failure> {
    for (index, file) in files.iter().enumerate() {
        let is_copy = |other: &&MergedFile| other.report.points == file.report.points;
        if let Some(other) = files[..index].iter().find(is_copy) {
            return Err(Failure::usage(format!(
                "{} and {} are the same report; its commands count once",
                other.name, file.name
            )));
        }
    }
    Ok(())
}

/// Failure of a file that lacks points.
fn fewer(file: &MergedFile, files: &[MergedFile], count: usize) -> Failure {
    let Report { points, failed_points, .. } = &file.report;
    let other = files.iter().find(|other| other.report.points.len() == count);
    let other = other.map(|other| other.name.as_str()).unwrap_or_default();
    let why = match failed_points.first() {
        Some(failed) => format!(", since {} failed: {}", failed.point, failed.error),
        None => String::new(),
    };
    Failure::usage(format!(
        "{} has {} of the {count} points of {other}{why}: only reports of the same load can be \
         merged",
        file.name,
        points.len()
    ))
}

fn rank(number: usize, file: &MergedFile, point: &PointReport) -> Result<RankPoint, Failure> {
    let began = humantime::parse_rfc3339(&point.configuration.began).ok();
    let began = began.and_then(|began| began.duration_since(SystemTime::UNIX_EPOCH).ok());
    let begin = began.as_ref().map(Duration::as_secs_f64).ok_or_else(|| {
        Failure::usage(format!("{} does not say when its measurement began", file.name))
    })?;
    let rank = u32::try_from(number).map_err(Failure::usage)?;
    Ok(RankPoint { rank, file: Some(file.name.clone()), begin, point: point.clone() })
}

/// Sets the begin of each run to the time since the first one began.
fn place_in_time(ranks: &mut [RankPoint]) -> Result<Start, Failure> {
    let first = ranks.iter().map(|rank| rank.begin).reduce(f64::min);
    let first = first.ok_or_else(|| Failure::usage("no reports"))?;
    ranks.iter_mut().for_each(|rank| rank.begin -= first);
    let spread_s = ranks.iter().map(|rank| rank.begin).fold(0.0, f64::max);
    Ok(Start { together: false, spread_s })
}
