//! Results as a table of comma-separated values (RFC 4180): a line for each point and direction,
//! with times in nanoseconds.

use super::report::{Configuration, PointReport, Totals};
use crate::{failure::Failure, output};

/// Columns before the latencies.
const COLUMNS: [&str; 22] = [
    "name",
    "began",
    "nqn",
    "nsid",
    "rw",
    "read_percent",
    "bs",
    "iodepth",
    "queues",
    "threads",
    "targets",
    "rate",
    "wait",
    "memory_mode",
    "seconds",
    "operation",
    "completed",
    "errors",
    "retried",
    "missed",
    "iops",
    "bandwidth_bytes_per_s",
];

pub(super) fn to_bytes(points: &[&PointReport]) -> Result<Vec<u8>, Failure> {
    let mut table = csv::Writer::from_writer(Vec::new());
    let latencies = Totals::default().latency_ns.columns();
    let latencies = latencies.map(|(name, _)| format!("{}_ns", name.replace('.', "_")));
    let header = COLUMNS.map(str::to_owned).into_iter().chain(latencies);
    table.write_record(header).map_err(Failure::failed)?;
    for point in points {
        let operations = point.operations.completed().map(|(name, it)| (name, &it.totals));
        for (name, totals) in [("all", &point.totals)].into_iter().chain(operations) {
            let latencies = totals.latency_ns.columns().map(|(_, nanoseconds)| shown(nanoseconds));
            let line = line(point, name, totals).into_iter().chain(latencies);
            table.write_record(line).map_err(Failure::failed)?;
        }
    }
    let text = String::from_utf8(table.into_inner().map_err(Failure::failed)?);
    let text = text.expect("it was made of text");
    Ok(output::printable(&text, &['\n']).into_owned().into_bytes())
}

fn line(point: &PointReport, operation: &str, totals: &Totals) -> [String; COLUMNS.len()] {
    let Configuration { name, began, nqn, nsid, rw, wait, .. } = &point.configuration;
    let of = &point.configuration;
    [
        name.clone().unwrap_or_default(),
        began.clone(),
        nqn.clone(),
        nsid.to_string(),
        rw.clone(),
        of.read_percent.to_string(),
        of.bs_in_words.clone(),
        of.iodepth.to_string(),
        of.queues.to_string(),
        of.threads.to_string(),
        of.targets.to_string(),
        of.rate.map(|rate| rate.to_string()).unwrap_or_default(),
        wait.clone(),
        of.memory_mode.clone(),
        point.seconds.to_string(),
        operation.to_owned(),
        totals.completed.to_string(),
        totals.errors.to_string(),
        totals.retried.map(|retried| retried.to_string()).unwrap_or_default(),
        point.missed.to_string(),
        totals.iops.to_string(),
        totals.bandwidth_bytes_per_s.to_string(),
    ]
}

fn shown(value: Option<f64>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_value_for_each_column() {
        let mut point = PointReport::default();
        point.configuration.name = Some("a, \"b\"".to_owned());
        point.configuration.nqn = "\u{1b}[2J".to_owned();
        point.operations.write.totals.completed = 7;
        point.operations.write.totals.latency_ns.p99_9 = Some(1234);
        let bytes = to_bytes(&[&point]).unwrap();
        assert!(!bytes.contains(&0x1b), "control characters are shown by their numbers");
        let mut table = csv::Reader::from_reader(bytes.as_slice());
        let column = |table: &csv::StringRecord, name: &str, header: &csv::StringRecord| {
            let index = header.iter().position(|column| column == name).expect("a column");
            table[index].to_owned()
        };
        let header = table.headers().unwrap().clone();
        let lines: Vec<_> = table.records().map(Result::unwrap).collect();
        let found = lines.iter().map(|line| {
            ["name", "operation", "completed", "p99_9_ns"].map(|name| column(line, name, &header))
        });
        assert_eq!(
            found.collect::<Vec<_>>(),
            [["a, \"b\"", "all", "0", ""], ["a, \"b\"", "write", "7", "1234"]]
        );
    }
}
