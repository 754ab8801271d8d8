//! Settings in which points differ: they name the lines of charts, and the page.

use std::collections::BTreeSet;

use super::{
    super::report::{BlockSize, Configuration, PointReport},
    axis::{Axis, Scale},
    number::Unit,
};

/// Setting by which points are told apart.
struct Setting {
    /// Value alone.
    value: fn(&Configuration) -> String,
    /// Value or values with what they are; nothing if there is nothing to say.
    in_words: fn(&str) -> String,
    /// True if the title of a page says it.
    is_in_title: bool,
}

const SETTINGS: [Setting; 15] = [
    Setting::of_load(|of| of.name.clone().unwrap_or_default(), str::to_owned),
    Setting::of_load(|of| of.rw.clone(), str::to_owned),
    Setting::of_load(|of| of.bs_in_words.clone(), str::to_owned),
    Setting::of_load(|of| of.iodepth.to_string(), |it| format!("depth {it}")),
    Setting::of_load(
        |of| of.queues.to_string(),
        |it| if it == "1" { "1 queue".to_owned() } else { format!("{it} queues") },
    ),
    Setting::of_load(
        |of| of.threads.to_string(),
        |it| if it == "1" { "1 thread".to_owned() } else { format!("{it} threads") },
    ),
    Setting::of_load(
        |of| of.rate.map(short_rate).unwrap_or_default(),
        |it| if it.is_empty() { String::new() } else { format!("{it} a second") },
    ),
    Setting::other(|of| of.random_distribution.clone().unwrap_or_default(), str::to_owned),
    Setting::other(|of| of.arrival.clone().unwrap_or_default(), |it| format!("arrival {it}")),
    Setting::other(|of| of.wait.clone(), |it| format!("{it} waiting")),
    Setting::other(|of| of.memory_mode.clone(), |it| format!("memory mode {it}")),
    Setting::other(|of| format!("{} {}", of.nqn, of.target), str::to_owned),
    Setting::other(|of| of.host.clone().unwrap_or_default(), |it| format!("host {it}")),
    Setting::other(|of| of.kernel.clone(), str::to_owned),
    Setting::other(
        |of| format!("{} {}", of.version, of.commit.as_deref().unwrap_or_default()),
        |it| format!("nvmf {it}"),
    ),
];

impl Setting {
    const fn of_load(value: fn(&Configuration) -> String, in_words: fn(&str) -> String) -> Self {
        Self { value, in_words, is_in_title: true }
    }

    const fn other(value: fn(&Configuration) -> String, in_words: fn(&str) -> String) -> Self {
        Self { is_in_title: false, ..Self::of_load(value, in_words) }
    }
}

/// Rate as on a command line.
fn short_rate(rate: u64) -> String {
    if rate.is_multiple_of(1000) { format!("{}k", rate / 1000) } else { rate.to_string() }
}

/// Setting along which the points of a line differ.
pub(super) struct Variable {
    pub(super) axis: Axis,
    /// Name of a file with a chart by it.
    pub(super) chart_name: &'static str,
    number: fn(&Configuration) -> Option<f64>,
    /// Value alone, as among the settings.
    value: fn(&Configuration) -> String,
}

const VARIABLES: [Variable; 4] = [
    Variable {
        axis: Axis { name: "queue depth", note: "", scale: Scale::Log2, unit: Unit::Count },
        chart_name: "iops-by-depth",
        number: |of| Some(f64::from(of.iodepth)),
        value: SETTINGS[3].value,
    },
    Variable {
        axis: Axis {
            name: "asked rate",
            note: "commands a second for each target",
            scale: Scale::Linear,
            unit: Unit::Count,
        },
        chart_name: "iops-by-rate",
        number: |of| of.rate.map(|rate| rate as f64),
        value: SETTINGS[6].value,
    },
    Variable {
        axis: Axis { name: "queues", note: "", scale: Scale::Log2, unit: Unit::Count },
        chart_name: "iops-by-queues",
        number: |of| Some(of.queues as f64),
        value: SETTINGS[4].value,
    },
    Variable {
        axis: Axis { name: "block size", note: "", scale: Scale::Log2, unit: Unit::Bytes },
        chart_name: "iops-by-block-size",
        number: |of| match of.bs {
            BlockSize::Bytes(bytes) => Some(bytes as f64),
            BlockSize::Weighted(_) => None,
        },
        value: SETTINGS[2].value,
    },
];

impl Variable {
    /// First setting with several values, each of which is a number.
    pub(super) fn of(points: &[&PointReport]) -> Option<&'static Self> {
        let varies = |variable: &&Variable| {
            let numbers = points.iter().map(|point| variable.number(point));
            let numbers: Option<BTreeSet<_>> = numbers.map(|it| it.map(f64::to_bits)).collect();
            numbers.is_some_and(|numbers| numbers.len() > 1)
        };
        VARIABLES.iter().find(varies)
    }

    pub(super) fn number(&self, point: &PointReport) -> Option<f64> {
        (self.number)(&point.configuration)
    }

    /// Value in short.
    pub(super) fn label(&self, point: &PointReport) -> String {
        (self.value)(&point.configuration)
    }
}

/// Names of the points by the settings that tell them apart, without the `variable`.
pub(super) fn line_names(points: &[&PointReport], variable: Option<&Variable>) -> Vec<String> {
    let values = |value: fn(&Configuration) -> String| {
        points.iter().map(|point| value(&point.configuration)).collect::<Vec<_>>()
    };
    let mut told_apart = variable.map_or(vec![String::new(); points.len()], |it| values(it.value));
    let mut names = vec![String::new(); points.len()];
    for setting in &SETTINGS {
        let values = values(setting.value);
        let finer: Vec<_> = told_apart
            .iter()
            .zip(&values)
            .map(|(name, value)| format!("{name}\0{value}"))
            .collect();
        // A setting that follows from others, as threads from queues, says nothing more.
        if count_different(&finer) == count_different(&told_apart) {
            continue;
        }
        told_apart = finer;
        for (name, value) in names.iter_mut().zip(&values) {
            let words = (setting.in_words)(value);
            let separator = if name.is_empty() || words.is_empty() { "" } else { ", " };
            *name += &(separator.to_owned() + &words);
        }
    }
    names
}

fn count_different(names: &[String]) -> usize {
    names.iter().collect::<BTreeSet<_>>().len()
}

/// Load of all points in words.
pub(super) fn title(points: &[&PointReport]) -> String {
    let settings = SETTINGS.iter().filter(|setting| setting.is_in_title).map(|setting| {
        let mut values = Vec::new();
        for value in points.iter().map(|point| (setting.value)(&point.configuration)) {
            if !values.contains(&value) {
                values.push(value);
            }
        }
        let shown = match values.as_slice() {
            [first, .., last] if values.len() > 6 => format!("{first} … {last}"),
            values => values.join("/"),
        };
        (setting.in_words)(&shown)
    });
    settings.filter(|words| !words.is_empty()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(iodepth: u16, queues: usize) -> PointReport {
        let configuration = Configuration {
            rw: "randread".to_owned(),
            bs_in_words: "4 KiB".to_owned(),
            iodepth,
            queues,
            threads: queues,
            ..Configuration::default()
        };
        PointReport { configuration, ..PointReport::default() }
    }

    #[test]
    fn lines_are_named_by_what_tells_them_apart() {
        let points = [point(1, 1), point(8, 1), point(1, 2), point(8, 2)];
        let points: Vec<_> = points.iter().collect();
        let variable = Variable::of(&points).unwrap();
        assert_eq!(variable.chart_name, "iops-by-depth");
        let names = line_names(&points, Some(variable));
        assert_eq!(names, ["1 queue", "1 queue", "2 queues", "2 queues"]);
        assert_eq!(title(&points), "randread, 4 KiB, depth 1/8, 1/2 queues, 1/2 threads");
        let same_depth = [points[0], points[2]];
        let variable = Variable::of(&same_depth).unwrap();
        assert_eq!(variable.chart_name, "iops-by-queues");
        assert_eq!(line_names(&same_depth, Some(variable)), ["", ""]);
        assert!(Variable::of(&points[..1]).is_none());
    }
}
