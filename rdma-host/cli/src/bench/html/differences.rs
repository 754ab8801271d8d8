//! Differences of two points with their confidence intervals, as a chart.

use askama::Template;

use super::{
    super::compare::{Finding, MeasureComparison},
    axis::signed,
    key::{Key, KeyShape},
    picture::{Frame, Picture, Size, Svg, tenths},
    plot::SHAPES,
    text::width,
};

pub(super) struct Differences<'a>(pub(super) &'a [MeasureComparison]);

#[derive(Template)]
#[template(path = "differences.svg")]
struct Drawing {
    frame: Frame,
    bottom: f64,
    ticks: Vec<Tick>,
    zero: f64,
    rows: Vec<Row>,
}

struct Tick {
    at: f64,
    text: String,
}

struct Row {
    name: &'static str,
    y: f64,
    /// Ends of the interval, and of the area of differences that are too small to be seen.
    interval: Option<[f64; 2]>,
    band: Option<[f64; 2]>,
    colour: usize,
    /// None where nothing was there before.
    mark: Option<String>,
    is_hollow: bool,
    title: String,
}

const ROW: f64 = 26.0;

/// Index of a verdict's colour and shape.
fn look(verdict: Finding) -> usize {
    match verdict {
        Finding::Better => 2,
        Finding::Worse => 4,
        Finding::NoDifferenceSeen => 0,
        Finding::TooFewSamples => 5,
    }
}

impl Differences<'_> {
    /// Least and greatest value that the chart shows.
    fn range(&self) -> (f64, f64) {
        let values = self.0.iter().flat_map(|measure| {
            let intervals = [measure.confidence_95_percent, measure.invisible_percent()];
            let ends = intervals.into_iter().flatten().flatten();
            ends.chain(measure.percent)
        });
        let finite = values.filter(|value| value.is_finite());
        finite.fold((0.0, 0.0), |(low, high), value| (value.min(low), value.max(high)))
    }
}

impl Picture for Differences<'_> {
    fn name(&self) -> &'static str {
        "differences"
    }

    fn title(&self) -> &'static str {
        "Difference with its 95 % confidence interval"
    }

    fn keys(&self) -> Vec<Key> {
        let all =
            [Finding::Better, Finding::Worse, Finding::NoDifferenceSeen, Finding::TooFewSamples];
        let found = all.into_iter().filter(|it| self.0.iter().any(|row| row.verdict == *it));
        let key = |verdict: Finding| {
            let colour = look(verdict);
            let shape = KeyShape::Line { colour, dashed: false, mark: SHAPES[colour] };
            Key::new(verdict.in_words(), shape)
        };
        let mut keys: Vec<_> = found.map(key).collect();
        if self.0.iter().any(|row| row.smallest_visible_percent.is_some()) {
            keys.push(Key::new("too small for these runs to show", KeyShape::Band));
        }
        keys
    }

    fn draw(&self, frame: Frame, size: &Size) -> Svg {
        let (low, high) = self.range();
        let (low, high, ticks) = signed(low, high);
        let names = self.0.iter().map(|measure| width(measure.measure, 12.0));
        let shown =
            |value: f64| if value == 0.0 { "0 %".to_owned() } else { format!("{value:+} %") };
        let widest = ticks.iter().map(|tick| width(&shown(*tick), 12.0)).fold(0.0, f64::max);
        let (left, right) = (names.fold(0.0, f64::max) + 10.0, size.width - widest / 2.0 - 2.0);
        let x = |value: f64| tenths(left + (value - low) / (high - low) * (right - left));
        let top = frame.top;
        let row = |(index, measure): (usize, &MeasureComparison)| {
            let (y, colour) = (tenths(top + ROW * (index as f64 + 0.5)), look(measure.verdict));
            let percent = measure.percent;
            Row {
                name: measure.measure,
                y,
                interval: measure.confidence_95_percent.map(|ends| ends.map(x)),
                band: measure.invisible_percent().map(|ends| ends.map(x)),
                colour,
                mark: percent.map(|it| format!("M{} {y}{}", x(it), SHAPES[colour])),
                is_hollow: measure.verdict == Finding::TooFewSamples,
                title: match percent {
                    Some(percent) => format!("{} {percent:+.1} %", measure.measure),
                    None => measure.measure.to_owned(),
                },
            }
        };
        let rows: Vec<_> = self.0.iter().enumerate().map(row).collect();
        let bottom = top + ROW * rows.len() as f64;
        let tick = |value: f64| Tick { at: x(value), text: shown(value) };
        let step = if size.width < 500.0 { 2 } else { 1 };
        Svg::new(&Drawing {
            frame: Frame { height: bottom + 42.0, ..frame },
            bottom,
            zero: x(0.0),
            ticks: ticks.into_iter().step_by(step).map(tick).collect(),
            rows,
        })
    }
}
