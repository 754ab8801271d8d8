//! Estimates of the width of text in charts, which nothing measures before a browser shows them.

use super::number::count;

/// Width at most of one line of text; `size` is that of the font.
pub(super) fn width(text: &str, size: f64) -> f64 {
    // Arial needs 0.56 for digits, and 0.53 on the average; wider fonts up to 0.62.
    text.chars().count() as f64 * size * 0.6
}

/// Text that is shortened to a width.
pub(super) fn fit(text: &str, most: f64, size: f64) -> String {
    if width(text, size) <= most {
        return text.to_owned();
    }
    let most = count(most / width("x", size));
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// Lines of a text that is broken between words.
pub(super) fn wrap(text: &str, most: f64, size: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(line, size) + width(word, size) + size <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(fit(word, most, size)),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_fits() {
        assert_eq!(fit("read", 100.0, 10.0), "read");
        assert_eq!(fit("nqn.2026-11.org.example", 60.0, 10.0), "nqn.2026-…");
        let lines = wrap("randread 4 KiB, depth 8 on 1 queue", 100.0, 10.0);
        assert_eq!(lines, ["randread 4 KiB,", "depth 8 on 1", "queue"]);
        assert!(wrap(&"x".repeat(300), 100.0, 10.0).iter().all(|line| width(line, 10.0) <= 100.0));
    }
}
