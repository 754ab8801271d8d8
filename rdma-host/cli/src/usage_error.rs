//! Errors of the command line, in one line each.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use nvmf_options::pairs::one_line;

use crate::{failure::Failure, nvme_cli};

/// Failure for an error of clap, whose text has several lines, in the words of a command line of
/// the program.
pub(crate) fn failure(error: &clap::Error, words: &[OsString], program: &clap::Command) -> Failure {
    let name = |kind| match error.get(kind) {
        Some(ContextValue::String(name)) => Some(name.as_str()),
        _ => None,
    };
    let command = name(ContextKind::InvalidSubcommand);
    if let Some((command, way)) =
        command.and_then(|name| Some((name, nvme_cli::way_to_command(name)?)))
    {
        return Failure::usage(format!("there is no command {command}: {way}"));
    }
    let option =
        name(ContextKind::InvalidArg).filter(|_| error.kind() == ErrorKind::UnknownArgument);
    if let Some((option, way)) =
        option.and_then(|name| Some((name, nvme_cli::way_to_option(name)?)))
    {
        return Failure::usage(format!("there is no option {option}: {way}"));
    }
    use ErrorKind::{DisplayHelpOnMissingArgumentOrSubcommand, MissingSubcommand};
    let text = match error.kind() {
        MissingSubcommand | DisplayHelpOnMissingArgumentOrSubcommand => {
            "no command is given".into()
        }
        _ => one_line(&error.render().to_string()),
    };
    Failure::usage(format!("{text}; see {}", help_command(words, program)))
}

/// Command that shows the help on the command of this command line.
fn help_command(words: &[OsString], program: &clap::Command) -> String {
    let mut command = program;
    let names = words.iter().skip(1).filter_map(|word| {
        command = command.find_subcommand(word)?;
        Some(format!("{} ", command.get_name()))
    });
    format!("`nvmf {}--help`", names.collect::<String>())
}
