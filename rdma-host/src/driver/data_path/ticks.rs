//! Conversion of clock readings.

use quanta::Clock;

/// Conversion of the differences of a clock's readings to nanoseconds, by one multiplication.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticks {
    /// Nanoseconds in 2^32 units of the clock.
    nanoseconds: u64,
}

impl Ticks {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self { nanoseconds: clock.delta_as_nanos(0, 1 << 32) }
    }

    /// Conversion for a clock that counts nanoseconds.
    #[cfg(test)]
    pub(crate) fn of_nanoseconds() -> Self {
        Self { nanoseconds: 1 << 32 }
    }

    /// Nanoseconds from one reading to another; 0 if the other was taken before, on a processor
    /// whose clock is behind.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a difference is far below 500 years")]
    pub(crate) fn nanoseconds(self, from: u64, to: u64) -> u64 {
        let difference = to.saturating_sub(from);
        ((u128::from(difference) * u128::from(self.nanoseconds)) >> 32) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_those_of_the_clock() {
        let clock = Clock::new();
        let ticks = Ticks::new(&clock);
        let from = clock.raw();
        for difference in [0, 1, 1000, 123_456_789, 1 << 40, 1 << 50] {
            let (ours, theirs) = (
                ticks.nanoseconds(from, from + difference),
                clock.delta_as_nanos(from, from + difference),
            );
            assert!(theirs.abs_diff(ours) <= 1 + (theirs >> 28), "{ours} {theirs}");
        }
        assert_eq!(ticks.nanoseconds(from, from - 1), 0);
    }
}
