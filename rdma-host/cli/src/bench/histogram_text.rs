//! Histogram in a report: version 2 of `HdrHistogram`'s encoding, in Base64, as its tools read it.

use base64ct::{Base64, Encoding};
use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer, V2Serializer},
};
use serde::{Deserialize, Serialize};

/// Bytes before the counts: cookie, length of the counts, offset, digits, lowest and highest value,
/// and the ratio of conversion.
const HEADER_BYTES: usize = 40;

/// Most samples of a histogram: sums of its counts do not overflow, and are exact as floating-point
/// numbers.
pub(super) const COUNT_MAX: u64 = 1 << 53;

/// Encoded histogram. One that was read may be damaged until it is decoded.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub(super) struct HistogramText(String);

impl HistogramText {
    pub(super) fn new(histogram: &Histogram<u64>) -> Self {
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(histogram, &mut bytes).expect("a vector takes everything");
        Self(Base64::encode_string(&bytes))
    }

    /// The histogram, or nothing if this is none with the digits and bounds of ours.
    pub(super) fn decode(&self) -> Option<Histogram<u64>> {
        let bytes = Base64::decode_vec(&self.0).ok()?;
        let number = |at: usize| {
            Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().expect("four bytes")))
        };
        // The decoder allocates what the header asks for.
        let length = usize::try_from(number(4)?).ok()?;
        if length + HEADER_BYTES != bytes.len() || number(12)? != 3 {
            return None;
        }
        let histogram: Histogram<u64> =
            Deserializer::new().deserialize(&mut bytes.as_slice()).ok()?;
        (histogram.len() <= COUNT_MAX).then_some(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram() -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
        (1..=10_000).for_each(|value| histogram.record(value * 137).unwrap());
        histogram
    }

    #[test]
    fn a_histogram_is_read_back_as_it_was() {
        let text = HistogramText::new(&histogram());
        assert!(text.0.starts_with("HISTE"), "the cookie of version 2");
        assert_eq!(text.decode(), Some(histogram()));
    }

    /// No damage panics, or makes the decoder allocate more than a histogram takes.
    #[test]
    fn damaged_text_is_none_or_another_histogram() {
        let bytes = Base64::decode_vec(&HistogramText::new(&histogram()).0).unwrap();
        for at in 0..HEADER_BYTES + 20 {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                let _ = HistogramText(Base64::encode_string(&damaged)).decode();
                let _ = HistogramText(Base64::encode_string(&damaged[..at])).decode();
            }
        }
        let mut full = histogram();
        full.record_n(1, u64::MAX / 4).unwrap();
        full.record_n(9, u64::MAX / 2).unwrap();
        assert_eq!(HistogramText::new(&full).decode(), None, "its sums overflow");
        for text in ["", "HISTE", "not base64!"] {
            assert_eq!(HistogramText(text.to_owned()).decode(), None, "{text}");
        }
        let mut long = bytes;
        long[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(HistogramText(Base64::encode_string(&long)).decode(), None);
    }
}
