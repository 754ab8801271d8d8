//! House rules no linter can state.
