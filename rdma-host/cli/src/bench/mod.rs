//! `nvmf bench`: latency and cost of a given load.
//!
//! ```text
//!  job_file ─ arguments ─ sweep_points ─▶ session ─▶ measure ─▶ worker ─ arrivals, rate
//!                                            │        ▲ counters │ a thread each
//!                                            │      recorder ◀───┘  command_generator
//!                                            ▼
//!   text, html, hlog, fio, csv, compare ◀── report ◀── report_command
//!                              ▲ fail_conditions  ▲ merge
//! ```

mod arguments;
mod arrivals;
mod block_sizes;
mod command_generator;
mod compare;
mod counters;
mod csv;
mod disturbance;
mod fail_conditions;
mod fio;
mod histogram_text;
mod hlog;
mod html;
mod job_file;
mod latency;
mod mean_difference;
mod measure;
mod merge;
mod point_report;
mod prefill;
mod progress;
mod random_distribution;
mod random_reads;
mod rank_group;
mod rank_position;
mod rank_results;
mod rank_totals;
mod rate;
mod recorder;
mod report;
mod report_command;
mod report_file;
mod result_format;
mod schema_1;
mod session;
mod steady_state;
mod sweep_points;
mod text;
mod totals;
mod worker;

use std::sync::Arc;

pub use self::random_reads::execute_random_reads;
pub(crate) use self::{
    arguments::Arguments,
    job_file::{Job, read as read_jobs},
    report_command::{ReportArguments, run as report},
};
use self::{compare::Comparison, rank_group::RankGroup, session::Session};
use crate::{
    capture::{CaptureArguments, ConnectingCommand, SystemProvider},
    failure::Failure,
    output_file::OutputFile,
};

/// Jobs, of which there is at least one.
impl ConnectingCommand for Vec<Job> {
    fn capture(&self) -> &CaptureArguments {
        &self[0].arguments.load.capture
    }

    /// Merges or compares reports, or measures what the jobs ask for.
    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let arguments = &self[0].arguments;
        if let Some(paths) = &arguments.merge {
            return merge::command::run(arguments, paths);
        }
        match arguments.compare.as_deref() {
            Some([before, after]) => {
                let page = arguments.html.as_deref();
                report_command::refuse_same(&[before, after], page.as_slice())?;
                let (before, after) = (report_file::read(before)?, report_file::read(after)?);
                let page = page.map(OutputFile::open).transpose()?;
                let comparison = Comparison::new(&before.points, &after.points);
                comparison.print(arguments.output_format)?;
                if let Some(mut page) = page {
                    page.write(html::comparison(&comparison).into_bytes(), true)?;
                }
                let limit = arguments.fail_if_worse;
                limit.map_or(Ok(()), |limit| fail_conditions::check_worse(&comparison, limit))
            }
            Some(_) => Err(Failure::usage("--compare takes two reports")),
            None => {
                let group = RankGroup::connect(arguments.rank_timeout)?;
                let group = group.as_ref();
                match (Session::new(provider, self, group), group) {
                    (Err(failure), Some(group)) => group.abandon(failure),
                    (session, _) => session?.run(),
                }
            }
        }
    }
}
