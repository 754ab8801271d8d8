//! Faults of a run, each with a name by which its occurrences are counted.

use std::{fmt, time::Duration};

use super::random::Random;

/// Fault of one I/O command at the target.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CommandFault {
    /// The connection ends when the command has arrived.
    Disconnect,
    /// A response of more than 16 bytes.
    LongResponse,
    /// No answer.
    NoAnswer,
    /// The response is sent twice.
    RepeatedResponse,
    /// A response of less than 16 bytes.
    ShortResponse,
    /// The answer is late.
    SlowAnswer(Duration),
    /// The command takes effect late.
    SlowExecution(Duration),
    /// The response is to an earlier command of the same slot.
    StaleGeneration,
    /// The command fails with a status, and has no effect.
    Status(u16),
    /// The response is to another slot, in a generation that no slot reaches: the host could not
    /// tell one to a command in flight from the true one.
    WrongCommand,
}

/// Fault of the network or of a whole host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WorldFault {
    /// The host's address moves to another device.
    AddressChange,
    /// Completions of the host are lost, and its completion queues fail.
    CompletionQueuesFail,
    /// The next completion on the host is told twice.
    CompletionRepeated,
    /// The next connection request is lost.
    ConnectLost,
    /// The next connection request is rejected: nothing listens.
    ConnectRejected,
    /// The host's device is removed, and another one comes after a time.
    DeviceRemoved(Duration),
    /// The target closes the connection of one queue.
    Disconnect(u8),
    /// The next message of the host is late.
    MessageDelayed(Duration),
    /// The next message of the host is lost with all its retries.
    MessageLost,
    /// The network is cut for a time.
    Partition(Duration),
    /// The host's port is down for a time.
    PortDown(Duration),
    /// The host's queue pairs fail silently.
    QueuePairsDie,
    /// The target ends all connections and listens again after a time. What executes goes on.
    TargetRestart(Duration),
    /// Messages of the target are lost with all their retries: one of them.
    TargetMessageLost,
}

impl CommandFault {
    /// Draws one.
    pub fn draw(random: &mut Random) -> Self {
        let short = random.time(Duration::from_micros(50), Duration::from_millis(20));
        let long = random.time(Duration::from_millis(200), Duration::from_secs(40));
        match random.below(16) {
            0 => Self::Disconnect,
            1 => Self::LongResponse,
            2 => Self::NoAnswer,
            3 => Self::RepeatedResponse,
            4 => Self::ShortResponse,
            5 => Self::SlowAnswer(short),
            6 => Self::SlowAnswer(long),
            7 => Self::SlowExecution(short),
            8..11 => Self::SlowExecution(long),
            11 => Self::StaleGeneration,
            12 => Self::WrongCommand,
            // Internal error, capacity, and command interrupted; with and without DNR.
            _ => Self::Status([0x0006, 0x4081, 0x0021][random.index(3)]),
        }
    }

    /// Tells if the host must close the connection soon after it has the response. A repeated one
    /// is not among these: the first is right.
    #[must_use]
    pub fn breaks_protocol(self) -> bool {
        matches!(
            self,
            Self::LongResponse | Self::ShortResponse | Self::StaleGeneration | Self::WrongCommand
        )
    }

    /// Name for counts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect at a command",
            Self::LongResponse => "long response",
            Self::NoAnswer => "no answer",
            Self::RepeatedResponse => "repeated response",
            Self::ShortResponse => "short response",
            Self::SlowAnswer(_) => "slow answer",
            Self::SlowExecution(_) => "slow execution",
            Self::StaleGeneration => "response of a stale generation",
            Self::Status(_) => "failure status",
            Self::WrongCommand => "response to another command",
        }
    }

    /// Names of all.
    pub const NAMES: [&'static str; 10] = [
        "disconnect at a command",
        "failure status",
        "long response",
        "no answer",
        "repeated response",
        "response of a stale generation",
        "response to another command",
        "short response",
        "slow answer",
        "slow execution",
    ];
}

impl WorldFault {
    /// Draws one.
    pub fn draw(random: &mut Random) -> Self {
        let outage = random.time(Duration::from_millis(1), Duration::from_secs(20));
        match random.below(16) {
            0 => Self::AddressChange,
            1 => Self::CompletionQueuesFail,
            2 => Self::CompletionRepeated,
            3 => Self::ConnectLost,
            4 => Self::ConnectRejected,
            5 => Self::DeviceRemoved(outage),
            6 | 7 => Self::Disconnect(u8::try_from(random.below(4)).expect("small")),
            8 | 9 => Self::MessageDelayed(outage.min(Duration::from_millis(500))),
            10 => Self::MessageLost,
            11 => Self::Partition(outage),
            12 => Self::PortDown(outage),
            13 => Self::QueuePairsDie,
            14 => Self::TargetMessageLost,
            _ => Self::TargetRestart(outage),
        }
    }

    /// Tells if messages that were sent before it may arrive much later.
    #[must_use]
    pub fn delays_messages(self) -> bool {
        matches!(self, Self::MessageDelayed(_) | Self::Partition(_) | Self::PortDown(_))
    }

    /// Tells if a response that the target sends may reach the host much later or never, or the
    /// end of a connection the target.
    #[must_use]
    pub fn hides_responses(self) -> bool {
        self.delays_messages()
            || matches!(
                self,
                Self::AddressChange
                    | Self::CompletionQueuesFail
                    | Self::DeviceRemoved(_)
                    | Self::MessageLost
                    | Self::QueuePairsDie
                    | Self::TargetMessageLost
            )
    }

    /// Name for counts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AddressChange => "address change",
            Self::CompletionQueuesFail => "completion queues fail",
            Self::CompletionRepeated => "completion repeated",
            Self::ConnectLost => "connection request lost",
            Self::ConnectRejected => "connection request rejected",
            Self::DeviceRemoved(_) => "device removed",
            Self::Disconnect(_) => "disconnect of one queue",
            Self::MessageDelayed(_) => "message delayed",
            Self::MessageLost => "message lost",
            Self::Partition(_) => "partition",
            Self::PortDown(_) => "port down",
            Self::QueuePairsDie => "queue pairs die",
            Self::TargetMessageLost => "message of the target lost",
            Self::TargetRestart(_) => "target restart",
        }
    }

    /// Names of all.
    pub const NAMES: [&'static str; 14] = [
        "address change",
        "completion queues fail",
        "completion repeated",
        "connection request lost",
        "connection request rejected",
        "device removed",
        "disconnect of one queue",
        "message delayed",
        "message lost",
        "message of the target lost",
        "partition",
        "port down",
        "queue pairs die",
        "target restart",
    ];
}

impl fmt::Display for CommandFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl fmt::Display for WorldFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
