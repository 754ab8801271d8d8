//! The text of a Rust file without comments, contents of literals and unit tests.

/// Text in which each letter of a comment is a space and each one within a literal an underscore;
/// lines stay where they are.
pub(crate) fn blank(text: &str) -> String {
    let mut blanked = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = ' ';
    while let Some(letter) = rest.chars().next() {
        let (length, filler) = match letter {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), ' '),
            '/' if rest.starts_with("/*") => (comment_length(rest), ' '),
            '"' => (string_length(rest), '_'),
            'r' if !is_word(previous) => (raw_string_length(rest), '_'),
            '\'' => (character_length(rest), '_'),
            _ => (0, ' '),
        };
        let (taken, left) = rest.split_at(length.max(letter.len_utf8()));
        let fill = |letter: char| if letter == '\n' { letter } else { filler };
        match length {
            0 => blanked.push(letter),
            _ => blanked.extend(taken.chars().map(fill)),
        }
        previous = letter;
        rest = left;
    }
    blanked
}

/// Text, as [`blank`] makes it, without the items that exist in tests alone.
pub(crate) fn without_tests(blanked: &str) -> String {
    const ATTRIBUTE: &str = "#[cfg(test)]";
    let mut kept = String::new();
    let mut rest = blanked;
    while let Some((before, after)) = rest.split_once(ATTRIBUTE) {
        kept.push_str(before);
        rest = &after[item_length(after)..];
    }
    kept + rest
}

pub(crate) fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Words of `code`, each with the text behind it.
pub(crate) fn words(code: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = code;
    std::iter::from_fn(move || {
        let after = &rest[rest.find(is_word)?..];
        let length = after.find(|letter| !is_word(letter)).unwrap_or(after.len());
        let (word, behind) = after.split_at(length);
        rest = behind;
        Some((word, behind))
    })
}

/// Length of an item: to the brace that closes it, or to its semicolon.
pub(crate) fn item_length(text: &str) -> usize {
    let mut depth = 0;
    for (position, letter) in text.char_indices() {
        match letter {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 && matches!(letter, '}' | ';') {
            let end = position + 1;
            // A group of imports has both.
            return end + usize::from(letter == '}' && text[end..].starts_with(';'));
        }
    }
    text.len()
}

fn comment_length(text: &str) -> usize {
    let mut depth = 0;
    let mut position = 0;
    while position < text.len() {
        if text[position..].starts_with("/*") {
            depth += 1;
        } else if text[position..].starts_with("*/") {
            depth -= 1;
            if depth == 0 {
                return position + 2;
            }
        }
        position += text[position..].chars().next().map_or(1, char::len_utf8);
    }
    text.len()
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (position, letter) in text.char_indices().skip(1) {
        match letter {
            '"' if !escaped => return position + 1,
            _ => escaped = letter == '\\' && !escaped,
        }
    }
    text.len()
}

/// Length of a raw string; 0 if none starts here.
fn raw_string_length(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|letter| *letter == '#').count();
    let start = 1 + hashes + 1;
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    text[start..].find(&end).map_or(text.len(), |found| start + found + end.len())
}

/// Length of a character literal; 0 for the quote of a lifetime.
fn character_length(text: &str) -> usize {
    let mut letters = text.char_indices().skip(1);
    match letters.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(0, |found| 3 + found + 1),
        Some(_) => letters.next().filter(|(_, letter)| *letter == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

#[test]
fn comments_literals_and_tests_are_left_out() {
    let text = "a /* b /* c */ \n */ \"d\\\"\n//\" e // f\nr#\"g\"h\"# 'i' '\\'' &'j r";
    assert_eq!(blank(text), "a              \n    ____\n___ e     \n________ ___ ____ &'j r");
    let text = "a #[cfg(test)]\n#[b]\nmod c { {} ; } d #[cfg(test)] use e::{f}; g";
    assert_eq!(without_tests(text), "a  d  g");
}
