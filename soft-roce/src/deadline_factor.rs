//! Factor by which deadlines are longer on a slow machine.

use std::time::Duration;

/// Tells a program in a guest by what factor its deadlines should be longer than elsewhere.
pub(crate) const VARIABLE: &str = "SOFT_ROCE_DEADLINE_FACTOR";

/// Multiplies a deadline by a machine's factor.
pub(crate) fn scaled(deadline: Duration, factor: u32) -> Duration {
    deadline.saturating_mul(factor.max(1))
}
