//! Numbers in words: short on axes, in full in tables and for values that are pointed at.

/// Unit of the values of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Number, with k and M.
    Count,
    /// Bytes, with binary units.
    Bytes,
    /// Nanoseconds, written with a fitting unit.
    Time,
    Seconds,
    Percent,
}

impl Unit {
    /// Three significant digits at most, as for a tick.
    pub(super) fn short(self, value: f64) -> String {
        match self {
            Self::Count if value >= 1e9 => format!("{}G", trim(value / 1e9)),
            Self::Count if value >= 1e6 => format!("{}M", trim(value / 1e6)),
            // 1024 stays as it is.
            Self::Count if value >= 1e4 || value >= 1e3 && value % 100.0 == 0.0 => {
                format!("{}k", trim(value / 1e3))
            }
            Self::Count => trim(value),
            Self::Bytes if value >= 1_048_576.0 => format!("{} MiB", trim(value / 1_048_576.0)),
            Self::Bytes if value >= 1024.0 => format!("{} KiB", trim(value / 1024.0)),
            Self::Bytes => format!("{} B", trim(value)),
            Self::Time if value >= 999.5e6 => format!("{} s", trim(value / 1e9)),
            Self::Time if value >= 999.5e3 => format!("{} ms", trim(value / 1e6)),
            Self::Time if value >= 999.5 || value == 0.0 => format!("{} µs", trim(value / 1e3)),
            Self::Time => format!("{} ns", trim(value)),
            Self::Seconds => format!("{} s", trim(value)),
            Self::Percent => {
                let text = format!("{value:.5}");
                format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
            }
        }
    }

    /// All digits that mean something.
    pub(super) fn full(self, value: f64) -> String {
        match self {
            Self::Count if value >= 100.0 => group_digits(value),
            Self::Time => format!("{} µs", micros(Some(value))),
            Self::Seconds => {
                let text = format!("{value:.3}");
                format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
            }
            unit => unit.short(value),
        }
    }
}

/// Number with three significant digits at most.
fn trim(value: f64) -> String {
    let text = match value {
        value if value >= 99.95 => format!("{value:.0}"),
        value if value >= 9.995 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    };
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// Whole number with a thin space before each group of three digits.
pub(super) fn group_digits(value: f64) -> String {
    grouped(&format!("{value:.0}"))
}

fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && digit.is_ascii_digit() && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

/// Nanoseconds as µs with one decimal, so that those below each other are aligned; a dash if there
/// is no value.
pub(super) fn micros(nanoseconds: Option<f64>) -> String {
    nanoseconds.map_or(NO_VALUE.to_owned(), |nanoseconds| decimal(nanoseconds / 1000.0, 1))
}

/// Number with decimals and grouped digits.
pub(super) fn decimal(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let separator = if rest.is_empty() { "" } else { "." };
    format!("{}{separator}{rest}", grouped(whole))
}

/// Greatest whole number that is not above a value, which must not be a large one.
#[expect(clippy::cast_possible_truncation, reason = "a number that does not fit is the last one")]
pub(super) fn floor(value: f64) -> i32 {
    value.floor() as i32
}

/// Whole part of a number of things; none if it is negative.
pub(super) fn count(value: f64) -> usize {
    usize::try_from(floor(value)).unwrap_or_default()
}

/// Text in place of a percentile that too few samples support.
pub(super) const NO_VALUE: &str = "–";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_shortly() {
        for (unit, value, text) in [
            (Unit::Count, 123_456.0, "123k"),
            (Unit::Count, 1_500_000.0, "1.5M"),
            (Unit::Count, 800.0, "800"),
            (Unit::Count, 5000.0, "5k"),
            (Unit::Count, 1024.0, "1024"),
            (Unit::Bytes, 65_536.0, "64 KiB"),
            (Unit::Time, 250.0, "250 ns"),
            (Unit::Time, 12_345.0, "12.3 µs"),
            (Unit::Time, 999_900.0, "1 ms"),
            (Unit::Time, 2_000_000.0, "2 ms"),
            (Unit::Time, 3e9, "3 s"),
            (Unit::Percent, 99.999, "99.999 %"),
            (Unit::Percent, 50.0, "50 %"),
        ] {
            assert_eq!(unit.short(value), text);
        }
    }

    #[test]
    fn values_are_written_in_full() {
        for (unit, value, text) in [
            (Unit::Count, 7_779.4, "7\u{2009}779"),
            (Unit::Count, 2.5, "2.5"),
            (Unit::Time, 1_234_567.0, "1\u{2009}234.6 µs"),
            (Unit::Seconds, 0.25, "0.25 s"),
            (Unit::Seconds, 600.0, "600 s"),
        ] {
            assert_eq!(unit.full(value), text);
        }
    }

    #[test]
    fn times_have_one_decimal_and_grouped_digits() {
        for (nanoseconds, text) in [
            (23_412.0, "23.4"),
            (999_960.0, "1\u{2009}000.0"),
            (1_234_567_890.0, "1\u{2009}234\u{2009}567.9"),
            (0.0, "0.0"),
        ] {
            assert_eq!(micros(Some(nanoseconds)), text);
        }
        assert_eq!(micros(None), "–");
    }
}
