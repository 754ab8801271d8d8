//! Text within the width of a terminal.

use std::borrow::Cow;

use command_manual::WIDTH_MIN;
use rustix::{fd::AsFd, termios};

/// Text as it fits the terminal that `stream` is: longer lines are broken at spaces. Text for
/// anything else is left as it is.
pub(crate) fn fit<'a>(text: &'a str, stream: impl AsFd) -> Cow<'a, str> {
    match termios::tcgetwinsize(stream) {
        Ok(size) if size.ws_col >= WIDTH_MIN => fit_width(text, usize::from(size.ws_col)),
        _ => Cow::Borrowed(text),
    }
}

fn fit_width(text: &str, width: usize) -> Cow<'_, str> {
    if text.lines().all(|line| line.chars().count() <= width) {
        return Cow::Borrowed(text);
    }
    let mut fitted = String::with_capacity(text.len() + 64);
    for line in text.split_inclusive('\n') {
        let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
        fit_line(&mut fitted, body, width);
        fitted.push_str(end);
    }
    Cow::Owned(fitted)
}

/// Appends a line; its continuations are indented by two columns more than its start.
fn fit_line(fitted: &mut String, line: &str, width: usize) {
    let indent = line.len() - line.trim_start_matches(' ').len();
    let (start, words) = line.split_at(indent);
    fitted.push_str(start);
    let mut column = indent;
    for (index, word) in words.split(' ').enumerate() {
        let length = word.chars().count();
        if index > 0 && column + 1 + length > width && column > indent + 2 {
            fitted.truncate(fitted.trim_end_matches(' ').len());
            fitted.push('\n');
            fitted.extend(std::iter::repeat_n(' ', indent + 2));
            column = indent + 2;
        } else if index > 0 {
            fitted.push(' ');
            column += 1;
        }
        fitted.push_str(word);
        column += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lines_are_left_alone() {
        assert!(matches!(fit_width("a  b\nc\n", 40), Cow::Borrowed(_)));
        let table = "name      value\n  one   1\n";
        assert_eq!(fit_width(table, 40), table);
    }

    #[test]
    fn long_lines_are_broken_at_spaces() {
        let text = "  one two three four\nshort\n";
        assert_eq!(fit_width(text, 12), "  one two\n    three\n    four\nshort\n");
        // A word that is too long stays whole.
        assert_eq!(fit_width("abcdefghijkl mn", 8), "abcdefghijkl\n  mn");
        for line in fit_width(&"word ".repeat(50), 80).lines() {
            assert!(line.chars().count() <= 80, "{line:?}");
        }
    }
}
