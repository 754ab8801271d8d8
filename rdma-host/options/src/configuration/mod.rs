//! Configuration in /etc/nvme: controllers to connect to, and their parameters. nvme-cli's three
//! formats are read into one model: the INI format of nvme-cli 3, and the JSON file and the list of
//! options of versions before it.

mod connect_options;
mod ini;
mod json;
mod key;
mod lookup;
mod options;
mod resolve;
mod write;

use std::{
    fmt, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use uuid::Uuid;
use zeroize::Zeroizing;

pub use connect_options::GivenOptions;
pub use key::Parameters;
pub use lookup::{configured_authentication, configured_connection};
pub use resolve::Connection;
pub use write::install;

use key::boolean;

use crate::{
    failure::Failure,
    option_value::{self, NONE},
    program, secret_text, secrets, text_file,
};

/// Main file of the INI format; its drop-ins are in the folder of that name with `.d`.
pub const INI: &str = "/etc/nvme/nvme-fabrics.conf";
const JSON: &str = "/etc/nvme/config.json";
const OPTIONS: &str = "/etc/nvme/discovery.conf";

/// Most bytes of a file; as in libnvme.
const BYTES_MAX: usize = 1 << 20;

/// Files of a configuration, the main file first if there is one.
#[derive(Debug, Default)]
pub struct Configuration {
    /// Files.
    pub files: Vec<Document>,
    /// Warnings of what was not understood and is ignored, each with its location.
    pub warnings: Vec<String>,
}

/// File of the INI format, or the equivalent part of another format: a host and its connections.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// Path of the file.
    pub path: PathBuf,
    /// True for a drop-in of the main file, which must name a host.
    drop_in: bool,
    host: Option<Host>,
    discovery_defaults: Option<Parameters>,
    io_defaults: Option<Parameters>,
    endpoints: Vec<Endpoint>,
    /// Reason for which secrets in this file are not safe.
    exposure: Option<String>,
}

/// Text of a file, and the reason for which secrets in it are not safe.
struct ConfigurationText {
    text: Zeroizing<String>,
    exposure: Option<String>,
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
pub enum EndpointKind {
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
pub struct Address {
    /// Transport, `rdma` in any case for one that is supported.
    pub transport: String,
    /// Address, or name of a host.
    pub traddr: String,
    /// Port.
    pub trsvcid: Option<String>,
    /// Address of this host to use.
    pub host_traddr: Option<String>,
    /// Network interface to use.
    pub host_iface: Option<String>,
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

/// Parser of one format, which adds documents and warnings.
type Parser = fn(&Path, &str, &mut Configuration) -> Result<(), String>;

impl Configuration {
    /// Reads /etc/nvme: the INI format if a file of it is there, else the older two formats. The
    /// configuration is empty if there are no files.
    pub fn load_default() -> Result<Self, Failure> {
        Self::load_from(Path::new(INI), Path::new(JSON), Path::new(OPTIONS))
    }

    fn load_from(ini: &Path, json: &Path, options: &Path) -> Result<Self, Failure> {
        let configuration = Self::load_ini(ini)?;
        if !configuration.files.is_empty() {
            return Ok(configuration);
        }
        let mut configuration = Self::default();
        for (path, parse) in [(json, json::parse as Parser), (options, options::parse)] {
            if let Some(read) = read(path)? {
                configuration.add(path, &read, parse)?;
            }
        }
        Ok(configuration)
    }

    /// Reads one file, or /etc/nvme.
    fn load_or_default(path: Option<&Path>) -> Result<Self, Failure> {
        path.map_or_else(Self::load_default, Self::load)
    }

    /// Reads one file, or /etc/nvme, and prints what is not understood.
    pub fn load_with_warnings(path: Option<&Path>) -> Result<Self, Failure> {
        let configuration = Self::load_or_default(path)?;
        for warning in &configuration.warnings {
            program::warn(format_args!("{warning}"));
        }
        Ok(configuration)
    }

    /// Reads one file, and the drop-ins of a file of the INI format. The format is told by the
    /// name, and JSON of any name by its first characters.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let missing =
            || Failure::usage(format!("{}: there is no such file", secret_text::shown_path(path)));
        let file = read(path)?.ok_or_else(missing)?;
        let named_json = path.extension().is_some_and(|extension| extension == "json");
        let mut configuration = Self::default();
        if named_json || is_json(&file.text) {
            configuration.add(path, &file, json::parse)?;
        } else if path.file_name().is_some_and(|name| name == "discovery.conf") {
            configuration.add(path, &file, options::parse)?;
        } else {
            configuration = Self::load_ini(path)?;
        }
        Ok(configuration)
    }

    /// Adds the documents of a file.
    fn add(&mut self, path: &Path, file: &ConfigurationText, parse: Parser) -> Result<(), Failure> {
        let known = self.files.len();
        parse(path, &file.text, self).map_err(Failure::usage)?;
        for document in &mut self.files[known..] {
            document.exposure.clone_from(&file.exposure);
        }
        Ok(())
    }

    /// Refuses secrets in a file that another user may have written or can read.
    pub fn check_secrecy(&self) -> Result<(), Failure> {
        let mut exposed = self.files.iter().filter(|file| file.has_secret());
        match exposed.find_map(|file| file.exposure.as_ref()) {
            Some(reason) => Err(Failure::usage(format!("a configuration with secrets: {reason}"))),
            None => Ok(()),
        }
    }

    fn load_ini(main: &Path) -> Result<Self, Failure> {
        let mut configuration = Self::default();
        let drop_ins = drop_ins(main)?;
        let all = std::iter::once((main.to_owned(), false))
            .chain(drop_ins.into_iter().map(|path| (path, true)));
        for (path, drop_in) in all {
            let Some(read) = read(&path)? else { continue };
            configuration.add(&path, &read, |path, text, configuration| {
                let document = ini::parse(path, text, &mut configuration.warnings)?;
                configuration.files.push(document);
                Ok(())
            })?;
            configuration.files.last_mut().expect("it was just added").drop_in = drop_in;
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
    /// Sets the field of this name, one of [`ADDRESS_KEYS`]. `none` stands for a field that is not
    /// set. A value is refused that is no address and no name: it may be a secret, and addresses
    /// are shown.
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let value = Some(value).filter(|value| !value.is_empty() && *value != NONE);
        let allowed = |c: char| c.is_ascii_alphanumeric() || ".:%-_".contains(c);
        if value
            .is_some_and(|value| !value.chars().all(allowed) || secret_text::may_be_secret(value))
        {
            return Err(format!("{name} has no value that makes sense"));
        }
        let is_port = |value: &str| value.parse().is_ok_and(|port: u16| port != 0);
        if name == "trsvcid" && !value.is_none_or(is_port) {
            return Err(format!("{name} takes a port, 1 to 65535"));
        }
        let value = value.map(str::to_owned);
        match name {
            "transport" => self.transport = value.unwrap_or_default(),
            "traddr" => self.traddr = value.unwrap_or_default(),
            "trsvcid" => self.trsvcid = value,
            "host-traddr" => self.host_traddr = value,
            _ => self.host_iface = value,
        }
        Ok(())
    }

    /// Keys and values of the fields that are set, as on a controller line.
    fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let values = [
            Some(&self.transport),
            Some(&self.traddr),
            self.trsvcid.as_ref(),
            self.host_traddr.as_ref(),
            self.host_iface.as_ref(),
        ];
        ADDRESS_KEYS.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?.as_str())))
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

impl Host {
    /// Sets a part of the identity; an empty value, and `none`, stand for that of the system.
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let value = Some(value).filter(|value| !value.is_empty() && *value != NONE);
        match name {
            "hostnqn" => {
                self.nqn = value.map(|value| option_value::nqn(name, value)).transpose()?
            }
            "hostid" => {
                let id = value.map(str::parse::<Uuid>).transpose().ok();
                let id = id.filter(|id| !id.is_some_and(|id| id.is_nil()));
                let id = id.ok_or("hostid is a UUID that is not zero; `uuidgen` makes one")?;
                self.id = id.map(|id| id.to_string());
            }
            _ => self.symbolic_name = value.map(str::to_owned),
        }
        Ok(())
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

/// Keys of the address of a controller.
const ADDRESS_KEYS: [&str; 5] = ["transport", "traddr", "trsvcid", "host-traddr", "host-iface"];

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

/// Text of a file, if the file exists. From here on the process is closed to others: the file may
/// hold secrets.
fn read(path: &Path) -> Result<Option<ConfigurationText>, Failure> {
    let read = text_file::open(path).and_then(|(file, metadata)| {
        program::protect();
        let exposure = secrets::exposure(path, &metadata);
        Ok(ConfigurationText { text: text_file::read(file, BYTES_MAX)?, exposure })
    });
    match read {
        Ok(read) => Ok(Some(read)),
        // A link to a file that is missing is not a missing file.
        Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => Ok(None),
        Err(error) => Err(Failure::usage(format!("{}: {error}", secret_text::shown_path(path)))),
    }
}

/// True for a text that is JSON in no other format's eyes: an object, or a list of objects. A
/// section of the INI format starts with a bracket, too.
fn is_json(text: &str) -> bool {
    let text = text.trim_start();
    let list = text.strip_prefix('[').map(str::trim_start);
    text.starts_with('{') || list.is_some_and(|inside| inside.starts_with(['{', ']']))
}

#[cfg(test)]
mod tests;
