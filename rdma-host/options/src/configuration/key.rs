//! Keys of a configuration, by their names in nvme-cli's INI format.

use std::fmt;

use zeroize::Zeroizing;

use crate::{option_value::NONE, secret_text};

/// Key of a configuration: a parameter of connections, or a part of an identity or address.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// Name in the INI format, and as an option of `nvme connect`.
    pub name: &'static str,
    kind: ValueKind,
    pub scope: KeyScope,
}

/// Type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ValueKind {
    Bool,
    /// Number, from the smallest to the largest that is allowed.
    Integer(i32, i32),
    /// One of these words.
    Word(&'static [&'static str]),
    /// Text; `none` stands for the default, as for libnvme.
    Text,
}

/// Sections in which a key is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyScope {
    /// Sections of endpoints: a path to the endpoint.
    Controller,
    /// Sections of discovery controllers, and their paths.
    Discovery,
    /// Section Host.
    Identity,
    /// Sections of endpoints: the name of the endpoint.
    Nqn,
    /// All sections, but not paths: the key belongs to host and subsystem.
    Security,
    /// All sections and paths.
    Tunable,
}

macro_rules! keys {
    ($($name:literal $kind:expr, $scope:ident;)*) => {
        /// All keys (libnvme 3, config-ini.c).
        static KEYS: &[Key] = &[$(Key { name: $name, kind: $kind, scope: KeyScope::$scope }),*];
    };
}

keys! {
    "nr-io-queues" ValueKind::Integer(0, 65_535), Tunable;
    "nr-write-queues" ValueKind::Integer(0, 65_535), Tunable;
    "nr-poll-queues" ValueKind::Integer(0, 65_535), Tunable;
    "queue-size" ValueKind::Integer(0, 1024), Tunable;
    "keep-alive-tmo" ValueKind::Integer(0, i32::MAX), Tunable;
    "reconnect-delay" ValueKind::Integer(0, i32::MAX), Tunable;
    "ctrl-loss-tmo" ValueKind::Integer(-1, i32::MAX), Tunable;
    "fast-io-fail-tmo" ValueKind::Integer(-1, i32::MAX), Tunable;
    "tos" ValueKind::Integer(-1, 255), Tunable;
    "duplicate-connect" ValueKind::Bool, Tunable;
    "disable-sqflow" ValueKind::Bool, Tunable;
    "hdr-digest" ValueKind::Bool, Tunable;
    "data-digest" ValueKind::Bool, Tunable;
    "persistent" ValueKind::Word(&["no", "auto", "force"]), Discovery;
    "tls" ValueKind::Bool, Security;
    "concat" ValueKind::Bool, Security;
    "tls-key" ValueKind::Text, Security;
    "tls-key-identity" ValueKind::Text, Security;
    "keyring" ValueKind::Text, Security;
    "kxchap-secret" ValueKind::Text, Security;
    "kxchap-ctrl-secret" ValueKind::Text, Security;
    "hostnqn" ValueKind::Text, Identity;
    "hostid" ValueKind::Text, Identity;
    "hostsymname" ValueKind::Text, Identity;
    "nqn" ValueKind::Text, Nqn;
    "controller" ValueKind::Text, Controller;
}

impl Key {
    /// Key of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Key of this name in nvme-cli's JSON format, or of an older option.
    pub fn find_legacy(name: &str) -> Option<&'static Self> {
        match name {
            "dhchap_key" | "dhchap-secret" => Self::find("kxchap-secret"),
            "dhchap_ctrl_key" | "dhchap-ctrl-secret" => Self::find("kxchap-ctrl-secret"),
            name => Self::find(&name.replace('_', "-")),
        }
    }

    /// True for the name of a key that is not known and may be about security, or be a secret
    /// itself. Ignoring such a key would leave a connection without the protection that was asked
    /// for.
    pub fn is_about_security(name: &str) -> bool {
        if secret_text::may_be_secret(name) {
            return true;
        }
        let name = name.to_ascii_lowercase();
        let known = Self::find_legacy(&name).is_some_and(|key| key.scope == KeyScope::Security);
        known
            || ["chap", "tls", "secret", "key", "psk", "concat"].iter().any(|it| name.contains(it))
    }

    /// True if the option has no value on a command line.
    pub fn is_flag(&self) -> bool {
        self.kind == ValueKind::Bool
    }

    /// True if the value must not be shown.
    pub fn is_secret(&self) -> bool {
        matches!(self.name, "tls-key" | "kxchap-secret" | "kxchap-ctrl-secret")
    }

    /// Refuses values of another type; the empty value, which stands for the default, is valid. The
    /// value is in no message, since a secret may be in the place of any value.
    pub fn check(&self, value: &str) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("{} takes {what}", self.name));
        match self.kind {
            _ if value.is_empty() => Ok(()),
            _ if value.contains(char::is_control) => wrong("a text without control characters"),
            ValueKind::Text => Ok(()),
            ValueKind::Integer(min, max) => match integer(value) {
                Some(number) if (min..=max).contains(&number) => Ok(()),
                Some(_) => wrong(&format!("a number from {min} to {max}")),
                None => wrong("a number"),
            },
            ValueKind::Bool if boolean(value).is_some() => Ok(()),
            ValueKind::Bool => wrong("true or false"),
            ValueKind::Word(words) if words.iter().any(|word| word.eq_ignore_ascii_case(value)) => {
                Ok(())
            }
            ValueKind::Word(words) => wrong(&format!("one of {}", words.join(", "))),
        }
    }
}

/// Parses a number in decimal, or after 0x in hexadecimal.
pub(super) fn integer(text: &str) -> Option<i32> {
    match text.strip_prefix("0x") {
        Some(digits) => i32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Parses a truth value in any of the forms that systemd knows.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

/// Parameters with their values, each at most once, in the order in which they were first set. An
/// empty value stands for the default, also if an outer level has another value.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Parameters(Vec<(&'static Key, Zeroizing<String>)>);

impl Parameters {
    /// Sets a parameter, whose value must have been checked.
    pub fn set(&mut self, key: &'static Key, value: &str) {
        let unset = key.kind == ValueKind::Text && value == NONE;
        let value = Zeroizing::new(if unset { String::new() } else { value.to_owned() });
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    /// Sets all parameters of `other`.
    pub fn overlay(&mut self, other: &Self) {
        for (key, value) in &other.0 {
            self.set(key, value);
        }
    }

    /// Value of a parameter, unless it is the default.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(key, _)| key.name == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// All parameters.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Key, &str)> {
        self.0.iter().map(|(key, value)| (*key, value.as_str()))
    }

    /// All parameters for display, without the values of secrets, and of what may be one.
    pub fn shown(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.iter().map(|(key, value)| {
            let secret = key.is_secret() || secret_text::may_be_secret(value);
            let hidden = secret && !value.is_empty();
            (key.name, if hidden { "(a secret)" } else { value })
        })
    }

    /// True if a parameter is a secret.
    pub fn has_secret(&self) -> bool {
        self.iter().any(|(key, value)| key.is_secret() && !value.is_empty())
    }
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shown()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_mean_the_same() {
        for (old, new) in [
            ("keep_alive_tmo", "keep-alive-tmo"),
            ("fast_io_fail_tmo", "fast-io-fail-tmo"),
            ("dhchap_key", "kxchap-secret"),
            ("dhchap-ctrl-secret", "kxchap-ctrl-secret"),
        ] {
            assert_eq!(Key::find_legacy(old).unwrap().name, new);
        }
        assert!(Key::find("keep_alive_tmo").is_none() && Key::find_legacy("nqns").is_none());
    }

    #[test]
    fn values_are_checked_by_kind() {
        let check = |name: &str, value: &str| Key::find(name).unwrap().check(value);
        for (name, value) in [
            ("tos", "0x1f"),
            ("ctrl-loss-tmo", "-1"),
            ("tls", "Yes"),
            ("persistent", "force"),
            ("queue-size", ""),
        ] {
            assert_eq!(check(name, value), Ok(()), "{name} = {value}");
        }
        assert_eq!(check("tos", "1s"), Err("tos takes a number".to_owned()));
        assert_eq!(check("tos", "256"), Err("tos takes a number from -1 to 255".to_owned()));
        assert!(check("keep-alive-tmo", "-5").is_err() && check("nr-io-queues", "65536").is_err());
        assert!(check("queue-size", "99999999999").is_err());
        assert!(check("tls", "maybe").unwrap_err().contains("true or false"));
        assert!(check("persistent", "yes").unwrap_err().contains("no, auto, force"));
        let secret = check("kxchap-secret", "DHHC-1:\u{7}").unwrap_err();
        assert!(!secret.contains("DHHC"), "{secret}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut parameters = Parameters::default();
        parameters.set(Key::find("kxchap-secret").unwrap(), "DHHC-1:00:x:");
        parameters.set(Key::find("tos").unwrap(), "1");
        parameters.set(Key::find("tos").unwrap(), "2");
        let shown = format!("{parameters:?}");
        assert_eq!(shown, r#"{"kxchap-secret": "(a secret)", "tos": "2"}"#);
        assert!(parameters.has_secret());
    }
}
