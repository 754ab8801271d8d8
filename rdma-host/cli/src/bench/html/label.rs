//! Labels beside the points of a chart, where they overlap nothing.

use super::{number::count, text::width};

/// Text beside a point.
pub(super) struct Label {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) text: String,
}

/// Rectangle by its left, top, right and bottom.
type Rectangle = [f64; 4];

/// Places that are taken.
pub(super) struct Placement {
    bounds: Rectangle,
    taken: Vec<Rectangle>,
}

const FONT_SIZE: f64 = 11.0;
/// Half of a mark's side.
const MARK: f64 = 4.0;

impl Placement {
    pub(super) fn new(bounds: Rectangle) -> Self {
        Self { bounds, taken: Vec::new() }
    }

    /// Keeps the mark of a point free.
    pub(super) fn keep_free(&mut self, (x, y): (f64, f64)) {
        self.taken.push([x - MARK, y - MARK, x + MARK, y + MARK]);
    }

    /// Keeps a line free.
    pub(super) fn avoid(&mut self, from: (f64, f64), to: (f64, f64)) {
        const STEP: f64 = 4.0;
        let length = (to.0 - from.0).hypot(to.1 - from.1);
        let steps = (length / STEP).ceil().min(400.0);
        for step in 0..count(steps) {
            let share = step as f64 / steps;
            let (x, y) = (from.0 + share * (to.0 - from.0), from.1 + share * (to.1 - from.1));
            self.taken.push([x - 1.0, y - 1.0, x + 1.0, y + 1.0]);
        }
    }

    /// Label at the first free place around a point.
    pub(super) fn place(&mut self, text: &str, (x, y): (f64, f64)) -> Option<Label> {
        if text.is_empty() {
            return None;
        }
        let (width, height) = (width(text, FONT_SIZE), FONT_SIZE * 0.8);
        let (right, left) = (x + MARK + 2.0, x - MARK - 2.0 - width);
        let (above, middle, below) = (y - MARK - 2.0, y + height / 2.0, y + MARK + 2.0 + height);
        let places = [
            (right, above),
            (left, above),
            (right, below),
            (left, below),
            (x - width / 2.0, above - 1.0),
            (x - width / 2.0, below + 1.0),
            (right, middle),
            (left, middle),
        ];
        let free = places
            .into_iter()
            .find(|&(left, base)| self.is_free([left, base - height, left + width, base]));
        let (left, base) = free?;
        self.taken.push([left, base - height, left + width, base]);
        let tenths = |value: f64| (value * 10.0).round() / 10.0;
        Some(Label { x: tenths(left), y: tenths(base), text: text.to_owned() })
    }

    fn is_free(&self, place: Rectangle) -> bool {
        let [left, top, right, bottom] = self.bounds;
        let is_within =
            place[0] >= left && place[1] >= top && place[2] <= right && place[3] <= bottom;
        let overlaps = |other: &Rectangle| {
            place[0] < other[2] && other[0] < place[2] && place[1] < other[3] && other[1] < place[3]
        };
        is_within && !self.taken.iter().any(overlaps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_overlap_neither_each_other_nor_the_frame() {
        let mut placement = Placement::new([0.0, 0.0, 100.0, 100.0]);
        let points = [(50.0, 50.0), (52.0, 50.0), (99.0, 1.0), (54.0, 50.0)];
        points.into_iter().for_each(|point| placement.keep_free(point));
        let labels: Vec<_> =
            points.into_iter().filter_map(|point| placement.place("128", point)).collect();
        assert_eq!(labels.len(), 4);
        let (first, corner) = (&labels[0], &labels[2]);
        assert!(first.x > 50.0 && first.y < 50.0);
        assert!(corner.x < 99.0 && corner.y > 1.0);
        for (index, label) in labels.iter().enumerate() {
            for other in &labels[..index] {
                assert!((label.x - other.x).abs() > 15.0 || (label.y - other.y).abs() > 8.0);
            }
        }
    }
}
