//! Job file of `nvmf bench`: TOML, whose keys are the names of the options. Each section is a job
//! of its own, and they run one after the other; `[global]` has the options of all. What the
//! command line gives takes precedence.
//!
//! ```text
//! [global]
//! target = "nvmf-rdma://192.0.2.7/nqn.2014-08.org.example:disk"
//! ns = 1
//! runtime = "30s"
//!
//! [read-latency]
//! iodepth = 1
//!
//! [mixed]
//! rw = "randrw"
//! bs = "4K:70,64K:30"
//! ```
//!
//! No message quotes a value: it may be a secret in the wrong place.

use std::{ffi::OsString, path::Path};

use clap::{
    Arg, ArgAction, ArgMatches, Command, FromArgMatches,
    error::{ContextKind, ContextValue},
    parser::ValueSource,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::arguments::Arguments;
use crate::{failure::Failure, secret_text, text_file};

/// Most bytes of a job file.
const BYTES_MAX: usize = 1 << 20;
/// Most jobs of a file.
const JOBS_MAX: usize = 1000;
/// Section with the options of all jobs.
const GLOBAL: &str = "global";

/// Options that no file gives, and why.
const REFUSED: [(&str, &str); 6] = [
    ("job", "a job file names no other"),
    ("compare", "it is for the command line"),
    ("overwrite", "consent is for the command line; give --overwrite there"),
    ("force", "consent is for the command line; give --force there"),
    ("dhchap-secret", "a job file has no secrets; use dhchap-secret-file"),
    ("dhchap-ctrl-secret", "a job file has no secrets; use dhchap-ctrl-secret-file"),
];

/// Options of all jobs together.
const GLOBAL_ONLY: [&str; 9] = [
    "baseline",
    "capture",
    "capture-data",
    "capture-size",
    "fail-if-worse",
    "hlog",
    "html",
    "json",
    "output-format",
];

/// Measurement with its own options: one of a job file, or the only one.
pub(crate) struct Job {
    /// Name of the section.
    pub(super) name: Option<String>,
    pub(super) arguments: Arguments,
}

impl Job {
    pub(crate) fn unnamed(arguments: Arguments) -> Self {
        Self { name: None, arguments }
    }
}

/// Option of a section.
struct JobOption {
    /// Id of the argument that it gives.
    id: String,
    key: String,
    line: usize,
    words: Vec<OsString>,
}

struct Section {
    name: String,
    line: usize,
    options: Vec<JobOption>,
}

/// Jobs of a file. `words` is the command line, which `program` has accepted.
pub(crate) fn read(
    path: &Path,
    words: &[OsString],
    program: &Command,
) -> Result<Vec<Job>, Failure> {
    let wrong = |line: Option<usize>, reason: &str| {
        let line = line.map(|line| format!("{line}: ")).unwrap_or_default();
        Failure::usage(format!("{}:{line}{reason}", secret_text::shown_path(path)))
    };
    let text = text_file::open(path).and_then(|(file, _)| text_file::read(file, BYTES_MAX));
    let text = text.map_err(|error| wrong(None, &format!(" {error}")))?;
    let bench = program.find_subcommand("bench").expect("a command of the program");
    let sections = sections(&text, bench).map_err(|(line, reason)| wrong(Some(line), &reason))?;
    let given = program.clone().try_get_matches_from(words).expect("it was accepted");
    let given = given.subcommand_matches("bench").expect("the command is bench");
    let (global, jobs): (Vec<_>, Vec<_>) =
        sections.into_iter().partition(|section| section.name == GLOBAL);
    let global: Vec<_> = global.into_iter().flat_map(|section| section.options).collect();
    if jobs.is_empty() || jobs.len() > JOBS_MAX {
        return Err(wrong(None, &format!(" a job file has 1 to {JOBS_MAX} sections of jobs")));
    }
    let jobs = jobs.into_iter().map(|section| {
        section
            .parse(&global, words, given, program)
            .map_err(|(line, reason)| wrong(Some(line), &reason))
    });
    jobs.collect()
}

/// Sections in the order of the file, or the line of an error and its reason.
fn sections(text: &str, bench: &Command) -> Result<Vec<Section>, (usize, String)> {
    let line = |at: usize| text[..at].matches('\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| {
        (line(error.span().map_or(0, |span| span.start)), error.message().to_owned())
    })?;
    let table = table.into_inner();
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let sections = entries.into_iter().map(|(name, value)| {
        let at = line(name.span().start);
        let DeValue::Table(options) = value.get_ref() else {
            let section = "options belong to a section; put [global] before those of all jobs";
            return Err((at, section.to_owned()));
        };
        let mut options: Vec<_> = options.iter().collect();
        options.sort_by_key(|(key, _)| key.span().start);
        let options = options.into_iter().map(|(key, value)| {
            let at = line(key.span().start);
            let option = JobOption::new(key.get_ref(), value, at, name.get_ref(), bench);
            option.map_err(|reason| (at, reason))
        });
        let options = options.collect::<Result<_, _>>()?;
        Ok(Section { name: name.get_ref().clone().into_owned(), line: at, options })
    });
    sections.collect()
}

impl JobOption {
    fn new(
        key: &str,
        value: &Spanned<DeValue<'_>>,
        line: usize,
        section: &str,
        bench: &Command,
    ) -> Result<Self, String> {
        let is_named = |argument: &&Arg| {
            let aliases = argument.get_visible_aliases().unwrap_or_default();
            argument.get_long() == Some(key)
                || aliases.contains(&key)
                || (key == "target" && argument.get_id() == key)
        };
        let Some(argument) = bench.get_arguments().find(is_named) else {
            // A key of another form may be anything, also a secret.
            let is_shown =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
            let key = if key.chars().all(is_shown) { key } else { "this key" };
            return Err(format!("{key} is no option of nvmf bench; see `nvmf bench --help`"));
        };
        let name = argument.get_long().unwrap_or(key);
        if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            return Err(format!("{key}: {reason}"));
        }
        if section != GLOBAL && GLOBAL_ONLY.contains(&name) {
            return Err(format!("{key} is for all jobs; put it under [global]"));
        }
        let words = words(argument, value.get_ref())
            .ok_or_else(|| format!("{key}: a value of another type is due"))?;
        Ok(Self { id: argument.get_id().to_string(), key: key.to_owned(), line, words })
    }
}

/// Words of the command line for an option, if the value has the type that it takes.
fn words(argument: &Arg, value: &DeValue<'_>) -> Option<Vec<OsString>> {
    let word = |value: &str| match argument.get_long() {
        Some(name) => format!("--{name}={value}").into(),
        None => value.into(),
    };
    match (argument.get_action(), value) {
        (ArgAction::SetTrue, DeValue::Boolean(true)) => {
            Some(vec![format!("--{}", argument.get_long()?).into()])
        }
        (ArgAction::SetTrue, DeValue::Boolean(false)) => Some(Vec::new()),
        (ArgAction::Append, DeValue::Array(values)) => {
            values.iter().map(|value| Some(word(&scalar(value.get_ref())?))).collect()
        }
        (ArgAction::Set | ArgAction::Append, value) => Some(vec![word(&scalar(value)?)]),
        _ => None,
    }
}

/// Text or number as on the command line.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    }
}

impl Section {
    /// Job with the options of the file that the command line does not give.
    fn parse(
        self,
        global: &[JobOption],
        words: &[OsString],
        given: &ArgMatches,
        program: &Command,
    ) -> Result<Job, (usize, String)> {
        let own = |id: &str| self.options.iter().any(|option| option.id == id);
        let inherited = global.iter().filter(|option| !own(&option.id));
        let is_given =
            |option: &&JobOption| given.value_source(&option.id) == Some(ValueSource::CommandLine);
        let options: Vec<_> =
            inherited.chain(&self.options).filter(|option| !is_given(option)).collect();
        let mut line = words.to_vec();
        line.extend(options.iter().flat_map(|option| option.words.iter().cloned()));
        let parsed = program.clone().try_get_matches_from(line).and_then(|matches| {
            let bench = matches.subcommand_matches("bench").expect("the command is bench");
            Arguments::from_arg_matches(bench)
        });
        match parsed {
            Ok(arguments) => Ok(Job { name: Some(self.name), arguments }),
            Err(error) => Err(self.reason(&options, &error)),
        }
    }

    /// Line and reason for which clap refused an option, without its value.
    fn reason(&self, options: &[&JobOption], error: &clap::Error) -> (usize, String) {
        let text = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.as_str()),
            _ => None,
        };
        let argument = text(ContextKind::InvalidArg).unwrap_or_default();
        let name = argument.trim_start_matches('-').split([' ', '=']).next().unwrap_or_default();
        let option = options.iter().find(|option| {
            let word = option.words.first().and_then(|word| word.to_str()).unwrap_or_default();
            word.strip_prefix("--").is_some_and(|word| word.split('=').next() == Some(name))
        });
        let valid = match error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(values)) => format!("; use {}", values.join(", ")),
            _ => String::new(),
        };
        match option {
            Some(option) => {
                let key = &option.key;
                (
                    option.line,
                    format!("{key} does not take this value{valid}; see `nvmf bench --help`"),
                )
            }
            None => {
                let reason = "the options of this job contradict each other";
                (self.line, format!("{reason}; see `nvmf bench --help`"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::CommandFactory;

    use super::*;

    /// Jobs of a file with this text and more words of the command line.
    fn jobs(text: &str, more: &str) -> Result<Vec<Job>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("job.toml");
        fs::write(&path, text).unwrap();
        let words = format!("nvmf bench --job x {more}");
        let words: Vec<_> = words.split_whitespace().map(OsString::from).collect();
        read(&path, &words, &crate::Arguments::command()).map_err(|failure| {
            assert_eq!(failure.exit_code(), 2);
            let message = failure.to_string();
            message.replace(path.to_str().unwrap(), "job.toml")
        })
    }

    fn points(jobs: &[Job]) -> Vec<String> {
        let point = |job: &Job| {
            let points: Vec<_> = job.arguments.points().iter().map(ToString::to_string).collect();
            format!("{}: {}", job.name.as_ref().unwrap(), points.join("; "))
        };
        jobs.iter().map(point).collect()
    }

    const FILE: &str = "[global]\ntarget = \"nvmf-rdma://192.0.2.7/nqn.x\"\niodepth = 4\nbs = \
                        '8K'\n\n[two]\nqueues = 2\niodepth = 1\n[one]\nrw = 'randrw'\nrate = \
                        '10k,5k'\nverify = true\n[three]\nsweep = ['queues=1,2']\n";

    #[test]
    fn sections_are_jobs_in_their_order_with_the_options_of_all() {
        let found = jobs(FILE, "").unwrap();
        assert_eq!(
            points(&found),
            [
                "two: 8 KiB, depth 1",
                "one: 8 KiB, depth 4, 10000 reads and 5000 writes a second",
                "three: 8 KiB, depth 4 on 1 queue; 8 KiB, depth 4 on 2 queues",
            ]
        );
        assert!(found[1].arguments.verify && !found[0].arguments.verify);
        assert_eq!(found[0].arguments.load.target.nr_io_queues, Some(2));
        let target = found[2].arguments.load.target.target();
        assert_eq!(target, Some("nvmf-rdma://192.0.2.7/nqn.x"));
    }

    #[test]
    fn the_command_line_takes_precedence() {
        let found = jobs(FILE, "nvmf-rdma://192.0.2.9/nqn.y --iodepth 7 --bs 4K").unwrap();
        assert_eq!(points(&found)[0], "two: 4 KiB, depth 7");
        let target = found[0].arguments.load.target.target();
        assert_eq!(target, Some("nvmf-rdma://192.0.2.9/nqn.y"));
    }

    #[test]
    fn what_is_wrong_is_told_by_its_line() {
        for (text, message) in [
            ("[a]\niodepht = 1\n", "job.toml:2: iodepht is no option of nvmf bench"),
            ("[a]\n\niodepth = 'x'\n", "job.toml:3: iodepth does not take this value"),
            ("[a]\nrw = 'sideways'\n", "job.toml:2: rw does not take this value; use randread"),
            ("[global]\nrw = 'x'\n[a]\n", "job.toml:2: rw does not take"),
            ("[a]\niodepth = [1]\n", "job.toml:2: iodepth: a value of another type"),
            ("[a]\nverify = 1\n", "job.toml:2: verify: a value of another type"),
            ("[a]\nrate = 0x10\n", "job.toml:2: rate: a value of another type"),
            ("rw = 'read'\n", "job.toml:1: options belong to a section"),
            ("[a]\n[a.b]\nrw = 'read'\n", "job.toml:2: b is no option"),
            ("[a]\nrw = \n", "job.toml:2: "),
            ("[a]\nrw = 'read'\nrw = 'read'\n", "job.toml:3: duplicate key"),
            ("[global]\nrw = 'read'\n", "job.toml: a job file has 1 to 1000 sections"),
            ("", "job.toml: a job file has 1 to 1000 sections"),
            ("[a]\njson = 'x'\n", "job.toml:2: json is for all jobs"),
            ("[a]\noverwrite = true\n", "job.toml:2: overwrite: consent"),
            ("[a]\njob = 'x'\n", "job.toml:2: job: "),
            ("[a]\ndhchap-secret = 'DHHC-1:'\n", "job.toml:2: dhchap-secret: a job file has no"),
            ("[a]\ntarget = 'x'\ntraddr = '1'\n", "job.toml:"),
        ] {
            let found = jobs(text, "").map(|_| ()).expect_err(text);
            assert!(found.starts_with(message), "{text:?}: {found}");
        }
        assert!(jobs("[a]\n", "").is_ok());
        let many: String = (0..=JOBS_MAX).map(|index| format!("[j{index}]\n")).collect();
        assert!(jobs(&many, "").is_err());
    }

    /// A value that an option refuses may be a secret.
    #[test]
    fn no_message_quotes_a_value() {
        let secret = "ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n";
        for key in ["rw", "bs", "iodepth", "rate", "sweep", "wait", "fail-if", "ns", "runtime"] {
            let message = jobs(&format!("[a]\n{key} = '{secret}'\n"), "").err().expect(key);
            assert!(!message.contains("GodOr4"), "{message}");
        }
    }
}
