//! Text whose command-line options are not broken into lines.

use std::fmt::{self, Display, Formatter};

use askama::filters::{Escaper, Html, HtmlSafe};

/// Characters that an option may stand behind.
const OPENING: [char; 3] = ['(', '\'', '"'];

/// Text as HTML, in which a browser breaks no option after one of its hyphens.
pub(super) struct Unbroken<'a>(&'a str);

/// The text, escaped.
pub(super) fn unbroken(text: &(impl AsRef<str> + ?Sized)) -> Unbroken<'_> {
    Unbroken(text.as_ref())
}

impl HtmlSafe for Unbroken<'_> {}

impl Display for Unbroken<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for word in self.0.split_inclusive(char::is_whitespace) {
            // The value of --option=VALUE may be long, and is broken where it can be.
            let (before, word) = word.split_at(word.len() - word.trim_start_matches(OPENING).len());
            let (option, rest) = word.split_at(option_length(word));
            Html.write_escaped_str(&mut *f, before)?;
            if !option.is_empty() {
                f.write_str("<span class=\"option\">")?;
                Html.write_escaped_str(&mut *f, option)?;
                f.write_str("</span>")?;
            }
            Html.write_escaped_str(&mut *f, rest)?;
        }
        Ok(())
    }
}

/// Bytes of the option at the start of a word: hyphens, and letters, digits and hyphens after them.
fn option_length(word: &str) -> usize {
    let hyphens = word.len() - word.trim_start_matches('-').len();
    let name = &word[hyphens..];
    let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(name.len());
    let is_option = (1..=2).contains(&hyphens) && name.starts_with(|c: char| c.is_alphabetic());
    if is_option { hyphens + end } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_not_broken() {
        for (text, expected) in [
            ("use --wait event", "use <span class=\"option\">--wait</span> event"),
            ("--bs=4K", "<span class=\"option\">--bs</span>=4K"),
            ("(--io-size)", "(<span class=\"option\">--io-size</span>)"),
            ("a -1 % - b -- c", "a -1 % - b -- c"),
            ("-o <b>", "<span class=\"option\">-o</span> &#60;b&#62;"),
            ("nqn.2026-11.org", "nqn.2026-11.org"),
        ] {
            assert_eq!(unbroken(text).to_string(), expected, "{text}");
        }
    }
}
