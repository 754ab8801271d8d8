//! Bring-up of a controller (Base 3.5.1): of its admin queue, and of each I/O queue.

mod controller;
mod io_queue;
mod probe;
#[cfg(test)]
mod tests;
mod vocabulary;

pub use controller::{BringUp, BringUpAction};
pub use io_queue::{QueueBringUp, QueueBringUpAction};
pub use probe::ControllerProbe;
pub use vocabulary::{BringUpInput, Execute, Negotiated, QueueReady, RdmaConnect, Transfer};
