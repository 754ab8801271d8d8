//! `nvmf report-bug`: text for a bug report.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    thread::available_parallelism,
};

use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit};

use super::config;
use crate::{
    capture::PCAPNG,
    configuration::Configuration,
    environment::{self, Device, Port},
    failure::Failure,
    nvme_cli, output,
    output_file::OutputFile,
    secret_text, size,
};

/// Lines of the text, each with its explanation for the manual.
pub(super) const LINES: [(&str, &str); 13] = [
    ("nvmf", "Version of this program, and the commit that it was built from."),
    ("command", "Words behind --, with secrets left out: the command that the report is about."),
    ("system", "Distribution, as /etc/os-release names it."),
    ("kernel", "Name, release and machine of the running kernel."),
    ("rdma-core", "Version of the system's RDMA libraries, and the file of libibverbs in use."),
    ("processors", "Number of processors that this program may use, and their model."),
    ("locked memory", "Limit of locked memory, which memory that a device may reach counts for."),
    ("open files", "Limit of open files, of which each queue needs some, and how far it can rise."),
    ("access", "A file of the RDMA devices, and whether this user may open it."),
    ("device", "An RDMA device: its firmware, if any, and whether it is a program of the kernel."),
    ("port", "A port of the device above: state, link layer, speed, network interface, GID types."),
    (
        "configuration",
        "The configuration, as `nvmf config show` shows it without secrets, or what is wrong with \
         it.",
    ),
    ("capture", "Path and size of the file of --capture, which is to be sent with the text."),
];

#[derive(Args)]
pub(crate) struct Arguments {
    /// File that `--capture` of another command has written; the text names it.
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,

    /// Configuration to show instead of that in /etc/nvme.
    #[arg(short = 'J', long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// File to write the text to [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Words of the command that the report is about; it is not run.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Prints the text; `program` is the command line of nvmf.
pub(crate) fn run(arguments: &Arguments, program: &clap::Command) -> Result<(), Failure> {
    check_command(&arguments.command, program)?;
    let capture = arguments.capture.as_deref().map(describe_capture).transpose()?;
    let file = arguments.output.as_deref().map(OutputFile::open).transpose()?;
    let mut lines = host_lines(&arguments.command);
    lines.extend(device_lines());
    lines.push(("configuration", configuration(arguments.config.as_deref())));
    lines.extend(capture.map(|capture| ("capture", capture)));
    // No value is expected to have a secret; this holds also for what the user wrote elsewhere.
    let text = secret_text::without_secrets(&to_text(&lines));
    let Some(mut file) = file else { return output::print_text(&text) };
    file.write(text.into_bytes(), true)
}

/// Refuses words that name no command of nvmf, which may come after its own name. What follows them
/// may be wrong: the report may be about that.
fn check_command(words: &[OsString], program: &clap::Command) -> Result<(), Failure> {
    let name = words.first().filter(|&word| word == program.get_name());
    let words = &words[usize::from(name.is_some())..];
    let all = [&[program.get_name().into()], words].concat();
    let all = nvme_cli::replace_words(all, program);
    let command = all[1..].iter().find(|word| !word.to_string_lossy().starts_with('-'));
    if command.is_none_or(|word| program.find_subcommand(word).is_some()) {
        return Ok(());
    }
    Err(Failure::usage("what follows -- is no command of nvmf; see `nvmf --help`"))
}

/// Name of a line, one of [`LINES`], and its text.
type Line = (&'static str, String);

fn to_text(lines: &[Line]) -> String {
    let mut text = String::new();
    for (name, value) in lines {
        // More lines of a value are indented as the first one.
        let value = value.trim_end().replace('\n', &format!("\n{:16}", ""));
        let _ = writeln!(text, "{name:<15} {value}");
    }
    text
}

fn host_lines(command: &[OsString]) -> Vec<Line> {
    let unknown = || "unknown".to_owned();
    let commit = option_env!("NVMF_COMMIT").unwrap_or("unknown");
    let processors = available_parallelism().map_or(1, usize::from);
    let mut lines = vec![("nvmf", format!("{}, commit {commit}", env!("CARGO_PKG_VERSION")))];
    if !command.is_empty() {
        lines.push(("command", environment::shown_words(command)));
    }
    lines.extend([
        ("system", environment::distribution().unwrap_or_else(unknown)),
        ("kernel", environment::kernel()),
        ("rdma-core", rdma_core().unwrap_or_else(unknown)),
        (
            "processors",
            format!("{processors}, {}", environment::cpu_model().unwrap_or_else(unknown)),
        ),
        ("locked memory", limit(getrlimit(Resource::Memlock), size::format_bytes)),
        ("open files", limit(getrlimit(Resource::Nofile), |count| count.to_string())),
    ]);
    lines
}

/// Version in the name of libibverbs, as 44.0 in `libibverbs.so.1.14.44.0`, and its path.
fn rdma_core() -> Option<String> {
    let path = environment::libibverbs()?;
    let name = path.file_name()?.to_str()?;
    let numbers: Vec<_> = name.strip_prefix("libibverbs.so.")?.split('.').collect();
    let version = numbers.get(2..).filter(|rest| !rest.is_empty())?.join(".");
    Some(format!("{version}, {}", path.display()))
}

fn limit(limit: Rlimit, format: impl Fn(u64) -> String) -> String {
    let shown = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), &format);
    format!("{}, at most {}", shown(limit.current), shown(limit.maximum))
}

fn device_lines() -> Vec<Line> {
    let mut lines: Vec<_> =
        access_files().iter().map(|path| ("access", describe_access(path))).collect();
    let devices = Device::all();
    if devices.is_empty() {
        lines.push(("device", "none".to_owned()));
    }
    for device in devices {
        let kind = if device.is_software() { "software" } else { "hardware" };
        let firmware = device.firmware().map_or_else(String::new, |it| format!(", firmware {it}"));
        lines.push(("device", format!("{}, {kind}{firmware}", device.name())));
        lines.extend(device.ports().iter().map(|port| ("port", describe_port(port))));
    }
    lines
}

/// Files by which programs reach RDMA devices and the connection manager.
fn access_files() -> Vec<PathBuf> {
    let entries = fs::read_dir("/dev/infiniband").into_iter().flatten().flatten();
    let is_used = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name == "rdma_cm" || name.starts_with("uverbs")
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).filter(is_used).collect();
    paths.sort();
    paths
}

fn describe_access(path: &Path) -> String {
    match File::options().read(true).write(true).open(path) {
        Ok(_) => format!("{} can be opened", path.display()),
        Err(error) => format!("{}: {error}", path.display()),
    }
}

fn describe_port(port: &Port) -> String {
    let netdev = port.netdev().map(|name| match port.netdev_mtu() {
        Some(mtu) => format!("{name} (MTU {mtu})"),
        None => name,
    });
    let parts = [port.state(), port.link_layer(), port.speed(), netdev, port.gid_types()];
    let known: Vec<_> = [port.number()].into_iter().chain(parts.into_iter().flatten()).collect();
    known.join(", ")
}

fn configuration(path: Option<&Path>) -> String {
    let loaded = Configuration::load_with_warnings(path);
    match loaded.and_then(|configuration| configuration.connections()) {
        Ok(connections) if connections.is_empty() => "none".to_owned(),
        Ok(connections) => {
            let mut text = String::new();
            connections.iter().for_each(|connection| config::describe(&mut text, connection));
            text
        }
        Err(failure) => failure.to_string(),
    }
}

fn describe_capture(path: &Path) -> Result<String, Failure> {
    let shown = secret_text::shown_path(path);
    let read = || -> io::Result<(bool, u64)> {
        let mut start = Vec::new();
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        file.take(PCAPNG.len() as u64).read_to_end(&mut start)?;
        Ok((start == PCAPNG, bytes))
    };
    match read() {
        Ok((true, bytes)) => Ok(format!("{shown}, {}", size::format_bytes(bytes))),
        Ok((false, _)) => Err(Failure::usage(format!("{shown} is no capture (pcapng)"))),
        Err(error) => Err(Failure::usage(format!("cannot read {shown}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_explained() {
        let mut lines = host_lines(&["identify".into()]);
        lines.extend(device_lines());
        for (name, value) in &lines {
            assert!(LINES.iter().any(|(explained, _)| explained == name), "{name}");
            assert!(!value.is_empty(), "{name}");
        }
        let host = LINES.iter().take(lines.iter().take_while(|line| line.0 != "access").count());
        assert!(host.map(|line| line.0).zip(&lines).take(8).all(|(name, line)| name == line.0));
    }

    #[test]
    fn the_lines_of_a_value_stand_below_each_other() {
        let text = to_text(&[("nvmf", "1".to_owned()), ("configuration", "a\n    b\n".to_owned())]);
        assert_eq!(text, "nvmf            1\nconfiguration   a\n                    b\n");
    }
}
