//! Logs in the format of HdrHistogram, version 2 of its encoding, compressed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::failure::Failure;

/// The longest time of an interval, as logs give it: in milliseconds of nanoseconds.
const MAX_DIVISOR: f64 = 1e6;

/// One interval's latencies of one operation.
pub(super) struct Line {
    pub(super) tag: String,
    /// Since the log's start.
    pub(super) start: Duration,
    pub(super) duration: Duration,
    pub(super) latency_ns: Histogram<u64>,
}

/// Writes a log that began at `start`.
pub(super) fn write(path: &Path, start: SystemTime, lines: &[Line]) -> Result<(), Failure> {
    let failed = |error: String| Failure::failed(format!("{}: {error}", path.display()));
    let file = File::create(path).map_err(|error| failed(error.to_string()))?;
    let mut file = BufWriter::new(file);
    write_to(&mut file, start, lines).map_err(failed)?;
    file.flush().map_err(|error| failed(error.to_string()))
}

fn write_to(out: &mut impl Write, start: SystemTime, lines: &[Line]) -> Result<(), String> {
    let mut serializer = V2DeflateSerializer::new();
    // What other writers put first, and some readers look for.
    out.write_all(b"#[Histogram log format version 1.3]\n").map_err(|error| error.to_string())?;
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("[nvmf bench, latencies in nanoseconds]")
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(MAX_DIVISOR)
        .begin_log_with(out, &mut serializer)
        .map_err(|error| error.to_string())?;
    for line in lines {
        let tag = Tag::new(&line.tag);
        log.write_histogram(&line.latency_ns, line.start, line.duration, tag)
            .map_err(|error| format!("{error:?}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Encoding};
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut latency_ns = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        (1..=1000).for_each(|value| latency_ns.record(value * 1000).unwrap());
        let second = Duration::from_secs(1);
        let line = |tag: &str, start| Line {
            tag: tag.into(),
            start,
            duration: second,
            latency_ns: latency_ns.clone(),
        };
        let lines = [line("read", Duration::ZERO), line("write", second)];
        let mut text = Vec::new();
        write_to(&mut text, SystemTime::UNIX_EPOCH + Duration::from_secs(100), &lines).unwrap();
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
