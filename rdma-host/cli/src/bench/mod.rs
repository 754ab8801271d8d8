//! `nvmf bench`: latency and cost of a given load.
//!
//! ```text
//!  arguments ─ sweep_points ─▶ session ─▶ measure ─▶ worker ─ arrivals, command_generator
//!                                  │        ▲ counters │ a thread each
//!                                  │      recorder ◀───┘
//!                                  ▼
//!               text, html, hlog, compare ◀── report
//! ```

mod arguments;
mod arrivals;
mod block_sizes;
mod command_generator;
mod compare;
mod counters;
mod disturbance;
mod environment;
mod hlog;
mod html;
mod latency;
mod measure;
mod output_file;
mod point_report;
mod prefill;
mod progress;
mod recorder;
mod report;
mod session;
mod sweep_points;
mod text;
mod worker;

pub(crate) use self::arguments::Arguments;
use self::session::Session;
use crate::failure::Failure;

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.compare {
        Some(files) => compare::run(files, arguments.load.output_format),
        None => Session::new(arguments)?.run(),
    }
}
