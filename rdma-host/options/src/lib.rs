//! Targets and connect options, by the names of nvme-cli: the one table of them for all front ends,
//! [`TargetArguments`](target::TargetArguments).
//!
//! They come from a command line, from pairs of names and values, from secrets in files, and from
//! the configuration in /etc/nvme. A front end says by [`Program`](program::Program) how warnings
//! are shown.
//!
//! The package `nvmf-options` has the library `nvmf_options`. A program with a command line puts
//! [`TargetArguments`](target::TargetArguments) into its own by clap's `flatten`; another one sets
//! pairs:
//!
//! ```
//! use nvmf_options::{failure::Failure, pairs::OptionPairs};
//!
//! # fn main() -> Result<(), Failure> {
//! let target = "nvmf-rdma://192.0.2.7/nqn.2014-08.org.example:disk";
//! let mut pairs = OptionPairs::new(Some(target));
//! pairs.set("nr-io-queues", "4")?;
//! pairs.set("hostnqn", "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-0000-000000000001")?;
//! let options = pairs.arguments()?.options()?;
//! assert_eq!(options.io_queues, 4);
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//!
//! Options of nvme-cli that mean nothing over RDMA are refused or named in a warning. An error is a
//! sentence for a user, with an exit code, and not for a program to match on.
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
