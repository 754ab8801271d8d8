//! Options as pairs of names and values, for programs that have no command line.

use clap::{Arg, ArgAction, CommandFactory, Parser, error::ErrorKind};

use crate::{failure::Failure, secret_text, target::TargetArguments};

/// Options of a target alone.
#[derive(Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Options {
    #[command(flatten)]
    target: TargetArguments,
}

/// Target, and options by their names.
#[derive(Clone, Debug, Default)]
pub struct OptionPairs {
    /// Words of a command line that means the same.
    words: Vec<String>,
    target: Option<String>,
}

impl OptionPairs {
    /// Options of a target, which may also be given by `traddr`, `trsvcid` and `nqn`.
    #[must_use]
    pub fn new(target: Option<&str>) -> Self {
        Self { words: Vec::new(), target: target.map(str::to_owned) }
    }

    /// Sets an option, in place of its former value unless it may be repeated. A flag takes `true`,
    /// `1`, nothing, `false` or `0`.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        let command = Options::command();
        let option = command.get_arguments().find(|option| is_named(option, name));
        let option = option.ok_or_else(|| {
            let name = secret_text::without_secrets(&format!("{name:?}"));
            Failure::usage(format!("there is no option {name}; the names are those of nvme-cli"))
        })?;
        let long = option.get_long().expect("an option has a long name");
        let (prefix, flag) = (format!("--{long}="), format!("--{long}"));
        let word = match (option.get_action(), value) {
            (ArgAction::SetTrue, "" | "1" | "true") => Some(flag.clone()),
            (ArgAction::SetTrue, "0" | "false") => None,
            (ArgAction::SetTrue, _) => {
                return Err(Failure::usage(format!("{long} takes true or false")));
            }
            _ => Some(format!("{prefix}{value}")),
        };
        if let Some(word) = &word {
            parse(std::slice::from_ref(word))?;
        }
        if !matches!(option.get_action(), ArgAction::Append) {
            self.words.retain(|word| !word.starts_with(&prefix) && *word != flag);
        }
        self.words.extend(word);
        Ok(())
    }

    /// Arguments that mean the same.
    pub fn arguments(&self) -> Result<TargetArguments, Failure> {
        let mut words = self.words.clone();
        if let Some(target) = &self.target {
            words.extend(["--".to_owned(), target.clone()]);
        }
        parse(&words)
    }

    /// Names of all options, each with its help.
    #[must_use]
    pub fn all() -> Vec<(String, String)> {
        let command = Options::command();
        let described = command.get_arguments().filter_map(|option| {
            let help = option.get_help().map(ToString::to_string).unwrap_or_default();
            Some((option.get_long()?.to_owned(), help))
        });
        described.collect()
    }
}

fn is_named(option: &Arg, name: &str) -> bool {
    let aliases = option.get_visible_aliases().unwrap_or_default();
    option.get_long().into_iter().chain(aliases).any(|known| known == name)
}

fn parse(words: &[String]) -> Result<TargetArguments, Failure> {
    match Options::try_parse_from(words) {
        Ok(options) => Ok(options.target),
        Err(error) if error.kind() == ErrorKind::ArgumentConflict => Err(Failure::usage(format!(
            "{}; give one of them",
            one_line(&error.render().to_string())
        ))),
        Err(error) => {
            let text = one_line(&error.render().to_string());
            Err(Failure::usage(secret_text::without_secrets(&text)))
        }
    }
}

/// Text of an error of clap without its usage, its advice to quote an argument, and its line ends.
#[must_use]
pub fn one_line(text: &str) -> String {
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

    #[test]
    fn options_have_the_names_of_the_command_line() {
        let mut pairs = OptionPairs::new(Some("nvmf-rdma://127.0.0.1:4420/nqn.x"));
        pairs.set("nr-io-queues", "3").unwrap();
        pairs.set("queues", "2").unwrap();
        pairs.set("ctrl-loss-tmo", "-1").unwrap();
        pairs.set("disable-sqflow", "1").unwrap();
        pairs.set("reconnect-strict", "true").unwrap();
        pairs.set("reconnect-strict", "false").unwrap();
        pairs.set("hostnqn", "nqn.host").unwrap();
        let options = pairs.arguments().unwrap().options().unwrap();
        assert_eq!((options.io_queues, options.disable_flow_control), (2, true));
        assert_eq!((options.reconnect.loss_timeout, options.reconnect.strict), (None, false));
        assert_eq!(options.host.nqn.as_str(), "nqn.host");
    }

    #[test]
    fn paths_are_those_of_the_target_and_of_the_option() {
        let mut pairs = OptionPairs::new(Some("nvmf-rdma://192.0.2.7,192.0.2.8:4422/nqn.x"));
        pairs.set("path", "[2001:db8::1]:4421").unwrap();
        pairs.set("path", "192.0.2.9").unwrap();
        pairs.set("iopolicy", "queue-depth").unwrap();
        let arguments = pairs.arguments().unwrap();
        let options = arguments.subsystem_options().unwrap();
        let addresses: Vec<_> = options.addresses().map(|address| address.to_string()).collect();
        let [first, second] = ["192.0.2.7:4420", "192.0.2.8:4422"];
        assert_eq!(addresses, [first, second, "[2001:db8::1]:4421", "192.0.2.9:4420"]);
        let refused = arguments.options().unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        assert!(refused.to_string().contains("give one address"), "{refused}");
        // Another target has paths of its own.
        let other = arguments.with_other_target("nvmf-rdma://192.0.2.10/nqn.y");
        assert_eq!(other.options().unwrap().address.to_string(), "192.0.2.10:4420");
    }

    #[test]
    fn wrong_paths_are_refused_by_name() {
        for (target, options, expected) in [
            ("192.0.2.7", &[("iopolicy", "latency")][..], "--iopolicy chooses among several"),
            ("192.0.2.7", &[("path", "192.0.2.8/nqn.y")], "no path; write ADDRESS"),
            ("192.0.2.7", &[("path", "192.0.2.8:port")], "no port"),
            ("192.0.2.7", &[("path", "")], "no path"),
            ("192.0.2.7,", &[], "lacks an address"),
            ("192.0.2.7", &[("path", "192.0.2.7")], "192.0.2.7:4420 is given twice"),
        ] {
            let mut pairs = OptionPairs::new(Some(&format!("nvmf-rdma://{target}/nqn.x")));
            options.iter().try_for_each(|(name, value)| pairs.set(name, value)).unwrap();
            let refused = pairs.arguments().unwrap().subsystem_options().unwrap_err();
            assert_eq!(refused.exit_code(), 2);
            assert!(refused.to_string().contains(expected), "{target} {options:?}: {refused}");
        }
        let mut pairs = OptionPairs::new(None);
        for (policy, expected) in [("numa", "one RDMA device"), ("least", "use round-robin")] {
            let refused = pairs.set("iopolicy", policy).unwrap_err();
            assert!(refused.to_string().contains(expected), "{refused}");
        }
    }

    #[test]
    fn wrong_names_and_values_are_refused_by_name() {
        let mut pairs = OptionPairs::new(None);
        for (name, value, expected) in [
            ("queue_size", "8", "no option"),
            ("", "8", "no option"),
            ("queue-size", "1", "use 2 to 1024"),
            ("disable-sqflow", "maybe", "true or false"),
            ("dhchap-min-group", "ffdhe1", "ffdhe2048"),
            ("DHHC-1:00:c2VjcmV0:", "", "no option"),
        ] {
            let failure = pairs.set(name, value).unwrap_err();
            assert_eq!(failure.exit_code(), 2);
            let text = failure.to_string();
            assert!(text.contains(expected) && !text.contains("DHHC"), "{name}: {text}");
        }
        assert!(pairs.arguments().unwrap().options().unwrap_err().to_string().contains("address"));
        let mut pairs = OptionPairs::new(Some("nvmf-rdma://127.0.0.1/nqn.x"));
        pairs.set("traddr", "127.0.0.1").unwrap();
        assert!(pairs.arguments().unwrap_err().to_string().contains("cannot be used with"));
    }

    #[test]
    fn every_option_is_listed() {
        let all = OptionPairs::all();
        for name in ["traddr", "hostnqn", "dhchap-secret-file", "keep-alive-tmo", "wait"] {
            assert!(all.iter().any(|(known, help)| known == name && !help.is_empty()), "{name}");
        }
    }
}
