//! List of discovery controllers (discovery.conf, until nvme-cli 3): on each line the options of
//! one `nvme discover`. No message quotes what was not recognised: it may be a secret.

use std::path::Path;

use rdma_host::wire::Nqn;

use super::{
    ADDRESS_KEYS, Configuration, Document, Endpoint, EndpointKind, Host, Route, SourceLocation,
    key::{Key, KeyScope},
};
use crate::{option_value, secret_text};

/// Reads a file's text; lines for the same host become one document.
pub(super) fn parse(
    path: &Path,
    text: &str,
    configuration: &mut Configuration,
) -> Result<(), String> {
    let mut files: Vec<Document> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let location = SourceLocation { path, line: number };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let warnings = &mut configuration.warnings;
        let Some((host, endpoint)) = self::line(line, location, warnings)? else { continue };
        match files.iter_mut().find(|file| file.host == host) {
            Some(file) => file.endpoints.push(endpoint),
            None => files.push(Document {
                path: path.to_owned(),
                host,
                endpoints: vec![endpoint],
                ..Document::default()
            }),
        }
    }
    configuration.files.append(&mut files);
    Ok(())
}

/// Host and endpoint of one line; none if it names no controller, which nvme-cli ignores too.
fn line(
    text: &str,
    location: SourceLocation<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<(Option<Host>, Endpoint)>, String> {
    let mut parsed = ParsedLine {
        host: Host::default(),
        endpoint: Endpoint::new(EndpointKind::Discovery, location.line),
        route: Route { line: location.line, ..Route::default() },
    };
    let at = |reason: String| location.message(reason);
    let mut words = text.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let Some((name, glued)) = option(word) else {
            if secret_text::may_be_secret(word) {
                return Err(
                    at("a secret belongs to no option; write --dhchap-secret=…".to_owned()),
                );
            }
            warnings.push(at("a word that belongs to no option is ignored".to_owned()));
            continue;
        };
        let known = Key::find_legacy(name);
        let flag = known.is_some_and(Key::is_flag) || FLAGS.contains(&name);
        let value = match glued {
            Some(value) => Some(value),
            None if flag => None,
            None => words.next_if(|next| known.is_some() || !next.starts_with('-')),
        };
        if !parsed.set(name, value).map_err(at)? {
            warnings.push(at("an option that is not known is ignored".to_owned()));
        }
    }
    let ParsedLine { host, mut endpoint, route } = parsed;
    match route.address.missing_field() {
        Some(_) if route.address == super::Address::default() => Ok(None),
        Some(what) => Err(at(format!("--{what} is missing"))),
        None => {
            endpoint.paths.push(route);
            Ok(Some((Some(host).filter(|host| *host != Host::default()), endpoint)))
        }
    }
}

/// Line as far as it was read.
struct ParsedLine {
    host: Host,
    endpoint: Endpoint,
    route: Route,
}

impl ParsedLine {
    /// Sets what an option of this name says; returns false for an option that is not known.
    fn set(&mut self, name: &str, value: Option<&str>) -> Result<bool, String> {
        let needed = || value.ok_or_else(|| format!("--{name} lacks its value"));
        match (name, Key::find_legacy(name)) {
            ("nqn", _) => {
                let nqn = option_value::nqn("--nqn", needed()?)?;
                self.endpoint.nqn = Some(nqn).filter(|nqn| nqn != Nqn::DISCOVERY);
            }
            ("persistent", Some(key)) => {
                let value = value.unwrap_or("auto");
                key.check(value)?;
                self.endpoint.parameters.set(key, value);
            }
            (_, Some(key)) if key.scope == KeyScope::Identity => self.host.set(name, needed()?)?,
            (_, Some(key)) if matches!(key.scope, KeyScope::Tunable | KeyScope::Security) => {
                let value = if key.is_flag() { value.unwrap_or("true") } else { needed()? };
                if value.is_empty() && key.scope == KeyScope::Security {
                    return Err(format!("--{name} lacks its value"));
                }
                key.check(value)?;
                self.endpoint.parameters.set(key, value);
            }
            _ if SILENT.contains(&name) => {}
            _ if ADDRESS_KEYS.contains(&name) => self.route.address.set(name, needed()?)?,
            _ if Key::is_about_security(name) || value.is_some_and(secret_text::may_be_secret) => {
                return Err(
                    "an option about security is not known here, so that it would have no \
                            effect; known are --dhchap-secret, --dhchap-ctrl-secret, --tls, \
                            --concat, --tls-key, --tls-key-identity and --keyring"
                        .to_owned(),
                );
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Long name of an option, and its value if that is part of the same word.
fn option(word: &str) -> Option<(&str, Option<&str>)> {
    if let Some(long) = word.strip_prefix("--") {
        return Some(match long.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (long, None),
        });
    }
    let mut letters = word.strip_prefix('-')?.chars();
    let letter = letters.next()?;
    let (_, name) = LETTERS.iter().find(|(short, _)| *short == letter)?;
    let rest = letters.as_str();
    let glued = Some(rest.strip_prefix('=').unwrap_or(rest)).filter(|rest| !rest.is_empty());
    Some((name, glued))
}

/// Short options (nvme-cli 2.x; 3 has dropped -d).
const LETTERS: [(char, &str); 24] = [
    ('t', "transport"),
    ('n', "nqn"),
    ('a', "traddr"),
    ('s', "trsvcid"),
    ('w', "host-traddr"),
    ('f', "host-iface"),
    ('q', "hostnqn"),
    ('I', "hostid"),
    ('S', "kxchap-secret"),
    ('C', "kxchap-ctrl-secret"),
    ('i', "nr-io-queues"),
    ('W', "nr-write-queues"),
    ('P', "nr-poll-queues"),
    ('Q', "queue-size"),
    ('k', "keep-alive-tmo"),
    ('c', "reconnect-delay"),
    ('l', "ctrl-loss-tmo"),
    ('F', "fast-io-fail-tmo"),
    ('T', "tos"),
    ('D', "duplicate-connect"),
    ('d', "disable-sqflow"),
    ('g', "hdr-digest"),
    ('G', "data-digest"),
    ('p', "persistent"),
];

/// Options without a value, apart from parameters.
const FLAGS: [&str; 5] = ["persistent", "force", "no-reuse", "quiet", "verbose"];

/// Options for the behaviour of nvme-cli itself, which are ignored.
const SILENT: [&str; 6] = ["force", "no-reuse", "quiet", "verbose", "output-format", "raw"];
