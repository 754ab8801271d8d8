//! Bring-up of a controller (Base 3.5.1): of its admin queue, and of each I/O queue.

mod actions;
mod controller;
mod io_queue;
mod probe;
#[cfg(test)]
mod tests;

pub use actions::{BringUpInput, Execute, Negotiated, QueueReady, RdmaConnect, Transfer};
pub use controller::{BringUp, BringUpAction};
pub use io_queue::{QueueBringUp, QueueBringUpAction};
pub use probe::ControllerProbe;
