//! Line charts as SVG that loads nothing from elsewhere.

use std::{fmt::Write, iter::successors};

/// Line chart.
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
}

pub(super) struct Axis {
    pub(super) label: &'static str,
    pub(super) scale: Scale,
    pub(super) unit: Unit,
}

/// Scale of an axis.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// Linear, from zero.
    Linear,
    /// Logarithmic, with ticks at the powers of this base.
    Log(u32),
    /// Percentiles, with 90, 99 and 99.9 at equal distances.
    Nines,
}

/// Unit of the values of an axis.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    /// Number, with k and M.
    Count,
    /// Nanoseconds, written with a fitting unit.
    Time,
    Seconds,
    Percent,
}

pub(super) struct Line {
    pub(super) name: String,
    /// Dashed, to be compared with another line.
    pub(super) dashed: bool,
    pub(super) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 44.0;
/// Classes of distinguishable colours in the style sheet; more lines start over.
const COLOURS: [&str; 6] = ["c0", "c1", "c2", "c3", "c4", "c5"];
/// Most points of a line with marks.
const MARKS_MAX: usize = 64;

struct Axes<'a> {
    x: ScaledAxis<'a>,
    y: ScaledAxis<'a>,
}

/// Axis with the range of its values.
struct ScaledAxis<'a> {
    axis: &'a Axis,
    /// Least value, as the scale measures it.
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Chart {
    /// Chart as an `svg` element.
    pub(super) fn svg(&self) -> String {
        let all = || self.lines.iter().flat_map(|line| &line.points);
        let axes = Axes {
            x: ScaledAxis::new(&self.x, all().map(|point| point.0)),
            y: ScaledAxis::new(&self.y, all().map(|point| point.1)),
        };
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n\
             <text class=\"title\" x=\"0\" y=\"14\">{title}</text>\n",
            title = escape(self.title)
        );
        self.grid(&mut svg, &axes);
        self.legend(&mut svg);
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            draw(&mut svg, line, colour, &axes);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn grid(&self, svg: &mut String, axes: &Axes<'_>) {
        let Axes { x, y } = axes;
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for &tick in &y.ticks {
            let (at, text) = (y.y_position(tick), self.y.unit.format(tick));
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/><text class=\"tick end\" \
                 x=\"{:.1}\" y=\"{:.1}\">{text}</text>",
                LEFT - 8.0,
                at + 4.0
            );
        }
        for &tick in &x.ticks {
            let (at, text) = (x.x_position(tick), self.x.unit.format(tick));
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/><text class=\"tick middle\" \
                 x=\"{at:.1}\" y=\"{:.1}\">{text}</text>",
                bottom + 16.0
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"label end\" x=\"{right}\" y=\"{:.1}\">{}</text>\
             <text class=\"label\" x=\"0\" y=\"34\">{}</text>",
            HEIGHT - 8.0,
            escape(self.x.label),
            escape(self.y.label)
        );
    }

    /// Names of the lines with their colours, from the right.
    fn legend(&self, svg: &mut String) {
        if self.lines.len() < 2 {
            return;
        }
        let mut at = WIDTH - RIGHT;
        let coloured: Vec<_> = self.lines.iter().zip(COLOURS.iter().cycle()).collect();
        for (line, colour) in coloured.into_iter().rev() {
            let width = line.name.chars().count() as f64 * 6.6;
            at -= width;
            let _ = writeln!(
                svg,
                "<path class=\"key {colour}{}\" d=\"M{:.1} 30h14\"/>\
                 <text class=\"tick\" x=\"{at:.1}\" y=\"34\">{}</text>",
                line.dash(),
                at - 19.0,
                escape(&line.name)
            );
            at -= 36.0;
        }
    }
}

fn draw(svg: &mut String, line: &Line, colour: &str, Axes { x, y }: &Axes<'_>) {
    let places: Vec<_> =
        line.points.iter().map(|point| (x.x_position(point.0), y.y_position(point.1))).collect();
    let path: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
    let (dash, path) = (line.dash(), path.join("L"));
    let _ = writeln!(svg, "<path class=\"line {colour}{dash}\" d=\"M{path}\"/>");
    if places.len() > MARKS_MAX {
        return;
    }
    for ((across, down), point) in places.iter().zip(&line.points) {
        let _ = writeln!(
            svg,
            "<circle class=\"{colour}\" cx=\"{across:.1}\" cy=\"{down:.1}\" r=\"2.5\">\
             <title>{}: {}, {}</title></circle>",
            escape(&line.name),
            x.axis.unit.format(point.0),
            y.axis.unit.format(point.1)
        );
    }
}

impl Line {
    fn dash(&self) -> &'static str {
        if self.dashed { " dashed" } else { "" }
    }
}

impl<'a> ScaledAxis<'a> {
    fn new(axis: &'a Axis, values: impl Iterator<Item = f64>) -> Self {
        let measure = |value| axis.scale.measure(value);
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.map(measure).filter(|value| value.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let steps = |first: f64, step: f64, last: f64| {
            successors(Some(first), move |at| Some(at + step)).take_while(move |&at| at <= last)
        };
        let ticks = match axis.scale {
            Scale::Linear => {
                let step = nice_step(high.max(f64::MIN_POSITIVE));
                low = 0.0;
                // A time axis ends with the last value, others at a tick.
                if !matches!(axis.unit, Unit::Seconds) {
                    high = (high / step).ceil() * step;
                }
                high = high.max(step);
                steps(0.0, step, high + step / 100.0).collect()
            }
            Scale::Log(base) => {
                (low, high) = (low.floor(), high.ceil().max(low.floor() + 1.0));
                steps(low, 1.0, high).map(|power| f64::from(base).powf(power)).collect()
            }
            Scale::Nines => {
                (low, high) = (0.0, high.max(2.0));
                let all = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999, 99.99999];
                all.into_iter().filter(|&tick| measure(tick) <= high + 0.01).collect()
            }
        };
        Self { axis, low, high, ticks }
    }

    fn share(&self, value: f64) -> f64 {
        let measure = self.axis.scale.measure(value);
        ((measure - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn x_position(&self, value: f64) -> f64 {
        LEFT + self.share(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y_position(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.share(value) * (HEIGHT - TOP - BOTTOM)
    }
}

impl Scale {
    fn measure(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log(base) => value.max(1e-9).log(f64::from(base)),
            // At 100 % there is no place on this scale.
            Self::Nines => -(1.0 - value.clamp(0.0, 99.999_999) / 100.0).log10(),
        }
    }
}

impl Unit {
    pub(super) fn format(self, value: f64) -> String {
        match self {
            Self::Count if value >= 1e6 => format!("{}M", trim(value / 1e6)),
            Self::Count if value >= 1e4 => format!("{}k", trim(value / 1e3)),
            Self::Count => trim(value),
            Self::Time if value >= 1e9 => format!("{} s", trim(value / 1e9)),
            Self::Time if value >= 1e6 => format!("{} ms", trim(value / 1e6)),
            Self::Time => format!("{} µs", trim(value / 1e3)),
            Self::Seconds => format!("{} s", trim(value)),
            Self::Percent => {
                let text = format!("{value:.5}");
                format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
            }
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

/// Step of one, two or five times a power of ten, of which about five make `high`.
fn nice_step(high: f64) -> f64 {
    let rough = high / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * power >= rough * 0.999);
    step.unwrap_or(10.0) * power
}

/// Text escaped for HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_nice() {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9 * b;
        for (high, step) in [(10.0, 2.0), (100_000.0, 20_000.0), (7.0, 2.0), (1.0, 0.2)] {
            assert!(close(nice_step(high), step), "{high}: {}", nice_step(high));
        }
    }

    #[test]
    fn values_are_written_shortly() {
        for (unit, value, text) in [
            (Unit::Count, 123_456.0, "123k"),
            (Unit::Count, 1_500_000.0, "1.5M"),
            (Unit::Count, 800.0, "800"),
            (Unit::Time, 12_345.0, "12.3 µs"),
            (Unit::Time, 2_000_000.0, "2 ms"),
            (Unit::Time, 3e9, "3 s"),
            (Unit::Percent, 99.999, "99.999 %"),
            (Unit::Percent, 50.0, "50 %"),
        ] {
            assert_eq!(unit.format(value), text);
        }
    }

    #[test]
    fn nines_are_at_equal_distances() {
        let nines = [0.0, 90.0, 99.0, 99.9].map(|value| Scale::Nines.measure(value));
        for (index, nine) in nines.into_iter().enumerate() {
            assert!((nine - index as f64).abs() < 1e-6);
        }
    }
}
