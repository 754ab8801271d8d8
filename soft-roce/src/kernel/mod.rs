//! The guest's kernel: its version, source, configuration, build, and the cache of built kernels.

pub mod build;
pub mod cache;
pub(crate) mod config;
pub(crate) mod source;
mod version;

pub(crate) use source::remove_folder;
pub use version::{Kernel, Series};
