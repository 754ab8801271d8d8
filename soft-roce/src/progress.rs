//! What a person sees while the kernel is fetched and built: a bar on a terminal, else few lines.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// How many source files the trimmed configuration compiles, measured on 6.12 and 7.3.
pub(crate) const OBJECTS_EXPECTED: u64 = 1_045;

/// Plain lines come at most this often: a log is read later, by somebody in a hurry.
const PLAIN_INTERVAL: Duration = Duration::from_secs(30);

/// Says one step, on standard error.
pub(crate) fn say(text: &str) {
    eprintln!("soft-roce: {text}");
}

/// A step of unknown length: a spinner on a terminal, one line otherwise; ends when dropped.
pub(crate) struct Step {
    spinner: Option<ProgressBar>,
}

impl Step {
    pub(crate) fn new(text: String) -> Self {
        if !stderr().is_terminal() {
            say(&text);
            return Self { spinner: None };
        }
        let spinner = ProgressBar::new_spinner().with_message(text);
        spinner.enable_steady_tick(Duration::from_millis(100));
        Self { spinner: Some(spinner) }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            say(&spinner.message());
            spinner.finish_and_clear();
        }
    }
}

/// Compiled files, counted against the estimate.
pub(crate) struct Objects {
    bar: Option<ProgressBar>,
    count: u64,
    expected: u64,
    started: Instant,
    said: Instant,
}

impl Objects {
    /// `done` files are there from an earlier, interrupted build.
    pub(crate) fn new(done: u64) -> Self {
        let expected = OBJECTS_EXPECTED.saturating_sub(done).max(1);
        let now = Instant::now();
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(
                "soft-roce: compiling {wide_bar} {pos}/{len} files, about {eta} left",
            )
            .expect("the template is a constant");
            ProgressBar::new(expected).with_style(style)
        });
        Self { bar, count: 0, expected, started: now, said: now }
    }

    /// One more line of the compiler's output.
    pub(crate) fn line(&mut self, line: &str) {
        let compiles = ["  CC ", "  AS "].iter().any(|start| line.starts_with(start));
        if !compiles {
            return;
        }
        self.count += 1;
        match &self.bar {
            Some(bar) => bar.set_position(self.count.min(self.expected)),
            None if self.said.elapsed() >= PLAIN_INTERVAL => self.say_plain(),
            None => {}
        }
    }

    fn say_plain(&mut self) {
        self.said = Instant::now();
        let left = remaining(self.started.elapsed(), self.count, self.expected).as_secs();
        let Self { count, expected, .. } = self;
        say(&format!("compiled {count} of about {expected} files, about {left} s left"));
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn remaining(elapsed: Duration, count: u64, expected: u64) -> Duration {
    let left = expected.saturating_sub(count);
    let per_file = elapsed.checked_div(u32::try_from(count).unwrap_or(u32::MAX).max(1));
    per_file.unwrap_or_default().saturating_mul(u32::try_from(left).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_is_linear() {
        let quarter = remaining(Duration::from_secs(60), 250, 1_000);
        assert_eq!(quarter.as_secs(), 180);
        assert_eq!(remaining(Duration::from_secs(60), 1_200, 1_000), Duration::ZERO);
        assert_eq!(remaining(Duration::ZERO, 0, 1_000), Duration::ZERO);
    }
}
