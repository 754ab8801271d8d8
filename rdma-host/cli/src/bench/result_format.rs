//! Formats of results on standard output.

use clap::ValueEnum;

/// Output format of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum ResultFormat {
    /// Text for people.
    #[default]
    Normal,
    /// JSON for programs: one value on standard output, and nothing else.
    Json,
    /// JSON under the names of fio, as of its --output-format=json+.
    Fio,
}
