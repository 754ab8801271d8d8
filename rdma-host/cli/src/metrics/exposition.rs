//! Metrics as text: in the format of OpenMetrics, and in that of Prometheus before it, which
//! node_exporter reads from files.

use std::{borrow::Cow, fmt, time::SystemTime};

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
        prometheus_text, text,
    },
    metrics::{MetricType, exemplar::Exemplar},
    registry::{Registry, Unit},
};
use rdma_host::{LifecycleState, wire::AnaState};

use super::{
    controller_numbers::ControllerNumbers,
    queue_numbers::{LATENCY_BOUNDS_NS, LatencyNumbers, OperationNumbers, QueueNumbers},
};

/// Content type of [`Snapshot::openmetrics`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Numbers of a command at one time.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// Labels of every metric.
    pub(crate) labels: Vec<Label>,
    pub(crate) controller: ControllerNumbers,
    /// Numbers of the I/O queues; none if the command has none.
    pub(crate) queues: Vec<QueueNumbers>,
}

/// Name and value of a label.
pub(crate) type Label = (&'static str, String);

/// Name without prefix and unit, and explanation.
type Description = (&'static str, &'static str);

/// Value of a label, and what of a queue it is for.
type Operation = (&'static str, fn(&QueueNumbers) -> &OperationNumbers);

/// Kinds of commands: the value of their label, and where their numbers are.
const OPERATIONS: [Operation; 3] = [
    ("read", |queue| &queue.read),
    ("write", |queue| &queue.write),
    ("other", |queue| &queue.other),
];

const STATES: [LifecycleState; 7] = [
    LifecycleState::New,
    LifecycleState::Connecting,
    LifecycleState::Live,
    LifecycleState::Resetting,
    LifecycleState::Waiting,
    LifecycleState::Deleting,
    LifecycleState::Dead,
];

const ANA_STATES: [AnaState; 5] = [
    AnaState::OPTIMIZED,
    AnaState::NON_OPTIMIZED,
    AnaState::INACCESSIBLE,
    AnaState::PERSISTENT_LOSS,
    AnaState::CHANGE,
];

impl Snapshot {
    /// Text in the format of OpenMetrics 1.0.
    pub(crate) fn openmetrics(self) -> String {
        let mut written = String::new();
        text::encode(&mut written, &self.registry()).expect("a string takes any text");
        written
    }

    /// Text in the format of Prometheus, version 0.0.4.
    pub(crate) fn prometheus(self) -> String {
        let mut written = String::new();
        prometheus_text::encode(&mut written, &self.registry()).expect("a string takes any text");
        written
    }

    fn registry(self) -> Registry {
        let labels = self.labels.clone().into_iter();
        let labels = labels.map(|(name, value)| (Cow::Borrowed(name), Cow::Owned(value)));
        let mut registry = Registry::with_prefix_and_labels("nvmf", labels);
        registry.register_collector(Box::new(self));
        registry
    }

    fn encode_controller(&self, families: &mut Families) -> fmt::Result {
        let controller = &self.controller;
        let id = controller.id.map(|id| (vec![("controller", id.to_string())], 1_u64));
        families.gauges(("controller_info", "Controller of the live or last connection."), id)?;
        let states = STATES.map(|state| {
            (vec![("state", state.to_string())], u64::from(state == controller.state))
        });
        families.gauges(("controller_state", "1 for the state of the controller."), states)?;
        let changed = controller.changed.duration_since(SystemTime::UNIX_EPOCH);
        families.with_unit(Unit::Seconds).gauges(
            ("controller_state_change_timestamp", "Time of the last change of the state."),
            [(vec![], changed.unwrap_or_default().as_secs_f64())],
        )?;
        families.counter(
            ("connect_attempts", "Attempts to connect, the first included."),
            controller.connect_attempts,
        )?;
        families.counter(
            ("reconnects", "Connections that became live after the first."),
            controller.reconnects(),
        )?;
        families.counter(
            ("async_events", "Asynchronous events that the controller reported."),
            controller.events,
        )?;
        let groups = controller.ana_groups.iter().flat_map(|(group, now)| {
            ANA_STATES.iter().map(move |state| {
                let labels = vec![("group", group.to_string()), ("state", state.to_string())];
                (labels, u64::from(state == now))
            })
        });
        families.gauges(("ana_group_state", "1 for the access state of an ANA group."), groups)
    }

    fn encode_admin(&self, families: &mut Families) -> fmt::Result {
        let Some(admin) = &self.controller.admin else { return Ok(()) };
        families.counter(
            ("admin_queue_commands", "Admin commands sent to the controller once it was live."),
            admin.commands(),
        )?;
        families.counter(("keep_alives", "Keep Alive commands sent."), admin.keep_alives())?;
        let age = admin.since_answer().map(|age| (vec![], age.as_secs_f64()));
        families.with_unit(Unit::Seconds).gauges(
            (
                "keep_alive_age",
                "Time since the controller last answered, as its keep-alive timer sees it.",
            ),
            age,
        )
    }

    fn encode_fence(&self, families: &mut Families) -> fmt::Result {
        let (controller, fenced) = (&self.controller, self.controller.fenced.values());
        families.counter(
            ("write_fence_closures", "Times that the write fence was closed."),
            controller.fence_closures,
        )?;
        let writes: u64 = fenced.clone().map(|fenced| fenced.writes).sum();
        families.gauges(
            (
                "write_fence_outstanding_writes",
                "Writes without a response that the write fence is closed for.",
            ),
            [(vec![], writes)],
        )?;
        let blocks = fenced.fold(0, |sum: u64, fenced| sum.saturating_add(fenced.blocks));
        families.gauges(
            (
                "write_fence_blocks",
                "Blocks from the first to the last that the write fence is closed for.",
            ),
            [(vec![], blocks)],
        )
    }

    fn encode_commands(&self, families: &mut Families) -> fmt::Result {
        let operations = |number: fn(&OperationNumbers) -> u64| {
            self.by_queue().flat_map(move |(index, queue)| {
                OPERATIONS.map(|(name, of)| {
                    (vec![("queue", index.clone()), ("operation", name.into())], number(of(queue)))
                })
            })
        };
        families.counters(
            ("commands", "Commands that succeeded."),
            operations(|operation| operation.completed),
        )?;
        families.counters(
            ("command_errors", "Commands that failed."),
            operations(|operation| operation.failed),
        )?;
        families.counters(
            ("command_retries", "Times that a command was sent again after its status."),
            operations(|operation| operation.retried),
        )?;
        families.with_unit(Unit::Bytes).counters(
            ("transferred", "Bytes transferred by the commands that succeeded."),
            operations(|operation| operation.bytes),
        )?;
        if self.queues.is_empty() {
            return Ok(());
        }
        // Of all queues: with their label, there would be thousands of series.
        let latencies = OPERATIONS.map(|(name, of)| {
            let mut sum = LatencyNumbers::default();
            self.queues.iter().for_each(|queue| sum.add(&of(queue).latency));
            (vec![("operation", name.into())], sum)
        });
        families.with_unit(Unit::Seconds).histograms(
            ("command_latency", "Time from submission to completion of commands that succeeded."),
            latencies,
        )
    }

    fn encode_queues(&self, families: &mut Families) -> fmt::Result {
        let queues = |number: fn(&QueueNumbers) -> u64| {
            self.by_queue().map(move |(index, queue)| (vec![("queue", index)], number(queue)))
        };
        families.gauges(
            ("commands_in_flight", "Commands sent and not responded to."),
            queues(|queue| queue.in_flight),
        )?;
        families.gauges(
            (
                "commands_held",
                "Commands held back without a connection, by the write fence or before a retry.",
            ),
            queues(|queue| queue.held),
        )?;
        families.gauges(
            ("requests_waiting", "Requests of the device that wait for room in the queue."),
            queues(|queue| queue.requests.waiting),
        )?;
        let requests = self.by_queue().flat_map(|(index, queue)| {
            let numbers = queue.requests;
            [("copied", numbers.copied), ("shared", numbers.shared)].map(|(data, number)| {
                (vec![("queue", index.clone()), ("data", data.into())], number)
            })
        });
        families.counters(
            ("requests", "Reads and writes of the device, by whether their data was copied."),
            requests,
        )?;
        families
            .counters(("doorbells", "Doorbells rung."), queues(|queue| queue.device.doorbells))?;
        families.counters(
            ("completions", "Completions polled, of receives and of sends."),
            queues(|queue| queue.device.completions),
        )?;
        families.counters(
            ("empty_polls", "Polls that found no completion."),
            queues(|queue| queue.device.empty_polls),
        )
    }

    /// Numbers of the queues, and their index from 0 on.
    fn by_queue(&self) -> impl Iterator<Item = (String, &QueueNumbers)> {
        self.queues.iter().enumerate().map(|(index, queue)| (index.to_string(), queue))
    }
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut families = Families { encoder, unit: None };
        self.encode_controller(&mut families)?;
        self.encode_admin(&mut families)?;
        self.encode_fence(&mut families)?;
        self.encode_commands(&mut families)?;
        self.encode_queues(&mut families)
    }
}

/// Encoder of families of metrics. A family without a sample is left out.
struct Families<'a> {
    encoder: DescriptorEncoder<'a>,
    /// Unit of the next family.
    unit: Option<Unit>,
}

impl Families<'_> {
    fn with_unit(&mut self, unit: Unit) -> &mut Self {
        self.unit = Some(unit);
        self
    }

    fn counter(&mut self, description: Description, value: u64) -> fmt::Result {
        self.counters(description, [(vec![], value)])
    }

    fn counters<V: EncodeCounterValue>(
        &mut self,
        description: Description,
        samples: impl IntoIterator<Item = (Vec<Label>, V)>,
    ) -> fmt::Result {
        let exemplar: Option<&Exemplar<Vec<Label>, f64>> = None;
        self.family(description, MetricType::Counter, samples, |mut encoder, value| {
            encoder.encode_counter(&value, exemplar)
        })
    }

    fn gauges<V: EncodeGaugeValue>(
        &mut self,
        description: Description,
        samples: impl IntoIterator<Item = (Vec<Label>, V)>,
    ) -> fmt::Result {
        self.family(description, MetricType::Gauge, samples, |mut encoder, value| {
            encoder.encode_gauge(&value)
        })
    }

    fn histograms(
        &mut self,
        description: Description,
        samples: impl IntoIterator<Item = (Vec<Label>, LatencyNumbers)>,
    ) -> fmt::Result {
        self.family(description, MetricType::Histogram, samples, |mut encoder, latency| {
            let bounds = LATENCY_BOUNDS_NS.map(seconds).into_iter().chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(latency.counts).collect();
            let (sum, count) = (seconds(latency.sum_ns), latency.counts.iter().sum());
            encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        })
    }

    fn family<V>(
        &mut self,
        (name, help): Description,
        kind: MetricType,
        samples: impl IntoIterator<Item = (Vec<Label>, V)>,
        encode: impl Fn(MetricEncoder<'_>, V) -> fmt::Result,
    ) -> fmt::Result {
        let unit = self.unit.take();
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut family = self.encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
        samples.try_for_each(|(labels, value)| encode(family.encode_family(&labels)?, value))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a float has 15 digits")]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests;
