//! List of discovery controllers (discovery.conf, until nvme-cli 3): on each line the options of
//! one `nvme discover`.

use std::path::Path;

use rdma_host::wire::Nqn;

use super::{
    Configuration, Document, Endpoint, EndpointKind, Host, Route, SourceLocation,
    key::{Key, KeyScope},
};

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
    let mut host = Host::default();
    let mut endpoint = Endpoint::new(EndpointKind::Discovery, location.line);
    let mut route = Route { line: location.line, ..Route::default() };
    let mut words = text.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let Some((name, glued)) = option(word) else {
            warnings.push(location.message(format!("{word:?} is no option and is ignored")));
            continue;
        };
        let known = Key::find_legacy(name);
        let flag = known.is_some_and(Key::is_flag) || FLAGS.contains(&name);
        let value = match glued {
            Some(value) => Some(value),
            None if flag => None,
            None => words.next_if(|next| known.is_some() || !next.starts_with('-')),
        };
        let needed = || value.ok_or_else(|| location.message(format!("--{name} lacks its value")));
        match (name, known) {
            ("nqn", _) => {
                let nqn: Nqn = needed()?
                    .parse()
                    .map_err(|error| location.message(format!("--nqn: {error}")))?;
                endpoint.nqn = Some(nqn.as_str().to_owned()).filter(|nqn| nqn != Nqn::DISCOVERY);
            }
            ("persistent", Some(key)) => {
                let value = value.unwrap_or("auto");
                key.check(value).map_err(|reason| location.message(reason))?;
                endpoint.parameters.set(key, value);
            }
            (_, Some(key)) if key.scope == KeyScope::Identity => {
                host.set(name, needed()?).map_err(|reason| location.message(reason))?;
            }
            (_, Some(key)) if matches!(key.scope, KeyScope::Tunable | KeyScope::Security) => {
                let value = if flag { value.unwrap_or("true") } else { needed()? };
                key.check(value).map_err(|reason| location.message(reason))?;
                endpoint.parameters.set(key, value);
            }
            _ if SILENT.contains(&name) => {}
            _ if super::ini::ADDRESS_KEYS.contains(&name) => {
                route.address.set(name, needed()?);
            }
            _ => warnings.push(location.message(format!("unknown option {word:?} is ignored"))),
        }
    }
    match route.address.missing_field() {
        Some(_) if route.address == super::Address::default() => Ok(None),
        Some(what) => Err(location.message(format!("--{what} is missing"))),
        None => {
            endpoint.paths.push(route);
            Ok(Some((Some(host).filter(|host| *host != Host::default()), endpoint)))
        }
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
