//! Text that may be a secret in the wrong place: it is in no message.

use std::path::Path;

/// Characters of Base64 in a row, in both cases, that may be a part of a secret; words of names and
/// UUIDs have fewer.
const BASE64_RUN: usize = 16;

/// Characters of Base64 in a row, in both cases, that no NQN has: some have serial numbers and long
/// hexadecimal numbers. The payload of a secret has 48 or more.
const BASE64_RUN_IN_NAME: usize = 32;

/// Path for a message, unless it may be a secret that was given in its place.
pub fn shown_path(path: &Path) -> String {
    let name = path.to_string_lossy();
    if path.symlink_metadata().is_ok() || !is_hidden(&name) {
        return name.into_owned();
    }
    "a file by a name that may be a secret, and so is not shown".to_owned()
}

/// Message about arguments or files, in which each word that may be a secret is left out.
pub fn without_secrets(message: &str) -> String {
    let separates = |c: char| c.is_whitespace() || "'\"`,;()<>".contains(c);
    let words = message.split_inclusive(separates).map(|word| {
        let (word, separator) = word.split_at(word.trim_end_matches(separates).len());
        let shown = match word.split_once('=') {
            _ if !is_hidden(word) => word.to_owned(),
            Some((option, _)) if option.starts_with('-') => format!("{option}=…"),
            _ => "…".to_owned(),
        };
        shown + separator
    });
    words.collect()
}

/// True for a word of a message that may be a secret, and is no path and no NQN.
fn is_hidden(word: &str) -> bool {
    // Our own hints name the prefix.
    if word.len() < BASE64_RUN {
        return false;
    }
    if word.starts_with(['/', '.']) {
        return word.split('/').any(may_be_secret);
    }
    let named = word.starts_with("nqn.") || word.contains("/nqn.");
    if named { may_hold_secret(word) } else { may_be_secret(word) }
}

/// True for an NQN that may hold a secret or a large part of one.
pub fn may_hold_secret(nqn: &str) -> bool {
    has_secret_prefix(nqn) || has_base64_run(nqn, BASE64_RUN_IN_NAME)
}

/// True for text that has the prefix of a secret's text, or of a key of TLS, in any case.
fn has_secret_prefix(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["dhhc-", "nvmetlskey-"].iter().any(|prefix| text.contains(prefix))
}

/// True for text that may be a secret or a part of one, damaged or whole: the prefix, or many
/// characters of Base64 in a row. Such text is not shown where a value was not expected.
pub fn may_be_secret(text: &str) -> bool {
    has_secret_prefix(text) || has_base64_run(text, BASE64_RUN)
}

/// True for text with at least this number of characters of Base64 in a row, in both cases.
fn has_base64_run(text: &str, least: usize) -> bool {
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let is_mixed = |run: &str| {
        run.contains(|c: char| c.is_ascii_uppercase()) && run.contains(|c: char| c.is_lowercase())
    };
    text.split(|c| !is_base64(c)).any(|run| run.len() >= least && is_mixed(run))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SECRET: &str = "DHHC-1:00:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:";

    #[test]
    fn secrets_are_known_by_their_looks() {
        let payload = &SECRET[10..];
        for text in [SECRET, "dhhc-1:00", "x NVMeTLSkey-1:", payload, &payload[..16]] {
            assert!(may_be_secret(text), "{text}");
        }
        for text in [
            "",
            "nqn.2014-08.org.nvmexpress:uuid:46BA5037-7ce5-41fa-9452-48477bf00080",
            "storage-server-17.example.com",
            "fe80::abCD:1%eth0",
            "0123456789abcdef0123456789abcdef",
            "KEEP-ALIVE",
        ] {
            assert!(!may_be_secret(text), "{text}");
        }
    }

    #[test]
    fn a_name_may_have_long_numbers() {
        for nqn in [
            "nqn.2014.08.org.nvmexpress:144d144dS4EWNX0R700123",
            "nqn.x:2a64abf1c5b81F6C45492a64abf1c5b",
            "nqn.2014-08.org.nvmexpress:uuid:46BA5037-7ce5-41fa-9452-48477bf00080",
        ] {
            assert!(!may_hold_secret(nqn), "{nqn}");
        }
        for hidden in [SECRET, &SECRET[1..], &SECRET[10..], &SECRET[10..42]] {
            assert!(may_hold_secret(&format!("nqn.{hidden}x:1")), "{hidden}");
        }
    }

    #[test]
    fn a_message_has_no_word_that_may_be_a_secret() {
        let payload = &SECRET[10..];
        for (message, expected) in [
            (format!("unexpected argument '{SECRET}' found"), "unexpected argument '…' found"),
            (format!("{SECRET:?} is no target; write it"), "\"…\" is no target; write it"),
            ("begins with `DHHC-1:`".to_owned(), "begins with `DHHC-1:`"),
            (format!("a {payload}, --dhchap={SECRET}; b"), "a …, --dhchap=…; b"),
            (
                "invalid value '5x' for '--runtime <TIME>'".to_owned(),
                "invalid value '5x' for '--runtime <TIME>'",
            ),
            (
                "/home/Somebody/Secrets/it: nvmf-rdma://10.0.0.1/nqn.x:2a64abf1c5b81F6C4549"
                    .to_owned(),
                "/home/Somebody/Secrets/it: nvmf-rdma://10.0.0.1/nqn.x:2a64abf1c5b81F6C4549",
            ),
        ] {
            assert_eq!(without_secrets(&message), expected);
        }
    }

    #[test]
    fn a_path_that_may_be_a_secret_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join(SECRET);
        fs::write(&there, "").unwrap();
        assert_eq!(shown_path(&there), there.display().to_string());
        for path in ["/nothing", "/home/Somebody/Secrets/target.key", "./key"] {
            assert_eq!(shown_path(Path::new(path)), path);
        }
        for path in [SECRET, &SECRET[10..], "/etc/DHHC-1:00:x:"] {
            assert!(shown_path(Path::new(path)).contains("not shown"), "{path}");
        }
    }
}
