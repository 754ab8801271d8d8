//! `soft-roce doctor`.

use std::process::ExitCode;

use clap::Args;
use soft_roce::{
    Result,
    doctor::{self, CheckVerdict},
};

use super::print;

/// Say what this machine can do, and why not more; changes nothing
///
/// Each kernel in the cache is booted. The status is 1 when no program can be run here.
#[derive(Args)]
pub(crate) struct Doctor {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let checks = doctor::examine();
        let line = |check: &doctor::Check| {
            let mark = match check.verdict {
                CheckVerdict::Good => "ok  ",
                CheckVerdict::Note => "note",
                CheckVerdict::Bad => "BAD ",
            };
            format!("{mark}  {}: {}", check.subject, check.text)
        };
        let text = if self.json {
            serde_json::to_string_pretty(&checks).expect("strings always have a JSON form")
        } else {
            checks.iter().map(line).collect::<Vec<_>>().join("\n")
        };
        let printed = print(&text);
        let bad = checks.iter().any(|check| check.verdict == CheckVerdict::Bad);
        Ok(if bad { ExitCode::FAILURE } else { printed })
    }
}
