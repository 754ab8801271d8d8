//! Values of options, as libnvme takes them.

use std::str::FromStr;

/// Text that stands for a value that is not set (libnvme, `add_argument`); udev's rules give it for
/// what the kernel's event does not have.
pub(crate) const NONE: &str = "none";

/// Value of an option, unless it is [`NONE`].
pub(crate) type OrNone<T> = Option<T>;

/// Parses a value that may be [`NONE`].
pub(crate) fn or_none<T: FromStr>(text: &str) -> Result<OrNone<T>, T::Err> {
    if text == NONE { Ok(None) } else { text.parse().map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_is_no_value() {
        assert_eq!(or_none::<u16>("none"), Ok(None));
        assert_eq!(or_none("7"), Ok(Some(7)));
        assert!(or_none::<u16>("None").is_err() && or_none::<u16>("").is_err());
    }
}
