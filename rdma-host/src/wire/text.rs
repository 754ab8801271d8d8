//! Text that comes from outside, for display.

/// True for a character that a terminal does not show as itself: control characters, line and
/// paragraph separators, marks that change the direction of text (Unicode annex 9), and characters
/// without a width (property `Default_Ignorable_Code_Point`). Text from a target that holds one
/// could show another name than it has, or write over the screen.
#[must_use]
pub fn is_unprintable(c: char) -> bool {
    let ignorable = matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}');
    c.is_control() || ignorable || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_bidi_and_zero_width_characters_are_unprintable() {
        for c in "\0\n\t\u{1b}\u{7f}\u{9b}\u{ad}\u{61c}\u{200b}\u{200d}\u{200e}\u{2028}\u{202e}\
                  \u{2060}\u{2066}\u{2069}\u{feff}\u{e0041}"
            .chars()
        {
            assert!(is_unprintable(c), "{c:?}");
        }
        for c in " ~aü漢é\u{301}\u{a0}€😀ש".chars() {
            assert!(!is_unprintable(c), "{c:?}");
        }
    }
}
