//! Data structures of NVMe over Fabrics over RDMA, as bytes; no I/O and no state.
//!
//! Each file holds one family of structures: the layout (any bytes can be read and written
//! unchanged), the decoded form (valid values only), and tests against literal bytes. All integers
//! in the layouts are little-endian; zero-based fields of the specifications occur only in this
//! module.
//!
//! References are to the NVM Express Base Specification 2.1 ("Base"), the NVM Command Set
//! Specification 1.1 ("NVM"), the Zoned Namespace Command Set Specification 1.2 ("ZNS") and the
//! NVMe over RDMA Transport Specification 1.1 ("RDMA").

mod command;
mod completion;
mod fabrics;
mod feature;
#[cfg(test)]
mod fuzz;
mod id;
mod identify;
mod log;
mod nqn;
mod nvm;
mod private_data;
mod property;
mod protection;
mod reservation;
mod sgl;
mod status;
mod text;
mod zns;

pub use command::{DataDirection, Opcode, Sqe};
pub use completion::Cqe;
pub use fabrics::{
    AuthenticationCommand, AuthenticationRequirements, ConnectCommand, ConnectData, PropertyGet,
    PropertySet, connect_invalid_parameter, is_invalid_controller_id, is_invalid_queue_size,
};
pub use feature::{FeatureSelect, GetFeatures, HostBehavior, QueueCount, SetFeatures};
pub use id::{CommandId, ControllerId, ControllerInstance, NamespaceId, QueueId, RemoteKey};
pub use identify::{
    ControllerData, ControllerInfo, ControllerType, Eui64, Identify, IdentifyError, IdentifyField,
    IdentifyValue, NamespaceData, NamespaceIdDescriptors, NamespaceInfo, NamespaceList,
    OptionalCommand, OptionalCommands, controller_fields, lba_format_fields, namespace_fields,
    power_state_fields, zoned_controller_fields, zoned_format_fields, zoned_namespace_fields,
};
pub use log::{
    AddressFamily, AnaGroup, AnaLog, AnaState, AsyncEvent, AsyncEventKind, AsyncEventMask,
    AsyncEventType, ChangedNamespaceList, CommandEffects, CrossControllerResetEntry,
    CrossControllerResetLog, CrossControllerResetStatus, DiscoveryEntry, DiscoveryEntryError,
    DiscoveryEntryFlags, DiscoveryHeader, EffectsLog, EnduranceGroupLog, ErrorLogEntry,
    FeatureEffectsLog, FirmwareSlotLog, GetLogPage, HealthLog, LogError, LogPage, RdmaProvider,
    RdmaService, ReservationNotification, ReservationNotificationKind, RotationalMediaLog,
    SecurityType, SubsystemType, SupportedLogPages, TransportRequirements, TransportSpecific,
    TransportType, is_immediate_reset,
};
pub use nqn::{Nqn, NqnError};
pub use nvm::{BlockRange, CopyLimits, NvmLimits};
pub use private_data::{CmAcceptData, CmReject, CmRequestData, PrivateDataError, RejectCode};
pub use property::{Configuration, ControllerCapabilities, ControllerStatus, Property, Version};
pub use protection::{
    GuardType, MetadataFormat, ProtectionChecks, ProtectionFormat, ProtectionInformation,
    ProtectionTags, ProtectionType,
};
pub use reservation::{
    AcquireAction, RegisterAction, Registrant, ReleaseAction, ReservationCommand,
    ReservationReport, ReservationType,
};
pub use sgl::SglDescriptor;
pub use status::Status;
pub use text::is_unprintable;
pub use zns::{Zone, ZoneAction, ZoneFilter, ZoneLimits, ZoneReportError, ZoneState};

/// Conversions between the layouts and bytes.
pub use zerocopy::{FromBytes, IntoBytes};
