//! JSON format of nvme-cli (config.json, until nvme-cli 3): hosts, their subsystems, and the ports
//! of those. The newer form is `{"hosts": […]}`, the older one the list alone.
//!
//! Unknown keys are ignored with a warning, unless they may be about security. No message quotes
//! what was not recognised: it may be a secret.

use std::{collections::BTreeMap, path::Path};

use rdma_host::wire::Nqn;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::{
    ADDRESS_KEYS, Configuration, Document, Endpoint, EndpointKind, Host, Parameters, Route,
    SourceLocation, boolean,
    key::{Key, KeyScope},
};
use crate::{option_value, secret_text};

/// Reads a file's text; each host becomes a document.
pub(super) fn parse(
    path: &Path,
    text: &str,
    configuration: &mut Configuration,
) -> Result<(), String> {
    let root: &RawValue = serde_json::from_str(text).map_err(|error| {
        SourceLocation { path, line: error.line() }.message(format!("this is no JSON: {error}"))
    })?;
    let mut parser = JsonParser { path, text, warnings: &mut configuration.warnings };
    let hosts = if root.get().starts_with('[') {
        parser.list(root, "the file")?
    } else {
        let mut top = parser.object(root, "the file")?;
        let hosts = top.remove("hosts");
        // Owner of the file, for nvme-cli's register of owners.
        top.remove("owner");
        parser.ignore(&top, "the file")?;
        let missing =
            || parser.location(root).message("\"hosts\" is missing; it is a list of hosts");
        parser.list(hosts.ok_or_else(missing)?, "\"hosts\"")?
    };
    for host in hosts {
        let file = parser.host(host)?;
        configuration.files.push(file);
    }
    Ok(())
}

type Object<'a> = BTreeMap<String, &'a RawValue>;

struct JsonParser<'a, 'w> {
    path: &'a Path,
    text: &'a str,
    warnings: &'w mut Vec<String>,
}

impl<'a> JsonParser<'a, '_> {
    fn host(&mut self, raw: &'a RawValue) -> Result<Document, String> {
        let mut object = self.object(raw, "a host")?;
        let mut host = Host::default();
        for key in ["hostnqn", "hostid", "hostsymname"] {
            if let Some(raw) = object.remove(key) {
                let value = self.scalar(raw, key)?;
                host.set(key, &value).map_err(|reason| self.location(raw).message(reason))?;
            }
        }
        if let Some(raw) = object.remove("dhchap_key") {
            self.set(&mut host.parameters, "dhchap_key", raw)?;
        }
        let mut file = Document { path: self.path.to_owned(), ..Document::default() };
        if let Some(raw) = object.remove("subsystems") {
            for subsystem in self.list(raw, "\"subsystems\"")? {
                let endpoints = self.subsystem(subsystem)?;
                file.endpoints.extend(endpoints);
            }
        }
        self.ignore(&object, "a host")?;
        file.host = Some(host).filter(|host| *host != Host::default());
        Ok(file)
    }

    fn subsystem(&mut self, raw: &'a RawValue) -> Result<Vec<Endpoint>, String> {
        let mut object = self.object(raw, "a subsystem")?;
        let nqn = match object.remove("nqn") {
            Some(raw) => Some(self.scalar(raw, "nqn")?).filter(|nqn| !nqn.is_empty()),
            None => None,
        };
        let nqn = nqn.map(|text| option_value::nqn("nqn", &text)).transpose();
        let nqn = nqn.map_err(|reason| self.location(raw).message(reason))?;
        let nqn = nqn.filter(|nqn| nqn != Nqn::DISCOVERY);
        let mut endpoints: Vec<Endpoint> = Vec::new();
        if let Some(ports) = object.remove("ports") {
            for port in self.list(ports, "\"ports\"")? {
                let mut endpoint = self.port(port, nqn.is_none())?;
                endpoint.nqn.clone_from(&nqn);
                let same = endpoints.iter_mut().find(|known| {
                    known.kind == endpoint.kind && known.parameters == endpoint.parameters
                });
                match same {
                    Some(known) => known.paths.append(&mut endpoint.paths),
                    None => endpoints.push(endpoint),
                }
            }
        }
        // Data of other programs.
        object.remove("application");
        self.ignore(&object, "a subsystem")?;
        Ok(endpoints)
    }

    /// Port as an endpoint with one path, whose parameters are those of the endpoint.
    fn port(&mut self, raw: &'a RawValue, discovery: bool) -> Result<Endpoint, String> {
        let object = self.object(raw, "a port")?;
        let line = self.location(raw).line;
        let mut route = Route { line, ..Route::default() };
        let mut parameters = Parameters::default();
        let mut kind = if discovery { EndpointKind::Discovery } else { EndpointKind::Subsystem };
        for (name, raw) in object {
            let new_name = name.replace('_', "-");
            if name == "discovery" {
                if self.boolean_value(raw, "discovery")? {
                    kind = EndpointKind::Discovery;
                }
            } else if name == "persistent" {
                // This format has no word for `auto`.
                let word = if self.boolean_value(raw, "persistent")? { "force" } else { "no" };
                parameters.set(Key::find("persistent").expect("a known key"), word);
            } else if ADDRESS_KEYS.contains(&new_name.as_str()) {
                let value = self.scalar(raw, &name)?;
                let set = route.address.set(&new_name, &value);
                set.map_err(|reason| self.location(raw).message(reason))?;
            } else {
                self.set(&mut parameters, &name, raw)?;
            }
        }
        if let Some(what) = route.address.missing_field() {
            return Err(self.location(raw).message(format!("the port lacks \"{what}\"")));
        }
        if kind == EndpointKind::Subsystem {
            parameters = without_persistence(&parameters);
        }
        Ok(Endpoint { parameters, paths: vec![route], ..Endpoint::new(kind, line) })
    }

    /// Sets a parameter by its name in this format.
    fn set(
        &mut self,
        parameters: &mut Parameters,
        name: &str,
        raw: &'a RawValue,
    ) -> Result<(), String> {
        let key = Key::find_legacy(name)
            .filter(|key| matches!(key.scope, KeyScope::Tunable | KeyScope::Security));
        let Some(key) = key else { return self.unknown(name, raw, "a port") };
        let value = self.scalar(raw, name)?;
        key.check(&value).map_err(|reason| self.location(raw).message(reason))?;
        parameters.set(key, &value);
        Ok(())
    }

    fn object(&self, raw: &'a RawValue, what: &str) -> Result<Object<'a>, String> {
        let wrong = |_| self.location(raw).message(format!("{what} is not an object in braces"));
        serde_json::from_str(raw.get()).map_err(wrong)
    }

    fn list(&self, raw: &'a RawValue, what: &str) -> Result<Vec<&'a RawValue>, String> {
        let wrong = |_| self.location(raw).message(format!("{what} is not a list in brackets"));
        serde_json::from_str(raw.get()).map_err(wrong)
    }

    /// String, number or truth value, as a string.
    fn scalar(&self, raw: &RawValue, name: &str) -> Result<Zeroizing<String>, String> {
        match serde_json::from_str(raw.get()) {
            Ok(serde_json::Value::String(text)) => Ok(Zeroizing::new(text)),
            Ok(value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => {
                Ok(Zeroizing::new(value.to_string()))
            }
            _ => Err(self
                .location(raw)
                .message(format!("{name} is not a text, a number, true or false"))),
        }
    }

    fn boolean_value(&self, raw: &RawValue, name: &str) -> Result<bool, String> {
        let text = self.scalar(raw, name)?;
        boolean(&text).ok_or_else(|| self.location(raw).message(format!("{name} is true or false")))
    }

    /// Warns of the keys left in an object, or refuses them.
    fn ignore(&mut self, left: &Object<'a>, what: &str) -> Result<(), String> {
        left.iter().try_for_each(|(name, raw)| self.unknown(name, raw, what))
    }

    /// Warns of a key that is not known, or refuses it if it may be about security.
    fn unknown(&mut self, name: &str, raw: &'a RawValue, what: &str) -> Result<(), String> {
        let location = self.location(raw);
        if Key::is_about_security(name) || secret_text::may_be_secret(raw.get()) {
            return Err(location.message(format!(
                "this key of {what} is about security and is not known here, so that it would have \
                 no effect; known are dhchap_key of hosts and ports, and of ports dhchap_ctrl_key, \
                 tls, concat, tls_key, tls_key_identity and keyring"
            )));
        }
        self.warnings.push(location.message(format!("unknown key of {what} is ignored")));
        Ok(())
    }

    /// Line of a value. Raw values are slices of the text itself.
    fn location(&self, raw: &RawValue) -> SourceLocation<'a> {
        let offset = (raw.get().as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        SourceLocation { path: self.path, line }
    }
}

/// Parameters that a subsystem may have: `persistent` is for discovery controllers only.
fn without_persistence(parameters: &Parameters) -> Parameters {
    let mut kept = Parameters::default();
    for (key, value) in parameters.iter().filter(|(key, _)| key.scope != KeyScope::Discovery) {
        kept.set(key, value);
    }
    kept
}
