//! Commands of `nvmf`, but for `bench`.

pub(crate) mod config;
pub(crate) mod discover;
pub(crate) mod identify;
pub(crate) mod key;
pub(crate) mod log;
pub(crate) mod monitor;
pub(crate) mod read_write;
pub(crate) mod write_verify;
