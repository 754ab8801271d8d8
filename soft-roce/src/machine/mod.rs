//! The test bed: a User-Mode Linux kernel that carries rxe and nvmet, run as an ordinary process.

pub mod build;
pub mod cache;
mod command;
mod configure;
mod error;
mod packages;
mod progress;
mod series;
mod source;

pub use error::{Error, Result};
pub use series::{Kernel, Series};
