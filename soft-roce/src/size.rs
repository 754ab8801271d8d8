//! Sizes as people write them: `4096`, `512MiB`, `1G`.

/// Parses a number with an optional binary unit (K, KiB, M, MiB, G, GiB, T, TiB; B alone is bytes).
///
/// # Errors
///
/// What is wrong with the text.
pub fn parse(text: &str) -> Result<u64, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("{text:?} is not a size; write for example \"256MiB\"");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let shift = match unit.trim() {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes() {
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(parse("1 GiB"), Ok(1 << 30));
        assert_eq!(parse("256M"), Ok(256 << 20));
        for wrong in ["", "MiB", "-1", "1.5G", "3 apples", "10MB", "0x10"] {
            assert!(parse(wrong).unwrap_err().contains("not a size"), "{wrong}");
        }
        assert!(parse("99999999999T").unwrap_err().contains("too large"));
    }
}
