//! Status field of a completion (Base 4.2.3): code, type and retry bits.

use std::fmt;

/// Status field of a completion: 15 bits, without the phase bit.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Status(pub u16);

impl Status {
    /// Successful completion.
    pub const SUCCESS: Self = Self(0x000);
    /// Generic: invalid command opcode.
    pub const INVALID_OPCODE: Self = Self(0x001);
    /// Generic: a field of the command has a value that is not supported.
    pub const INVALID_FIELD: Self = Self(0x002);
    /// Generic: the command was aborted by an Abort.
    pub const ABORTED_BY_REQUEST: Self = Self(0x007);
    /// Generic: an I/O Connect on a queue identifier already in use, or commands out of order.
    pub const COMMAND_SEQUENCE_ERROR: Self = Self(0x00c);
    /// Generic: invalid namespace, or not attached (Base figure 101).
    pub const INVALID_NAMESPACE: Self = Self(0x00b);
    /// Generic: the range ends beyond the namespace (NVM).
    pub const LBA_OUT_OF_RANGE: Self = Self(0x080);
    /// Fabrics: the record format of Connect is not supported.
    pub const CONNECT_INCOMPATIBLE_FORMAT: Self = Self(0x180);
    /// Fabrics: the controller is in use, or none is free.
    pub const CONNECT_CONTROLLER_BUSY: Self = Self(0x181);
    /// Fabrics: invalid Connect parameter; the result identifies it.
    pub const CONNECT_INVALID_PARAMETERS: Self = Self(0x182);
    /// Fabrics: this host may not use the subsystem.
    pub const CONNECT_INVALID_HOST: Self = Self(0x184);
    /// Fabrics: the discovery log changed while it was read.
    pub const DISCOVER_RESTART: Self = Self(0x190);
    /// Fabrics: the queue needs authentication before anything else.
    pub const AUTHENTICATION_REQUIRED: Self = Self(0x191);
    /// Command specific: the controller is being reset already.
    pub const CROSS_CONTROLLER_RESET_IN_PROGRESS: Self = Self(0x13f);
    /// Command specific: the log page has no room for another Cross-Controller Reset.
    pub const CROSS_CONTROLLER_RESET_LOG_FULL: Self = Self(0x140);
    /// Command specific: as many Cross-Controller Resets are in progress as the controller allows.
    pub const CROSS_CONTROLLER_RESET_LIMIT_EXCEEDED: Self = Self(0x141);
    /// Command specific: the blocks of a write are not those at the write pointer (ZNS).
    pub const ZONE_INVALID_WRITE: Self = Self(0x1bc);
    /// Media: the guard of a block is not that of its data (NVM).
    pub const GUARD_CHECK_ERROR: Self = Self(0x282);
    /// Media: the application tag of a block is not the expected one (NVM).
    pub const APPLICATION_TAG_CHECK_ERROR: Self = Self(0x283);
    /// Media: the reference or storage tag of a block is not the expected one (NVM).
    pub const REFERENCE_TAG_CHECK_ERROR: Self = Self(0x284);
    /// Media: the blocks differ from the data of a Compare (NVM).
    pub const COMPARE_FAILURE: Self = Self(0x285);
    /// Path: the controller has lost access to the namespace for good.
    pub const ANA_PERSISTENT_LOSS: Self = Self(0x301);
    /// Path: the controller has no access to the namespace now.
    pub const ANA_INACCESSIBLE: Self = Self(0x302);
    /// Path: the access of the controller to the namespace is changing.
    pub const ANA_TRANSITION: Self = Self(0x303);

    const CODE: u16 = 0x07ff;
    const MORE: u16 = 0x2000;
    const DO_NOT_RETRY: u16 = 0x4000;

    /// Returns true if the command succeeded.
    #[inline]
    #[must_use]
    pub fn is_success(self) -> bool {
        self.code() == Self::SUCCESS
    }

    /// Status code type and status code alone, for comparison with the constants.
    #[inline]
    #[must_use]
    pub fn code(self) -> Self {
        Self(self.0 & Self::CODE)
    }

    /// Do Not Retry (DNR): the same command would fail again.
    #[must_use]
    pub fn do_not_retry(self) -> bool {
        self.0 & Self::DO_NOT_RETRY != 0
    }

    /// Sets DNR.
    #[must_use]
    pub fn with_do_not_retry(self) -> Self {
        Self(self.0 | Self::DO_NOT_RETRY)
    }

    /// Returns true for the refusals of Connect that the same request meets again, whether or not
    /// the controller sets DNR: host, parameters or format have to change.
    #[must_use]
    pub fn is_connect_refusal(self) -> bool {
        matches!(
            self.code(),
            Self::CONNECT_INCOMPATIBLE_FORMAT
                | Self::CONNECT_INVALID_HOST
                | Self::CONNECT_INVALID_PARAMETERS
        )
    }

    /// More (M): the error information log page contains details.
    #[must_use]
    pub fn more(self) -> bool {
        self.0 & Self::MORE != 0
    }

    /// Command Retry Delay (CRD): index of the controller's three retry delays, 0 for none.
    #[must_use]
    pub fn retry_delay_index(self) -> usize {
        usize::from((self.0 >> 11) & 0b11)
    }

    /// Text of the status of a command other than Connect, some of whose codes it shares.
    #[must_use]
    pub fn command_text(self) -> String {
        match self.code().0 {
            0x180 => self.text("conflicting attributes"),
            0x181 => self.text("invalid protection information"),
            0x182 => self.text("attempted write to read only range"),
            _ => self.to_string(),
        }
    }

    fn text(self, name: &str) -> String {
        let retry = if self.do_not_retry() { ", do not retry" } else { "" };
        format!("{name} ({:#05x}{retry})", self.code().0)
    }

    /// Name of the status in the specification, if defined.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        let code = self.code().0;
        NAMES.binary_search_by_key(&code, |&(known, _)| known).ok().map(|index| NAMES[index].1)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name().unwrap_or(match self.code().0 >> 8 {
            0 => "generic error",
            1 => "command specific error",
            2 => "media error",
            3 => "path error",
            7 => "vendor specific error",
            _ => "reserved status type",
        });
        f.write_str(&self.text(name))
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({self})")
    }
}

/// Names of status codes, sorted: type in bits 10:8, code in bits 7:0 (Base figures 101-104, NVM
/// figure 24, ZNS figure 26).
const NAMES: &[(u16, &str)] = &[
    (0x000, "success"),
    (0x001, "invalid command opcode"),
    (0x002, "invalid field in command"),
    (0x003, "command id conflict"),
    (0x004, "data transfer error"),
    (0x005, "aborted: power loss"),
    (0x006, "internal error"),
    (0x007, "aborted by request"),
    (0x008, "aborted: submission queue deleted"),
    (0x009, "aborted: the other command of the fused operation failed"),
    (0x00a, "aborted: the other command of the fused operation is missing"),
    (0x00b, "invalid namespace or format"),
    (0x00c, "command sequence error"),
    (0x00d, "invalid SGL segment descriptor"),
    (0x00e, "invalid number of SGL descriptors"),
    (0x00f, "data SGL length invalid"),
    (0x010, "metadata SGL length invalid"),
    (0x011, "SGL descriptor type invalid"),
    (0x014, "atomic write unit exceeded"),
    (0x016, "SGL offset invalid"),
    (0x018, "host identifier inconsistent format"),
    (0x019, "keep alive timer expired"),
    (0x01a, "keep alive timeout invalid"),
    (0x01c, "sanitize failed"),
    (0x01d, "sanitize in progress"),
    (0x01e, "SGL data block granularity invalid"),
    (0x020, "namespace is write protected"),
    (0x021, "command interrupted"),
    (0x022, "transient transport error"),
    (0x080, "LBA out of range"),
    (0x081, "capacity exceeded"),
    (0x082, "namespace not ready"),
    (0x083, "reservation conflict"),
    (0x084, "format in progress"),
    (0x109, "invalid log page"),
    (0x10d, "feature identifier not saveable"),
    (0x10e, "feature not changeable"),
    (0x10f, "feature not namespace specific"),
    (0x115, "namespace insufficient capacity"),
    (0x129, "I/O command set not supported"),
    (0x12a, "I/O command set not enabled"),
    (0x12b, "I/O command set combination rejected"),
    (0x12c, "invalid I/O command set"),
    (0x13f, "cross-controller reset in progress"),
    (0x140, "cross-controller reset log full"),
    (0x141, "cross-controller reset limit exceeded"),
    (0x180, "connect: incompatible format"),
    (0x181, "connect: controller busy"),
    (0x182, "connect: invalid parameters"),
    (0x183, "connect: restart discovery"),
    (0x184, "connect: host not allowed"),
    (0x185, "invalid queue type"),
    (0x190, "discover: restart"),
    (0x191, "authentication required"),
    (0x1b6, "invalid zone operation request"),
    (0x1b7, "zone random write area resources unavailable"),
    (0x1b8, "zone boundary error"),
    (0x1b9, "zone is full"),
    (0x1ba, "zone is read only"),
    (0x1bb, "zone is offline"),
    (0x1bc, "zone invalid write"),
    (0x1bd, "too many active zones"),
    (0x1be, "too many open zones"),
    (0x1bf, "invalid zone state transition"),
    (0x280, "write fault"),
    (0x281, "unrecovered read error"),
    (0x282, "end-to-end guard check error"),
    (0x283, "end-to-end application tag check error"),
    (0x284, "end-to-end reference tag check error"),
    (0x285, "compare failure"),
    (0x286, "access denied"),
    (0x287, "deallocated or unwritten logical block"),
    (0x300, "internal path error"),
    (0x301, "asymmetric access: persistent loss"),
    (0x302, "asymmetric access: inaccessible"),
    (0x303, "asymmetric access: transition"),
    (0x360, "controller path error"),
    (0x370, "host path error"),
    (0x371, "command aborted by host"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_for_the_search() {
        assert!(NAMES.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn status_prints_name_and_code() {
        assert_eq!(Status(0x4184).to_string(), "connect: host not allowed (0x184, do not retry)");
        assert_eq!(Status(0x07c1).to_string(), "vendor specific error (0x7c1)");
        assert_eq!(Status(0x0456).to_string(), "reserved status type (0x456)");
        let of_a_write = Status(0x4181).command_text();
        assert_eq!(of_a_write, "invalid protection information (0x181, do not retry)");
        assert_eq!(Status(0x0281).command_text(), Status(0x0281).to_string());
    }

    #[test]
    fn bits_are_told_apart() {
        let status = Status(0x7fff);
        assert!(status.do_not_retry() && status.more());
        assert_eq!(status.retry_delay_index(), 3);
        assert_eq!(status.code(), Status(0x07ff));
        assert!(Status(0x5800).is_success());
    }
}
