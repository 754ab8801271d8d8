//! Reports as JSON files, of this version and of older ones.

use std::{fs::File, path::Path};

use serde::Deserialize;

use super::{
    report::{FailedPoint, PointReport, Report, SCHEMA},
    schema_1,
};
use crate::{failure::Failure, secret_text, text_file};

/// Most bytes of a report that is read.
const BYTES_MAX: usize = 64 << 20;

/// Reads a JSON report.
pub(super) fn read(path: &Path) -> Result<Report, Failure> {
    /// One point, or the points of a sweep.
    #[derive(Deserialize)]
    struct ReportFile {
        schema: Option<u32>,
        points: Option<Vec<PointReport>>,
        #[serde(default)]
        failed_points: Vec<FailedPoint>,
        #[serde(flatten)]
        point: PointReport,
    }
    let wrong =
        |reason: String| Failure::usage(format!("{}: {reason}", secret_text::shown_path(path)));
    let text = File::open(path).and_then(|file| text_file::read(file, BYTES_MAX));
    let text = text.map_err(|error| wrong(error.to_string()))?;
    let file: ReportFile =
        serde_json::from_str(&text).map_err(|error| wrong(text_file::json_reason(&error)))?;
    let ReportFile { schema, points, failed_points, point } = file;
    if let Some(schema) = schema.filter(|&schema| schema > SCHEMA) {
        return Err(wrong(format!(
            "this report has schema {schema}, and this version of nvmf knows those up to {SCHEMA}; \
             use a newer one"
        )));
    }
    let ended_by = points.is_some().then(|| point.ended_by.clone()).flatten();
    // Every report names the target; other JSON has nothing to say here.
    let mut points = points.unwrap_or_else(|| vec![point]);
    if points.is_empty() || points.iter().any(|point| point.configuration.rw.is_empty()) {
        return Err(wrong("this is no report of nvmf bench".to_owned()));
    }
    if schema.is_none() {
        points.iter_mut().for_each(schema_1::remove_unsupported);
    }
    Ok(Report { points, failed_points, ended_by })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::report::BlockSize, *};

    #[test]
    fn reports_with_fewer_fields_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        let text = r#"{ "iops": 3, "configuration": { "rw": "read", "bs": "4096:1,8192:1" } }"#;
        fs::write(&path, text).unwrap();
        let points = read(&path).unwrap().points;
        assert_eq!(points[0].totals.iops, 3.0);
        assert_eq!(points[0].configuration.bs, BlockSize::Weighted("4096:1,8192:1".to_owned()));
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        for (text, words) in [
            ("{", "EOF"),
            ("{}", "no report of nvmf bench"),
            (r#"{ "points": [] }"#, "no report of nvmf bench"),
            (r#"{ "jobs": [], "fio version": "fio-3.33" }"#, "no report of nvmf bench"),
            (r#"{ "schema": 3, "points": [] }"#, "has schema 3"),
            (r#"{ "points": 7 }"#, "another type"),
        ] {
            fs::write(&path, text).unwrap();
            let failure = read(&path).unwrap_err();
            assert!(failure.to_string().contains(words), "{text}: {failure}");
            assert_eq!(failure.exit_code(), 2);
        }
    }
}
