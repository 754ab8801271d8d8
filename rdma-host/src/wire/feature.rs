//! Set Features and Get Features (Base 5.1.25, 5.1.11).

use super::{AsyncEventMask, NamespaceId, Opcode, Sqe};

/// Set Features commands.
#[derive(Clone, Copy, Debug)]
pub struct SetFeatures;

impl SetFeatures {
    /// Number of Queues (Base 5.1.25.2.1).
    const NUMBER_OF_QUEUES: u32 = 0x07;
    /// Host Behavior Support (Base 5.1.25.1.14).
    const HOST_BEHAVIOR: u32 = 0x16;
    /// Asynchronous Event Configuration (Base 5.1.25.1.5).
    const ASYNC_EVENTS: u32 = 0x0b;

    /// Requests `count` I/O submission and completion queues.
    ///
    /// # Panics
    ///
    /// If `count` is 0, which the zero-based field cannot hold.
    #[must_use]
    pub fn queue_count(count: u16) -> Sqe {
        assert!(count > 0, "at least one I/O queue is asked for");
        let zero_based = u32::from(count - 1);
        Sqe::new(Opcode::SET_FEATURES, NamespaceId(0))
            .with_parameters(Self::NUMBER_OF_QUEUES, (zero_based << 16) | zero_based)
    }
}

impl SetFeatures {
    /// Announces what this host supports; its data is a [`HostBehavior`].
    #[must_use]
    pub fn host_behavior() -> Sqe {
        Sqe::new(Opcode::SET_FEATURES, NamespaceId(0)).with_parameters(Self::HOST_BEHAVIOR, 0)
    }

    /// Sets any feature, by dwords 11 to 15. With `save` the value survives resets (SV).
    #[must_use]
    pub fn any(feature: u8, save: bool, namespace: NamespaceId, dwords: [u32; 5]) -> Sqe {
        let [cdw11, cdw12, cdw13, cdw14, cdw15] = dwords;
        let cdw10 = u32::from(feature) | u32::from(save) << 31;
        let dwords = [cdw10, cdw11, cdw12, cdw13, cdw14, cdw15];
        Sqe::with_dwords(Opcode::SET_FEATURES, namespace, [0; 2], dwords)
    }

    /// Enables these asynchronous events and disables all others.
    #[must_use]
    pub fn async_events(events: AsyncEventMask) -> Sqe {
        Sqe::new(Opcode::SET_FEATURES, NamespaceId(0)).with_parameters(Self::ASYNC_EVENTS, events.0)
    }
}

/// Data of the Host Behavior Support feature (Base figure 408).
#[derive(Clone, Copy, Debug)]
pub struct HostBehavior {
    /// ACRE: the host heeds command retry delays (CRD).
    pub retry_delays: bool,
}

impl HostBehavior {
    /// Size of the data in bytes.
    pub const SIZE: usize = 512;

    /// Encodes the data.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0] = u8::from(self.retry_delays);
        bytes
    }
}

/// Get Features commands.
#[derive(Clone, Copy, Debug)]
pub struct GetFeatures;

/// Value of a feature to read (SEL).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FeatureSelect {
    /// Value in force.
    #[default]
    Current = 0,
    /// Value of the factory.
    Default = 1,
    /// Value that survives resets.
    Saved = 2,
    /// Capabilities of the feature: whether it can be saved, changed, and differs by namespace.
    Supported = 3,
}

impl GetFeatures {
    /// Reads any feature; the value is the result of the command.
    #[must_use]
    pub fn any(feature: u8, select: FeatureSelect, namespace: NamespaceId, cdw11: u32) -> Sqe {
        let cdw10 = u32::from(feature) | (select as u32) << 8;
        Sqe::new(Opcode::GET_FEATURES, namespace).with_parameters(cdw10, cdw11)
    }

    /// Requests the enabled asynchronous events; the result is an [`AsyncEventMask`].
    #[must_use]
    pub fn async_events() -> Sqe {
        Sqe::new(Opcode::GET_FEATURES, NamespaceId(0)).with_parameters(SetFeatures::ASYNC_EVENTS, 0)
    }
}

/// Number of I/O queues granted by the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueCount(pub u32);

impl QueueCount {
    /// Decodes the result of Number of Queues: the smaller of submission and completion queues.
    #[must_use]
    pub fn parse(result: u32) -> Self {
        Self((result & 0xffff).min(result >> 16) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    #[test]
    fn queue_count_in_literal_bytes() {
        let sqe = SetFeatures::queue_count(4);
        assert_eq!(sqe.as_bytes()[0], 0x09);
        assert_eq!(sqe.as_bytes()[40..48], [0x07, 0, 0, 0, 3, 0, 3, 0]);
    }

    #[test]
    fn event_configuration_in_literal_bytes() {
        let sqe = SetFeatures::async_events(AsyncEventMask::DISCOVERY_LOG_CHANGE);
        assert_eq!(sqe.as_bytes()[40..48], [0x0b, 0, 0, 0, 0, 0, 0, 0x80]);
        let sqe = GetFeatures::async_events();
        assert_eq!((sqe.as_bytes()[0], sqe.as_bytes()[40]), (0x0a, 0x0b));
    }

    #[test]
    fn host_behavior_in_literal_bytes() {
        let sqe = SetFeatures::host_behavior();
        assert_eq!((sqe.as_bytes()[0], sqe.as_bytes()[40]), (0x09, 0x16));
        let data = HostBehavior { retry_delays: true }.to_bytes();
        assert_eq!((data[0], data[1..].iter().max()), (1, Some(&0)));
    }

    #[test]
    fn any_feature_in_literal_bytes() {
        let sqe = GetFeatures::any(0x84, FeatureSelect::Supported, NamespaceId(1), 5);
        assert_eq!(sqe.as_bytes()[..8], [0x0a, 0x40, 0, 0, 1, 0, 0, 0]);
        assert_eq!(sqe.as_bytes()[40..48], [0x84, 3, 0, 0, 5, 0, 0, 0]);
        let sqe = SetFeatures::any(0x84, true, NamespaceId(1), [5, 6, 7, 8, 9]);
        assert_eq!(sqe.as_bytes()[..8], [0x09, 0x40, 0, 0, 1, 0, 0, 0]);
        assert_eq!(sqe.as_bytes()[40..48], [0x84, 0, 0, 0x80, 5, 0, 0, 0]);
        assert_eq!([48, 52, 56, 60].map(|at: usize| sqe.as_bytes()[at]), [6, 7, 8, 9]);
    }

    #[test]
    fn the_smaller_direction_counts() {
        assert_eq!(QueueCount::parse(0x0003_0007), QueueCount(4));
        assert_eq!(QueueCount::parse(0xffff_ffff), QueueCount(0x1_0000));
    }
}
