//! Progress of fetching and building the kernel: a bar on a terminal, else a few lines.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Shortest time between two plain lines: a log should stay short.
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

/// Compiled files, counted against what `make` said it would compile.
pub(crate) struct Objects {
    bar: Option<ProgressBar>,
    count: u64,
    expected: u64,
    started: Instant,
    said: Instant,
}

impl Objects {
    /// `expected` files are to be compiled, or somewhat more: those that only a compiled one makes
    /// known are not counted.
    pub(crate) fn new(expected: u64) -> Self {
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

    /// Counts a line of the compiler's output.
    pub(crate) fn line(&mut self, line: &str) {
        if !compiles(line) {
            return;
        }
        self.count += 1;
        match &self.bar {
            Some(bar) => {
                bar.set_length(self.expected.max(self.count));
                bar.set_position(self.count);
            }
            None if self.said.elapsed() >= PLAIN_INTERVAL => {
                self.said = Instant::now();
                say(&counted(self.count, self.expected, self.started.elapsed()));
            }
            None => {}
        }
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Number of files that a dry run of `make` would compile.
pub(crate) fn to_compile(dry_run: &str) -> u64 {
    // There, a line of the compiler's output is an argument of `echo`.
    let announced = |line: &&str| line.split('\'').any(compiles);
    dry_run.lines().filter(announced).map(|_| 1).sum()
}

fn compiles(line: &str) -> bool {
    ["  CC ", "  AS "].iter().any(|start| line.starts_with(start))
}

fn counted(count: u64, expected: u64, elapsed: Duration) -> String {
    if count >= expected {
        return format!("compiled {count} files in {} s", elapsed.as_secs());
    }
    let left = remaining(elapsed, count, expected).as_secs();
    format!("compiled {count} of about {expected} files, about {left} s left")
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

    #[test]
    fn no_count_exceeds_its_total() {
        let minute = Duration::from_secs(60);
        let before = counted(500, 1_000, minute);
        assert_eq!(before, "compiled 500 of about 1000 files, about 60 s left");
        assert_eq!(counted(1_076, 1_045, minute), "compiled 1076 files in 60 s");
        assert_eq!(counted(3, 0, minute), "compiled 3 files in 60 s");
    }

    #[test]
    fn a_dry_run_is_counted() {
        let dry = "set -e;  echo '  CC      init/main.o';  gcc -c -o init/main.o init/main.c\n\
                   set -e;  echo '  AS      arch/x86/um/checksum_64.o';  gcc -c x\n\
                   set -e;  echo '  HOSTCC  scripts/kallsyms';  gcc x\n\
                   set -e;  echo '  AR      built-in.a';  rm -f built-in.a\n: CC x\n";
        assert_eq!(to_compile(dry), 2);
    }
}
