//! Log of latencies in the format of HdrHistogram: version 2 of its encoding, compressed.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io::Write,
    time::{Duration, SystemTime},
};

use hdrhistogram::{
    Histogram,
    serialization::{
        V2DeflateSerializer,
        interval_log::{IntervalLogWriterBuilder, Tag},
    },
};

/// Divisor of the largest value of an interval, which logs state in milliseconds.
const MAX_DIVISOR: f64 = 1e6;

/// Latencies of one operation in one interval.
pub(super) struct IntervalHistogram {
    /// Name of the operation.
    pub(super) tag: &'static str,
    /// Start, since the begin of the log.
    pub(super) start: Duration,
    pub(super) duration: Duration,
    pub(super) latency_ns: Histogram<u64>,
}

/// Intervals of several ranks as those of one: those that begin in the same interval of the
/// schedule are added.
pub(super) fn merge(all: Vec<IntervalHistogram>, interval: Duration) -> Vec<IntervalHistogram> {
    let mut merged: BTreeMap<(u128, &'static str), IntervalHistogram> = BTreeMap::new();
    for other in all {
        let place = other.start + interval / 2;
        let index = place.as_nanos() / interval.as_nanos().max(1);
        match merged.entry((index, other.tag)) {
            Entry::Vacant(entry) => {
                entry.insert(other);
            }
            Entry::Occupied(mut entry) => {
                let sum = entry.get_mut();
                let end = (sum.start + sum.duration).max(other.start + other.duration);
                sum.start = sum.start.min(other.start);
                sum.duration = end - sum.start;
                sum.latency_ns.auto(true);
                // Histograms that grow take any other one.
                let _ = sum.latency_ns.add(&other.latency_ns);
            }
        }
    }
    merged.into_values().collect()
}

/// Log that begins at `start`.
pub(super) fn to_bytes(start: SystemTime, intervals: &[IntervalHistogram]) -> Vec<u8> {
    let mut log = Vec::new();
    write_to(&mut log, start, intervals).expect("a vector takes everything");
    log
}

fn write_to(
    out: &mut impl Write,
    start: SystemTime,
    intervals: &[IntervalHistogram],
) -> Result<(), String> {
    let mut serializer = V2DeflateSerializer::new();
    // First line of other writers, which some readers look for.
    out.write_all(b"#[Histogram log format version 1.3]\n").map_err(|error| error.to_string())?;
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("[nvmf bench, latencies in nanoseconds]")
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(MAX_DIVISOR)
        .begin_log_with(out, &mut serializer)
        .map_err(|error| error.to_string())?;
    for interval in intervals {
        let tag = Tag::new(interval.tag);
        log.write_histogram(&interval.latency_ns, interval.start, interval.duration, tag)
            .map_err(|error| format!("{error:?}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Encoding};
    use hdrhistogram::serialization::{
        Deserializer,
        interval_log::{IntervalLogIterator, LogEntry},
    };

    use super::*;

    #[test]
    fn intervals_of_ranks_are_added_by_their_place() {
        let second = Duration::from_secs(1);
        let interval = |tag, start_ms, samples: u64| {
            let mut latency_ns = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
            (0..samples).for_each(|_| latency_ns.record(9000).unwrap());
            let start = Duration::from_millis(start_ms);
            IntervalHistogram { tag, start, duration: second, latency_ns }
        };
        let merged = merge(
            vec![
                interval("read", 0, 1),
                interval("read", 1001, 2),
                interval("read", 3, 4),
                interval("write", 3, 8),
                interval("read", 998, 16),
            ],
            second,
        );
        let found = merged
            .iter()
            .map(|it| (it.tag, it.start.as_millis(), it.duration.as_millis(), it.latency_ns.len()));
        let expected = [("read", 0, 1003, 5), ("write", 3, 1000, 8), ("read", 998, 1003, 18)];
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_log_can_be_read_back() {
        let mut latency_ns = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        (1..=1000).for_each(|value| latency_ns.record(value * 1000).unwrap());
        let second = Duration::from_secs(1);
        let interval = |tag, start| IntervalHistogram {
            tag,
            start,
            duration: second,
            latency_ns: latency_ns.clone(),
        };
        let intervals = [interval("read", Duration::ZERO), interval("write", second)];
        let mut text = Vec::new();
        write_to(&mut text, SystemTime::UNIX_EPOCH + Duration::from_secs(100), &intervals).unwrap();
        assert!(text.starts_with(b"#[Histogram log format version 1.3]\n"));

        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(&text) {
            match entry.unwrap() {
                LogEntry::StartTime(at) | LogEntry::BaseTime(at) => {
                    assert_eq!(at, Duration::from_secs(100));
                }
                LogEntry::Interval(interval) => {
                    let bytes = Base64::decode_vec(interval.encoded_histogram()).unwrap();
                    assert_eq!(bytes[..4], [0x1c, 0x84, 0x93, 0x14], "compressed, version 2");
                    let read: Histogram<u64> =
                        Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
                    assert_eq!(read, latency_ns);
                    assert!((interval.max() - 1.0).abs() < 0.001, "milliseconds");
                    let tag = interval.tag().unwrap().as_str().to_owned();
                    found.push((tag, interval.start_timestamp(), interval.duration()));
                }
            }
        }
        let expected =
            [("read".to_owned(), Duration::ZERO, second), ("write".to_owned(), second, second)];
        assert_eq!(found, expected);
    }
}
