//! Plots of a line chart: one, or one for each of many lines.

use std::{collections::BTreeSet, fmt::Write};

use askama::Template;

use super::{
    axis::{Axis, ScaledAxis},
    chart::{Chart, LINES_MAX, Line, Point},
    key::{Key, KeyShape},
    label::{Label, Placement},
    picture::{Frame, Picture, Size, Svg, tenths},
    text::{fit, width},
};

/// Least mean distance of points that all have a mark.
const MARK_DISTANCE: f64 = 12.0;
/// Marks of a longer line.
const MARKS_OF_LONG_LINE: usize = 9;
/// Most lines that small plots show behind their own.
const CONTEXT_MAX: usize = 36;
/// Distances of plots beside and above each other.
const GAP: f64 = 22.0;
const ROW_GAP: f64 = 26.0;

/// Shapes of marks, from their centre, by the index of the line's colour.
pub(super) const SHAPES: [&str; 6] = [
    "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z",
    "m-2.8 -2.8h5.6v5.6h-5.6z",
    "m0 -3.6l3.4 6h-6.8z",
    "m0 -4l4 4l-4 4l-4 -4z",
    "m0 3.6l3.4 -6h-6.8z",
    "m-1.2 -3.6h2.4v2.4h2.4v2.4h-2.4v2.4h-2.4v-2.4h-2.4v-2.4h2.4z",
];

#[derive(Template)]
#[template(path = "chart.svg")]
struct Drawing {
    frame: Frame,
    /// Names of the quantities, as the script shows them.
    x_name: &'static str,
    x_label: String,
    y_label: String,
    plots: Vec<Plot>,
}

/// Plot with its lines; positions are those of the drawing.
struct Plot {
    title: String,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    x_ticks: Vec<Tick>,
    y_ticks: Vec<Tick>,
    /// Path of the lines of other plots.
    context: String,
    curves: Vec<Curve>,
    labels: Vec<Label>,
}

struct Tick {
    at: f64,
    /// Empty where there is no room.
    text: String,
}

struct Curve {
    name: String,
    colour: usize,
    dashed: bool,
    path: String,
    /// Both values and the flaw of each point, separated by bars.
    values: String,
    marks: Vec<Mark>,
}

struct Mark {
    path: String,
    is_hollow: bool,
    /// Values of the point.
    title: String,
}

/// Both axes of all plots of a drawing.
struct Axes<'a> {
    chart: &'a Chart,
    x: ScaledAxis,
    y: ScaledAxis,
}

impl Picture for Chart {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> &str {
        &self.title
    }

    /// Names of the lines, and what labels and marks mean.
    fn keys(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        if (2..=LINES_MAX).contains(&self.lines.len()) {
            let named = self.lines.iter().map(|line| {
                let (colour, dashed) = (line.colour % SHAPES.len(), line.dashed);
                Key::new(&line.name, KeyShape::Line { colour, dashed, mark: SHAPES[colour] })
            });
            keys.extend(named);
        }
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let flaws: BTreeSet<_> = points().map(|it| it.flaw).filter(|it| !it.is_empty()).collect();
        if !flaws.is_empty() {
            let text = Vec::from_iter(flaws).join(" or ");
            keys.push(Key::new(&text, KeyShape::Hollow { mark: SHAPES[0] }));
        }
        if self.lines.len() <= LINES_MAX && points().any(|point| !point.label.is_empty()) {
            keys.push(Key::new(&format!("at points: {}", self.labels), KeyShape::None));
        }
        keys
    }

    fn draw(&self, frame: Frame, size: &Size) -> Svg {
        let (plots, bottom) = Grid::new(self, size, frame.top + 12.0).plots();
        Svg::new(&Drawing {
            frame: Frame { height: bottom + 42.0, ..frame },
            x_name: self.x.name,
            x_label: self.x.label(),
            y_label: self.y.label(),
            plots,
        })
    }
}

/// Places of the plots.
struct Grid<'a> {
    chart: &'a Chart,
    axes: Axes<'a>,
    columns: usize,
    count: usize,
    left: f64,
    top: f64,
    plot_width: f64,
    plot_height: f64,
}

impl<'a> Grid<'a> {
    fn new(chart: &'a Chart, size: &Size, top: f64) -> Self {
        let is_small = chart.lines.len() > LINES_MAX;
        let (columns, count, plot_height) = if is_small {
            (size.columns, chart.lines.len(), size.small_height)
        } else {
            (1, 1, size.height)
        };
        let all = || chart.lines.iter().flat_map(|line| &line.points);
        let y = ScaledAxis::new(&chart.y, all().map(|point| point.y), plot_height / 44.0);
        let widest = |axis: &Axis, ticks: &[f64]| {
            ticks.iter().map(|tick| width(&axis.unit.short(*tick), 12.0)).fold(0.0, f64::max)
        };
        let left = widest(&chart.y, &y.ticks) + 10.0;
        let room = (size.width - left) / columns as f64 / 62.0;
        let x = ScaledAxis::new(&chart.x, all().map(|point| point.x), room);
        let right = widest(&chart.x, &x.ticks) / 2.0 + 2.0;
        let gaps = GAP * (columns - 1) as f64;
        Self {
            chart,
            axes: Axes { chart, x, y },
            columns,
            count,
            left,
            top,
            plot_width: (size.width - left - right - gaps) / columns as f64,
            plot_height,
        }
    }

    /// All plots, and the bottom of the last row of them.
    fn plots(&self) -> (Vec<Plot>, f64) {
        let plots: Vec<_> = (0..self.count).map(|index| self.plot(index)).collect();
        let bottom = plots.iter().map(|plot| plot.bottom).fold(self.top, f64::max);
        (plots, bottom)
    }

    fn plot(&self, index: usize) -> Plot {
        let is_only = self.count == 1;
        let (row, column) = (index / self.columns, index % self.columns);
        let title_height = if is_only { 0.0 } else { 16.0 };
        let left = self.left + column as f64 * (self.plot_width + GAP);
        let top =
            self.top + title_height + row as f64 * (self.plot_height + title_height + ROW_GAP);
        let mut plot = Plot {
            title: String::new(),
            left: tenths(left),
            right: tenths(left + self.plot_width),
            top: tenths(top),
            bottom: tenths(top + self.plot_height),
            x_ticks: Vec::new(),
            y_ticks: Vec::new(),
            context: String::new(),
            curves: Vec::new(),
            labels: Vec::new(),
        };
        plot.y_ticks = self.axes.y_ticks(&plot, column == 0);
        plot.x_ticks = self.axes.x_ticks(&plot, index + self.columns >= self.count);
        let curve = |line: &Line, colour| self.axes.curve(&plot, line, colour);
        if is_only {
            plot.curves = self.chart.lines.iter().map(|line| curve(line, line.colour)).collect();
            plot.labels = self.axes.labels(&plot);
        } else {
            let line = &self.chart.lines[index];
            plot.curves = vec![curve(line, 0)];
            plot.title = fit(&line.name, self.plot_width, 12.0);
            if self.count <= CONTEXT_MAX {
                let others = self.chart.lines.iter().filter(|other| !std::ptr::eq(*other, line));
                plot.context = others.map(|line| self.axes.path(&plot, line)).collect();
            }
        }
        plot
    }
}

impl Axes<'_> {
    fn place(&self, plot: &Plot, point: &Point) -> (f64, f64) {
        (
            tenths(plot.left + self.x.position(point.x) * (plot.right - plot.left)),
            tenths(plot.bottom - self.y.position(point.y) * (plot.bottom - plot.top)),
        )
    }

    fn y_ticks(&self, plot: &Plot, has_text: bool) -> Vec<Tick> {
        let tick = |&value: &f64| Tick {
            at: tenths(plot.bottom - self.y.position(value) * (plot.bottom - plot.top)),
            text: if has_text { self.chart.y.unit.short(value) } else { String::new() },
        };
        self.y.ticks.iter().map(tick).collect()
    }

    /// Ticks of which no two texts overlap.
    fn x_ticks(&self, plot: &Plot, has_text: bool) -> Vec<Tick> {
        let mut free_from = f64::NEG_INFINITY;
        let tick = |&value: &f64| {
            let at = tenths(plot.left + self.x.position(value) * (plot.right - plot.left));
            let text = self.chart.x.unit.short(value);
            let half = width(&text, 12.0) / 2.0;
            let is_free = has_text && at - half >= free_from;
            if is_free {
                free_from = at + half + 6.0;
            }
            Tick { at, text: if is_free { text } else { String::new() } }
        };
        self.x.ticks.iter().map(tick).collect()
    }

    fn path(&self, plot: &Plot, line: &Line) -> String {
        let mut path = String::new();
        for (index, point) in line.points.iter().enumerate() {
            let (x, y) = self.place(plot, point);
            let _ = write!(path, "{}{x} {y}", if index == 0 { 'M' } else { 'L' });
        }
        path
    }

    fn curve(&self, plot: &Plot, line: &Line, colour: usize) -> Curve {
        let colour = colour % SHAPES.len();
        // Marks of several long lines are at different places.
        let step = line.points.len().div_ceil(MARKS_OF_LONG_LINE);
        let most = (plot.right - plot.left) / MARK_DISTANCE;
        let is_marked = |index: usize| {
            line.points.len() as f64 <= most
                || self.chart.lines.len() > 1 && index % step == (colour * step / 3) % step
        };
        let marked = line.points.iter().enumerate().filter(|(index, _)| is_marked(*index));
        let marks = marked.map(|(_, point)| {
            let (x, y) = self.place(plot, point);
            Mark {
                path: format!("M{x} {y}{}", SHAPES[colour]),
                is_hollow: !point.flaw.is_empty(),
                title: self.in_words(line, point),
            }
        });
        Curve {
            name: self.line_name(line).replace('|', "/"),
            colour,
            dashed: line.dashed,
            path: self.path(plot, line),
            values: line.points.iter().map(|point| self.values(point)).collect(),
            marks: marks.collect(),
        }
    }

    /// Name of a line, or of its values if there is only one.
    fn line_name<'b>(&'b self, line: &'b Line) -> &'b str {
        if line.name.is_empty() { self.chart.y.name } else { &line.name }
    }

    /// Values of a point for the script.
    fn values(&self, point: &Point) -> String {
        let (x, y, remark) = self.shown(point);
        [x, y, remark].map(|text| text.replace('|', "/") + "|").concat()
    }

    /// Values of a point in words.
    fn in_words(&self, line: &Line, point: &Point) -> String {
        let (x, y, remark) = self.shown(point);
        let chart = self.chart;
        let name = if line.name.is_empty() { String::new() } else { format!("{}: ", line.name) };
        let remark = if remark.is_empty() { remark } else { format!("; {remark}") };
        format!("{name}{} {y}, {} {x}{remark}", chart.y.name, chart.x.name)
    }

    fn shown(&self, point: &Point) -> (String, String, String) {
        let chart = self.chart;
        let label = match point.label.as_str() {
            "" => String::new(),
            label => format!("{} {label}", chart.labels),
        };
        let remarks = [label.as_str(), point.flaw].into_iter().filter(|text| !text.is_empty());
        let remarks = remarks.collect::<Vec<_>>().join(", ");
        (chart.x.unit.full(point.x), chart.y.unit.full(point.y), remarks)
    }

    /// Labels beside points, of those that find a free place.
    fn labels(&self, plot: &Plot) -> Vec<Label> {
        let mut placement = Placement::new([plot.left, plot.top, plot.right, plot.bottom]);
        let lines = || self.chart.lines.iter();
        let points = || lines().flat_map(|line| &line.points);
        if points().all(|point| point.label.is_empty()) {
            return Vec::new();
        }
        for point in points() {
            placement.keep_free(self.place(plot, point));
        }
        for line in lines() {
            for pair in line.points.windows(2) {
                placement.avoid(self.place(plot, &pair[0]), self.place(plot, &pair[1]));
            }
        }
        points()
            .filter_map(|point| placement.place(&point.label, self.place(plot, point)))
            .collect()
    }
}
