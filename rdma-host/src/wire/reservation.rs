//! Reservations (Base 7.2 to 7.5, 8.1.22): the commands, their data, and the report.

use std::fmt;

use zerocopy::{
    FromBytes, Immutable, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

use super::{ControllerId, LogError, NamespaceId, Opcode, Sqe};

/// Reservation type (RTYPE).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReservationType(pub u8);

impl ReservationType {
    /// Write Exclusive.
    pub const WRITE_EXCLUSIVE: Self = Self(1);
    /// Exclusive Access.
    pub const EXCLUSIVE_ACCESS: Self = Self(2);
    /// Write Exclusive, Registrants Only.
    pub const WRITE_EXCLUSIVE_REGISTRANTS: Self = Self(3);
    /// Exclusive Access, Registrants Only.
    pub const EXCLUSIVE_ACCESS_REGISTRANTS: Self = Self(4);
    /// Write Exclusive, All Registrants.
    pub const WRITE_EXCLUSIVE_ALL: Self = Self(5);
    /// Exclusive Access, All Registrants.
    pub const EXCLUSIVE_ACCESS_ALL: Self = Self(6);
}

impl fmt::Display for ReservationType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self(0) => "none",
            Self::WRITE_EXCLUSIVE => "write exclusive",
            Self::EXCLUSIVE_ACCESS => "exclusive access",
            Self::WRITE_EXCLUSIVE_REGISTRANTS => "write exclusive, registrants only",
            Self::EXCLUSIVE_ACCESS_REGISTRANTS => "exclusive access, registrants only",
            Self::WRITE_EXCLUSIVE_ALL => "write exclusive, all registrants",
            Self::EXCLUSIVE_ACCESS_ALL => "exclusive access, all registrants",
            Self(number) => return write!(f, "reservation type {number}"),
        })
    }
}

impl fmt::Debug for ReservationType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReservationType({self})")
    }
}

/// Command that changes the registration of this host or the reservation of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationCommand {
    /// Reservation Register: register a key, unregister, or replace the key (Base 7.3).
    Register {
        /// Action (RREGA).
        action: RegisterAction,
        /// Current key (CRKEY).
        current_key: u64,
        /// New key (NRKEY).
        new_key: u64,
        /// Change of Persist Through Power Loss (CPTPL); `None` for none.
        persist: Option<bool>,
    },
    /// Reservation Acquire: acquire a reservation, or preempt that of another host (Base 7.2).
    Acquire {
        /// Action (RACQA).
        action: AcquireAction,
        /// Type of the reservation.
        reservation: ReservationType,
        /// Current key of this host (CRKEY).
        current_key: u64,
        /// Key to preempt (PRKEY).
        preempt_key: u64,
    },
    /// Reservation Release: release the reservation, or clear it and all registrations (Base 7.4).
    Release {
        /// Action (RRELA).
        action: ReleaseAction,
        /// Type of the reservation.
        reservation: ReservationType,
        /// Current key of this host (CRKEY).
        current_key: u64,
    },
}

/// Action of Reservation Register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterAction {
    /// Register the new key.
    Register = 0,
    /// Unregister the current key.
    Unregister = 1,
    /// Replace the current key by the new one.
    Replace = 2,
}

/// Action of Reservation Acquire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcquireAction {
    /// Acquire a reservation.
    Acquire = 0,
    /// Preempt the registrants with the key to preempt.
    Preempt = 1,
    /// Preempt, and abort their commands: the response comes once these have ended.
    PreemptAndAbort = 2,
}

/// Action of Reservation Release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseAction {
    /// Release the reservation.
    Release = 0,
    /// Clear the reservation and all registrations.
    Clear = 1,
}

impl ReservationCommand {
    /// Maximum size of the data of a command in bytes.
    pub const DATA_MAX: usize = 16;

    /// Name of the command.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Register { .. } => "Reservation Register",
            Self::Acquire { .. } => "Reservation Acquire",
            Self::Release { .. } => "Reservation Release",
        }
    }

    /// Encodes the command. With `ignore_key` the controller does not check the current key
    /// (IEKEY).
    #[must_use]
    pub fn to_sqe(&self, namespace: NamespaceId, ignore_key: bool) -> Sqe {
        /// CPTPL: a loss of power releases the reservation, or does not.
        const CPTPL: [u32; 2] = [0b10 << 30, 0b11 << 30];
        let typed = |reservation: ReservationType| u32::from(reservation.0) << 8;
        let (opcode, action, rest) = match *self {
            Self::Register { action, persist, .. } => {
                let persist = persist.map_or(0, |persist| CPTPL[usize::from(persist)]);
                (Opcode::RESERVATION_REGISTER, action as u32, persist)
            }
            Self::Acquire { action, reservation, .. } => {
                (Opcode::RESERVATION_ACQUIRE, action as u32, typed(reservation))
            }
            Self::Release { action, reservation, .. } => {
                (Opcode::RESERVATION_RELEASE, action as u32, typed(reservation))
            }
        };
        let cdw10 = action | u32::from(ignore_key) << 3 | rest;
        Sqe::new(opcode, namespace).with_parameters(cdw10, 0)
    }

    /// Encodes the data of the command: 16 bytes, 8 of Release.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match *self {
            Self::Register { current_key, new_key, .. } => {
                [current_key.to_le_bytes(), new_key.to_le_bytes()].concat()
            }
            Self::Acquire { current_key, preempt_key, .. } => {
                [current_key.to_le_bytes(), preempt_key.to_le_bytes()].concat()
            }
            Self::Release { current_key, .. } => current_key.to_le_bytes().to_vec(),
        }
    }
}

/// Reservation Status data structure, extended (Base 7.5): the data of Reservation Report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservationReport {
    /// GEN: number of changes of registrations and of preemptions, modulo 2^32.
    pub generation: u32,
    /// RTYPE: type of the reservation that is held, [`ReservationType`] 0 if none is.
    pub reservation: ReservationType,
    /// REGSTRNT: number of registrants, of which the data may have fewer.
    pub count: u16,
    /// PTPLS: a reservation persists through a loss of power.
    pub persists: bool,
    /// Registrants in the data.
    pub registrants: Vec<Registrant>,
}

/// Host that is registered, by one of its controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registrant {
    /// Controller of the host.
    pub controller: ControllerId,
    /// RCSTS: the host holds the reservation.
    pub holds_reservation: bool,
    /// Key.
    pub key: u64,
    /// Host Identifier.
    pub host: [u8; 16],
}

/// Layout of the header.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    generation: U32,
    reservation: u8,
    count: U16,
    gap_7: [u8; 2],
    persists: u8,
    gap_10: [u8; 54],
}

/// Layout of a registrant.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    controller: U16,
    status: u8,
    gap_3: [u8; 5],
    key: U64,
    host: [u8; 16],
    gap_32: [u8; 32],
}

const _: () = assert!(size_of::<Header>() == 64 && size_of::<Entry>() == 64);

impl ReservationReport {
    /// Size of the header, and of each registrant, in bytes.
    pub const ENTRY_SIZE: usize = 64;

    /// Reservation Report with the extended data structure, as hosts with an identifier of 128 bits
    /// need it.
    ///
    /// # Panics
    ///
    /// If `bytes` is 0 or not a multiple of 4, which the zero-based number of dwords cannot hold.
    #[must_use]
    pub fn command(namespace: NamespaceId, bytes: u32) -> Sqe {
        const EXTENDED: u32 = 1;
        assert!(bytes >= 4 && bytes.is_multiple_of(4), "whole dwords are read");
        Sqe::new(Opcode::RESERVATION_REPORT, namespace).with_parameters(bytes / 4 - 1, EXTENDED)
    }

    /// Decodes the data structure, with as many registrants as it has.
    ///
    /// # Errors
    ///
    /// When it is shorter than its header.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let (header, rest) = Header::ref_from_prefix(bytes).map_err(|_| {
            LogError::ReservationReport { bytes: bytes.len(), least: Self::ENTRY_SIZE }
        })?;
        let entries = rest.chunks_exact(Self::ENTRY_SIZE).take(header.count.get().into());
        let entries = entries.map(|entry| Entry::ref_from_bytes(entry).expect("64 bytes"));
        Ok(Self {
            generation: header.generation.get(),
            reservation: ReservationType(header.reservation),
            count: header.count.get(),
            persists: header.persists & 1 != 0,
            registrants: entries
                .map(|entry| Registrant {
                    controller: ControllerId(entry.controller.get()),
                    holds_reservation: entry.status & 1 != 0,
                    key: entry.key.get(),
                    host: entry.host,
                })
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    const KEYS: [u8; 16] = [8, 7, 6, 5, 4, 3, 2, 1, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11];
    const CURRENT: u64 = 0x0102_0304_0506_0708;
    const OTHER: u64 = 0x1112_1314_1516_1718;

    #[test]
    fn types_in_words() {
        let words: Vec<_> = (0..8).map(|number| ReservationType(number).to_string()).collect();
        assert_eq!(
            words,
            [
                "none",
                "write exclusive",
                "exclusive access",
                "write exclusive, registrants only",
                "exclusive access, registrants only",
                "write exclusive, all registrants",
                "exclusive access, all registrants",
                "reservation type 7",
            ]
        );
    }

    fn encoded(command: ReservationCommand, ignore_key: bool) -> (u8, [u8; 8], Vec<u8>) {
        let sqe = command.to_sqe(NamespaceId(3), ignore_key);
        let bytes = sqe.as_bytes();
        assert_eq!(bytes[4..8], [3, 0, 0, 0]);
        assert!(sqe.opcode().sends_data());
        let parameters = bytes[40..48].try_into().unwrap();
        (bytes[0], parameters, command.to_bytes())
    }

    #[test]
    fn register_in_literal_bytes() {
        for (action, persist, ignore_key, first, last) in [
            (RegisterAction::Register, None, false, 0, 0),
            (RegisterAction::Unregister, Some(false), false, 1, 0x80),
            (RegisterAction::Replace, Some(true), true, 0b1010, 0xc0),
        ] {
            let command = ReservationCommand::Register {
                action,
                current_key: CURRENT,
                new_key: OTHER,
                persist,
            };
            let parameters = [first, 0, 0, last, 0, 0, 0, 0];
            assert_eq!(encoded(command, ignore_key), (0x0d, parameters, KEYS.to_vec()));
        }
    }

    #[test]
    fn acquire_and_release_in_literal_bytes() {
        for (action, code) in [
            (AcquireAction::Acquire, 0),
            (AcquireAction::Preempt, 1),
            (AcquireAction::PreemptAndAbort, 2),
        ] {
            let command = ReservationCommand::Acquire {
                action,
                reservation: ReservationType::EXCLUSIVE_ACCESS_ALL,
                current_key: CURRENT,
                preempt_key: OTHER,
            };
            let parameters = [code, 6, 0, 0, 0, 0, 0, 0];
            assert_eq!(encoded(command, false), (0x11, parameters, KEYS.to_vec()));
        }
        for (action, code) in [(ReleaseAction::Release, 0b1000), (ReleaseAction::Clear, 0b1001)] {
            let command = ReservationCommand::Release {
                action,
                reservation: ReservationType::WRITE_EXCLUSIVE,
                current_key: CURRENT,
            };
            let parameters = [code, 1, 0, 0, 0, 0, 0, 0];
            assert_eq!(encoded(command, true), (0x15, parameters, KEYS[..8].to_vec()));
        }
    }

    #[test]
    fn a_report_by_offset() {
        let sqe = ReservationReport::command(NamespaceId(3), 192);
        assert_eq!((sqe.as_bytes()[0], sqe.opcode().sends_data()), (0x0e, false));
        assert_eq!(sqe.as_bytes()[40..48], [47, 0, 0, 0, 1, 0, 0, 0]);
        let mut bytes = [0; 192];
        bytes[..10].copy_from_slice(&[4, 3, 2, 1, 5, 2, 0, 0, 0, 1]);
        bytes[64..67].copy_from_slice(&[7, 1, 1]);
        bytes[72..80].copy_from_slice(&KEYS[..8]);
        bytes[80..96].copy_from_slice(&KEYS);
        let report = ReservationReport::parse(&bytes).unwrap();
        assert_eq!((report.generation, report.count), (0x0102_0304, 2));
        assert_eq!(report.reservation, ReservationType::WRITE_EXCLUSIVE_ALL);
        let first = Registrant {
            controller: ControllerId(0x0107),
            holds_reservation: true,
            key: CURRENT,
            host: KEYS,
        };
        assert!(report.persists && report.registrants[0] == first);
        assert!(!report.registrants[1].holds_reservation);
        // Fewer than there are, and none.
        assert_eq!(ReservationReport::parse(&bytes[..128]).unwrap().registrants, [first]);
        assert!(ReservationReport::parse(&bytes[..64]).unwrap().registrants.is_empty());
        assert!(ReservationReport::parse(&bytes[..63]).is_err());
    }
}
