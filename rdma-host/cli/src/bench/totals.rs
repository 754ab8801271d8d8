//! Commands of a report, with their rates and latency.

use std::time::Duration;

use hdrhistogram::Histogram;
use rdma_host::OperationStatistics;
use serde::{Deserialize, Serialize};

use super::{counters::Counters, latency::Latency};
use crate::size;

/// Commands of both directions, or of one, with their latency.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Totals {
    pub(super) iops: f64,
    pub(super) bandwidth_bytes_per_s: f64,
    pub(super) completed: u64,
    pub(super) bytes: u64,
    pub(super) errors: u64,
    /// Times that a command was sent again after a status that allows it; null if not counted.
    pub(super) retried: Option<u64>,
    pub(super) latency_ns: Latency,
}

impl Totals {
    /// Bandwidth in words.
    pub(super) fn bandwidth(&self) -> String {
        size::format_rate(integer(self.bandwidth_bytes_per_s), Duration::from_secs(1))
    }

    /// Totals of both directions.
    pub(super) fn new(counters: &Counters, seconds: f64) -> Self {
        let total = counters.total();
        Self::of_operation(&total, &total.latency_ns, seconds)
    }

    pub(super) fn of_operation(
        operation: &OperationStatistics,
        latency_ns: &Histogram<u64>,
        seconds: f64,
    ) -> Self {
        Self {
            iops: operation.completed as f64 / seconds,
            bandwidth_bytes_per_s: operation.bytes as f64 / seconds,
            completed: operation.completed,
            bytes: operation.bytes,
            errors: operation.failed,
            retried: Some(operation.retried),
            latency_ns: Latency::new(latency_ns),
        }
    }
}

/// Number that is not negative, without its fraction.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is out of range becomes the nearest number"
)]
pub(super) fn integer(number: f64) -> u64 {
    number as u64
}
