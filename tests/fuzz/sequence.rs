//! Any sequence of operations on the verbs engine: see `tests::sequence` for what must hold.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = tests::sequence::run(bytes);
});
