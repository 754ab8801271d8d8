//! Line charts.

use super::axis::Axis;

/// Line chart.
pub(super) struct Chart {
    /// Name of a file with this chart.
    pub(super) name: &'static str,
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
    /// Meaning of the labels at points; empty if there are none.
    pub(super) labels: &'static str,
}

#[derive(Clone, Default)]
pub(super) struct Line {
    pub(super) name: String,
    /// Index of the colour and of the shape of marks.
    pub(super) colour: usize,
    /// Dashed, to be compared with another line of this colour.
    pub(super) dashed: bool,
    pub(super) points: Vec<Point>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    /// Text beside the point; may be empty.
    pub(super) label: String,
    /// Cause for which the point is not as good as others; empty if there is none.
    pub(super) flaw: &'static str,
}

/// Lines that one plot has at most; more are drawn in a plot each.
pub(super) const LINES_MAX: usize = 6;

/// Points of a line that are drawn at most: more than a screen has columns.
const POINTS_MAX: usize = 1024;

impl Line {
    /// Line of as many points as can be told apart: of each group of neighbours the least and the
    /// greatest.
    pub(super) fn new(name: &str, colour: usize, points: Vec<Point>) -> Self {
        let group = points.len().div_ceil(POINTS_MAX / 2);
        let points = if points.len() <= POINTS_MAX {
            points
        } else {
            points.chunks(group).flat_map(extremes).collect()
        };
        Self { name: name.to_owned(), colour, points, dashed: false }
    }

    pub(super) fn dashed(self) -> Self {
        Self { dashed: true, ..self }
    }
}

/// Least and greatest of these points, in their order.
fn extremes(points: &[Point]) -> Vec<Point> {
    let indices = 0..points.len();
    let by_value = |a: &usize, b: &usize| points[*a].y.total_cmp(&points[*b].y);
    let Some((least, greatest)) = indices.clone().min_by(by_value).zip(indices.max_by(by_value))
    else {
        return Vec::new();
    };
    let mut both = vec![least, greatest];
    both.sort_unstable();
    both.dedup();
    both.into_iter().map(|index| points[index].clone()).collect()
}

impl Point {
    pub(super) fn new(x: f64, y: f64) -> Self {
        Self { x, y, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_keeps_its_extremes() {
        let mut points: Vec<_> = (0..86_400).map(|at| Point::new(f64::from(at), 1.0)).collect();
        (points[777].y, points[80_000].y) = (9.0, 0.1);
        let line = Line::new("p99", 0, points);
        assert!(line.points.len() <= POINTS_MAX, "{}", line.points.len());
        for extreme in [(777.0, 9.0), (80_000.0, 0.1)] {
            assert!(line.points.iter().any(|point| (point.x, point.y) == extreme));
        }
        assert!(line.points.is_sorted_by_key(|point| point.x));
    }
}
