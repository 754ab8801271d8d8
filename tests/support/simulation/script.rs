//! Script of a run: bytes that decide what happens, so that a search may shorten them.

use std::{fmt, time::Duration};

use super::{
    faults::{CommandFault, WorldFault},
    random::Random,
    target::BLOCKS,
};

/// Script of a run: a seed for all that the steps leave open, then four bytes for each step.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Script {
    /// Seed of the schedule, the network, and the options of the connection.
    pub seed: u64,
    steps: Vec<[u8; 4]>,
}

/// Longest time until a fault of the network or of a host that a step plans.
pub const FAULT_DELAY_MAX: Duration = Duration::from_secs(3);

/// One step of a script.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Connects if there is no controller.
    Connect,
    /// A fault of one of the next commands.
    CommandFault(CommandFault),
    /// Starts a flush.
    Flush,
    /// The target raises an asynchronous event.
    RaiseEvent,
    /// Starts a read.
    Read(Transfer),
    /// Reauthenticates the queues.
    Reauthenticate,
    /// Identifies the namespaces.
    Rescan,
    /// Resets the controller.
    Reset,
    /// Shuts the controller down.
    Shutdown,
    /// Lets time pass.
    Sleep(Duration),
    /// Waits until all that was started has ended.
    Wait,
    /// A fault of the network or of a host, after a time.
    WorldFault(WorldFault, Duration),
    /// Starts a write.
    Write(Transfer),
}

/// Range of a read or write, and how it is called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transfer {
    /// First block.
    pub lba: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// True if the data is in several buffers.
    pub is_vectored: bool,
    /// Time after which the future is dropped.
    pub dropped_after: Option<Duration>,
}

impl Script {
    /// Script that follows from a seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x05ee_d0f5_7e95);
        let count = random.time(Duration::from_nanos(4), Duration::from_nanos(48)).as_nanos();
        let step = |_| {
            let [a, b, c, d, ..] = random.number().to_le_bytes();
            [a, b, c, d]
        };
        Self { seed, steps: (0..count).map(step).collect() }
    }

    /// Script of bytes: eight of the seed, then four a step; what is left over does not count.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let (seed, rest) = bytes.split_at(bytes.len().min(8));
        let mut all = [0; 8];
        all[..seed.len()].copy_from_slice(seed);
        Self { seed: u64::from_le_bytes(all), steps: rest.as_chunks().0.to_vec() }
    }

    /// Bytes of the script.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.seed.to_le_bytes()[..], self.steps.as_flattened()].concat()
    }

    /// Steps.
    pub fn steps(&self) -> impl Iterator<Item = Step> {
        self.steps.iter().map(Step::of)
    }

    /// Shortest script that is found by leaving out steps while `fails` holds.
    #[must_use]
    pub fn shortened(mut self, mut fails: impl FnMut(&Self) -> bool) -> Self {
        let mut length = self.steps.len().div_ceil(2);
        while length > 0 {
            let mut at = 0;
            while at < self.steps.len() {
                let mut shorter = self.clone();
                shorter.steps.drain(at..(at + length).min(self.steps.len()));
                if fails(&shorter) {
                    self = shorter;
                } else {
                    at += length;
                }
            }
            length /= 2;
        }
        self
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for Script {
    type Err = String;

    /// Seed in decimal digits, or all bytes in hexadecimal ones, at least 16.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |_| format!("{text}: neither a seed nor the bytes of a script");
        if text.len() < 16 {
            return text.parse().map(Self::from_seed).map_err(wrong);
        }
        let digits: Vec<_> = text.chars().collect();
        let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16);
        let bytes: Result<Vec<_>, _> = digits.chunks(2).map(byte).collect();
        Ok(Self::from_bytes(&bytes.map_err(wrong)?))
    }
}

impl Step {
    fn of(bytes: &[u8; 4]) -> Self {
        let [kind, a, b, c] = *bytes;
        let mut random = Random::new(u64::from_le_bytes([a, b, c, 0, 0, 0, 0, 0]) | 1 << 40);
        match kind {
            0..70 => Self::Write(Transfer::draw(&mut random)),
            70..130 => Self::Read(Transfer::draw(&mut random)),
            130..136 => Self::Flush,
            136..170 => Self::Sleep(random.time(Duration::from_micros(1), Duration::from_secs(30))),
            170..190 => Self::Wait,
            190..215 => Self::CommandFault(CommandFault::draw(&mut random)),
            215..238 => {
                let fault = WorldFault::draw(&mut random);
                let delay = random.time(Duration::from_micros(1), FAULT_DELAY_MAX);
                Self::WorldFault(fault, if random.once_in(3) { Duration::ZERO } else { delay })
            }
            238..242 => Self::Reset,
            242..246 => Self::Reauthenticate,
            246..248 => Self::Rescan,
            248..250 => Self::RaiseEvent,
            250..252 => Self::Shutdown,
            252..=255 => Self::Connect,
        }
    }
}

impl Transfer {
    fn draw(random: &mut Random) -> Self {
        // Few blocks are used, so that transfers overlap.
        let lba = random.below(6) * (BLOCKS / 8);
        let blocks = [1, 1, 1, 2, 4, 24][random.index(6)].min(BLOCKS - lba);
        let dropped = random.time(Duration::from_micros(1), Duration::from_secs(2));
        let dropped_after = random.once_in(12).then_some(dropped);
        Self { lba, blocks, is_vectored: random.once_in(6), dropped_after }
    }
}
