//! Result of a check of this machine.

use serde::Serialize;

/// Verdict of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckVerdict {
    /// Works.
    Good,
    /// Worth knowing; nothing fails for it.
    Note,
    /// Keeps programs from being run.
    Bad,
}

/// The result of looking at one thing.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// The thing.
    pub subject: String,
    /// Verdict of the check.
    pub verdict: CheckVerdict,
    /// Finding and remedy.
    pub text: String,
}

impl Check {
    pub(crate) fn good(subject: &str, text: impl Into<String>) -> Self {
        Self { subject: subject.into(), verdict: CheckVerdict::Good, text: text.into() }
    }

    pub(crate) fn note(subject: &str, text: impl Into<String>) -> Self {
        Self { subject: subject.into(), verdict: CheckVerdict::Note, text: text.into() }
    }

    pub(crate) fn bad(subject: &str, text: impl Into<String>) -> Self {
        Self { subject: subject.into(), verdict: CheckVerdict::Bad, text: text.into() }
    }
}
