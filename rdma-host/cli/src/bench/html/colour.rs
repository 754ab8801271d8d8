//! Colours of charts, for light and for dark pages.

/// Colour in the notation of CSS.
#[derive(Clone, Copy)]
pub(super) struct Colour {
    pub(super) light: &'static str,
    pub(super) dark: &'static str,
}

/// All colours of a page and of its charts.
pub(super) struct Palette {
    pub(super) lines: [Colour; 6],
    /// Stages of a command's time.
    pub(super) stages: [Colour; 5],
    /// Text that matters most, and text beside it.
    pub(super) ink: Colour,
    pub(super) soft: Colour,
    /// Lines of a grid.
    pub(super) rule: Colour,
    /// Lines that only show what a coloured one is compared with.
    pub(super) context: Colour,
    /// Backgrounds of charts, of the page and of warnings.
    pub(super) card: Colour,
    pub(super) page: Colour,
    pub(super) warning: Colour,
    pub(super) warning_border: Colour,
}

pub(super) static PALETTE: Palette = Palette {
    lines: [
        colour("#1f5fc4", "#6ea8ff"),
        colour("#b85000", "#ff9d57"),
        colour("#0b7a5e", "#4fc9aa"),
        colour("#8a3aa8", "#d08ae6"),
        colour("#b3261e", "#ff8279"),
        colour("#55606f", "#9aa5b4"),
    ],
    stages: [
        colour("#b3261e", "#e5635a"),
        colour("#b07d00", "#e0b341"),
        colour("#8a3aa8", "#d08ae6"),
        colour("#1f5fc4", "#5a96f0"),
        colour("#0b7a5e", "#3fb796"),
    ],
    ink: colour("#1a2230", "#e6e9ef"),
    soft: colour("#566070", "#a3adbb"),
    rule: colour("#e0e4ea", "#2f3846"),
    context: colour("#c3cad4", "#4a5566"),
    card: colour("#ffffff", "#191f28"),
    page: colour("#f6f7f9", "#11151b"),
    warning: colour("#fff6da", "#322a12"),
    warning_border: colour("#b07d00", "#c79a2b"),
};

const fn colour(light: &'static str, dark: &'static str) -> Colour {
    Colour { light, dark }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance, by the Web Content Accessibility Guidelines 2.2.
    fn luminance(colour: &str) -> f64 {
        let part = |index: usize| {
            let value = u8::from_str_radix(&colour[index..index + 2], 16).unwrap();
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
    }

    fn contrast(a: &str, b: &str) -> f64 {
        let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
        a.max(b) / a.min(b)
    }

    #[test]
    fn text_and_lines_have_the_contrast_of_level_aa() {
        assert!((contrast("#000000", "#ffffff") - 21.0).abs() < 1e-9);
        let shades: [fn(Colour) -> &'static str; 2] = [|it| it.light, |it| it.dark];
        for shade in shades {
            let palette = &PALETTE;
            for text in [palette.ink, palette.soft] {
                for ground in [palette.card, palette.page, palette.warning] {
                    let contrast = contrast(shade(text), shade(ground));
                    assert!(contrast >= 4.5, "{} {}: {contrast}", shade(text), shade(ground));
                }
            }
            let lines = palette.lines.into_iter().chain(palette.stages);
            for graphic in lines.chain([palette.warning_border]) {
                let contrast = contrast(shade(graphic), shade(palette.card));
                assert!(contrast >= 3.0, "{}: {contrast}", shade(graphic));
            }
        }
    }
}
