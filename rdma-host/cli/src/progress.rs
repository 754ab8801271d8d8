//! Progress of transfers, and of what takes long, on a terminal.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use tokio::time::Instant;

use crate::output;

/// Time after which the first line is printed.
const FIRST: Duration = Duration::from_secs(2);
/// Time between lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// Waits for `future`. Where that takes longer than two seconds, prints what is waited for on
/// standard error if that is a terminal, and again every ten seconds.
pub(crate) async fn with_progress<T>(
    describe: impl Fn() -> String,
    future: impl Future<Output = T>,
) -> T {
    let is_terminal = io::stderr().is_terminal();
    let report = || {
        if is_terminal {
            output::print_message(format_args!("nvmf: {} …", describe()));
        }
    };
    report_until(report, future).await
}

/// Bar of a transfer with its bytes, its rate and the time that is left; a spinner where the number
/// of bytes is not known. Nothing is drawn if standard error is no terminal.
pub(crate) fn transfer_bar(bytes: Option<u64>) -> ProgressBar {
    let Some(bytes) = bytes else { return ProgressBar::new_spinner() };
    let template =
        "{wide_bar} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
    let style = ProgressStyle::with_template(template).expect("a template");
    ProgressBar::new(bytes).with_style(style).with_finish(ProgressFinish::AndClear)
}

async fn report_until<T>(mut report: impl FnMut(), future: impl Future<Output = T>) -> T {
    tokio::pin!(future);
    let mut reports = tokio::time::interval_at(Instant::now() + FIRST, INTERVAL);
    loop {
        tokio::select! {
            biased;
            output = &mut future => return output,
            _ = reports.tick() => report(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Number of reports about something that takes this time.
    async fn reports(time: Duration) -> u32 {
        let mut count = 0;
        report_until(|| count += 1, tokio::time::sleep(time)).await;
        count
    }

    #[test]
    fn what_takes_longer_than_two_seconds_is_reported_every_ten() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let times = [1500, 2500].map(Duration::from_millis);
            let (short, long) = tokio::join!(reports(times[0]), reports(times[1]));
            assert_eq!((short, long), (0, 1));
        });
    }
}
