//! The data path: pollers, their queues, commands in flight and pending, and statistics.
//!
//! A read is submitted in [`poller`], queued and completed in [`queue`], timed out in
//! `poller::tick`, and sent again by `poller::submit_later` once `poller::connection_loss` has new
//! queues.
//!
//! Types that a command has, one after the other:
//!
//! | command | type |
//! | --- | --- |
//! | that the owner of a poller submits | [`Command`](command::Command) |
//! | refused by the poller, with its buffer | [`SubmitError`](command::SubmitError) |
//! | that waits for room, a connection, a retry or the fence | `pending_command::PendingCommand` |
//! | in a slot of a queue, whose id is in [`Slots`](crate::proto::Slots) | `queue::InFlight` |
//! | whose slot is free again, by its response | `queue::Completed` |
//! | whose slot is free again, without a response | `queue::Cancelled` |
//! | that completed, for its owner | [`CommandCompletion`](command::CommandCompletion) |
//! | that failed, for an owner with other paths | `poller::ReturnedCommand` |
//!
//! Completed and Cancelled are two types because the first borrows the slot, which costs the path
//! of each command nothing, and the second owns a command to be sent again. What decides on a retry
//! (`queue::FailedInFlight`, [`FailedResponse`](crate::proto::FailedResponse)) and what is traced
//! (`queue::FailedCommand`) are copies of a few numbers. `api` wraps a completion that failed in a
//! [`TransferError`](crate::TransferError), with the buffers of all parts of an operation.

pub(crate) mod admin_queue;
pub(crate) mod command;
pub(crate) mod connection;
pub(crate) mod connection_state;
pub(crate) mod controller_group;
pub(crate) mod device_events;
pub(crate) mod fence;
pub(crate) mod latency_histogram;
pub(crate) mod live_summary;
pub(crate) mod memory;
pub(crate) mod namespace_registry;
pub(crate) mod pending_command;
pub(crate) mod poller;
pub(crate) mod queue;
pub(crate) mod statistics;
pub(crate) mod ticks;
pub(crate) mod wait;
