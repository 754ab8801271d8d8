//! Errors of the command line, in one line each.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::{failure::Failure, nvme_cli};

/// Failure for an error of clap, whose text has several lines. `arguments` are the words of the
/// command line.
pub(crate) fn failure(error: &clap::Error, arguments: &[OsString]) -> Failure {
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
    let text = one_line(&error.render().to_string());
    Failure::usage(format!("{text}; see {}", help_command(arguments)))
}

/// Text of clap without its usage, its advice to quote an argument, and its line ends.
fn one_line(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let before_usage = text.lines().take_while(|line| {
        !line.starts_with("Usage:") && !line.starts_with("For more information")
    });
    let parts: Vec<_> = before_usage
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("tip: to pass"))
        .map(|line| line.strip_prefix("tip: ").unwrap_or(line))
        .collect();
    let mut line = String::new();
    for part in parts {
        if !line.is_empty() {
            line.push_str(if line.ends_with(':') { " " } else { "; " });
        }
        line.push_str(part);
    }
    line
}

/// Command that shows the help on the command of this command line.
fn help_command(arguments: &[OsString]) -> String {
    let words = arguments.iter().skip(1).filter_map(|word| word.to_str());
    let known = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    match words.filter(|word| !word.starts_with('-')).find(known) {
        Some(command) => format!("`nvmf {command} --help`"),
        None => "`nvmf --help`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_without_usage() {
        let text = "error: unexpected argument '--foo' found\n\n  tip: to pass '--foo' as a value, \
                    use '-- --foo'\n\nUsage: nvmf identify [OPTIONS] [TARGET]\n\nFor more";
        assert_eq!(one_line(text), "unexpected argument '--foo' found");
        let text = "error: unrecognized subcommand 'benc'\n\n  tip: a similar subcommand exists: \
                    'bench'\n\nUsage: nvmf";
        let expected = "unrecognized subcommand 'benc'; a similar subcommand exists: 'bench'";
        assert_eq!(one_line(text), expected);
        let text = "error: the following required arguments were not provided:\n  <PAGE>\n\nUsage:";
        assert_eq!(one_line(text), "the following required arguments were not provided: <PAGE>");
    }
}
