//! Parts that the page of a point and the overview of a sweep have in common.

use std::fmt::Write;

use super::{
    super::report::StageMeans,
    chart::{Axis, Scale, Unit},
};

/// Stage of a command's time, and its mean.
pub(super) struct Stage {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) nanoseconds: f64,
    /// Percent of the time of all stages.
    pub(super) percent: f64,
}

/// All stages, in the order in which a command passes them.
pub(super) fn stages(mean: &StageMeans) -> [Stage; 5] {
    let doorbell = mean.doorbell.unwrap_or_default();
    let total = mean.queue + mean.submit + doorbell + mean.wire_and_target + mean.completion;
    let stages = [
        ("queue", "due, not yet submitted", mean.queue),
        ("submit", "until the doorbell's call", mean.submit),
        ("doorbell", "in the doorbell's call", doorbell),
        ("wire + target", "until a poll found it done", mean.wire_and_target),
        ("completion", "until its result was handed over", mean.completion),
    ];
    stages.map(|(name, description, nanoseconds)| {
        let percent = nanoseconds / total.max(1.0) * 100.0;
        Stage { name, description, nanoseconds, percent }
    })
}

/// Stages as one bar.
pub(super) fn stage_bar(mean: &StageMeans) -> String {
    let mut text = "<div class=\"bar\">".to_owned();
    for (index, Stage { name, percent, .. }) in stages(mean).into_iter().enumerate() {
        let _ = write!(
            text,
            "<i class=\"s{index}\" style=\"width:{percent:.2}%\" title=\"{name}\"></i>"
        );
    }
    text.push_str("</div>\n");
    text
}

pub(super) fn section(body: &mut String, content: &str) {
    let _ = writeln!(body, "<section>\n{content}</section>");
}

/// Whole number with a thin space before each group of three digits.
pub(super) fn group_digits(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

/// Nanoseconds as µs: with one decimal below 1,000 µs; a dash if there is no value.
pub(super) fn micros(nanoseconds: Option<f64>) -> String {
    match nanoseconds.map(|nanoseconds| nanoseconds / 1000.0) {
        None => NO_VALUE.to_owned(),
        Some(large) if large >= 999.5 => group_digits(large),
        Some(small) => format!("{small:.1}"),
    }
}

/// Text in place of a percentile that too few samples support.
pub(super) const NO_VALUE: &str = "–";

pub(super) fn time_axis(label: &'static str) -> Axis {
    Axis { label, scale: Scale::Log(10), unit: Unit::Time }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_one_decimal_or_grouped_digits() {
        for (nanoseconds, text) in [(23_412.0, "23.4"), (999_600.0, "1\u{2009}000"), (0.0, "0.0")] {
            assert_eq!(micros(Some(nanoseconds)), text);
        }
        assert_eq!(micros(None), "–");
    }
}
