//! The initiators that are compared, and the command line of each.

use std::path::PathBuf;

use super::sample::{self, Sample};

/// A program that reads and writes a namespace over fabrics, with the parameters of its run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Initiator {
    /// `asynchronous`, over our async API, with this way to wait.
    Async(&'static str),
    /// `asynchronous`, over the futures of a local poller, with this way to wait.
    LocalFutures(&'static str),
    /// The kernel's initiator under fio, with this engine; in batches of the depth or not.
    Fio { engine: &'static str, batched: bool },
    /// `bare_verbs`, with this way to wait.
    BareVerbs(&'static str, Class),
    /// The block device of `nvmf attach` under fio's io_uring; in batches of the depth or not.
    Device { batched: bool },
    /// Our engine of fio; in batches of the depth or not.
    Engine { batched: bool },
    /// `nvmf bench`, with this way to wait.
    Nvmf(&'static str, Class),
    /// A program that the user named.
    Program { name: String, command: String },
}

/// Scheduling of a program that polls, relative to others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Class {
    /// Runs when nothing else can (`SCHED_IDLE`).
    Idle,
    /// Runs with a small share of the processor (nice 19).
    Nice,
    /// Runs as the program itself chooses.
    Normal,
}

/// Load that an initiator is measured with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scenario {
    pub(crate) write: bool,
    pub(crate) random: bool,
    pub(crate) bytes: u32,
    pub(crate) depth: u16,
}

/// Parameters that all runs share.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Folder of our programs.
    pub(crate) programs: PathBuf,
    pub(crate) address: String,
    pub(crate) nqn: String,
    /// Path of the kernel's block device.
    pub(crate) device: String,
    /// Path of the block device of `nvmf attach`, if there is one.
    pub(crate) attached: Option<String>,
    /// Path of our engine of fio, if there is one.
    pub(crate) engine: Option<String>,
    pub(crate) length: Length,
}

/// Length of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Length {
    /// Seconds, after half a second of warming up.
    Seconds(f64),
    /// Commands, the first of them included. Only `nvmf bench` and fio can count.
    Commands(u64),
}

impl Setup {
    /// Seconds of a run of a program that cannot count commands.
    fn seconds(&self) -> f64 {
        match self.length {
            Length::Seconds(seconds) => seconds,
            Length::Commands(_) => unreachable!("this program is not run for a number of commands"),
        }
    }
}

impl Initiator {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Async(wait) => format!("ours, async, {wait}"),
            Self::LocalFutures(wait) => format!("ours, local futures, {wait}"),
            Self::Fio { engine, batched } => {
                format!("kernel, fio {engine}{}", in_batches(*batched))
            }
            Self::BareVerbs(wait, class) => format!("bare verbs, {wait}{}", class.name()),
            Self::Device { batched } => format!("ours, block device{}", in_batches(*batched)),
            Self::Engine { batched } => format!("ours, engine of fio{}", in_batches(*batched)),
            Self::Nvmf(wait, class) => format!("ours, {wait}{}", class.name()),
            Self::Program { name, .. } => name.clone(),
        }
    }

    /// Tells if it is the base of the ratios: the kernel's initiator, with an engine that can have
    /// more than one command in flight.
    pub(crate) fn is_base(&self) -> bool {
        matches!(self, Self::Fio { engine, .. } if *engine != "psync")
    }

    /// The command line, the program first.
    pub(crate) fn command(&self, scenario: &Scenario, setup: &Setup) -> Vec<String> {
        match self {
            Self::Async(wait) => asynchronous(wait, scenario, setup),
            Self::LocalFutures(wait) => {
                let mut words = asynchronous(wait, scenario, setup);
                words.push("--local".into());
                words
            }
            Self::Fio { engine, batched } => {
                fio(on_device(engine, &setup.device), *batched, scenario, setup)
            }
            Self::Device { batched } => {
                let device = setup.attached.as_deref().expect("attached before it is measured");
                fio(on_device("io_uring", device), *batched, scenario, setup)
            }
            Self::Engine { batched } => fio(with_engine(setup), *batched, scenario, setup),
            Self::BareVerbs(wait, class) => class.apply(bare_verbs(wait, scenario, setup)),
            Self::Nvmf(wait, class) => class.apply(nvmf(wait, scenario, setup)),
            Self::Program { command, .. } => {
                let filled = fill(command, scenario, setup);
                ["sh", "-c", &filled].map(str::to_owned).to_vec()
            }
        }
    }

    /// Parses the output of [`Self::command`].
    pub(crate) fn read(&self, text: &str) -> Option<Sample> {
        match self {
            Self::Fio { .. } | Self::Device { .. } | Self::Engine { .. } => sample::of_fio(text),
            Self::Nvmf(..) => sample::of_nvmf(text),
            Self::Async(_) | Self::BareVerbs(..) | Self::LocalFutures(_) | Self::Program { .. } => {
                sample::of_words(text)
            }
        }
    }
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Self::Idle => ", idle class",
            Self::Nice => ", nice 19",
            Self::Normal => "",
        }
    }

    fn apply(self, command: Vec<String>) -> Vec<String> {
        let before: &[&str] = match self {
            Self::Idle => &["chrt", "-i", "0"],
            Self::Nice => &["nice", "-n", "19"],
            Self::Normal => &[],
        };
        before.iter().map(|&word| word.to_owned()).chain(command).collect()
    }
}

impl Scenario {
    pub(crate) fn name(&self) -> String {
        let order = if self.random { "random" } else { "sequential" };
        let what = if self.write { "write" } else { "read" };
        let size = match self.bytes >> 10 {
            kilo if kilo >= 1024 => format!("{} MiB", kilo >> 10),
            kilo => format!("{kilo} KiB"),
        };
        format!("{size} {order} {what}, depth {}", self.depth)
    }

    /// Tells if its name contains `words`; a number at their end must be the whole number.
    pub(crate) fn is_called(&self, words: &str) -> bool {
        let name = self.name();
        name.match_indices(words).any(|(at, _)| {
            let next = name[at + words.len()..].chars().next();
            !next.is_some_and(|next| next.is_ascii_digit())
        })
    }

    /// Name of the access pattern, as fio and `nvmf bench` have it.
    fn pattern(&self) -> String {
        let order = if self.random { "rand" } else { "" };
        format!("{order}{}", if self.write { "write" } else { "read" })
    }
}

fn nvmf(wait: &str, scenario: &Scenario, setup: &Setup) -> Vec<String> {
    let mut words = own("nvmf", setup);
    words.push("bench".into());
    words.push(target(setup));
    words.extend(options(&[
        ("ns", "1".into()),
        ("wait", wait.into()),
        ("iodepth", scenario.depth.to_string()),
        ("rw", scenario.pattern()),
        ("bs", scenario.bytes.to_string()),
        ("output-format", "json".into()),
    ]));
    words.extend(match setup.length {
        Length::Seconds(seconds) => {
            ["--ramp=500ms".into(), format!("--runtime={}ms", seconds * 1e3)]
        }
        Length::Commands(count) => {
            ["--runtime=1h".into(), format!("--io-size={}", count * u64::from(scenario.bytes))]
        }
    });
    words.extend(scenario.write.then(|| "--overwrite".to_owned()));
    words
}

fn asynchronous(wait: &str, scenario: &Scenario, setup: &Setup) -> Vec<String> {
    let mut words = own("asynchronous", setup);
    words.extend([format!("{}:4420", setup.address), setup.nqn.clone()]);
    words.extend(options(&[
        ("wait", wait.into()),
        ("depth", scenario.depth.to_string()),
        ("bs", scenario.bytes.to_string()),
        ("runtime", setup.seconds().to_string()),
    ]));
    words.extend(scenario.write.then(|| "--write".to_owned()));
    words
}

fn bare_verbs(wait: &str, scenario: &Scenario, setup: &Setup) -> Vec<String> {
    let mut words = own("bare_verbs", setup);
    words.extend([format!("{}:4420", setup.address), setup.nqn.clone()]);
    words.extend(options(&[
        ("wait", wait.into()),
        ("depth", scenario.depth.to_string()),
        ("rw", if scenario.write { "write" } else { "read" }.into()),
        ("bs", scenario.bytes.to_string()),
        ("runtime", setup.seconds().to_string()),
    ]));
    words
}

fn fio(engine: Vec<String>, batched: bool, scenario: &Scenario, setup: &Setup) -> Vec<String> {
    let depth = scenario.depth.to_string();
    let mut words = vec!["fio".to_owned()];
    words.extend(engine);
    words.extend(options(&[
        ("name", "versus".into()),
        ("rw", scenario.pattern()),
        ("bs", scenario.bytes.to_string()),
        ("iodepth", depth.clone()),
        ("lat_percentiles", "1".into()),
        ("clat_percentiles", "0".into()),
        ("output-format", "json".into()),
    ]));
    words.extend(match setup.length {
        Length::Seconds(seconds) => {
            let runtime = format!("--runtime={}ms", seconds * 1e3);
            vec!["--time_based=1".into(), "--ramp_time=500ms".into(), runtime]
        }
        Length::Commands(count) => {
            vec![format!("--io_size={}", count * u64::from(scenario.bytes))]
        }
    });
    if scenario.random {
        words.push("--norandommap".into());
    }
    if batched {
        words.extend(options(&[
            ("iodepth_batch_submit", depth.clone()),
            ("iodepth_batch_complete_min", depth.clone()),
            ("iodepth_batch_complete_max", depth),
        ]));
    }
    words
}

/// Words by which fio uses a block device.
fn on_device(engine: &str, device: &str) -> Vec<String> {
    let device = device.to_owned();
    let pairs = [("filename", device), ("direct", "1".into()), ("ioengine", engine.into())];
    let mut words: Vec<_> = options(&pairs).collect();
    if engine == "io_uring" {
        words.extend(["--fixedbufs".into(), "--registerfiles".into()]);
    }
    words
}

/// Words by which fio uses our engine, with one thread for its one job.
fn with_engine(setup: &Setup) -> Vec<String> {
    let engine = setup.engine.as_deref().expect("built before it is measured");
    let engine = format!("external:{engine}");
    let pairs = [("ioengine", engine), ("target", target(setup)), ("ns", "1".into())];
    options(&pairs).chain(["--thread".into()]).collect()
}

fn target(setup: &Setup) -> String {
    format!("nvmf-rdma://{}/{}", setup.address, setup.nqn)
}

fn in_batches(batched: bool) -> &'static str {
    if batched { ", batched" } else { "" }
}

/// Command line that begins with one of our programs.
fn own(name: &str, setup: &Setup) -> Vec<String> {
    vec![setup.programs.join(name).to_string_lossy().into_owned()]
}

fn options(pairs: &[(&str, String)]) -> impl Iterator<Item = String> {
    pairs.iter().map(|(name, value)| format!("--{name}={value}"))
}

/// Command of a user with the values of this run filled in.
fn fill(command: &str, scenario: &Scenario, setup: &Setup) -> String {
    let values = [
        ("{address}", setup.address.clone()),
        ("{nqn}", setup.nqn.clone()),
        ("{device}", setup.device.clone()),
        ("{depth}", scenario.depth.to_string()),
        ("{rw}", scenario.pattern()),
        ("{bytes}", scenario.bytes.to_string()),
        ("{seconds}", setup.seconds().ceil().to_string()),
    ];
    values.iter().fold(command.to_owned(), |text, (name, value)| text.replace(name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCENARIO: Scenario = Scenario { write: false, random: true, bytes: 4096, depth: 32 };

    fn setup() -> Setup {
        Setup {
            programs: "/ours".into(),
            address: "192.0.2.1".into(),
            nqn: "nqn.2014-08.org.example:disk".into(),
            device: "/dev/nvme0n1".into(),
            attached: None,
            engine: Some("/ours/nvmf-fio.so".into()),
            length: Length::Seconds(1.5),
        }
    }

    #[test]
    fn scenarios_have_names_for_people() {
        assert_eq!(SCENARIO.name(), "4 KiB random read, depth 32");
        let large = Scenario { write: true, random: false, bytes: 1 << 20, depth: 8 };
        assert_eq!(large.name(), "1 MiB sequential write, depth 8");
        assert!(SCENARIO.is_called("depth 32") && SCENARIO.is_called("read"));
        assert!(!SCENARIO.is_called("depth 3") && !SCENARIO.is_called("write"));
    }

    #[test]
    fn a_program_of_the_users_is_told_where_and_how_much() {
        let program = Initiator::Program {
            name: "peer".into(),
            command: "peer -r {address}/{nqn} -q {depth} -o {bytes} -w {rw} -t {seconds}".into(),
        };
        let expected =
            "peer -r 192.0.2.1/nqn.2014-08.org.example:disk -q 32 -o 4096 -w randread -t 2";
        assert_eq!(program.command(&SCENARIO, &setup()), ["sh", "-c", expected]);
    }

    #[test]
    fn batches_are_as_large_as_the_depth() {
        let fio = Initiator::Fio { engine: "libaio", batched: true };
        let words = fio.command(&SCENARIO, &setup());
        assert!(words.contains(&"--iodepth_batch_submit=32".into()), "{words:?}");
        assert!(words.contains(&"--runtime=1500ms".into()), "{words:?}");
    }

    #[test]
    fn a_number_of_commands_is_a_number_of_bytes() {
        let setup = Setup { length: Length::Commands(10), ..setup() };
        let engine = Initiator::Engine { batched: false }.command(&SCENARIO, &setup);
        assert!(engine.contains(&"--io_size=40960".into()), "{engine:?}");
        assert!(engine.contains(&"--ioengine=external:/ours/nvmf-fio.so".into()), "{engine:?}");
        let ours = Initiator::Nvmf("poll", Class::Normal).command(&SCENARIO, &setup);
        assert!(ours.contains(&"--io-size=40960".into()), "{ours:?}");
    }
}
