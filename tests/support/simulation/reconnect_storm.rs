//! Runs reconnect storms: hosts that lose one target for 30 s at the same moment, with several
//! options of reconnecting. Prints a table in Markdown, and how the hosts return.
//!
//! ```text
//! reconnect_storm HOSTS…
//! ```

use std::{process::ExitCode, time::Duration};

use rdma_host::ReconnectOptions;
use simulation::{
    storm::{Storm, StormReport},
    target::AdmissionLimits,
};

/// Time for which the target does not listen.
const OUTAGE: Duration = Duration::from_secs(30);
/// One connection a millisecond, and the backlog of Linux's target.
const ADMISSION: AdmissionLimits = AdmissionLimits { time: Duration::from_millis(1), backlog: 128 };
/// Columns of the chart for each power of ten of the time.
const COLUMNS: i32 = 12;
/// Times that the chart begins and ends with, as powers of ten in seconds.
const DECADES: std::ops::Range<i32> = -1..3;

fn main() -> ExitCode {
    let hosts: Result<Vec<u16>, _> = std::env::args().skip(1).map(|text| text.parse()).collect();
    let Some(hosts) = hosts.ok().filter(|hosts| !hosts.is_empty() && !hosts.contains(&0)) else {
        eprintln!("reconnect_storm: give numbers of hosts, 1 to 65535, such as 1 100 10000");
        return ExitCode::from(2);
    };
    println!(
        "| hosts | delay between attempts | connection requests in the worst second | in all | \
         rejected | half of the hosts back after | all after |\n\
         | ---: | --- | ---: | ---: | ---: | ---: | ---: |"
    );
    for hosts in hosts {
        let mut chart = Vec::new();
        for (name, reconnect) in policies() {
            let storm = Storm { hosts, outage: OUTAGE, admission: ADMISSION, reconnect };
            let report = storm.run(1);
            println!("{}", row(hosts, name, &report));
            chart.push(line(name, &report.returned));
        }
        println!("\n{}\n{}\n", axis(hosts), chart.join("\n"));
    }
    ExitCode::SUCCESS
}

/// Options of the hosts, by what they are called.
fn policies() -> [(&'static str, ReconnectOptions); 4] {
    let seconds = Duration::from_secs;
    let fixed = || ReconnectOptions::default().loss_timeout(None);
    let doubled = |max| fixed().delay(seconds(1)).delay_max(Some(seconds(max)));
    [
        ("10 s, as Linux", fixed()),
        ("10 s, jitter 50 %", fixed().jitter_percent(50)),
        ("1 s, doubled to 10 s, jitter 50 %", doubled(10).jitter_percent(50)),
        ("1 s, doubled to 60 s, jitter 100 %", doubled(60).jitter_percent(100)),
    ]
}

fn row(hosts: u16, name: &str, report: &StormReport) -> String {
    let (half, last) = (report.returned[report.returned.len() / 2], report.returned.last());
    format!(
        "| {hosts} | {name} | {} | {} | {} | {:.1} s | {:.1} s |",
        report.requests_max(),
        report.requests.iter().sum::<u64>(),
        report.rejected,
        half.as_secs_f64(),
        last.map_or(0.0, Duration::as_secs_f64),
    )
}

/// Head of the chart: the time after the outage.
fn axis(hosts: u16) -> String {
    let width = usize::try_from(COLUMNS).expect("positive");
    let marks = DECADES.map(|decade| format!("{:<width$}", format!("{} s", 10_f64.powi(decade))));
    format!("{:<36}{}", format!("share of {hosts} hosts back after"), marks.collect::<String>())
}

/// Line of the chart: the share of hosts that are back by each time, in eighths.
fn line(name: &str, returned: &[Duration]) -> String {
    const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let columns = DECADES.start * COLUMNS..DECADES.end * COLUMNS;
    let share = |column: i32| {
        let by = Duration::from_secs_f64(10_f64.powf(f64::from(column) / f64::from(COLUMNS)));
        let count = returned.partition_point(|time| *time <= by);
        EIGHTHS[(count * 8).div_ceil(returned.len().max(1))]
    };
    format!("{name:<36}{}", columns.map(share).collect::<String>())
}
