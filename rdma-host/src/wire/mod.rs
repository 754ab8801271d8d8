//! The bytes of NVMe over Fabrics over RDMA, and nothing else.
//!
//! Each file holds one structure family: the layout (faithful to any bytes), what it means
//! (only sensible values), and tests against literal bytes. All integers on the wire are little
//! endian; zero-based fields of the specification exist only here.
//!
//! References are to the NVM Express Base Specification 2.1 ("Base"), the NVM Command Set
//! Specification 1.1 ("NVM") and the NVMe over RDMA Transport Specification 1.1 ("RDMA").

mod command;
mod completion;
mod fabrics;
mod feature;
#[cfg(test)]
mod fuzz;
mod id;
mod identify;
mod log;
mod namespace_id_descriptors;
mod nqn;
mod nvm;
mod private_data;
mod property;
mod sgl;
mod status;

pub use command::{Opcode, Sqe};
pub use completion::Cqe;
pub use fabrics::{
    AuthenticationCommand, AuthenticationRequirements, ConnectCommand, ConnectData, PropertyGet,
    PropertySet, connect_invalid_parameter, is_invalid_controller_id,
};
pub use feature::{GetFeatures, QueueCount, SetFeatures};
pub use id::{CommandId, ControllerId, NamespaceId, QueueId, RemoteKey};
pub use identify::{
    ControllerData, ControllerInfo, ControllerType, Eui64, Identify, IdentifyError, NamespaceData,
    NamespaceInfo, NamespaceList,
};
pub use log::{
    AddressFamily, AnaGroup, AnaLog, AnaState, AsyncEvent, AsyncEventKind, AsyncEventMask,
    AsyncEventType, ChangedNamespaceList, CommandEffects, DiscoveryEntry, DiscoveryEntryError,
    DiscoveryEntryFlags, DiscoveryHeader, EffectsLog, ErrorLogEntry, FirmwareSlotLog, GetLogPage,
    HealthLog, LogError, LogPage, RdmaProvider, RdmaService, SecurityType, SubsystemType,
    TransportRequirements, TransportSpecific, TransportType,
};
pub use namespace_id_descriptors::NamespaceIdDescriptors;
pub use nqn::{Nqn, NqnError};
pub use nvm::{BlockRange, NvmLimits};
pub use private_data::{CmAcceptData, CmReject, CmRequestData, PrivateDataError, RejectCode};
pub use property::{Capabilities, Configuration, ControllerStatus, Property, Version};
pub use sgl::SglDescriptor;
pub use status::Status;

/// Everything the wire layer moves is read and written as plain bytes.
pub use zerocopy::{FromBytes, IntoBytes};
