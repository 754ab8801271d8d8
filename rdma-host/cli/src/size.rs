//! Sizes and times as written on a command line, and in messages.

use std::time::Duration;

/// Parses a number of bytes, with K, M, G or T (also KiB and so on) for powers of 1,024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let shift = match suffix.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(format!("unknown suffix {suffix:?}; use K, M, G or T (powers of 1024)")),
    };
    let number: u64 = number.parse().map_err(|_| "a size is a number, as in 4096 or 4K")?;
    number.checked_shl(shift).filter(|bytes| bytes >> shift == number).ok_or("too large".into())
}

/// Parses a time in seconds, or with the unit ms, s, m or h.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
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
    Duration::try_from_secs_f64(number * factor).map_err(|error| error.to_string())
}

/// Number of bytes with a unit: exact if that unit divides it.
pub(crate) fn format_bytes(bytes: u64) -> String {
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
pub(crate) fn format_count(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

/// Rate of `bytes` in `time`, per second, with a unit.
pub(crate) fn format_rate(bytes: u64, time: Duration) -> String {
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
    }

    #[test]
    fn times() {
        assert_eq!(seconds("10"), Ok(Duration::from_secs(10)));
        assert_eq!(seconds("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(seconds("1.5m"), Ok(Duration::from_secs(90)));
        for wrong in ["", "s", "-1", "1d", "1..2", "99999999999999999999999h"] {
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
