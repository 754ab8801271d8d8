//! Notes of what a program of tests does, for `tests/deadline`.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::{Mutex, OnceLock, PoisonError},
};

/// Bytes of one note in the file that `TEST_NOTES` names.
const LENGTH: usize = 200;

/// Names of those that have noted something, in the order of their notes in the file.
static NAMES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes what this thread does or waits for, in the place of its last note. `tests/deadline` shows
/// it where a test takes too long; without it, nothing is noted.
pub fn note(what: &str) {
    note_of("", what);
}

/// Notes it for something else that this thread runs, in a place of its own.
pub(crate) fn note_of(part: &str, what: &str) {
    static NOTES: OnceLock<Option<File>> = OnceLock::new();
    let open = || File::create(std::env::var_os("TEST_NOTES")?).ok();
    let Some(notes) = NOTES.get_or_init(open) else { return };
    let thread = std::thread::current();
    let name = format!("{}{part}", thread.name().unwrap_or("a thread"));
    let text = format!("{name}: {}", what.replace('\n', " "));
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let index = names.iter().position(|known| *known == name).unwrap_or(names.len());
    if index == names.len() {
        names.push(name);
    }
    drop(names);
    let mut line = text.into_bytes();
    line.resize(LENGTH - 1, b' ');
    line.push(b'\n');
    // A note that can't be written is missed only where a test hangs.
    let _ = notes.write_at(&line, (index * LENGTH) as u64);
}
