//! Configuration in /etc/nvme: controllers to connect to, and their parameters. nvme-cli's three
//! formats are read into one model: the INI format of nvme-cli 3, and the JSON file and the list of
//! options of versions before it.

mod ini;
mod json;
mod key;
mod options;
mod resolve;
mod write;

use std::{
    fmt, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

pub(crate) use key::{Parameters, boolean, integer};
pub(crate) use resolve::Connection;
pub(crate) use write::install;

use crate::failure::Failure;

/// Main file of the INI format; its drop-ins are in the folder of that name with `.d`.
pub(crate) const INI: &str = "/etc/nvme/nvme-fabrics.conf";
const JSON: &str = "/etc/nvme/config.json";
const OPTIONS: &str = "/etc/nvme/discovery.conf";

/// Most bytes of a file; as in libnvme.
const BYTES_MAX: u64 = 1 << 20;

/// Files of a configuration, the main file first if there is one.
#[derive(Debug, Default)]
pub(crate) struct Configuration {
    pub(crate) files: Vec<Document>,
    /// Warnings of what was not understood and is ignored, each with its location.
    pub(crate) warnings: Vec<String>,
}

/// File of the INI format, or the equivalent part of another format: a host and its connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Document {
    pub(crate) path: PathBuf,
    /// True for a drop-in of the main file, which must name a host.
    drop_in: bool,
    host: Option<Host>,
    discovery_defaults: Option<Parameters>,
    io_defaults: Option<Parameters>,
    endpoints: Vec<Endpoint>,
}

/// Identity of this host for the endpoints of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Host {
    nqn: Option<String>,
    id: Option<String>,
    symbolic_name: Option<String>,
    parameters: Parameters,
}

/// Subsystem and the paths to it.
#[derive(Clone, Debug)]
struct Endpoint {
    kind: EndpointKind,
    /// NQN, if not the well-known one of discovery subsystems.
    nqn: Option<String>,
    parameters: Parameters,
    paths: Vec<Route>,
    line: usize,
}

/// Kind of a subsystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndpointKind {
    /// Discovery subsystem.
    Discovery,
    /// NVM subsystem, with namespaces.
    Subsystem,
}

/// Path to an endpoint.
#[derive(Clone, Debug, Default)]
struct Route {
    address: Address,
    parameters: Parameters,
    line: usize,
}

/// Address of a controller; fields as in nvme-cli.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) transport: String,
    pub(crate) traddr: String,
    pub(crate) trsvcid: Option<String>,
    pub(crate) host_traddr: Option<String>,
    pub(crate) host_iface: Option<String>,
}

/// Line of a file, for messages.
#[derive(Clone, Copy, Debug)]
struct SourceLocation<'a> {
    path: &'a Path,
    line: usize,
}

impl SourceLocation<'_> {
    /// Message about this line.
    fn message(self, text: impl fmt::Display) -> String {
        format!("{}:{}: {text}", self.path.display(), self.line)
    }
}

impl Configuration {
    /// Reads /etc/nvme: the INI format if a file of it is there, else the older two formats. The
    /// configuration is empty if there are no files.
    pub(crate) fn load_default() -> Result<Self, Failure> {
        Self::load_from(Path::new(INI), Path::new(JSON), Path::new(OPTIONS))
    }

    fn load_from(ini: &Path, json: &Path, options: &Path) -> Result<Self, Failure> {
        let configuration = Self::load_ini(ini)?;
        if !configuration.files.is_empty() {
            return Ok(configuration);
        }
        let mut configuration = Self::default();
        if let Some(text) = read(json)? {
            json::parse(json, &text, &mut configuration).map_err(Failure::usage)?;
        }
        if let Some(text) = read(options)? {
            options::parse(options, &text, &mut configuration).map_err(Failure::usage)?;
        }
        Ok(configuration)
    }

    /// Reads one file, whose name tells the format, and the drop-ins of a file of the INI format.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let mut configuration = Self::default();
        let missing = || Failure::usage(format!("{}: there is no such file", path.display()));
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = read(path)?.ok_or_else(missing)?;
            json::parse(path, &text, &mut configuration).map_err(Failure::usage)?;
        } else if path.file_name().is_some_and(|name| name == "discovery.conf") {
            let text = read(path)?.ok_or_else(missing)?;
            options::parse(path, &text, &mut configuration).map_err(Failure::usage)?;
        } else {
            configuration = Self::load_ini(path)?;
            if configuration.files.is_empty() {
                return Err(missing());
            }
        }
        Ok(configuration)
    }

    fn load_ini(main: &Path) -> Result<Self, Failure> {
        let mut configuration = Self::default();
        let drop_ins = drop_ins(main)?;
        let all = std::iter::once((main.to_owned(), false))
            .chain(drop_ins.into_iter().map(|path| (path, true)));
        for (path, drop_in) in all {
            let Some(text) = read(&path)? else { continue };
            let mut file =
                ini::parse(&path, &text, &mut configuration.warnings).map_err(Failure::usage)?;
            file.drop_in = drop_in;
            configuration.files.push(file);
        }
        Ok(configuration)
    }
}

impl Document {
    fn location(&self, line: usize) -> SourceLocation<'_> {
        SourceLocation { path: &self.path, line }
    }

    /// True if the file holds secrets.
    fn has_secret(&self) -> bool {
        let sections = [&self.discovery_defaults, &self.io_defaults];
        sections.into_iter().flatten().any(Parameters::has_secret)
            || self.host.iter().any(|host| host.parameters.has_secret())
            || self.endpoints.iter().any(|endpoint| endpoint.parameters.has_secret())
    }
}

impl Address {
    /// Sets the field of this name, an option of nvme-cli; returns false if there is none.
    fn set(&mut self, name: &str, value: &str) -> bool {
        let value = value.to_owned();
        match name {
            "transport" => self.transport = value,
            "traddr" => self.traddr = value,
            "trsvcid" => self.trsvcid = Some(value),
            "host-traddr" => self.host_traddr = Some(value),
            "host-iface" => self.host_iface = Some(value),
            _ => return false,
        }
        true
    }

    /// Name of a required field that is missing.
    fn missing_field(&self) -> Option<&'static str> {
        match (self.transport.is_empty(), self.traddr.is_empty()) {
            (true, _) => Some("transport"),
            (_, true) => Some("traddr"),
            _ => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.transport, self.traddr)?;
        match &self.trsvcid {
            Some(service) => write!(f, " {service}"),
            None => Ok(()),
        }
    }
}

/// Folder of the drop-ins of a file.
fn drop_in_folder(main: &Path) -> PathBuf {
    let mut name = main.as_os_str().to_owned();
    name.push(".d");
    name.into()
}

/// Drop-ins of a file, in the order of their names.
fn drop_ins(main: &Path) -> Result<Vec<PathBuf>, Failure> {
    let folder = drop_in_folder(main);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::failed(format!("{}: {error}", folder.display()))),
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|name| name == "conf")).collect();
    paths.sort();
    Ok(paths)
}

/// Text of a file, if the file exists.
fn read(path: &Path) -> Result<Option<String>, Failure> {
    let wrong = |what: &dyn fmt::Display| Failure::usage(format!("{}: {what}", path.display()));
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(&error)),
        Ok(about) if !about.is_file() => return Err(wrong(&"this is no file")),
        Ok(about) if about.len() > BYTES_MAX => {
            return Err(wrong(&"this has more than 1 MiB, and so is no configuration"));
        }
        Ok(_) => {}
    }
    fs::read_to_string(path).map(Some).map_err(|error| wrong(&error))
}

#[cfg(test)]
mod tests;
