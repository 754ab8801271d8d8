//! Control: the supervisor, which acts on the lifecycle, asynchronous events, and authentication of
//! a live controller.

pub(crate) mod async_events;
pub(crate) mod controller_event;
pub(crate) mod identify_namespace;
pub(crate) mod log_pages;
pub(crate) mod reauthenticate;
pub(crate) mod shared;
pub(crate) mod state_change;
pub(crate) mod subscription;
pub(crate) mod supervisor;
