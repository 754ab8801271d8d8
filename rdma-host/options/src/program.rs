//! Program that uses the options: what it does with warnings, and before it holds a secret.

use std::{fmt::Display, sync::OnceLock};

/// Functions of the program.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Shows a warning, one line without a prefix.
    pub warn: fn(&dyn Display),
    /// Protects the memory of the process, before a secret is read.
    pub protect: fn(),
}

static PROGRAM: OnceLock<Program> = OnceLock::new();

impl Program {
    /// Makes these the functions of the process; those that were set first stay. Without them,
    /// warnings are events of `tracing`, and nothing is protected.
    pub fn set(self) {
        let _ = PROGRAM.set(self);
    }
}

/// Shows a warning.
pub(crate) fn warn(text: impl Display) {
    match PROGRAM.get() {
        Some(program) => (program.warn)(&text),
        None => tracing::warn!("{text}"),
    }
}

/// Protects the memory of the process: a secret will be in it.
pub(crate) fn protect() {
    if let Some(program) = PROGRAM.get() {
        (program.protect)();
    }
}
