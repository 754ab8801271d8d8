//! Protocol state machines without I/O: the caller passes inputs and asks for the next action.
//!
//! Nothing in this module reads a clock, draws randomness, logs, locks, spawns or blocks; time is
//! an argument. After every input the driver asks the machine for its next action and performs it.

mod bring_up;
mod command_class;
mod command_retry;
mod discovery;
mod failure_kind;
mod fence;
mod identify_namespace;
mod keep_alive;
mod lifecycle;
mod paths;
mod protection;
mod reconnect;
mod referrals;
mod shutdown;
mod slots;

pub use bring_up::{
    BringUp, BringUpAction, BringUpInput, ControllerProbe, Execute, Negotiated, QueueBringUp,
    QueueBringUpAction, QueueReady, RdmaConnect, Transfer,
};
pub use command_class::{CommandClass, WrittenBlocks};
pub use command_retry::{CommandRetry, Disposition, FailedResponse};
pub use discovery::{DiscoveryAction, DiscoveryLog, DiscoveryRead};
pub use failure_kind::{FailureKind, Retryability};
pub use fence::{
    Admission, Association, EndedAssociation, FenceAction, FenceProof, OutstandingWrite,
    ProbeAnswer, ProbeQuestion, ResetAnswer, ResetCommand, ResetStep, WriteFence,
};
pub use identify_namespace::{IdentifyNamespace, IdentifyNamespaceAction};
pub use keep_alive::{KeepAlive, KeepAliveAction};
pub use lifecycle::{Lifecycle, LifecycleEvent, LifecycleState, LifecycleTask};
pub use paths::{
    PathChoice, PathDecision, PathFailure, PathId, PathPolicy, PathSelector, PathState, Paths,
};
pub use protection::ProtectedBlocks;
pub use reconnect::{ConnectionFailure, ReconnectDecision};
pub use referrals::{DiscoveryTarget, ReferralWalk, SkipReason, SkippedReferral};
pub use shutdown::{Shutdown, ShutdownAction};
pub use slots::{BegunCommand, CompletedCommand, CompletesOn, ResponseOutcome, Slots};
