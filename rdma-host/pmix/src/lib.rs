//! Ranks of a parallel job, by PMIx (PMIx Standard, versions 3 to 5): what `srun --mpi=pmix`,
//! `mpirun`, `prterun` and Flux offer to the processes that they start.
//!
//! The library is opened when the program runs: neither PMIx nor MPI is needed to build, or to run
//! without a launcher. Each call of it is made by a thread of its own, so that the wait for it has
//! a deadline, whatever the library and the launcher do.
//!
//! The package `nvmf-pmix` has the library `pmix`; it needs nothing of the system to be built.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), pmix::Error> {
//! const LIMIT: Duration = Duration::from_secs(10);
//! if pmix::is_launched() {
//!     let client = pmix::Client::connect(LIMIT)?;
//!     client.publish("greeting", format!("hello from rank {}", client.rank()), LIMIT)?;
//!     client.fence(LIMIT).wait()?;
//!     for rank in 0..client.size() {
//!         println!("{}", client.text_of(rank, "greeting", LIMIT).wait()?);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//!
//! Texts that ranks publish for one another, and fences: no groups, events or spawning. A library
//! that cannot be opened is [`Error::Library`].
//!
//! It was seen to work under Open MPI 4.1 (PMIx 4.2), PRRTE 3 (PMIx 5.0) and Slurm 22.05 (PMIx
//! 4.2), on two hosts each; the first and the last are tests (`tests/run bed ranks`).
#![deny(unsafe_code)]

mod call;
mod client;
mod error;
mod layout;
mod sys;

pub use call::Call;
pub use client::{Client, Fence, is_launched};
pub use error::Error;
