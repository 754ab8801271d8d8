//! Reports of schema 1, which version 0.1.0 wrote: they have percentiles for which there are too
//! few samples, and zeros where nothing completed. Since schema 2 these are null.

use super::{
    latency::{Distribution, is_supported},
    report::{Interval, OperationTotals, PointReport, Totals},
};

/// Removes values that the samples do not support.
pub(super) fn remove_unsupported(point: &mut PointReport) {
    let targets = point.targets.iter_mut().map(|target| &mut target.totals);
    [&mut point.totals].into_iter().chain(targets).for_each(of_totals);
    of_operation(&mut point.operations.read);
    of_operation(&mut point.operations.write);
    point.series.iter_mut().for_each(of_interval);
}

fn of_totals(totals: &mut Totals) {
    totals.latency_ns.remove_unsupported(totals.completed);
}

fn of_operation(operation: &mut OperationTotals) {
    of_totals(&mut operation.totals);
    let samples = operation.totals.completed;
    of_distribution(&mut operation.distribution, samples);
    if let Some(latency) = &mut operation.service_latency_ns {
        latency.remove_unsupported(samples);
    }
    if let Some(distribution) = &mut operation.service_distribution {
        of_distribution(distribution, samples);
    }
}

fn of_distribution(distribution: &mut Distribution, samples: u64) {
    distribution.retain(|&(percentile, _)| is_supported(samples, percentile / 100.0));
}

fn of_interval(interval: &mut Interval) {
    let samples = interval.completed;
    if samples == 0 {
        (interval.mean_ns, interval.max_ns) = (None, None);
    }
    interval.p50_ns = interval.p50_ns.filter(|_| is_supported(samples, 0.5));
    interval.p99_ns = interval.p99_ns.filter(|_| is_supported(samples, 0.99));
}

#[cfg(test)]
mod tests {
    use std::{path::Path, slice};

    use super::super::{
        csv,
        html::{self, ChartFile},
        report::Report,
        report_file, text,
    };

    fn older() -> Report {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bench/report-sample.json");
        report_file::read(Path::new(path)).unwrap()
    }

    /// 3,999 commands support no percentile above the 99th.
    #[test]
    fn an_older_report_has_no_percentile_beyond_its_samples() {
        let report = older();
        let point = &report.points[0];
        let latency = &point.totals.latency_ns;
        assert_eq!((point.totals.completed, latency.p99), (3999, Some(83_427_327)));
        assert_eq!((latency.p99_9, latency.p99_99, latency.p99_999), (None, None, None));
        assert_eq!(latency.max, Some(98_369_535));
        // 2,798 reads, of which the service latencies have the same number.
        let read = &point.operations.read;
        assert_eq!(read.service_latency_ns.as_ref().unwrap().p99_9, None);
        assert!(read.distribution.iter().all(|(percentile, _)| *percentile < 99.7));
        assert_eq!((point.series[0].completed, point.series[0].p99_ns.is_some()), (1002, true));

        let mut nothing = report.points[0].clone();
        nothing.totals.completed = 0;
        nothing.series[0].completed = 0;
        super::remove_unsupported(&mut nothing);
        assert_eq!(nothing.totals.latency_ns, Default::default());
        let first = &nothing.series[0];
        assert_eq!((first.mean_ns, first.p50_ns, first.max_ns), (None, None, None));
    }

    /// Values that version 0.1.0 did not measure are left out or told as not known, in each form.
    #[test]
    fn what_an_older_report_does_not_know_is_no_number() {
        let report = older();
        let text: String = report.points.iter().map(text::point).collect();
        assert!(text.contains("submit with the doorbell's call 244.5, wire"), "{text}");
        assert!(!text.contains("in the doorbell's call") && !text.contains("retried"), "{text}");

        let page = html::page(slice::from_ref(&report), None);
        for words in ["commands sent again", "steal", "involuntary", "doorbell 0"] {
            assert!(!page.contains(words), "{words}");
        }
        assert!(page.contains("<th>doorbell</th>") && page.contains("<td>–</td><td>–</td>"));
        let charts = html::charts(slice::from_ref(&report));
        let stages = |it: &&ChartFile| it.name.ends_with("stages");
        let stages = charts.iter().find(stages).expect("a chart of the stages");
        assert!(stages.svg.contains("doorbell not known"), "{}", stages.svg);

        let json = report.to_json(true);
        let point = &json["points"][0];
        for unknown in [
            &point["retried"],
            &point["disturbance"],
            &point["mean_ns"]["doorbell"],
            &point["operations"]["read"]["retried"],
            &point["series"][0]["involuntary_switches"],
            &point["series"][0]["starved_s"],
            &point["series"][0]["steal_share"],
            &point["series"][0]["other_programs_share"],
        ] {
            assert!(unknown.is_null(), "{unknown}");
        }
        let table = csv::to_bytes(&report.points.iter().collect::<Vec<_>>()).unwrap();
        let mut table = ::csv::Reader::from_reader(table.as_slice());
        let column = table.headers().unwrap().iter().position(|name| name == "retried").unwrap();
        assert!(table.records().all(|line| line.unwrap()[column].is_empty()));
    }
}
