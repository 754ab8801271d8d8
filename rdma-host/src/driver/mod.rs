//! Driver: performs the actions that [`proto`](crate::proto) decides on, with time, threads and
//! verbs.
//!
//! Four layers, each of which knows only those before it:
//!
//! | layer | holds |
//! | --- | --- |
//! | `data_path` | pollers, I/O and admin queues, commands in flight and pending, statistics |
//! | `connect` | one queue's RDMA connection, bring-up, I/O queues, authentication |
//! | `control` | the supervisor, asynchronous events, authentication of a live controller |
//! | `api` | controllers, namespaces, subsystems with several paths, discovery |
//!
//! Beside them, [`runtime`] is the only source of time, tasks, threads and randomness: a simulator
//! can take its place.
//!
//! A read, step by step; files are below `data_path/` where no folder is named:
//!
//! | it is | in |
//! | --- | --- |
//! | sent on one of several paths | `api/subsystem/subsystem_poller.rs`, `send`; `proto/paths.rs` |
//! | submitted by a future | `api/namespace/transfer.rs`, `poll`; `api/request_channel.rs` |
//! | taken by the task of a poller | `api/io_task.rs`, `take_requests` |
//! | submitted | `poller.rs`, `Poller::submit` |
//! | built | `wire/command.rs`, `Sqe::read`; `queue.rs`, `Queue::submit_fast` |
//! | queued as a work request | in verbs, `queue_pair/engine/message_slots.rs`, `send_message` |
//! | handed to the device | `poller.rs`, `ring_doorbells`; `queue.rs`, `ring_doorbell` |
//! | completed | `poller.rs`, `Poller::handle_batch`; `queue.rs`, `Queue::complete` |
//! | held, if its status allows a retry | `proto/command_retry.rs`, `decide`; `poller/retry.rs` |
//! | timed out | `poller/tick.rs`, `check_timeouts`; `admin_queue/queue.rs`, `AdminQueue::abort` |
//! | pending after a loss | `poller/connection_loss.rs`, `lose`, `close` and `requeue_cancelled` |
//! | not sent again | `proto/command_class.rs`, `CommandClass::of` |
//! | fenced, if it overlaps an old write | `proto/fence.rs`; `poller/fence.rs` |
//! | resent | `poller/connection_loss.rs`, `adopt`; `poller/submit_later.rs`, `submit_pending` |
//!
//! A loss is noticed by `poller/tick.rs`, `check_connections` (events of the connection manager,
//! work requests that failed, missing responses), by the admin queue (`admin_queue/queue.rs`,
//! `AdminQueue::serve`, keep-alive) and by `device_events.rs`. It is reported to
//! `connection_state.rs`, `ConnectionWatch::lost`; the first report counts. `proto/reconnect.rs`,
//! `ReconnectOptions::decide`, decides between another attempt and giving up, for
//! `proto/lifecycle.rs`, `Lifecycle::fail`; `control/supervisor.rs`, `Supervisor::run`, performs
//! it.
//!
//! Cost of a 4 KiB read on the wire and in the device, in memory mode `pool`:
//!
//! ```text
//!             bytes            messages   doorbells            completions
//!  command       64 (inline)   1 SEND     1 a burst            1 in 32
//!  data       4,096            RDMA WRITE by the target: none here
//!  response      16            1 RECV     1 for half a queue   1
//! ```
//!
//! `data_path::memory` has the cost of a window per command. A burst of submissions shares one
//! doorbell per queue. Receives are queued again as responses are read; their doorbell is rung when
//! half of a queue's are queued, or when the device would have fewer than commands are in flight.
//!
//! In this process: the instructions of `read` in `benches/instructions.txt`, and roughly eight
//! cache lines: one of the capsule, which is built in place, two of the slot with the command in
//! flight, two of the work request, one of the response, two of the receive. The hot loop is in
//! `poller` and `queue`; the memory that it accesses is allocated at connect. The clock is read
//! once per burst of submissions and once per batch of completions; timeouts and connections are
//! checked in `poller::tick`.

pub(crate) mod api;
pub(crate) mod buffers;
pub(crate) mod connect;
pub(crate) mod control;
pub(crate) mod data_path;
pub(crate) mod runtime;

pub use api::{
    connecting::Connecting,
    controller::Controller,
    discovery::{Discovered, Discovery, DiscoveryController, DiscoveryEvent, DiscoveryWatch},
    local_poller::{LocalNamespace, LocalPoller},
    metadata::{ProtectionAction, ProtectionOptions},
    namespace::{Namespace, TransferError},
    namespace_walk::NamespaceWalk,
    ranges::RangeCommands,
    subsystem::{
        ConnectingSubsystem, NamespacePath, PathStatus, Subsystem, SubsystemChanges,
        SubsystemNamespace, SubsystemOptions, SubsystemPoller, SubsystemStatus,
    },
    vectored::VectoredTransferError,
    zones::{ZoneSelection, ZonedNamespace},
};
pub use control::{
    controller_event::{ControllerEvent, EventDetail, NamespaceChange},
    state_change::StateChange,
    subscription::{ControllerEvents, FenceChanges, StateChanges, Subscription},
};
pub use data_path::{
    admin_queue::counters::AdminCounters,
    command::{Command, CommandCompletion, Data, ExecutionStatus, SubmitError},
    fence::{FenceChange, FenceChangeKind},
    memory::MemoryReport,
    poller::Poller,
    statistics::{DeviceCounters, OperationStatistics, Statistics, WindowCounters},
    wait::Waiter,
};
