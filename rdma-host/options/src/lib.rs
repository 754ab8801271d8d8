//! Targets and connect options, by the names of nvme-cli: the one table of them for all front ends,
//! [`TargetArguments`](target::TargetArguments).
//!
//! They come from a command line, from pairs of names and values, from secrets in files, and from
//! the configuration in /etc/nvme. A front end says by [`Program`](program::Program) how warnings
//! are shown.
#![forbid(unsafe_code)]
#![expect(
    clippy::missing_errors_doc,
    reason = "an error is a sentence for the user that names the option and what to do"
)]

pub mod configuration;
pub mod failure;
pub mod host;
pub mod keyring;
pub mod option_value;
pub mod pairs;
pub mod program;
pub mod secret_text;
pub mod secrets;
pub mod size;
pub mod target;
pub mod target_address;
pub mod termination_signal;
pub mod text_file;
