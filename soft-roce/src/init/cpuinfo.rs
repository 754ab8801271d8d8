//! `/proc/cpuinfo` of the guest, with the frequency that a User-Mode Linux kernel leaves out.

use std::fs;

use rustix::mount::mount_bind;

use crate::{Error, Result};

const CPUINFO: &str = "/proc/cpuinfo";

/// File that is mounted over the kernel's.
const REPLACEMENT: &str = "/run/soft-roce/cpuinfo";

/// Line of the frequency. Programs that measure by the time-stamp counter, such as perftest's,
/// divide by it.
const FREQUENCY: &str = "cpu MHz";

/// Reads the frequency of this machine's time-stamp counter, in MHz, where the processor has one.
///
/// Linux derives `bogomips` from it: two for each cycle. Its own `cpu MHz` varies with the load.
pub(crate) fn counter_mhz(cpuinfo: &str) -> Option<f64> {
    let value = |name| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        line.split_once(':')?.1.trim().parse::<f64>().ok()
    };
    value(FREQUENCY)?;
    Some(value("bogomips")? / 2.0).filter(|mhz| *mhz >= 1.0)
}

/// Adds the frequency to the guest's file, unless the kernel gives one.
pub(super) fn install(mhz: f64) -> Result<()> {
    let text = fs::read_to_string(CPUINFO).map_err(Error::io("read", CPUINFO))?;
    let Some(text) = with_frequency(&text, mhz) else { return Ok(()) };
    fs::write(REPLACEMENT, text).map_err(Error::io("write", REPLACEMENT))?;
    mount_bind(REPLACEMENT, CPUINFO).map_err(Error::errno("mount a file on", CPUINFO))
}

fn with_frequency(text: &str, mhz: f64) -> Option<String> {
    let has = |name| text.lines().any(|line| line.starts_with(name));
    if has(FREQUENCY) || !has("model name") {
        return None;
    }
    let mut changed = String::new();
    for line in text.lines() {
        changed += &format!("{line}\n");
        if line.starts_with("model name") {
            changed += &format!("{FREQUENCY}\t\t: {mhz:.3}\n");
        }
    }
    Some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_frequency_is_half_of_bogomips() {
        let text = "processor\t: 0\ncpu MHz\t\t: 1197.5\nbogomips\t: 5192.24\n";
        assert_eq!(counter_mhz(text), Some(2596.12));
        assert_eq!(counter_mhz("processor\t: 0\nBogoMIPS\t: 50.00\n"), None);
    }

    #[test]
    fn each_processor_gets_the_line_once() {
        let text = "processor\t: 0\nmodel name\t: UML\n\nprocessor\t: 1\nmodel name\t: UML\n";
        let changed = with_frequency(text, 2596.12).unwrap();
        assert_eq!(changed.matches("cpu MHz\t\t: 2596.120\n").count(), 2);
        assert_eq!(with_frequency(&changed, 1.0), None);
    }
}
