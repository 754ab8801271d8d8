//! INI format of nvme-cli 3 (nvme-fabrics.conf), as libnvme 3 reads it.
//!
//! Sections in brackets, `key = value`, comments after `#`. A key without a value goes back to the
//! default. Unknown sections and keys are ignored with a warning. A key in a section where it is
//! not allowed is an error, as is anything unknown on a `controller` line, which might otherwise
//! connect to another controller.

use std::path::Path;

use super::{
    ADDRESS_KEYS, Document, Endpoint, EndpointKind, Host, Parameters, Route, SourceLocation,
    key::{Key, KeyScope},
};
use crate::{option_value, secret_text};

/// Section that is being read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    DiscoveryDefaults,
    Endpoint,
    Host,
    /// Unknown section.
    Ignored,
    IoDefaults,
    /// No section yet.
    None,
}

/// Reads a file's text.
pub(super) fn parse(
    path: &Path,
    text: &str,
    warnings: &mut Vec<String>,
) -> Result<Document, String> {
    let file = Document { path: path.to_owned(), ..Document::default() };
    let mut parser = IniParser { file, section: Section::None, warnings };
    for (number, line) in (1..).zip(text.lines()) {
        let location = SourceLocation { path, line: number };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        parser.line(line, number).map_err(|reason| location.message(reason))?;
    }
    for endpoint in &parser.file.endpoints {
        let location = SourceLocation { path, line: endpoint.line };
        if endpoint.kind == EndpointKind::Subsystem && endpoint.nqn.is_none() {
            return Err(location.message("[Subsystem] lacks nqn; add a line nqn = NAME"));
        }
        if endpoint.paths.is_empty() {
            let text = "this section lacks a controller line and connects to nothing";
            parser.warnings.push(location.message(text));
        }
    }
    Ok(parser.file)
}

struct IniParser<'a> {
    file: Document,
    section: Section,
    warnings: &'a mut Vec<String>,
}

impl IniParser<'_> {
    fn line(&mut self, line: &str, number: usize) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix('[') {
            let name = rest.strip_suffix(']').map(str::trim).filter(|name| !name.is_empty());
            let name = name.ok_or("this is no section; write [NAME]")?;
            return self.start_section(name, number);
        }
        let (key, value) = line
            .split_once('=')
            .filter(|(key, _)| !key.trim().is_empty())
            .ok_or("this line is neither [SECTION] nor key = value")?;
        let key = key.trim();
        // Only the symbolic name may hold a number sign: other values of nvme-cli's own sample have
        // comments after them.
        let value = if key == "hostsymname" { value } else { without_comment(value) };
        self.assign(key, value.trim(), number)
    }

    fn start_section(&mut self, name: &str, line: usize) -> Result<(), String> {
        let file = &mut self.file;
        let mut repeated = false;
        self.section = match name {
            "Discovery Controller Defaults" => {
                repeated = file.discovery_defaults.is_some();
                file.discovery_defaults.get_or_insert_default();
                Section::DiscoveryDefaults
            }
            "I/O Controller Defaults" => {
                repeated = file.io_defaults.is_some();
                file.io_defaults.get_or_insert_default();
                Section::IoDefaults
            }
            "Host" if file.host.is_some() => {
                let text = "a second [Host]; put each host into a file of its own below the .d \
                            folder";
                return Err(text.to_owned());
            }
            "Host" => {
                file.host = Some(Host::default());
                Section::Host
            }
            "Discovery Controller" => {
                file.endpoints.push(Endpoint::new(EndpointKind::Discovery, line));
                Section::Endpoint
            }
            "Subsystem" => {
                file.endpoints.push(Endpoint::new(EndpointKind::Subsystem, line));
                Section::Endpoint
            }
            _ => {
                let text = "this section is not known and is ignored; known are Host, Subsystem, \
                            Discovery Controller, and the defaults of both";
                self.warn(line, text.to_owned());
                Section::Ignored
            }
        };
        if repeated {
            self.warn(line, format!("[{name}] is here twice; what comes later counts"));
        }
        Ok(())
    }

    fn assign(&mut self, name: &str, value: &str, line: usize) -> Result<(), String> {
        let known = Key::find(name).filter(|_| self.section != Section::Ignored);
        let Some(key) = known else {
            if Key::is_about_security(name) || secret_text::may_be_secret(value) {
                return Err(UNKNOWN_SECURITY.to_owned());
            }
            if self.section != Section::Ignored {
                self.warn(line, "this key is not known and is ignored".to_owned());
            }
            return Ok(());
        };
        if self.section == Section::None {
            return Err(format!("{} stands before any section; put it below [Host]", key.name));
        }
        if value.starts_with('"') || value.ends_with('"') {
            self.warn(line, format!("the quotation marks are taken for a part of {name}"));
        }
        match (key.scope, self.section) {
            (KeyScope::Controller, Section::Endpoint) => self.route(value, line),
            (KeyScope::Nqn, Section::Endpoint) => {
                self.endpoint().nqn = Some(option_value::nqn(name, value)?);
                Ok(())
            }
            (KeyScope::Identity, Section::Host) => {
                self.file.host.get_or_insert_default().set(name, value)
            }
            (KeyScope::Tunable | KeyScope::Security | KeyScope::Discovery, _) => {
                key.check(value)?;
                match self.parameters(key.scope) {
                    Some(parameters) => parameters.set(key, value),
                    None => return Err(misplaced(name)),
                }
                Ok(())
            }
            _ => Err(misplaced(name)),
        }
    }

    /// Parameters of the current section, if a key of this scope is allowed there.
    fn parameters(&mut self, scope: KeyScope) -> Option<&mut Parameters> {
        let discovery_only = scope == KeyScope::Discovery;
        match self.section {
            Section::DiscoveryDefaults => self.file.discovery_defaults.as_mut(),
            Section::Endpoint => {
                let endpoint = self.endpoint();
                let discovery = endpoint.kind == EndpointKind::Discovery;
                Some(&mut endpoint.parameters).filter(|_| discovery || !discovery_only)
            }
            Section::Host if !discovery_only => {
                Some(&mut self.file.host.get_or_insert_default().parameters)
            }
            Section::IoDefaults if !discovery_only => self.file.io_defaults.as_mut(),
            _ => None,
        }
    }

    fn route(&mut self, text: &str, line: usize) -> Result<(), String> {
        let kind = self.endpoint().kind;
        let route = route(text, kind, line)?;
        self.endpoint().paths.push(route);
        Ok(())
    }

    fn endpoint(&mut self) -> &mut Endpoint {
        self.file.endpoints.last_mut().expect("the section of an endpoint has one")
    }

    fn warn(&mut self, line: usize, text: String) {
        let warning = self.file.location(line).message(text);
        self.warnings.push(warning);
    }
}

/// Value without the comment after it.
fn without_comment(value: &str) -> &str {
    let starts = value.match_indices('#').map(|(at, _)| at);
    let mut comments = starts.filter(|&at| value[..at].ends_with([' ', '\t']));
    comments.next().map_or(value, |at| &value[..at])
}

/// Parses the value of a controller line.
fn route(text: &str, kind: EndpointKind, line: usize) -> Result<Route, String> {
    let mut route = Route { line, ..Route::default() };
    let mut seen = Vec::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) = part
            .split_once('=')
            .map(|(name, value)| (name.trim(), value.trim()))
            .filter(|(name, _)| !name.is_empty())
            .ok_or("controller: a part of it is not key=value")?;
        if ADDRESS_KEYS.contains(&name) {
            if seen.contains(&name) {
                return Err(format!("controller: {name} is given twice"));
            }
            if value.is_empty() {
                return Err(format!("controller: {name} has no value that makes sense"));
            }
            route.address.set(name, value).map_err(|reason| format!("controller: {reason}"))?;
            seen.push(name);
            continue;
        }
        let key = Key::find(name).ok_or(
            "controller: unknown key; known are transport, traddr, trsvcid, host-traddr, \
             host-iface and the options of nvme connect",
        )?;
        match key.scope {
            KeyScope::Tunable => {}
            KeyScope::Discovery if kind == EndpointKind::Discovery => {}
            KeyScope::Security => {
                return Err(format!(
                    "controller: {name} belongs to host and subsystem; put it on \
                                    a line of its own"
                ));
            }
            _ => return Err(format!("controller: {}", misplaced(name))),
        }
        key.check(value).map_err(|reason| format!("controller: {reason}"))?;
        route.parameters.set(key, value);
    }
    match route.address.missing_field() {
        Some(what) => Err(format!("controller lacks {what}; write transport=rdma;traddr=ADDRESS")),
        None => Ok(route),
    }
}

/// Error of a key that may be about security and has no effect where it stands.
const UNKNOWN_SECURITY: &str = "this key is about security and is not known here, so that it would \
                                have no effect; known are kxchap-secret, kxchap-ctrl-secret, tls, \
                                concat, tls-key, tls-key-identity and keyring, below a section of \
                                nvme-cli";

fn misplaced(name: &str) -> String {
    format!("{name} does not belong here")
}

impl Endpoint {
    pub(super) fn new(kind: EndpointKind, line: usize) -> Self {
        Self { kind, nqn: None, parameters: Parameters::default(), paths: Vec::new(), line }
    }
}
