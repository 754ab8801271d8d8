//! Admin queue: its commands, Keep Alive, Abort, Asynchronous Event Request, and its clients.

pub(crate) mod client;
pub(crate) mod command_buffer;
pub(crate) mod counters;
pub(crate) mod features;
pub(crate) mod queue;
