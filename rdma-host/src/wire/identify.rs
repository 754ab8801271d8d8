//! Identify (Base 5.1.13, NVM 4.1.5): data structures of controllers and namespaces.

mod fields;
mod metadata;
mod namespace_id_descriptors;
mod optional_commands;

use std::{fmt, mem::offset_of, time::Duration};

use uuid::Uuid;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

use super::{
    AsyncEventMask, ControllerId, ControllerInstance, MetadataFormat, NamespaceId, Opcode, Sqe,
    Version,
};

pub use fields::{
    IdentifyField, IdentifyValue, controller_fields, lba_format_fields, namespace_fields,
    power_state_fields, zoned_controller_fields, zoned_format_fields, zoned_namespace_fields,
};
pub use namespace_id_descriptors::NamespaceIdDescriptors;
pub use optional_commands::{OptionalCommand, OptionalCommands};

/// Identify commands; each returns 4,096 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Identify;

impl Identify {
    /// Size of every Identify data structure in bytes.
    pub const SIZE: usize = 4096;

    const NAMESPACE: u32 = 0x00;
    const CONTROLLER: u32 = 0x01;
    const ACTIVE_NAMESPACES: u32 = 0x02;
    const DESCRIPTORS: u32 = 0x03;
    const COMMAND_SET_NAMESPACE: u32 = 0x05;
    const COMMAND_SET_CONTROLLER: u32 = 0x06;

    /// CSI of the Zoned Namespace command set, in bits 31:24 of CDW11.
    const ZONED: u32 = (NamespaceInfo::ZONED as u32) << 24;

    /// Identify Controller (CNS 01h).
    #[must_use]
    pub fn controller() -> Sqe {
        Sqe::new(Opcode::IDENTIFY, NamespaceId(0)).with_parameters(Self::CONTROLLER, 0)
    }

    /// Identify Namespace (CNS 00h).
    #[must_use]
    pub fn namespace(namespace: NamespaceId) -> Sqe {
        Sqe::new(Opcode::IDENTIFY, namespace).with_parameters(Self::NAMESPACE, 0)
    }

    /// Active Namespace ID list: ids above `after`, at most 1,024 (CNS 02h).
    #[must_use]
    pub fn active_namespaces(after: NamespaceId) -> Sqe {
        Sqe::new(Opcode::IDENTIFY, after).with_parameters(Self::ACTIVE_NAMESPACES, 0)
    }

    /// Namespace Identification Descriptor list (CNS 03h): [`NamespaceIdDescriptors`].
    ///
    /// [`NamespaceIdDescriptors`]: super::NamespaceIdDescriptors
    #[must_use]
    pub fn namespace_id_descriptors(namespace: NamespaceId) -> Sqe {
        Sqe::new(Opcode::IDENTIFY, namespace).with_parameters(Self::DESCRIPTORS, 0)
    }

    /// Identify Namespace of the NVM command set (CNS 05h, CSI 00h): extended LBA formats.
    #[must_use]
    pub fn nvm_namespace(namespace: NamespaceId) -> Sqe {
        Sqe::new(Opcode::IDENTIFY, namespace).with_parameters(Self::COMMAND_SET_NAMESPACE, 0)
    }

    /// Identify Controller of the NVM command set (CNS 06h, CSI 00h): limits of commands without
    /// data, [`NvmLimits`](super::NvmLimits).
    #[must_use]
    pub fn nvm_limits() -> Sqe {
        Sqe::new(Opcode::IDENTIFY, NamespaceId(0)).with_parameters(Self::COMMAND_SET_CONTROLLER, 0)
    }

    /// Identify Namespace of the Zoned Namespace command set (CNS 05h, CSI 02h).
    #[must_use]
    pub fn zoned_namespace(namespace: NamespaceId) -> Sqe {
        Sqe::new(Opcode::IDENTIFY, namespace)
            .with_parameters(Self::COMMAND_SET_NAMESPACE, Self::ZONED)
    }

    /// Identify Controller of the Zoned Namespace command set (CNS 06h, CSI 02h).
    #[must_use]
    pub fn zoned_controller() -> Sqe {
        Sqe::new(Opcode::IDENTIFY, NamespaceId(0))
            .with_parameters(Self::COMMAND_SET_CONTROLLER, Self::ZONED)
    }
}

/// Error of Identify data that is malformed or not supported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentifyError {
    /// The data structure does not have 4,096 bytes.
    #[error("its identify data has {0} bytes where 4096 are due")]
    Length(usize),
    /// The namespace is not active: all fields are zero.
    #[error("namespace {0} is not active")]
    NoNamespace(NamespaceId),
    /// A Namespace Identification Descriptor has the wrong length.
    #[error("its list of a namespace's names has {bytes} bytes for {name}")]
    Name {
        /// Type of the identifier.
        name: &'static str,
        /// NIDL as sent.
        bytes: u8,
    },
    /// LBADS is outside 2^9 to 2^20 bytes.
    #[error("namespace {namespace} reports blocks of 2^{exponent} bytes; 2^9 to 2^20 make sense")]
    BlockSize {
        /// Namespace.
        namespace: NamespaceId,
        /// LBADS as sent.
        exponent: u8,
    },
    /// The namespace is of a command set that is not supported.
    #[error(
        "namespace {namespace} is of command set {command_set:#04x}; NVM and Zoned Namespace, 0x00 \
         and 0x02, are supported"
    )]
    CommandSet {
        /// Namespace.
        namespace: NamespaceId,
        /// CSI as sent.
        command_set: u8,
    },
    /// Metadata is transferred apart from its blocks (FLBAS), which Fabrics transports can't do.
    #[error(
        "namespace {namespace} transfers {bytes} bytes of metadata a block apart from its data \
         (FLBAS), which NVMe over Fabrics can't; format it with extended blocks"
    )]
    SeparateMetadata {
        /// Namespace.
        namespace: NamespaceId,
        /// Bytes of metadata for each block.
        bytes: u16,
    },
    /// The protection information has a format that does not exist, or does not fit the metadata.
    #[error(
        "namespace {namespace} has {bytes} bytes of metadata a block and an unknown format of \
         protection information (DPS {dps:#x}, ELBAF {elbaf:#x})"
    )]
    Protection {
        /// Namespace.
        namespace: NamespaceId,
        /// Bytes of metadata for each block.
        bytes: u16,
        /// DPS as sent, if that is wrong.
        dps: u8,
        /// ELBAF as sent, if that is wrong.
        elbaf: u32,
    },
    /// The size in bytes exceeds 64 bits.
    #[error("namespace {namespace} reports {blocks} blocks of {block_size} bytes: too large")]
    Size {
        /// Namespace.
        namespace: NamespaceId,
        /// NSZE as sent.
        blocks: u64,
        /// Block size in bytes.
        block_size: u32,
    },
    /// The zones of a zoned namespace have no blocks (ZSZE).
    #[error("its zones have no blocks (ZSZE)")]
    ZoneSize,
}

/// Layout of Identify Controller (Base figure 312); fields that are not used are gaps.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ControllerData {
    vendor: U16,
    subsystem_vendor: U16,
    serial: [u8; 20],
    model: [u8; 40],
    firmware: [u8; 8],
    gap_72: [u8; 4],
    sharing: u8,
    transfer_size_max: u8,
    controller_id: U16,
    version: U32,
    gap_84: [u8; 8],
    events: U32,
    attributes: U32,
    gap_100: [u8; 11],
    controller_type: u8,
    gap_112: [u8; 16],
    retry_delays: [U16; 3],
    gap_134: u8,
    /// CIU and CIRN.
    instance: [u8; 9],
    gap_144: [u8; 118],
    error_log_entries: u8,
    gap_263: [u8; 57],
    keep_alive_granularity: U16,
    gap_322: [u8; 20],
    ana_transition_time: u8,
    gap_343: [u8; 5],
    ana_groups: U32,
    gap_352: [u8; 34],
    quiesce_time: U16,
    gap_388: [u8; 126],
    commands_max: U16,
    namespace_count: U32,
    optional_commands: U16,
    fused_operations: U16,
    gap_524: u8,
    volatile_write_cache: u8,
    gap_526: [u8; 10],
    sgl_support: U32,
    active_namespaces_max: U32,
    gap_544: [u8; 224],
    subsystem_nqn: [u8; 256],
    gap_1024: [u8; 768],
    command_capsule: U32,
    response_capsule: U32,
    in_capsule_offset: U16,
    fabrics_attributes: u8,
    descriptors_max: u8,
    gap_1804: [u8; 3],
    cross_controller_resets_max: u8,
    gap_1808: [u8; 2288],
}

const _: () = assert!(size_of::<ControllerData>() == Identify::SIZE);
const _: () = assert!(offset_of!(ControllerData, sharing) == 76);
const _: () = assert!(offset_of!(ControllerData, transfer_size_max) == 77);
const _: () = assert!(offset_of!(ControllerData, controller_id) == 78);
const _: () = assert!(offset_of!(ControllerData, attributes) == 96);
const _: () = assert!(offset_of!(ControllerData, controller_type) == 111);
const _: () = assert!(offset_of!(ControllerData, retry_delays) == 128);
const _: () = assert!(offset_of!(ControllerData, instance) == 135);
const _: () = assert!(offset_of!(ControllerData, error_log_entries) == 262);
const _: () = assert!(offset_of!(ControllerData, keep_alive_granularity) == 320);
const _: () = assert!(offset_of!(ControllerData, ana_transition_time) == 342);
const _: () = assert!(offset_of!(ControllerData, ana_groups) == 348);
const _: () = assert!(offset_of!(ControllerData, quiesce_time) == 386);
const _: () = assert!(offset_of!(ControllerData, commands_max) == 514);
const _: () = assert!(offset_of!(ControllerData, namespace_count) == 516);
const _: () = assert!(offset_of!(ControllerData, optional_commands) == 520);
const _: () = assert!(offset_of!(ControllerData, volatile_write_cache) == 525);
const _: () = assert!(offset_of!(ControllerData, sgl_support) == 536);
const _: () = assert!(offset_of!(ControllerData, active_namespaces_max) == 540);
const _: () = assert!(offset_of!(ControllerData, subsystem_nqn) == 768);
const _: () = assert!(offset_of!(ControllerData, command_capsule) == 1792);
const _: () = assert!(offset_of!(ControllerData, in_capsule_offset) == 1800);
const _: () = assert!(offset_of!(ControllerData, descriptors_max) == 1803);
const _: () = assert!(offset_of!(ControllerData, cross_controller_resets_max) == 1807);

/// Decoded Identify Controller data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerInfo {
    /// Serial number, printable.
    pub serial: String,
    /// Model, printable.
    pub model: String,
    /// Firmware revision, printable.
    pub firmware: String,
    /// NQN of the subsystem as sent, printable.
    pub subsystem_nqn: String,
    /// Version of the specification it complies with.
    pub version: Version,
    /// CNTLID.
    pub controller_id: ControllerId,
    /// CNTRLTYPE: controller type.
    pub controller_type: ControllerType,
    /// OAES: optional asynchronous events supported.
    pub events: AsyncEventMask,
    /// CMIC bit 3: reports asymmetric namespace access (ANA).
    pub reports_ana: bool,
    /// ANATT: maximum time of a change of the asymmetric access, zero if not reported.
    pub ana_transition_time: Duration,
    /// NANAGRPID: number of ANA groups.
    pub ana_groups: u32,
    /// CQT: maximum time after the loss of the association in which the controller still executes
    /// commands; zero if not reported.
    pub quiesce_time: Duration,
    /// CIU and CIRN; `None` if not reported, so that no other controller can reset this one.
    pub instance: Option<ControllerInstance>,
    /// CCRL: maximum number of Cross-Controller Resets in progress; 0 if not supported.
    pub cross_controller_resets_max: u8,
    /// CRDT1 to CRDT3: delays before a failed command is sent again, zero for none.
    pub retry_delays: [Duration; 3],
    /// ELPE: error log entries kept, 1 to 256.
    pub error_entries_max: u16,
    /// MNAN: maximum number of active namespaces; [`namespace_id_max`](Self::namespace_id_max) if
    /// not reported.
    pub active_namespaces_max: u32,
    /// ONCS and FUSES: commands supported of those that it need not support.
    pub optional_commands: OptionalCommands,
    /// MDTS as a power of two of the smallest page; `None` for no limit.
    pub transfer_pages_log2: Option<u8>,
    /// KAS: granularity of the keep-alive timer in units of 100 ms; 0 if not supported.
    pub keep_alive_granularity: u16,
    /// CTRATT bit 6: traffic-based keep-alive (TBKAS), where any command restarts the timer.
    pub traffic_keeps_alive: bool,
    /// MAXCMD: maximum number of outstanding commands of a queue; 0 if not reported.
    pub commands_max: u16,
    /// NN: largest valid namespace id.
    pub namespace_id_max: u32,
    /// VWC bit 0: a volatile write cache is present, so that Flush has an effect.
    pub volatile_write_cache: bool,
    /// SGLS bit 2: Keyed SGL Data Block descriptors are supported.
    pub keyed_sgl: bool,
    /// SGLS bit 20: an SGL address may be an offset into the capsule.
    pub in_capsule_sgl: bool,
    /// IOCCSZ in bytes: command capsules on I/O queues, the command included.
    pub command_capsule_bytes: u64,
    /// IORCSZ in bytes: response capsules on I/O queues.
    pub response_capsule_bytes: u64,
    /// ICDOFF in bytes: offset of in-capsule data after the command.
    pub in_capsule_offset_bytes: u32,
    /// MSDBD: maximum number of SGL descriptors of a command; 0 for no limit.
    pub descriptors_max: u8,
}

/// Controller type (CNTRLTYPE, Base figure 312).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ControllerType(pub u8);

impl ControllerType {
    /// Not reported, as by all controllers before version 1.4.
    pub const NOT_REPORTED: Self = Self(0);
    /// I/O controller.
    pub const IO: Self = Self(1);
    /// Discovery controller.
    pub const DISCOVERY: Self = Self(2);
    /// Administrative controller.
    pub const ADMINISTRATIVE: Self = Self(3);
}

impl ControllerInfo {
    /// Decodes the Identify Controller data structure.
    ///
    /// # Errors
    ///
    /// When it is not 4,096 bytes long. The caller checks the values that it relies on.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdentifyError> {
        let data = ControllerData::ref_from_bytes(bytes)
            .map_err(|_| IdentifyError::Length(bytes.len()))?;
        Ok(Self {
            serial: printable(&data.serial),
            model: printable(&data.model),
            firmware: printable(&data.firmware),
            subsystem_nqn: printable(&data.subsystem_nqn),
            version: Version(data.version.get()),
            controller_id: ControllerId(data.controller_id.get()),
            controller_type: ControllerType(data.controller_type),
            events: AsyncEventMask(data.events.get()),
            reports_ana: data.sharing & (1 << 3) != 0,
            ana_transition_time: Duration::from_secs(data.ana_transition_time.into()),
            ana_groups: data.ana_groups.get(),
            quiesce_time: Duration::from_millis(data.quiesce_time.get().into()),
            instance: ControllerInstance::reported(data.instance),
            cross_controller_resets_max: data.cross_controller_resets_max,
            retry_delays: data
                .retry_delays
                .map(|delay| Duration::from_millis(100 * u64::from(delay.get()))),
            error_entries_max: u16::from(data.error_log_entries) + 1,
            active_namespaces_max: match data.active_namespaces_max.get() {
                0 => data.namespace_count.get(),
                count => count,
            },
            optional_commands: OptionalCommands {
                oncs: data.optional_commands.get(),
                fuses: data.fused_operations.get(),
            },
            transfer_pages_log2: Some(data.transfer_size_max).filter(|&pages| pages != 0),
            keep_alive_granularity: data.keep_alive_granularity.get(),
            traffic_keeps_alive: data.attributes.get() & (1 << 6) != 0,
            commands_max: data.commands_max.get(),
            namespace_id_max: data.namespace_count.get(),
            volatile_write_cache: data.volatile_write_cache & 1 != 0,
            keyed_sgl: data.sgl_support.get() & (1 << 2) != 0,
            in_capsule_sgl: data.sgl_support.get() & (1 << 20) != 0,
            command_capsule_bytes: u64::from(data.command_capsule.get()) * 16,
            response_capsule_bytes: u64::from(data.response_capsule.get()) * 16,
            in_capsule_offset_bytes: u32::from(data.in_capsule_offset.get()) * 16,
            descriptors_max: data.descriptors_max,
        })
    }
}

/// Layout of Identify Namespace (NVM figure 97).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct NamespaceData {
    size: U64,
    capacity: U64,
    utilization: U64,
    features: u8,
    format_count: u8,
    formatted: u8,
    gap_27: [u8; 2],
    protection: u8,
    gap_30: [u8; 62],
    ana_group: U32,
    gap_96: [u8; 8],
    nguid: [u8; 16],
    eui64: [u8; 8],
    formats: [Format; 64],
    gap_384: [u8; 3712],
}

/// Layout of an LBA format (NVM figure 98).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Format {
    metadata_size: U16,
    block_size_log2: u8,
    performance: u8,
}

const _: () = assert!(size_of::<NamespaceData>() == Identify::SIZE);
const _: () = assert!(offset_of!(NamespaceData, formatted) == 26);
const _: () = assert!(offset_of!(NamespaceData, protection) == 29);
const _: () = assert!(offset_of!(NamespaceData, ana_group) == 92);
const _: () = assert!(offset_of!(NamespaceData, nguid) == 104);
const _: () = assert!(offset_of!(NamespaceData, formats) == 128);

/// Decoded Identify Namespace data and identification descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// Namespace id.
    pub id: NamespaceId,
    /// NSZE: size in logical blocks.
    pub blocks: u64,
    /// Logical block size in bytes, a power of two from 512 on.
    pub block_size: u32,
    /// Metadata of each block.
    pub metadata: MetadataFormat,
    /// NGUID, if set.
    pub nguid: Option<Uuid>,
    /// EUI64, if set.
    pub eui64: Option<Eui64>,
    /// UUID, if the Namespace Identification Descriptors contain one.
    pub uuid: Option<Uuid>,
    /// CSI: command set of the namespace; 0 (NVM) unless the descriptors contain another, which is
    /// [`ZONED`](Self::ZONED).
    pub command_set: u8,
    /// ANAGRPID: ANA group, 0 if not reported.
    pub ana_group: u32,
}

/// An EUI-64 (Base 4.7.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Eui64(pub [u8; 8]);

impl fmt::Display for Eui64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl NamespaceInfo {
    /// CSI of the Zoned Namespace command set.
    pub const ZONED: u8 = 2;

    /// Decodes the Identify Namespace data structure.
    ///
    /// # Errors
    ///
    /// When the namespace is not active, or its format is not supported.
    pub fn parse(id: NamespaceId, bytes: &[u8]) -> Result<Self, IdentifyError> {
        let data =
            NamespaceData::ref_from_bytes(bytes).map_err(|_| IdentifyError::Length(bytes.len()))?;
        let blocks = data.size.get();
        if blocks == 0 {
            return Err(IdentifyError::NoNamespace(id));
        }
        let format = data.formats[data.format_index()];
        let exponent = format.block_size_log2;
        if !(9..=20).contains(&exponent) {
            return Err(IdentifyError::BlockSize { namespace: id, exponent });
        }
        let bytes = format.metadata_size.get();
        let metadata = metadata::metadata_format(id, bytes, data.formatted, data.protection)?;
        let block_size = 1 << exponent;
        if blocks.checked_mul(u64::from(block_size)).is_none() {
            return Err(IdentifyError::Size { namespace: id, blocks, block_size });
        }
        let nguid = Some(Uuid::from_bytes(data.nguid)).filter(|nguid| !nguid.is_nil());
        let eui64 = Some(Eui64(data.eui64)).filter(|eui64| eui64.0 != [0; 8]);
        let ana_group = data.ana_group.get();
        let (uuid, command_set) = (None, 0);
        Ok(Self { id, blocks, block_size, metadata, nguid, eui64, uuid, command_set, ana_group })
    }

    /// Merges the Namespace Identification Descriptors, which take precedence over Identify
    /// Namespace.
    ///
    /// # Errors
    ///
    /// When the namespace is of a command set that is not supported.
    pub fn with_id_descriptors(self, names: NamespaceIdDescriptors) -> Result<Self, IdentifyError> {
        let command_set = names.command_set.unwrap_or(0);
        if ![0, Self::ZONED].contains(&command_set) {
            return Err(IdentifyError::CommandSet { namespace: self.id, command_set });
        }
        Ok(Self {
            nguid: names.nguid.or(self.nguid),
            eui64: names.eui64.or(self.eui64),
            uuid: names.uuid,
            command_set,
            ..self
        })
    }

    /// Returns true for a zoned namespace, whose blocks are written in the order of each zone.
    #[must_use]
    pub fn is_zoned(&self) -> bool {
        self.command_set == Self::ZONED
    }

    /// Returns true if `other` describes the same namespace: all identifiers, the block size, the
    /// metadata and the command set are equal. The size and the ANA group may differ.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        Self { blocks: other.blocks, ana_group: other.ana_group, ..*self } == *other
    }

    /// Index of the LBA format in use in an Identify Namespace data structure; 0 if that is not
    /// 4,096 bytes long.
    #[must_use]
    pub fn format_index(bytes: &[u8]) -> usize {
        NamespaceData::ref_from_bytes(bytes).map_or(0, |data| data.format_index())
    }

    /// Number of whole blocks in `bytes`; a buffer has far fewer than 2^32.
    #[must_use]
    pub fn blocks_in(&self, bytes: usize) -> u32 {
        u32::try_from(bytes as u64 / u64::from(self.block_size)).unwrap_or(u32::MAX)
    }

    /// Size in bytes; `parse` has checked that it does not overflow.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.blocks * u64::from(self.block_size)
    }
}

impl NamespaceData {
    /// Index of the LBA format (FLBAS): bits 3:0 are the low bits, bits 6:5 the high bits.
    pub(super) fn format_index(&self) -> usize {
        usize::from(self.formatted & 0xf) | usize::from((self.formatted >> 5) & 0b11) << 4
    }
}

/// Active Namespace ID list (Base 5.1.13.2.2): ascending ids, terminated by 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceList(pub Vec<NamespaceId>);

impl NamespaceList {
    /// Number of ids that one list can hold.
    pub const ENTRIES: usize = 1024;

    /// Decodes the list up to the first entry that does not ascend, which includes the final 0.
    ///
    /// # Errors
    ///
    /// When it is not 4,096 bytes long.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdentifyError> {
        let entries = <[U32; Self::ENTRIES]>::ref_from_bytes(bytes)
            .map_err(|_| IdentifyError::Length(bytes.len()))?;
        let mut last = 0;
        let ascending = entries.iter().map(|entry| entry.get()).take_while(|&id| {
            let ascends = id > last;
            last = id;
            ascends
        });
        Ok(Self(ascending.map(NamespaceId).collect()))
    }
}

/// Decodes an ASCII field up to the first NUL, without trailing spaces. Unprintable characters are
/// replaced, so that a target cannot send control sequences to a terminal.
fn printable(field: &[u8]) -> String {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    let text: String = field[..end]
        .iter()
        .map(|&byte| if (0x20..0x7f).contains(&byte) { char::from(byte) } else { '?' })
        .collect();
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests;
