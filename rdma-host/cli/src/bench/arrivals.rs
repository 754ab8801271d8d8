//! Due times of the commands of an open loop.

use std::time::Duration;

use super::{arguments::Arrival, rank_position::RankPosition, rate::Rate};
use crate::data_pattern::mix;

/// Due times of one worker, since the start. They do not depend on when commands complete.
#[derive(Clone, Debug)]
pub(super) struct Arrivals {
    /// Stream of all commands, or those of reads and of writes.
    streams: Vec<Stream>,
}

/// Due times of commands of one rate.
#[derive(Clone, Debug)]
struct Stream {
    /// True for writes, false for reads; none if the commands can be either.
    write: Option<bool>,
    arrival: Arrival,
    /// Mean distance, in nanoseconds.
    gap: f64,
    /// Next due time, in nanoseconds.
    next: f64,
    state: u64,
}

impl Arrivals {
    /// Due times of worker `index` of `workers` that share `rate`. At equal distances, the workers
    /// take turns, and so do the ranks.
    pub(super) fn new(
        rate: Rate,
        arrival: Arrival,
        index: usize,
        workers: usize,
        rank: RankPosition,
    ) -> Self {
        let stream = |rate, write| {
            let state = mix((rank.stream() + index as u64) ^ mix(rate) ^ salt(write));
            let gap = 1e9 * workers as f64 / rate as f64;
            let first = gap * (index as f64 + rank.phase()) / workers as f64;
            Stream::new(Stream { write, arrival, gap, next: first, state })
        };
        let streams = match rate {
            Rate::All(rate) => vec![stream(rate, None)],
            Rate::Each { read, write } => {
                vec![stream(read, Some(false)), stream(write, Some(true))]
            }
        };
        Self { streams }
    }

    /// Index of the stream with the next due time.
    fn next(&self) -> usize {
        match self.streams.as_slice() {
            [read, write] => usize::from(write.next < read.next),
            _ => 0,
        }
    }

    /// Next due time.
    pub(super) fn due(&self) -> Duration {
        self.streams[self.next()].due()
    }

    /// True if the command that is due next is a write, false if it is a read; none if it can be
    /// either.
    pub(super) fn is_write(&self) -> Option<bool> {
        self.streams[self.next()].write
    }

    /// Moves on to the due time after that.
    pub(super) fn advance(&mut self) {
        let next = self.next();
        self.streams[next].advance();
    }

    /// Number of due times left before `end`: commands that were never sent.
    pub(super) fn remaining_before(&self, end: Duration) -> u64 {
        self.streams.iter().map(|stream| stream.remaining_before(end)).sum()
    }
}

/// Number by which the random numbers of reads and writes of one rate are independent.
fn salt(write: Option<bool>) -> u64 {
    if write == Some(true) { mix(1) } else { 0 }
}

impl Stream {
    /// Stream whose `next` is the first due time at equal distances.
    fn new(stream: Self) -> Self {
        match stream.arrival {
            Arrival::Constant => stream,
            Arrival::Poisson => {
                let mut stream = Self { next: 0.0, ..stream };
                stream.advance();
                stream
            }
        }
    }

    fn due(&self) -> Duration {
        Duration::try_from_secs_f64(self.next / 1e9).unwrap_or(Duration::MAX)
    }

    fn advance(&mut self) {
        self.next += match self.arrival {
            Arrival::Constant => self.gap,
            Arrival::Poisson => {
                self.state = self.state.wrapping_add(1);
                // 53 bits, never 0: a number above 0 and up to 1.
                let uniform = ((mix(self.state) >> 11) + 1) as f64 / (1u64 << 53) as f64;
                -uniform.ln() * self.gap
            }
        };
    }

    fn remaining_before(&self, end: Duration) -> u64 {
        let mut rest = self.clone();
        let mut count = 0;
        while rest.due() < end {
            rest.advance();
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(mut arrivals: Arrivals, count: usize) -> Vec<Duration> {
        let next = |_| {
            let due = arrivals.due();
            arrivals.advance();
            due
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn workers_take_turns_at_equal_distances() {
        let of = |index| {
            times(
                Arrivals::new(Rate::All(1000), Arrival::Constant, index, 2, RankPosition::ALONE),
                3,
            )
        };
        let millis = |list: [u64; 3]| list.map(Duration::from_millis).to_vec();
        assert_eq!(of(0), millis([0, 2, 4]));
        assert_eq!(of(1), millis([1, 3, 5]));
    }

    #[test]
    fn distances_do_not_drift() {
        // 3 a second has no exact distance.
        let mut arrivals =
            Arrivals::new(Rate::All(3), Arrival::Constant, 0, 1, RankPosition::ALONE);
        (0..3_000_000).for_each(|_| arrivals.advance());
        let drift = arrivals.due().as_secs_f64() - 1e6;
        assert!(drift.abs() < 1e-3, "{drift}");
    }

    #[test]
    fn random_times_have_the_mean_and_spread_of_a_poisson_process() {
        let times = times(
            Arrivals::new(Rate::All(1000), Arrival::Poisson, 0, 1, RankPosition::ALONE),
            100_000,
        );
        let gaps: Vec<_> = times.windows(2).map(|two| (two[1] - two[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let spread = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean * 1000.0 - 1.0).abs() < 0.02, "{mean}");
        assert!((spread.sqrt() / mean - 1.0).abs() < 0.02, "{spread}");
        assert_ne!(
            times,
            self::times(
                Arrivals::new(Rate::All(1000), Arrival::Poisson, 1, 2, RankPosition::ALONE),
                100_000
            )
        );
    }

    #[test]
    fn reads_and_writes_have_rates_of_their_own() {
        for arrival in [Arrival::Constant, Arrival::Poisson] {
            let rate = Rate::Each { read: 3000, write: 1000 };
            let mut arrivals = Arrivals::new(rate, arrival, 0, 1, RankPosition::ALONE);
            let (mut reads, mut writes, mut latest) = (0, 0, Duration::ZERO);
            while arrivals.due() < Duration::from_secs(20) {
                assert!(arrivals.due() >= latest, "in the order of time");
                latest = arrivals.due();
                *if arrivals.is_write().expect("a direction") {
                    &mut writes
                } else {
                    &mut reads
                } += 1;
                arrivals.advance();
            }
            let near = |found: i32, due: i32| (found - due).abs() <= due / 40;
            assert!(near(reads, 60_000) && near(writes, 20_000), "{reads} {writes}");
        }
        let each = Rate::Each { read: 100, write: 100 };
        let arrivals = Arrivals::new(each, Arrival::Poisson, 0, 1, RankPosition::ALONE);
        let [read, write] = arrivals.streams.as_slice() else { panic!("two streams") };
        assert!((read.next - write.next).abs() > 1.0, "they are independent");
        let arrivals = Arrivals::new(each, Arrival::Constant, 0, 1, RankPosition::ALONE);
        assert_eq!(arrivals.remaining_before(Duration::from_secs(1)), 200);
        assert_eq!(
            Arrivals::new(Rate::All(1), Arrival::Constant, 0, 1, RankPosition::ALONE).is_write(),
            None
        );
    }

    #[test]
    fn what_was_not_sent_is_counted() {
        let mut arrivals =
            Arrivals::new(Rate::All(1000), Arrival::Constant, 0, 1, RankPosition::ALONE);
        (0..400).for_each(|_| arrivals.advance());
        assert_eq!(arrivals.remaining_before(Duration::from_secs(1)), 600);
        assert_eq!(arrivals.remaining_before(Duration::ZERO), 0);
    }
}
