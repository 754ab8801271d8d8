//! Common parts of all charts: they are in a page twice, for its widths, and can be taken out as
//! documents.

use std::fmt;

use askama::{Template, filters::HtmlSafe};

use super::{
    colour::{PALETTE, Palette},
    key::{Key, lay_out},
    text::wrap,
};

/// Kind of page that a picture is for.
pub(super) struct Size {
    class: &'static str,
    pub(super) width: f64,
    /// Height of an only plot.
    pub(super) height: f64,
    /// Plots beside each other if there are several, and the height of each.
    pub(super) columns: usize,
    pub(super) small_height: f64,
}

const WIDE: Size =
    Size { class: "wide", width: 720.0, height: 230.0, columns: 3, small_height: 110.0 };
const NARROW: Size =
    Size { class: "narrow", width: 360.0, height: 210.0, columns: 2, small_height: 100.0 };

/// Chart that can be drawn in several sizes.
pub(super) trait Picture {
    /// Name of a file with it.
    fn name(&self) -> &'static str;

    fn title(&self) -> &str;

    /// Legend.
    fn keys(&self) -> Vec<Key>;

    /// Drawing in a frame, which it makes as high as it needs.
    fn draw(&self, frame: Frame, size: &Size) -> Svg;

    /// Drawings for a wide and for a narrow page.
    fn figure(&self) -> Figure {
        let svg = |size| self.draw(Frame::new(self.title(), self.keys(), size), size);
        Figure { name: self.name(), wide: svg(&WIDE), narrow: svg(&NARROW) }
    }

    /// Document of its own; the subtitle says what was measured.
    fn document(&self, subtitle: &str) -> String {
        let frame = Frame::new(self.title(), self.keys(), &WIDE);
        self.draw(frame.standalone(subtitle), &WIDE).0
    }
}

/// Element of a drawing.
pub(super) struct Svg(String);

/// Parts around the plots of a drawing.
pub(super) struct Frame {
    pub(super) palette: &'static Palette,
    pub(super) class: &'static str,
    /// True for a document of its own.
    pub(super) standalone: bool,
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) title: String,
    pub(super) subtitle: Vec<String>,
    pub(super) keys: Vec<Key>,
    /// Position below the keys.
    pub(super) top: f64,
}

/// Chart in a page, of whose drawings the style sheet shows one.
#[derive(Template)]
#[template(path = "figure.html")]
pub(super) struct Figure {
    name: &'static str,
    wide: Svg,
    narrow: Svg,
}

impl HtmlSafe for Figure {}

impl Svg {
    /// Drawing by a template for SVG.
    pub(super) fn new(template: &impl Template) -> Self {
        Self(template.render().expect("writing to a string does not fail"))
    }
}

impl fmt::Display for Svg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl HtmlSafe for Svg {}

impl Frame {
    fn new(title: &str, keys: Vec<Key>, size: &Size) -> Self {
        let (keys, top) = lay_out(keys, size.width, 36.0);
        Self {
            palette: &PALETTE,
            class: size.class,
            standalone: false,
            width: size.width,
            height: 0.0,
            title: title.to_owned(),
            subtitle: Vec::new(),
            keys,
            top,
        }
    }

    /// Frame with a subtitle above the keys.
    fn standalone(self, subtitle: &str) -> Self {
        let subtitle = wrap(subtitle, self.width, 12.0);
        let shift = 16.0 * subtitle.len() as f64;
        let keys = self.keys.into_iter().map(|key| Key { y: key.y + shift, ..key }).collect();
        Self { standalone: true, subtitle, keys, top: self.top + shift, ..self }
    }
}

/// Number with one decimal.
pub(super) fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
