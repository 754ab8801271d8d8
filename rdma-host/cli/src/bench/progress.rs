//! Progress of a measurement, on a terminal.

use std::{fmt::Write, io::IsTerminal, time::Duration};

use indicatif::{FormattedDuration, ProgressBar, ProgressState, ProgressStyle};

use super::{arguments::Arguments, report::Interval};

/// Progress bar with the results of the last interval; none if standard error is no terminal.
pub(super) struct Progress(Option<ProgressBar>);

impl Progress {
    /// Bar of a process that shows one, as the first rank does.
    pub(super) fn new(arguments: &Arguments, shows: bool) -> Self {
        if !shows || !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let length = arguments.ramp + arguments.runtime;
        let bar = ProgressBar::new(u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
        let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {left} left, {msg}");
        let write_left = move |state: &ProgressState, text: &mut dyn Write| {
            // The bar has no use for an error of its own text.
            let _ = write!(text, "{}", FormattedDuration(length.saturating_sub(state.elapsed())));
        };
        bar.set_style(style.expect("a template").with_key("left", write_left));
        bar.set_message("warming up");
        bar.enable_steady_tick(Duration::from_millis(250));
        Self(Some(bar))
    }

    pub(super) fn show(&self, interval: Option<&Interval>) {
        let (Some(bar), Some(interval)) = (&self.0, interval) else { return };
        let elapsed = u64::try_from(bar.elapsed().as_millis()).unwrap_or(u64::MAX);
        bar.set_position(elapsed);
        let micros = |nanoseconds: Option<u64>| {
            nanoseconds.map_or_else(|| "-".to_owned(), |ns| format!("{:.1}", ns as f64 / 1000.0))
        };
        let (p50, p99) = (micros(interval.p50_ns), micros(interval.p99_ns));
        bar.set_message(format!("{:.0} IOPS, p50 {p50} µs, p99 {p99} µs", interval.iops));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
