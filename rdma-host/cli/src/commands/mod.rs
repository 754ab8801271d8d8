//! Commands of `nvmf`, but for `bench`.

mod block_file;
pub(crate) mod blocks;
pub(crate) mod config;
pub(crate) mod discover;
pub(crate) mod doctor;
pub(crate) mod generate;
pub(crate) mod hostnqn;
pub(crate) mod identify;
pub(crate) mod identify_data;
pub(crate) mod key;
pub(crate) mod log;
mod metadata;
pub(crate) mod monitor;
mod monitor_line;
mod monitor_paths;
pub(crate) mod nvm;
pub(crate) mod passthrough;
pub(crate) mod read_write;
pub(crate) mod report_bug;
pub(crate) mod reservations;
pub(crate) mod write_verify;
pub(crate) mod zns;
