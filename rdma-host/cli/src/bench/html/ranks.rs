//! Ranks of a job: a chart by host, and a table.

use askama::{Template, filters::HtmlSafe};

use super::{
    super::{
        rank_totals::{HostTotals, RankTotals, Ranks},
        report::Totals,
    },
    key::{Key, KeyShape},
    number::{Unit, group_digits, micros},
    picture::{Figure, Frame, Picture, Size, Svg, tenths},
    text::{fit, width},
};
use crate::size;

/// Section about the ranks.
#[derive(Template)]
#[template(path = "ranks.html")]
pub(super) struct RankView {
    sentence: String,
    figure: Figure,
    rows: Vec<RankRow>,
}

/// Row of the table.
struct RankRow {
    name: String,
    /// Host and device.
    place: String,
    /// Columns with their values.
    cells: [(&'static str, String); 6],
}

impl HtmlSafe for RankView {}

/// Commands a second of each host, as bars.
pub(super) struct HostBars {
    hosts: Vec<HostTotals>,
}

#[derive(Template)]
#[template(path = "hosts.svg")]
struct Drawing {
    frame: Frame,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    value: String,
    title: String,
    y: f64,
    width: f64,
}

/// Height of a bar with the text above it.
const ROW: f64 = 36.0;
/// Size of the text.
const TEXT: f64 = 12.0;

impl RankView {
    pub(super) fn new(ranks: &Ranks) -> Self {
        let [count, hosts] = [(ranks.count, "rank"), (ranks.by_host.len(), "host")]
            .map(|(count, name)| size::format_count(count as u64, name));
        let mut sentence = format!("{count} on {hosts}, {}.", ranks.describe());
        if let Some([slowest, fastest]) = ranks.slowest_and_fastest() {
            sentence += &format!(
                " Slowest host {}, {} IOPS; fastest {}, {} IOPS.",
                slowest.host,
                group_digits(slowest.totals.iops),
                fastest.host,
                group_digits(fastest.totals.iops),
            );
        }
        if !ranks.differing_settings.is_empty() {
            let settings = ranks.differing_settings.join(", ");
            sentence += &format!(" They differ in: {settings}; below are those of the first.");
        }
        let row = |rank: &RankTotals| RankRow {
            name: rank.name(),
            place: format!("{}, {}", rank.host, rank.device),
            cells: cells(&rank.totals),
        };
        Self {
            sentence,
            figure: HostBars::new(ranks).figure(),
            rows: ranks.by_rank.iter().map(row).collect(),
        }
    }
}

fn cells(totals: &Totals) -> [(&'static str, String); 6] {
    let latency = &totals.latency_ns;
    let time = |nanoseconds: Option<u64>| micros(nanoseconds.map(|it| it as f64));
    [
        ("IOPS", group_digits(totals.iops)),
        ("MiB/s", format!("{:.1}", totals.bandwidth_bytes_per_s / f64::from(1 << 20))),
        ("p50 µs", time(latency.p50)),
        ("p99 µs", time(latency.p99)),
        ("p99.9 µs", time(latency.p99_9)),
        ("errors", group_digits(totals.errors as f64)),
    ]
}

impl HostBars {
    pub(super) fn new(ranks: &Ranks) -> Self {
        Self { hosts: ranks.by_host.clone() }
    }

    fn rows(&self, top: f64, across: f64) -> Vec<Row> {
        let iops = |host: &HostTotals| Some(host.totals.iops).filter(|iops| iops.is_finite());
        let most = self.hosts.iter().filter_map(iops).fold(0.0, f64::max).max(1e-9);
        let row = |(index, host): (usize, &HostTotals)| {
            let percentile = host.totals.latency_ns.p99;
            let p99 = percentile.map(|ns| format!(", p99 {}", Unit::Time.short(ns as f64)));
            let value =
                format!("{} IOPS{}", group_digits(host.totals.iops), p99.unwrap_or_default());
            let room = across - width(&value, TEXT) - TEXT;
            let ranks = size::format_count(host.ranks as u64, "rank");
            Row {
                name: fit(&host.host, room, TEXT),
                title: format!("{}: {value}; {ranks}", host.host),
                value,
                y: tenths(top + ROW * index as f64 + 14.0),
                width: tenths(across * iops(host).unwrap_or(0.0).max(0.0) / most),
            }
        };
        self.hosts.iter().enumerate().map(row).collect()
    }
}

impl Picture for HostBars {
    fn name(&self) -> &'static str {
        "iops-by-host"
    }

    fn title(&self) -> &'static str {
        "IOPS by host"
    }

    fn keys(&self) -> Vec<Key> {
        Vec::new()
    }

    fn draw(&self, frame: Frame, size: &Size) -> Svg {
        let rows = self.rows(frame.top, size.width);
        let height = frame.top + ROW * rows.len() as f64 + 4.0;
        Svg::new(&Drawing { frame: Frame { height, ..frame }, rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_in_proportion_and_text_fits() {
        let host = |name: &str, iops: f64| HostTotals {
            totals: Totals { iops, ..Totals::default() },
            host: name.to_owned(),
            ranks: 2,
        };
        let long = "h".repeat(90);
        let hosts = vec![host("a", 50.0), host(&long, 200.0), host("c", f64::NAN)];
        let rows = HostBars { hosts }.rows(36.0, 360.0);
        let widths: Vec<_> = rows.iter().map(|row| row.width).collect();
        assert_eq!(widths, [90.0, 360.0, 0.0]);
        assert_eq!(rows[0].title, "a: 50 IOPS; 2 ranks");
        let across = width(&rows[1].name, TEXT) + width(&rows[1].value, TEXT);
        assert!(rows[1].name.ends_with('…') && across < 360.0, "{}", rows[1].name);
    }
}
