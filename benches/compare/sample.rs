//! Result of one run of one initiator, parsed from its output.

use serde_json::Value;

/// Figures of one run. Those that an initiator does not report are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    pub(crate) iops: f64,
    pub(crate) mean_us: Option<f64>,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    /// Processor time of the process for a command, in microseconds.
    pub(crate) cpu_us: Option<f64>,
    /// User time of that, in microseconds.
    pub(crate) user_us: Option<f64>,
    pub(crate) doorbells: Option<f64>,
    pub(crate) completions: Option<f64>,
    pub(crate) empty_polls: Option<f64>,
    /// Share of the time in which the guest's processor was idle.
    pub(crate) idle: f64,
    /// Processor time that the machine spent on the guest for a command, in microseconds.
    pub(crate) machine_us: Option<f64>,
}

impl Sample {
    /// Processor time of the whole guest for a command, in microseconds.
    pub(crate) fn guest_us(&self) -> f64 {
        (1.0 - self.idle) * 1e6 / self.iops
    }
}

/// Parses the output of `nvmf bench -o json`.
pub(crate) fn of_nvmf(text: &str) -> Option<Sample> {
    let report: Value = serde_json::from_str(text).ok()?;
    let micro = |value: &Value| Some(value.as_f64()? / 1e3);
    let (latency, cost) = (&report["latency_ns"], &report["per_io"]);
    if report["errors"].as_u64()? > 0 {
        return None;
    }
    Some(Sample {
        iops: report["iops"].as_f64()?,
        mean_us: micro(&latency["mean"]),
        p50_us: micro(&latency["p50"]),
        p99_us: micro(&latency["p99"]),
        cpu_us: micro(&cost["cpu_ns"]),
        doorbells: cost["doorbells"].as_f64(),
        completions: cost["completions"].as_f64(),
        empty_polls: cost["empty_polls"].as_f64(),
        ..Sample::default()
    })
}

/// Parses the output of `fio --output-format=json --lat_percentiles=1`, which may begin with
/// warnings.
pub(crate) fn of_fio(text: &str) -> Option<Sample> {
    let report: Value = serde_json::from_str(text.get(text.find('{')?..)?).ok()?;
    let job = &report["jobs"][0];
    let which = if job["read"]["total_ios"].as_u64()? > 0 { "read" } else { "write" };
    let (side, micro) = (&job[which], |value: &Value| Some(value.as_f64()? / 1e3));
    let iops = side["iops"].as_f64()?;
    let [user, system] = [job["usr_cpu"].as_f64()?, job["sys_cpu"].as_f64()?];
    let time = |percent: f64| Some(percent / 100.0 * 1e6 / iops);
    let percentiles = &side["lat_ns"]["percentile"];
    Some(Sample {
        iops,
        mean_us: micro(&side["lat_ns"]["mean"]),
        p50_us: micro(&percentiles["50.000000"]),
        p99_us: micro(&percentiles["99.000000"]),
        cpu_us: time(user + system),
        user_us: time(user),
        ..Sample::default()
    })
}

/// Parses the output of any other program, by the first of two rules that matches: the last line
/// with `iops=NUMBER`, where the number may end in k or M, and with it `mean_us=NUMBER`,
/// `p50_us=NUMBER` and so on, if they are there; or a line that begins with `Total` and goes on
/// with numbers: commands a second, MiB a second, mean latency in microseconds.
pub(crate) fn of_words(text: &str) -> Option<Sample> {
    let words = text.lines().rev().find_map(|line| Some((number(line, "iops=")?, line)));
    if let Some((iops, line)) = words {
        return Some(Sample {
            iops,
            mean_us: number(line, "mean_us="),
            p50_us: number(line, "p50_us="),
            p99_us: number(line, "p99_us="),
            cpu_us: number(line, "cpu_us="),
            user_us: number(line, "user_us="),
            doorbells: number(line, "doorbells="),
            completions: number(line, "completions="),
            empty_polls: number(line, "empty_polls="),
            ..Sample::default()
        });
    }
    let total = text.lines().rev().find_map(|line| line.trim_start().strip_prefix("Total"))?;
    let mut numbers = total.split([' ', ':', '\t']).filter_map(|word| word.parse().ok());
    let iops = numbers.next()?;
    Some(Sample { iops, mean_us: numbers.nth(1), ..Sample::default() })
}

/// Number behind a name, whose letters may be of either case.
fn number(line: &str, name: &str) -> Option<f64> {
    let line = line.to_ascii_lowercase();
    let from = line.find(name)? + name.len();
    let rest = &line[from..];
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let value: f64 = rest[..end].parse().ok()?;
    Some(match rest[end..].chars().next() {
        Some('k') => value * 1e3,
        Some('m') => value * 1e6,
        _ => value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_words_are_read() {
        let sample = of_words("hello\niops=1234 mean_us=5.5 p99_us=9 cpu_us=2.25\n").unwrap();
        assert_eq!((sample.iops, sample.mean_us, sample.p99_us), (1234.0, Some(5.5), Some(9.0)));
        assert_eq!((sample.cpu_us, sample.doorbells), (Some(2.25), None));
    }

    #[test]
    fn other_programs_are_read_by_one_of_two_rules() {
        assert_eq!(of_words("  read: IOPS=88.1k, BW=344MiB/s").unwrap().iops, 88_100.0);
        let table =
            "Device   IOPS MiB/s Average min max\nTotal      :   88100.50  344.14  363.22 1 2";
        let sample = of_words(table).unwrap();
        assert_eq!((sample.iops, sample.mean_us), (88_100.5, Some(363.22)));
        assert_eq!(of_words("nothing to see"), None);
    }

    #[test]
    fn a_run_with_errors_counts_for_nothing() {
        let report = |errors: u32| {
            format!(
                r#"{{"iops": 10.0, "errors": {errors}, "latency_ns": {{"mean": 1500.0}},
                    "per_io": {{"cpu_ns": 2000.0, "doorbells": 0.5}}}}"#
            )
        };
        let sample = of_nvmf(&report(0)).unwrap();
        assert_eq!((sample.mean_us, sample.cpu_us), (Some(1.5), Some(2.0)));
        assert_eq!(of_nvmf(&report(1)), None);
    }

    #[test]
    fn fio_tells_the_processor_time_in_percent() {
        let text = r#"fio: a warning
            {"jobs": [{"usr_cpu": 10.0, "sys_cpu": 40.0, "read": {"total_ios": 0},
             "write": {"total_ios": 5, "iops": 1000.0,
                       "lat_ns": {"mean": 3000.0, "percentile": {"99.000000": 9000}}}}]}"#;
        let sample = of_fio(text).unwrap();
        assert_eq!((sample.mean_us, sample.p99_us), (Some(3.0), Some(9.0)));
        assert_eq!((sample.cpu_us, sample.user_us), (Some(500.0), Some(100.0)));
    }

    #[test]
    fn a_busy_guest_spends_what_it_takes() {
        let sample = Sample { iops: 10_000.0, idle: 0.25, ..Sample::default() };
        assert_eq!(sample.guest_us(), 75.0);
    }
}
