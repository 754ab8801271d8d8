//! Values of options, as libnvme takes them.

use std::str::FromStr;

use rdma_host::wire::{Nqn, NqnError};

use crate::secret_text;

/// Text that stands for a value that is not set (libnvme, `add_argument`); udev's rules give it for
/// what the kernel's event does not have.
pub const NONE: &str = "none";

/// Value of an option, unless it is [`NONE`].
pub type OrNone<T> = Option<T>;

/// Parses a value that may be [`NONE`].
pub fn or_none<T: FromStr>(text: &str) -> Result<OrNone<T>, T::Err> {
    if text == NONE { Ok(None) } else { text.parse().map(Some) }
}

/// NQN in a file, where it has this name. An error does not quote it, and a name that may be a
/// secret is none.
pub fn nqn(name: &str, text: &str) -> Result<String, String> {
    let secret = match text.strip_prefix("nqn.") {
        Some(rest) => secret_text::may_hold_secret(rest),
        None => secret_text::may_be_secret(text),
    };
    match text.parse::<Nqn>() {
        Ok(nqn) if !secret => Ok(nqn.as_str().to_owned()),
        _ if text.len() > Nqn::LENGTH_MAX => {
            Err(format!("{name}: {}", NqnError::TooLong(text.len())))
        }
        _ => Err(format!("{name}: this is not an NQN; check how it was copied")),
    }
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

    #[test]
    fn names_in_files_are_not_quoted() {
        assert_eq!(nqn("nqn", "nqn.x"), Ok("nqn.x".to_owned()));
        assert_eq!(nqn("nqn", "host"), Ok("host".to_owned()));
        let long = format!("nqn.{}", "x".repeat(300));
        for wrong in
            ["", "my host", "nqn.\u{7}bell", "nqn.x y", &long, "nqn.DHHC-1:00:", "DHHC-1:00:x:"]
        {
            let error = nqn("hostnqn", wrong).unwrap_err();
            assert!(error.starts_with("hostnqn: ") && error.contains("NQN"), "{error}");
            for quoted in ["bell", "xxx", "DHHC", "host\""] {
                assert!(!error.contains(quoted), "{error}");
            }
        }
    }
}
