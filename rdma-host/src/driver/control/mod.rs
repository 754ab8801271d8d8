//! Control: the supervisor, which performs the tasks of the lifecycle, asynchronous events, and
//! re-authentication.

pub(crate) mod active_namespaces;
pub(crate) mod async_events;
pub(crate) mod controller_event;
pub(crate) mod fence_keeper;
pub(crate) mod identify_namespace;
pub(crate) mod log_pages;
pub(crate) mod reauthenticate;
pub(crate) mod shared;
pub(crate) mod state_change;
pub(crate) mod subscription;
pub(crate) mod supervisor;
