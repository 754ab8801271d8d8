//! The API: controllers, namespaces and discovery.

pub(crate) mod connecting;
pub(crate) mod controller;
mod controller_memory;
pub(crate) mod discovery;
pub(crate) mod io_task;
pub(crate) mod local_poller;
pub(crate) mod metadata;
pub(crate) mod namespace;
pub(crate) mod namespace_walk;
mod passthrough;
pub(crate) mod protect;
pub(crate) mod ranges;
pub(crate) mod request_channel;
mod reservations;
pub(crate) mod subsystem;
pub(crate) mod vectored;
pub(crate) mod zones;
