//! The data path: pollers, their queues, commands in flight and pending, and statistics.
//!
//! A read is submitted in [`poller`], queued and completed in [`queue`], timed out in
//! `poller::tick`, and sent again by `poller::submit_later` once `poller::connection_loss` has new
//! queues.

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
