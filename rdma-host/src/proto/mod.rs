//! The protocol without I/O: values that are fed with what came in and asked what goes out.
//!
//! Nothing here reads a clock, draws randomness, logs, locks, spawns or blocks; time is an
//! argument. The driver's contract with every machine is one sentence: after any input, ask for
//! the next action and do it.

mod bring_up;
mod discovery;
mod failure_kind;
mod identify_namespace;
mod keep_alive;
mod lifecycle;
mod queue_bring_up;
mod reconnect;
mod referrals;
mod shutdown;
mod slots;

pub use bring_up::{
    BringUp, BringUpAction, BringUpInput, Execute, Negotiated, RdmaConnect, Transfer,
};
pub use discovery::{DiscoveryAction, DiscoveryLog, DiscoveryRead};
pub use failure_kind::{FailureKind, Retryability};
pub use identify_namespace::{IdentifyNamespace, IdentifyNamespaceAction};
pub use keep_alive::{KeepAlive, KeepAliveAction};
pub use lifecycle::{Lifecycle, LifecycleEvent, LifecycleState, LifecycleTask};
pub use queue_bring_up::{QueueBringUp, QueueBringUpAction, QueueReady};
pub use reconnect::{ConnectionFailure, Verdict};
pub use referrals::{DiscoveryTarget, ReferralWalk, SkipReason, SkippedReferral};
pub use shutdown::{Shutdown, ShutdownAction};
pub use slots::{CompletedCommand, CompletesOn, ResponseOutcome, Slots};
