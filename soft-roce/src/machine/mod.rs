//! The test bed: a User-Mode Linux kernel that carries rxe and nvmet, run as an ordinary process.

mod attend;
pub mod build;
pub mod cache;
mod command;
mod configure;
mod cpu;
pub mod doctor;
mod error;
mod folder;
mod frame;
mod guard;
mod guest;
pub mod kernel_log;
mod launch;
pub mod native;
mod outcome;
mod packages;
mod program;
mod progress;
pub mod roles;
mod room;
mod run;
mod series;
pub mod size;
mod source;
mod spec;
mod streams;
pub mod target;
mod terminal;

pub use error::{Error, Result};
pub use outcome::{Ending, Outcome};
pub use program::PROGRAM_VARIABLE;
pub use run::{Guest, MEMORY_BYTES};
pub use series::{Kernel, Series};
pub use spec::{ADDRESS, ADDRESS_V6};
pub use streams::{Input, Output};
