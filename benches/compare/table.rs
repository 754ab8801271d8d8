//! The results as Markdown, and how they are put into a file.

use std::fmt::Write;

use super::{
    initiator::{Initiator, Scenario},
    performance_goals::{Bound, Goal},
    results::{Results, Spread},
    sample::Sample,
};

/// Table of every scenario and initiator.
pub(crate) fn of_runs(results: &Results) -> String {
    let mut text = String::from(HEAD);
    for scenario in results.scenarios() {
        let base = results
            .best(&scenario, Initiator::is_base)
            .or_else(|| results.best(&scenario, |_| true));
        let mut name = format!("**{}**", scenario.name());
        for initiator in results.initiators(&scenario) {
            let _ = writeln!(text, "{}", row(results, &scenario, &name, initiator, base));
            name.clear();
        }
    }
    text
}

fn row(
    results: &Results,
    scenario: &Scenario,
    name: &str,
    initiator: &Initiator,
    base: Option<&Initiator>,
) -> String {
    let spread = |number: fn(&Sample) -> Option<f64>| results.spread(scenario, initiator, number);
    let iops = |sample: &Sample| Some(sample.iops);
    let ratio = base.and_then(|base| results.ratio(scenario, initiator, base, iops));
    let cells = [
        name.to_owned(),
        initiator.name(),
        spread(iops).map_or_else(nothing, |spread| with_spread(spread, 0)),
        ratio.map_or_else(nothing, |ratio| with_spread(ratio, 2)),
        median(spread(|sample| sample.mean_us), 1),
        median(spread(|sample| sample.p50_us), 1),
        median(spread(|sample| sample.p99_us), 1),
        median(spread(|sample| sample.cpu_us), 1),
        median(spread(|sample| Some(sample.guest_us())), 1),
        median(spread(|sample| sample.doorbells), 3),
        median(spread(|sample| sample.completions), 3),
        median(spread(|sample| sample.empty_polls), 3),
    ];
    format!("| {} |", cells.join(" | "))
}

/// Table of the processor time that the machine spends for a command.
pub(crate) fn of_machine_time(results: &Results) -> String {
    let mut text = String::from(HEAD_OF_MACHINE_TIME);
    for scenario in results.scenarios() {
        let time = |sample: &Sample| sample.machine_us;
        let base = results.best(&scenario, Initiator::is_base);
        let mut name = format!("**{}**", scenario.name());
        for initiator in results.initiators(&scenario) {
            let spread = results.spread(&scenario, initiator, time);
            let ratio = base.and_then(|base| results.ratio(&scenario, initiator, base, time));
            let cells = [
                std::mem::take(&mut name),
                initiator.name(),
                spread.map_or_else(nothing, |spread| with_spread(spread, 1)),
                ratio.map_or_else(nothing, |ratio| with_spread(ratio, 2)),
            ];
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
    }
    text
}

/// Table of the goals.
pub(crate) fn of_goals(goals: &[Goal], command: &str) -> String {
    let mut text = String::from(
        "\
        | | goal | measured | | bare verbs | command |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for Goal { what, bound, value, limit } in goals {
        let bounds = match bound {
            Bound::Least(number) => format!("≥ {number}"),
            Bound::Most(number) => format!("≤ {number}"),
        };
        let (measured, verdict) = match value {
            None => ("not measured".to_owned(), ""),
            Some(spread) if bound.is_met(spread.median) => (with_spread(*spread, 3), "kept"),
            Some(spread) => (with_spread(*spread, 3), "**missed**"),
        };
        let limit = limit.map_or_else(nothing, |spread| with_spread(spread, 3));
        let _ = writeln!(
            text,
            "| {what} | {bounds} | {measured} | {verdict} | {limit} | `{command}` |"
        );
    }
    text
}

/// Replaces the text between two marks, or adds both with the text at the end.
pub(crate) fn replace_block(file: &str, mark: &str, text: &str) -> String {
    let (begin, end) = (format!("<!-- begin {mark} -->\n"), format!("<!-- end {mark} -->\n"));
    let block = format!("{begin}\n{}\n\n{end}", text.trim());
    match (file.find(&begin), file.find(&end)) {
        (Some(from), Some(to)) if from < to => {
            format!("{}{block}{}", &file[..from], &file[to + end.len()..])
        }
        _ => format!("{}\n\n{block}", file.trim_end()),
    }
}

fn median(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(nothing, |spread| number(spread.median, digits))
}

fn nothing() -> String {
    "–".into()
}

/// Spread as in "88,100 (85,000 … 90,200)".
fn with_spread(spread: Spread, digits: usize) -> String {
    let Spread { median, least, most } = spread;
    let [median, least, most] = [median, least, most].map(|value| number(value, digits));
    format!("{median} ({least} … {most})")
}

/// Number with commas between thousands.
fn number(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, format!(".{fraction}")),
        None => (text.as_str(), String::new()),
    };
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + &fraction
}

const HEAD: &str = "\
| | | IOPS | of the base | mean µs | p50 µs | p99 µs | own CPU µs | guest's CPU µs | doorbells \
| completions | empty polls |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
";

const HEAD_OF_MACHINE_TIME: &str = "\
| | | processor time of the guest, µs | of the kernel's |
| --- | --- | --- | --- |
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(number(1_234_567.0, 0), "1,234,567");
        assert_eq!(number(123.456, 2), "123.46");
        assert_eq!(number(-123.0, 0), "-123");
    }

    #[test]
    fn a_block_is_replaced_and_the_rest_stays() {
        let first = replace_block("# Title\n", "x", "one");
        assert_eq!(first, "# Title\n\n<!-- begin x -->\n\none\n\n<!-- end x -->\n");
        let second = replace_block(&format!("{first}tail\n"), "x", "two");
        assert_eq!(second, "# Title\n\n<!-- begin x -->\n\ntwo\n\n<!-- end x -->\ntail\n");
    }

    #[test]
    fn a_missed_promise_is_said() {
        let goal = |median| Goal {
            what: "it".into(),
            bound: Bound::Least(1.5),
            value: Some(Spread { median, least: 1.0, most: 2.0 }),
            limit: None,
        };
        assert!(of_goals(&[goal(1.4)], "x").contains("**missed**"));
        assert!(of_goals(&[goal(1.6)], "x").contains("1.600 (1.000 … 2.000) | kept"));
    }
}
