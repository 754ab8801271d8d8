//! Legend of a chart.

use super::text::{fit, width};

/// Name of a line, or what a mark means.
pub(super) struct Key {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) text: String,
    pub(super) shape: KeyShape,
}

/// Sample before the text.
pub(super) enum KeyShape {
    Line {
        colour: usize,
        dashed: bool,
        mark: &'static str,
    },
    /// Swatch of a stage, by its index.
    Stage(usize),
    /// Area behind marks.
    Band,
    /// Mark that is not filled.
    Hollow {
        mark: &'static str,
    },
    None,
}

impl Key {
    pub(super) fn new(text: &str, shape: KeyShape) -> Self {
        Self { x: 0.0, y: 0.0, text: text.to_owned(), shape }
    }

    /// Width of the sample and its distance to the text.
    pub(super) fn indent(&self) -> f64 {
        match self.shape {
            KeyShape::Line { .. } => 28.0,
            KeyShape::Hollow { .. } | KeyShape::Stage(_) | KeyShape::Band => 16.0,
            KeyShape::None => 0.0,
        }
    }
}

/// Places the keys in rows from `top` on, none of them wider than `most`. Returns the position of
/// the row after the last one, too.
pub(super) fn lay_out(keys: Vec<Key>, most: f64, top: f64) -> (Vec<Key>, f64) {
    const ROW: f64 = 18.0;
    let (mut x, mut y) = (0.0, top);
    let place = |key: Key| {
        let text = fit(&key.text, most - key.indent(), 12.0);
        let needed = key.indent() + width(&text, 12.0);
        if x > 0.0 && x + needed > most {
            (x, y) = (0.0, y + ROW);
        }
        let placed = Key { x, y, text, ..key };
        x += needed + 14.0;
        placed
    };
    let keys: Vec<_> = keys.into_iter().map(place).collect();
    let next = keys.last().map_or(top, |key| key.y + ROW);
    (keys, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_in_the_picture() {
        let names = ["a".repeat(20), "b".repeat(20), "c".repeat(200), "d".to_owned()];
        let line = || KeyShape::Line { colour: 0, dashed: false, mark: "" };
        let keys = names.iter().map(|name| Key::new(name, line())).collect();
        let (keys, next) = lay_out(keys, 400.0, 10.0);
        let rows: Vec<_> = keys.iter().map(|key| key.y).collect();
        assert_eq!((rows, next), (vec![10.0, 10.0, 28.0, 46.0], 64.0));
        for key in keys {
            assert!(key.x + key.indent() + width(&key.text, 12.0) <= 400.0, "{}", key.text);
        }
    }
}
