//! The guest's kernel: its version, source, configuration, build, and the cache of built kernels.

pub mod archive;
pub mod build;
pub mod cache;
pub(crate) mod config;
mod info;
mod patch;
pub(crate) mod source;
mod version;

pub use info::KernelInfo;
pub use patch::Patched;
pub(crate) use version::Release;
pub use version::{Kernel, Series};
