//! The protocol without I/O: values that are fed with what came in and asked what goes out.
//!
//! Nothing here reads a clock, draws randomness, logs, locks, spawns or blocks; time is an
//! argument. The driver's contract with every machine is one sentence: after any input, ask for
//! the next action and do it.

mod bring_up;
mod cause;
mod discovery;
mod inspection;
mod keep_alive;
mod lifecycle;
mod queue_bring_up;
mod reconnect;
mod referrals;
mod shutdown;
mod slots;

pub use bring_up::{Action, BringUp, Execute, Input, Negotiated, OpenQueue, Transfer};
pub use cause::{Cause, Cure};
pub use discovery::{DiscoveryAction, DiscoveryLog, DiscoveryRead};
pub use inspection::{Inspect, Inspection};
pub use keep_alive::{KeepAlive, KeepAliveAction};
pub use lifecycle::{Event, Lifecycle, State, Task};
pub use queue_bring_up::{QueueAction, QueueBringUp, QueueUp};
pub use reconnect::{Failure, Verdict};
pub use referrals::{ReferralWalk, SkipReason, Skipped, Visit};
pub use shutdown::{Shutdown, ShutdownAction};
pub use slots::{Answered, Finished, Slots, Waits};
