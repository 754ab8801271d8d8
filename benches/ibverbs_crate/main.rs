//! The crate `ibverbs` beside ours: a ping-pong of SENDs on one device, in turns.
//!
//! ```sh
//! apt-get install cmake libclang-dev   # to generate the crate's bindings
//! cargo build --release -p benches --features ibverbs_crate
//! cargo run --release -p soft-roce -- run -- target/release/ibverbs_crate
//! ```
//!
//! Arguments: the address of a device of this machine, that of the test bed if there is none, and
//! the number of round trips in a turn. For each contender one thread has both ends of a
//! connection, keeps one message in flight, polls, and yields the processor while there is no
//! completion. Only the ratio counts: the kernel's part is the same for all and most of the time.
//!
//! `ibverbs` has one way to send: a signaled request for registered memory, posted alone.
//! Ours sends inline, which is signaled now and then, or as `ibverbs` does, from a buffer; both
//! post the receive that follows in one call with the send. Both crates link the system's
//! libibverbs; a copy each would not find each other's devices.

mod with_ibverbs;
mod with_verbs;

use std::{
    env, error, fs,
    net::IpAddr,
    num::NonZero,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

type Result<T, E = Box<dyn error::Error>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().or_else(|| env::var("SOFT_ROCE_ADDRESS").ok());
    let address = address.ok_or("usage: ibverbs_crate ADDRESS [ROUND TRIPS]")?.parse::<IpAddr>()?;
    let times = arguments.next().map_or(Ok(TIMES), |times| times.parse())?;

    let device = with_ibverbs::Device::open(address)?;
    let (domain, queues) = device.resources()?;
    let mut theirs = with_ibverbs::Pair::connect(&device, &domain, &queues)?;
    let mut inline = with_verbs::Pair::connect((address, PORT).into(), with_verbs::Sends::Inline)?;
    let mut buffers =
        with_verbs::Pair::connect((address, PORT + 1).into(), with_verbs::Sends::Buffers)?;
    let mut contenders = [
        Contender::new("ibverbs", || theirs.round_trip()),
        Contender::new("verbs, inline", || inline.round_trip()),
        Contender::new("verbs, from a buffer", || buffers.round_trip()),
    ];
    for contender in &mut contenders {
        contender.take_turn(times)?; // warms up
        contender.turns.clear();
    }
    for _ in 0..TURNS {
        for contender in &mut contenders {
            contender.take_turn(times)?;
        }
    }
    report(&contenders, times)
}

/// A crate and way to send, with the duration of each round trip of each turn.
struct Contender<'a> {
    name: &'static str,
    round_trip: Box<dyn FnMut() -> Result<()> + 'a>,
    turns: Vec<Vec<Duration>>,
}

impl<'a> Contender<'a> {
    fn new(name: &'static str, round_trip: impl FnMut() -> Result<()> + 'a) -> Self {
        Self { name, round_trip: Box::new(round_trip), turns: Vec::new() }
    }

    fn take_turn(&mut self, times: NonZero<usize>) -> Result<()> {
        let mut turn = Vec::with_capacity(times.get());
        for _ in 0..times.get() {
            let start = Instant::now();
            (self.round_trip)()?;
            turn.push(start.elapsed());
        }
        self.turns.push(turn);
        Ok(())
    }

    /// Round trips a second, turn by turn.
    fn rates(&self) -> impl Iterator<Item = f64> {
        let seconds = |turn: &Vec<Duration>| turn.iter().sum::<Duration>().as_secs_f64();
        self.turns.iter().map(move |turn| turn.len() as f64 / seconds(turn))
    }

    /// Median of the round trips in microseconds, turn by turn.
    fn middles(&self) -> impl Iterator<Item = f64> {
        self.turns.iter().map(|turn| percentile(turn.clone(), 50))
    }
}

/// Prints rates, percentiles and ratios. A ratio compares the medians of neighbouring turns, so
/// that other load of the machine weighs little: above 1 is faster than the first contender.
fn report(contenders: &[Contender], times: NonZero<usize>) -> Result<()> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!(
        "Linux {}: {LENGTH} bytes, one in flight, {TURNS} turns of {times} round trips",
        kernel.trim()
    );
    println!("{:22}{:>14}{:>10}{:>10}{:>8}", "", "round trips/s", "p50 µs", "p99 µs", "ratio");
    for contender in contenders {
        let others = contenders[0].middles();
        let ratios = others.zip(contender.middles()).map(|(other, ours)| other / ours);
        println!(
            "{:22}{:>14.0}{:>10.1}{:>10.1}{:>8.2}",
            contender.name,
            median(contender.rates()),
            percentile(contender.turns.concat(), 50),
            percentile(contender.turns.concat(), 99),
            median(ratios),
        );
    }
    Ok(())
}

/// Percentile of the round trips' durations, in microseconds.
fn percentile(mut round_trips: Vec<Duration>, percent: usize) -> f64 {
    round_trips.sort();
    round_trips[(round_trips.len() - 1) * percent / 100].as_secs_f64() * 1e6
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Calls `attempt` until it gives something, and yields the processor in between.
fn wait<T>(mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    for _ in 0..ATTEMPTS {
        if let Some(found) = attempt()? {
            return Ok(found);
        }
        thread::yield_now();
    }
    Err("what was waited for does not come".into())
}

/// Message that carries a number.
fn message(number: u64) -> [u8; LENGTH] {
    let mut message = [0; LENGTH];
    message[..size_of::<u64>()].copy_from_slice(&number.to_le_bytes());
    message
}

/// Length of a message in bytes, that of an NVMe command.
const LENGTH: usize = 64;
/// Number of sends, and of receives, that each end may have posted.
const DEPTH: u8 = 16;
const TURNS: usize = 11;
const TIMES: NonZero<usize> = NonZero::new(2000).expect("not 0");
/// Attempts before giving up; each takes most of a microsecond at least.
const ATTEMPTS: u32 = 20_000_000;
const PORT: u16 = 4795;
