//! Writing the INI format: a main file for the system's own identity, and a drop-in for each
//! other host.

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{
    Configuration, Connection, Document, Endpoint, EndpointKind, Parameters, drop_in_folder,
    drop_ins,
};
use crate::failure::Failure;

/// File to write.
#[derive(Debug)]
pub struct Output {
    pub path: PathBuf,
    pub text: String,
    secret: bool,
}

impl Configuration {
    /// Files of the INI format with this main file.
    pub fn outputs(&self, main: &Path) -> Result<Vec<Output>, Failure> {
        let wanted = self.connections()?;
        let mut merged: Vec<Document> = Vec::new();
        for file in &self.files {
            match merged.iter_mut().find(|known| known.can_merge(file)) {
                Some(known) => known.endpoints.extend_from_slice(&file.endpoints),
                None => merged.push(file.clone()),
            }
        }
        let (named, system): (Vec<_>, Vec<_>) = merged
            .into_iter()
            .partition(|file| file.host.as_ref().is_some_and(|host| host.nqn.is_some()));
        let text: Vec<_> = system.iter().map(Document::to_ini).collect();
        let secret = system.iter().any(Document::has_secret);
        let mut outputs = vec![Output { path: main.to_owned(), text: text.join("\n"), secret }];
        for (number, file) in (100..).zip(&named) {
            let path = drop_in_folder(main).join(format!("{number}-host.conf"));
            outputs.push(Output { path, text: file.to_ini(), secret: file.has_secret() });
        }
        verify(&outputs, &wanted).map_err(|reason| {
            Failure::failed(format!("this can't be written in the INI format: {reason}"))
        })?;
        Ok(outputs)
    }
}

/// Checks that the files, when read, describe the wanted connections.
fn verify(outputs: &[Output], wanted: &[Connection]) -> Result<(), String> {
    let mut reread = Configuration::default();
    for output in outputs {
        let mut file = super::ini::parse(&output.path, &output.text, &mut reread.warnings)?;
        file.drop_in = !reread.files.is_empty();
        reread.files.push(file);
    }
    let reread = reread.connections().map_err(|failure| failure.to_string())?;
    let same = |wanted: &Connection, found: &Connection| {
        let there = Connection { path: found.path.clone(), line: found.line, ..wanted.clone() };
        there == *found
    };
    let lost = wanted.iter().find(|wanted| !reread.iter().any(|found| same(wanted, found)));
    match lost {
        Some(lost) => {
            Err(format!("{}:{} has a value it can't hold", lost.path.display(), lost.line))
        }
        None if reread.len() == wanted.len() => Ok(()),
        None => Err("a value would be taken for another connection".to_owned()),
    }
}

/// Writes all files or none; those with secrets are readable by their owner only. Existing files
/// are not overwritten, unless `force` is set.
pub fn install(outputs: &[Output], main: &Path, force: bool) -> Result<(), Failure> {
    let old: Vec<_> = drop_ins(main)?.into_iter().chain([main.to_owned()]).collect();
    if let Some(old) = old.iter().find(|path| path.exists()).filter(|_| !force) {
        let text = format!("{} is there already; --force overwrites it", old.display());
        return Err(Failure::usage(text));
    }
    let failed =
        |path: &Path, error: &io::Error| Failure::failed(format!("{}: {error}", path.display()));
    let mut written = Vec::new();
    let outcome = outputs.iter().try_for_each(|output| {
        let temporary = output.path.with_extension("conf.new");
        let result = write(&temporary, output);
        written.push(temporary);
        result.map_err(|error| failed(&output.path, &error))
    });
    let outcome = outcome.and_then(|()| {
        outputs.iter().zip(&written).try_for_each(|(output, temporary)| {
            fs::rename(temporary, &output.path).map_err(|error| failed(&output.path, &error))
        })
    });
    if outcome.is_err() {
        // Errors are ignored: a missing file was renamed, or never made.
        written.iter().for_each(|path| drop(fs::remove_file(path)));
    }
    outcome
}

fn write(path: &Path, output: &Output) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let _ = fs::remove_file(path);
    let mode = if output.secret { 0o600 } else { 0o644 };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(output.text.as_bytes())?;
    file.sync_all()
}

impl Document {
    /// True if the connections of another file can be part of this one.
    fn can_merge(&self, other: &Self) -> bool {
        let plain = |file: &Self| file.discovery_defaults.is_none() && file.io_defaults.is_none();
        self.host == other.host && plain(other) && (plain(self) || !other.drop_in)
    }

    /// File in the INI format.
    fn to_ini(&self) -> String {
        let mut text = String::new();
        let defaults = [
            ("Discovery Controller Defaults", &self.discovery_defaults),
            ("I/O Controller Defaults", &self.io_defaults),
        ];
        for (name, defaults) in defaults {
            if let Some(defaults) = defaults {
                section(&mut text, name);
                assign_all(&mut text, defaults);
            }
        }
        if let Some(host) = &self.host {
            section(&mut text, "Host");
            let identity = [
                ("hostnqn", &host.nqn),
                ("hostid", &host.id),
                ("hostsymname", &host.symbolic_name),
            ];
            for (key, value) in identity {
                if let Some(value) = value {
                    assign(&mut text, key, value);
                }
            }
            assign_all(&mut text, &host.parameters);
        }
        self.endpoints.iter().for_each(|endpoint| endpoint.write(&mut text));
        text
    }
}

impl Endpoint {
    fn write(&self, text: &mut String) {
        let name = match self.kind {
            EndpointKind::Discovery => "Discovery Controller",
            EndpointKind::Subsystem => "Subsystem",
        };
        section(text, name);
        if let Some(nqn) = &self.nqn {
            assign(text, "nqn", nqn);
        }
        assign_all(text, &self.parameters);
        for path in &self.paths {
            let pairs = path.address.pairs();
            let more = path.parameters.iter().map(|(key, value)| (key.name, value));
            let pairs: Vec<_> =
                pairs.chain(more).map(|(key, value)| format!("{key}={value}")).collect();
            assign(text, "controller", &pairs.join(";"));
        }
    }
}

fn section(text: &mut String, name: &str) {
    separate(text);
    let _ = writeln!(text, "[{name}]");
}

fn separate(text: &mut String) {
    if !text.is_empty() {
        text.push('\n');
    }
}

fn assign_all(text: &mut String, parameters: &Parameters) {
    for (key, value) in parameters.iter() {
        assign(text, key.name, value);
    }
}

fn assign(text: &mut String, key: &str, value: &str) {
    let _ = writeln!(text, "{}", format!("{key} = {value}").trim_end());
}
