//! Sizes and times as written on a command line, and in messages.

use std::{ops::RangeInclusive, time::Duration};

/// Parses a number of bytes, with K, M, G or T (also KiB and so on) for powers of 1,024.
pub fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let binary = lower.strip_suffix("ib").filter(|rest| rest.ends_with(['k', 'm', 'g', 't']));
    let single =
        lower.strip_suffix('b').filter(|rest| rest.ends_with(|c: char| c.is_ascii_digit()));
    scaled(binary.or(single).unwrap_or(&lower), 1024)
}

/// Parses a number of blocks, queues or entries, with K, M, G or T for powers of 1,024.
pub fn count(text: &str) -> Result<u64, String> {
    scaled(text, 1024)
}

/// Parses a number without a suffix, decimal or hexadecimal after 0x.
pub fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "write a whole number of at most 64 bits, as in 4096 or 0x1000".to_owned())
}

/// Parses the identifier of a namespace, decimal or hexadecimal after 0x.
pub fn namespace_id(text: &str) -> Result<u32, String> {
    match namespace_field(text)? {
        0 => Err("no namespace has the id 0: they count from 1".to_owned()),
        id => Ok(id),
    }
}

/// Parses the same, or 0: the field of a command for no namespace.
pub fn namespace_field(text: &str) -> Result<u32, String> {
    u32::try_from(number(text)?).map_err(|_| "a namespace id has at most 32 bits".to_owned())
}

/// Parses a number of I/O operations per second, with k, M, G or T for powers of 1,000.
pub fn rate(text: &str) -> Result<u64, String> {
    at_least_one(scaled(text, 1000)?)
}

/// Parses a number with k, M, G or T for powers of 1,000; decimal, as in 1.5k.
pub fn thousands(text: &str) -> Result<f64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| "write a number, as in 1000 or 1.5k")?;
    Ok(number * scaled(&format!("1{suffix}"), 1000)? as f64)
}

/// Parses a time with a unit, in nanoseconds.
pub fn nanoseconds(text: &str) -> Result<f64, String> {
    const EXAMPLE: &str = "write a time as in 200us or 1.5ms";
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "ns" => 1.0,
        "us" | "µs" | "μs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return Err(format!("{EXAMPLE}, with the unit ns, us, ms or s")),
    };
    Ok(number.parse::<f64>().map_err(|_| EXAMPLE)? * factor)
}

/// Parses a share in percent, with or without the sign.
pub fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim_end();
    let is_number = number.chars().all(|c| c.is_ascii_digit() || c == '.');
    let percent = number.parse().ok().filter(|_| is_number);
    percent.ok_or_else(|| "write a share in percent, as in 5% or 0.5%".to_owned())
}

/// Parses a number as [`count`] does that is not zero.
pub fn positive(text: &str) -> Result<u64, String> {
    at_least_one(count(text)?)
}

/// Parser of a number as [`count`] takes it, within a range.
pub fn in_range(
    range: RangeInclusive<u16>,
) -> impl Fn(&str) -> Result<u16, String> + Clone + Send + Sync {
    move |text| {
        let number = u16::try_from(count(text)?).ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("use {} to {}", range.start(), range.end()))
    }
}

/// Parses a number with a suffix for a power of `factor`.
fn scaled(text: &str, factor: u64) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let exponent = match suffix.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => {
            return Err(format!(
                "unknown suffix {suffix:?}; use K, M, G or T (powers of {factor})"
            ));
        }
    };
    if number.is_empty() {
        return Err("write a whole number, as in 4096 or 4K".to_owned());
    }
    // Digits alone.
    let number: u64 = number.parse().map_err(|_| "too large")?;
    number.checked_mul(factor.pow(exponent)).ok_or("too large".into())
}

fn at_least_one(number: u64) -> Result<u64, String> {
    if number == 0 { Err("must be at least 1".to_owned()) } else { Ok(number) }
}

/// Parses a time in seconds, or with the unit ms, s, m or h; at most a million hours, which may be
/// added to any reading of a clock.
pub fn seconds(text: &str) -> Result<Duration, String> {
    const TIME_MAX: Duration = Duration::from_secs(1_000_000 * 3600);
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor = match suffix {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unknown unit {suffix:?}; use ms, s, m or h")),
    };
    let number: f64 =
        number.parse().map_err(|_| "a time is a number of seconds, as in 10 or 1.5")?;
    let time = Duration::try_from_secs_f64(number * factor).map_err(|error| error.to_string())?;
    if time > TIME_MAX { Err("use at most 1000000h".to_owned()) } else { Ok(time) }
}

/// Parses a time as [`seconds`] does that is not zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    let time = seconds(text)?;
    if time.is_zero() { Err("must be more than nothing".to_owned()) } else { Ok(time) }
}

/// Parses a number of bytes as [`bytes`] does that is not zero.
pub fn positive_bytes(text: &str) -> Result<u64, String> {
    at_least_one(bytes(text)?)
}

/// Number of bytes with a unit: exact if that unit divides it.
pub fn format_bytes(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes >= 1 << shift) {
        Some((shift, unit)) if bytes.is_multiple_of(1 << shift) => {
            format!("{} {unit}", bytes >> shift)
        }
        Some((shift, unit)) => {
            let tenths = (u128::from(bytes) * 10) >> shift;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

/// Number with its noun, as in "1 queue" and "2 queues".
pub fn format_count(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

/// Rate of `bytes` in `time`, per second, with a unit.
pub fn format_rate(bytes: u64, time: Duration) -> String {
    let per_second = u128::from(bytes) * 1_000_000_000 / time.as_nanos().max(1);
    format!("{}/s", format_bytes(u64::try_from(per_second).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("0"), Ok(0));
        assert_eq!(bytes("512"), Ok(512));
        assert_eq!(bytes("4k"), Ok(4096));
        assert_eq!(bytes("10GiB"), Ok(10 << 30));
        assert_eq!(bytes("16777215T"), Ok(16_777_215 << 40));
        for wrong in ["", "k", "-1", "4kb", "1.5M", "16777216T", "99999999999999999999"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(bytes("99999999999999999999"), Err("too large".to_owned()));
    }

    #[test]
    fn numbers_may_be_hexadecimal() {
        assert_eq!(number("0xffffffffffffffff"), Ok(u64::MAX));
        assert_eq!((number("12"), number("0x12")), (Ok(12), Ok(18)));
        for wrong in ["", "0x", "-1", "1k", "ff", "18446744073709551616"] {
            assert!(number(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn counts_have_suffixes_too() {
        assert_eq!((count("7"), count("2k"), count("0")), (Ok(7), Ok(2048), Ok(0)));
        assert_eq!(
            (rate("10k"), rate("1M"), rate("50000")),
            (Ok(10_000), Ok(1_000_000), Ok(50_000))
        );
        assert_eq!((positive("1"), positive("1g")), (Ok(1), Ok(1 << 30)));
        for wrong in ["0", "", "4KiB", "1.5k", "-1", "k"] {
            assert!(positive(wrong).is_err() && rate(wrong).is_err(), "{wrong}");
        }
        assert_eq!((in_range(1..=1023)("7"), in_range(2..=1024)("1k")), (Ok(7), Ok(1024)));
        for wrong in ["0", "1k", "100k", "x"] {
            assert!(in_range(1..=1023)(wrong).is_err(), "{wrong}");
        }
        assert!(positive("4KiB").unwrap_err().contains("suffix"), "bytes are no count");
    }

    #[test]
    fn decimals() {
        assert_eq!((thousands("7"), thousands("1.5k")), (Ok(7.0), Ok(1500.0)));
        assert_eq!((nanoseconds("200us"), nanoseconds("1.5 ms")), (Ok(2e5), Ok(1.5e6)));
        assert_eq!((percent("5%"), percent("0.5 %"), percent("2")), (Ok(5.0), Ok(0.5), Ok(2.0)));
        for wrong in ["", "x", "-1", "1.2.3", "inf", "nan", "."] {
            let parsers = [thousands, nanoseconds, percent];
            assert!(parsers.iter().all(|parse| parse(wrong).is_err()), "{wrong}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(seconds("10"), Ok(Duration::from_secs(10)));
        assert_eq!(seconds("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(seconds("1.5m"), Ok(Duration::from_secs(90)));
        // What a clock with nanoseconds in 64 bits can hold.
        assert_eq!(seconds("1000000h").map(|time| time.as_secs()), Ok(3_600_000_000));
        for wrong in ["", "s", "-1", "1d", "1..2", "99999999999999999999999h", "1000001h"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn words() {
        assert_eq!(format_bytes(512), "512 B");
        assert_eq!(format_bytes(4096), "4 KiB");
        assert_eq!(format_bytes((10 << 30) + (3 << 29)), "11.5 GiB");
    }
}
