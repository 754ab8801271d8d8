//! `nvmf bench`: load of a set shape, and what it costs.

use std::time::Duration;

use clap::{Args, ValueEnum};
use quanta::Instant;
use rdma_host::wire::NamespaceInfo;
use rdma_host::{Buffer, Command, Done, MemoryMode, Operation, Statistics, Windows};
use serde_json::{Value, json};

use crate::drive::{Load, LoadArguments, Workload};
use crate::failure::Failure;
use crate::pattern::{Pattern, mix};
use crate::target::wait_name;
use crate::{Format, print_json, session, size};

#[derive(Args)]
pub(crate) struct Arguments {
    /// The pattern of access.
    #[arg(long, value_name = "PATTERN", default_value = "randread")]
    rw: Access,

    /// Bytes of one command.
    #[arg(long, value_name = "BYTES", default_value = "4K", value_parser = size::bytes)]
    bs: u64,

    /// How long to measure.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = size::seconds)]
    runtime: Duration,

    /// How long to run before measuring.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = size::seconds)]
    ramp: Duration,

    /// Bytes from the start of the namespace to use [default: all].
    #[arg(long, value_name = "BYTES", value_parser = size::bytes)]
    size: Option<u64>,

    #[command(flatten)]
    load: LoadArguments,
}

/// Which blocks, in which direction; names as in fio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Access {
    /// Random reads.
    Randread,
    /// Random writes. Overwrites the namespace.
    Randwrite,
    /// Sequential reads.
    Read,
    /// Sequential writes. Overwrites the namespace.
    Write,
}

/// One worker's stream of commands.
struct Stream {
    access: Access,
    namespace: NamespaceInfo,
    blocks: u32,
    /// Places of one command's size there are.
    places: u64,
    state: u64,
    end: Instant,
    over: bool,
}

impl Access {
    fn is_write(self) -> bool {
        matches!(self, Self::Randwrite | Self::Write)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Randread => "randread",
            Self::Randwrite => "randwrite",
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    // A measurement across a loss of the connection measures the loss.
    let options = arguments.load.target.options_without_reconnect()?;
    let mut load = Load::connect(&arguments.load, options, arguments.bs)?;
    if !arguments.ramp.is_zero() {
        measure(&mut load, arguments, arguments.ramp)?;
    }
    let (statistics, elapsed) = measure(&mut load, arguments, arguments.runtime)?;
    match arguments.load.output_format {
        Format::Json => print_json(&to_json(&load, arguments, &statistics, elapsed))?,
        Format::Normal => print(&load, arguments, &statistics, elapsed),
    }
    load.close();
    Ok(())
}

/// Runs the load for a time; returns what the pollers counted and how long it really took.
fn measure(
    load: &mut Load,
    arguments: &Arguments,
    time: Duration,
) -> Result<(Statistics, Duration), Failure> {
    let bytes = arguments.size.unwrap_or(u64::MAX).min(load.namespace.bytes());
    let places = bytes / arguments.bs;
    if places == 0 {
        return Err(Failure::usage("--size and the namespace must hold at least one --bs"));
    }
    let blocks = load.namespace.blocks_in(load.block_bytes);
    let (namespace, threads) = (load.namespace, load.threads() as u64);
    for poller in load.pollers() {
        poller.statistics().take();
    }
    let start = Instant::now();
    let streams = load.run(|index| Stream {
        access: arguments.rw,
        namespace,
        blocks,
        places,
        // Sequential workers start spread over the namespace.
        state: match arguments.rw {
            Access::Read | Access::Write => places / threads * index as u64,
            Access::Randread | Access::Randwrite => {
                mix(arguments.load.seed ^ mix(index as u64 + 1))
            }
        },
        end: start + time,
        over: false,
    })?;
    let elapsed = start.elapsed();
    drop(streams);
    let mut total = Statistics::default();
    for poller in load.pollers() {
        total.add(poller.statistics());
    }
    Ok((total, elapsed))
}

impl Workload for Stream {
    fn next(&mut self, mut buffer: Buffer) -> Result<Command, Buffer> {
        self.over = self.over || Instant::now() >= self.end;
        if self.over {
            return Err(buffer);
        }
        let place = match self.access {
            Access::Read | Access::Write => self.state % self.places,
            Access::Randread | Access::Randwrite => mix(self.state) % self.places,
        };
        self.state = self.state.wrapping_add(1);
        let lba = place * u64::from(self.blocks);
        Ok(if self.access.is_write() {
            // Not all zeros, and not the same everywhere: a target may treat such blocks better.
            let mut word = [0; 8];
            Pattern::new(self.state, place).fill(0, &mut word);
            buffer.copy_in(0, &word);
            Command::write(self.namespace.id, lba, self.blocks, buffer).with_user(lba)
        } else {
            Command::read(self.namespace.id, lba, self.blocks, buffer).with_user(lba)
        })
    }

    fn done(&mut self, done: Done) -> Result<Buffer, Failure> {
        let lba = done.user;
        let name = if self.access.is_write() { "Write" } else { "Read" };
        let (outcome, buffer) = done.into_result(name);
        outcome.map_err(|error| Failure::from(error).context(format!("at block {lba}")))?;
        buffer.ok_or_else(|| Failure::failed("a command came back without data"))
    }

    fn is_over(&self) -> bool {
        self.over
    }
}

/// The latencies to report: percentiles of one operation.
const PERCENTILES: [(&str, f64); 5] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99_9", 99.9), ("p99_99", 99.99)];

fn operation<'a>(arguments: &Arguments, statistics: &'a Statistics) -> &'a Operation {
    if arguments.rw.is_write() { &statistics.write } else { &statistics.read }
}

fn print(load: &Load, arguments: &Arguments, statistics: &Statistics, elapsed: Duration) {
    let operation = operation(arguments, statistics);
    let seconds = elapsed.as_secs_f64();
    println!(
        "{} {}, depth {} on {}, {}, {} waiting, {:.1} s, device {}, memory mode {}",
        arguments.rw.name(),
        size::in_words(arguments.bs),
        arguments.load.iodepth,
        size::count(load.queues() as u64, "queue"),
        size::count(load.threads() as u64, "thread"),
        wait_name(load.options.wait),
        seconds,
        load.controller.device(),
        load.controller.memory(),
    );
    println!(
        "  {:.0} IOPS, {}, {} errors",
        operation.completed as f64 / seconds,
        size::rate_in_words(operation.bytes, elapsed),
        operation.failed,
    );
    let latency = &operation.latency_ns;
    let micros = |ns: u64| ns as f64 / 1000.0;
    print!("  latency µs: min {:.1}, mean {:.1}", micros(latency.min()), latency.mean() / 1000.0);
    for (name, percentile) in PERCENTILES {
        let value = micros(latency.value_at_percentile(percentile));
        print!(", {} {value:.1}", name.replace('_', "."));
    }
    println!(", max {:.1}", micros(latency.max()));
    let Windows { by_target, here } = statistics.windows;
    if load.controller.memory().mode == MemoryMode::Window {
        println!("  windows: {by_target} closed by the target, {here} by us");
    }
}

fn to_json(
    load: &Load,
    arguments: &Arguments,
    statistics: &Statistics,
    elapsed: Duration,
) -> Value {
    let operation = operation(arguments, statistics);
    let latency = &operation.latency_ns;
    let seconds = elapsed.as_secs_f64();
    let mut latency_ns = json!({
        "min": latency.min(),
        "mean": latency.mean(),
        "max": latency.max(),
    });
    for (name, percentile) in PERCENTILES {
        latency_ns[name] = latency.value_at_percentile(percentile).into();
    }
    json!({
        "iops": operation.completed as f64 / seconds,
        "bandwidth_bytes_per_s": operation.bytes as f64 / seconds,
        "completed": operation.completed,
        "errors": operation.failed,
        "latency_ns": latency_ns,
        "windows": {
            "by_target": statistics.windows.by_target,
            "here": statistics.windows.here,
        },
        "seconds": seconds,
        "configuration": {
            "target": load.options.address.to_string(),
            "nqn": load.options.subsystem.as_str(),
            "nsid": load.namespace.id.0,
            "rw": arguments.rw.name(),
            "bs": arguments.bs,
            "iodepth": arguments.load.iodepth,
            "queues": load.queues(),
            "threads": load.threads(),
            "ramp_s": arguments.ramp.as_secs_f64(),
            "wait": wait_name(load.options.wait),
            "memory_mode": load.controller.memory().mode.name(),
            "memory_fallback": load.controller.memory().fallback,
            "device": load.controller.device(),
            "authentication": session::authentication_json(&load.controller.negotiated()),
            "seed": arguments.load.seed,
        },
    })
}
