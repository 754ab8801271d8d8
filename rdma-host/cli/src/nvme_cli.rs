//! Commands of nvme-cli: those that `nvmf` has under another name, and the way to what it lacks.

use std::ffi::OsString;

use clap::{Arg, Command};

use crate::size;

/// Command of nvme-cli, and the words that stand for it here.
struct Alias {
    name: &'static str,
    words: &'static [&'static str],
}

const ALIASES: [Alias; 15] = [
    Alias { name: "ana-log", words: &["log", "ana"] },
    Alias { name: "changed-ns-list-log", words: &["log", "changed"] },
    Alias { name: "check-dhchap-key", words: &["key", "check"] },
    Alias { name: "effects-log", words: &["log", "effects"] },
    Alias { name: "endurance-log", words: &["log", "endurance"] },
    Alias { name: "error-log", words: &["log", "error"] },
    Alias { name: "fid-support-effects-log", words: &["log", "features"] },
    Alias { name: "fw-log", words: &["log", "firmware"] },
    Alias { name: "gen-dhchap-key", words: &["key", "gen"] },
    Alias { name: "list-ns", words: &["identify"] },
    Alias { name: "list-subsys", words: &["discover"] },
    Alias { name: "resv-notif-log", words: &["log", "reservation"] },
    Alias { name: "rotational-media-info-log", words: &["log", "rotational"] },
    Alias { name: "smart-log", words: &["log", "health"] },
    Alias { name: "supported-log-pages", words: &["log", "supported"] },
];

/// Names of commands that nvmf lacks, and the sentence that says what to do.
struct Absent {
    names: &'static [&'static str],
    way: &'static str,
}

const ABSENT: [Absent; 6] = [
    Absent {
        names: &["connect", "connect-all", "disconnect", "disconnect-all", "ns-rescan", "reset"],
        way: "for a block device use `nvmf attach` and `nvmf detach`, or, with multipath, `nvme \
              connect -t rdma`; all other commands connect for as long as they run",
    },
    Absent {
        names: &["telemetry-log", "self-test-log", "persistent-event-log"],
        way: "`nvmf get-log` reads any page as bytes, and `nvmf log` the usual ones as text",
    },
    Absent {
        names: &["ns-descs", "cmdset-ind-id-ns", "nvm-id-ctrl", "nvm-id-ns", "list-ctrl"],
        way: "`nvmf identify`, `nvmf id-ctrl` and `nvmf id-ns` show what nvmf reads",
    },
    Absent {
        names: &["show-regs", "get-property", "set-property"],
        way: "nvmf negotiates properties itself; `nvmf identify` shows the results",
    },
    Absent {
        names: &["gen-tls-key", "check-tls-key", "tls-key"],
        way: "TLS belongs to TCP; over RDMA nothing encrypts the data, and DH-HMAC-CHAP (`nvmf \
              key`) authenticates both sides",
    },
    Absent {
        names: &[
            "attach-ns",
            "create-ns",
            "delete-ns",
            "detach-ns",
            "device-self-test",
            "format",
            "fw-commit",
            "fw-download",
            "sanitize",
            "security-recv",
            "security-send",
            "subsystem-reset",
        ],
        way: "nvmf does not send it; connect with `nvme connect -t rdma` and use nvme-cli, or \
              configure the target by its own tools",
    },
];

/// Options of nvme-cli and fio, and ours for them or the reason why there is none.
const OPTIONS: [(&str, &str); 62] = [
    (
        "-D",
        "--duplicate-connect of nvme-cli: each command makes a connection of its own; leave the \
         option out",
    ),
    ("-G", "--data-digest of nvme-cli: digests belong to TCP; the transport is RDMA"),
    ("-O", "--dump-config of nvme-cli: `nvmf config show` shows the configuration"),
    (
        "-P",
        "--nr-poll-queues of nvme-cli: queues are polled as --wait says; the number is \
         --nr-io-queues",
    ),
    (
        "-W",
        "--nr-write-queues of nvme-cli: all queues read and write; the number is --nr-io-queues",
    ),
    ("-g", "--hdr-digest of nvme-cli: digests belong to TCP; the transport is RDMA"),
    ("--block-count", "the option is --blocks, a number that counts from 1"),
    ("--blocksize", "the option is --bs"),
    ("--bssplit", "give sizes and weights to --bs, as in --bs 4K:70,64K:30"),
    ("--buffered", "there is no page cache: all I/O is direct"),
    ("--cpus_allowed", "the option is --cpus"),
    ("--data", "the option is --file"),
    ("--data-digest", "digests belong to TCP; the transport is RDMA"),
    ("--data-size", "the option is --blocks, a number of blocks"),
    ("--direct", "there is no page cache: all I/O is direct"),
    ("--do_verify", "the option is --verify, which overwrites"),
    ("--dump-config", "`nvmf config show` shows the configuration"),
    ("--duplicate-connect", "each command makes a connection of its own; leave the option out"),
    ("--end_fsync", "use `nvmf flush` after it"),
    ("--filename", "name the target instead, as in nvmf-rdma://ADDRESS/NQN"),
    ("--fsync", "use `nvmf flush` after it"),
    ("--group_reporting", "threads are always reported together"),
    ("--hdr-digest", "digests belong to TCP; the transport is RDMA"),
    ("--host-iface", "the option is --host-traddr, an address of that interface"),
    ("--io_size", "the option is --io-size"),
    ("--ioengine", "there is one engine, RDMA queues of nvmf; leave the option out"),
    ("--human-readable", "fields are always shown in words; leave the option out"),
    ("--invalidate", "there is no page cache: all I/O is direct"),
    ("--lat_percentiles", "percentiles are always reported"),
    ("--name", "a command is one job; leave the option out"),
    ("--namespace-id", "the option is --ns"),
    ("--norandommap", "random patterns always may repeat blocks"),
    ("--nr-poll-queues", "queues are polled as --wait says; the number is --nr-io-queues"),
    ("--nr-write-queues", "all queues read and write; the number is --nr-io-queues"),
    ("--numa_cpu_nodes", "the option is --cpus, a list of processors"),
    ("--numjobs", "the options are --threads and --queues"),
    ("--offset", "--size counts from the start of the namespace; there is no other start"),
    ("--output", "the option is --json FILE, or --html FILE"),
    ("--percentile_list", "percentiles are fixed; --hlog FILE has the whole distribution"),
    ("--quiet", "nothing connects twice; leave the option out"),
    ("--ramp_time", "the option is --ramp"),
    ("--raw-binary", "the option is --raw, or `nvmf get-log` for a log page"),
    ("--rand_seed", "the option is --seed"),
    ("--random_distribution", "the option is --random-distribution"),
    ("--randseed", "the option is --seed"),
    ("--rate_iops", "the option is --rate"),
    ("--rate_process", "the option is --arrival"),
    ("--readwrite", "the option is --rw"),
    ("--rwmixwrite", "the option is --rwmixread, the share of reads"),
    ("--ss", "the option is --until, the limit of the IOPS' deviation in percent"),
    ("--ss_dur", "the option is --until-window"),
    ("--start-block", "the option is --lba"),
    ("--status-interval", "the option is --interval"),
    ("--steadystate", "the option is --until, the limit of the IOPS' deviation in percent"),
    ("--steadystate_duration", "the option is --until-window"),
    ("--sync", "use `nvmf flush` after it"),
    ("--thread", "the workers are threads; their number is --threads"),
    ("--time_based", "--runtime always sets the time; leave the option out"),
    ("--write_bw_log", "use `nvmf report RESULT --fio-log PREFIX` after it"),
    ("--write_hist_log", "the option is --hlog"),
    ("--write_iops_log", "use `nvmf report RESULT --fio-log PREFIX` after it"),
    ("--write_lat_log", "use `nvmf report RESULT --fio-log PREFIX` after it"),
];

/// Help on the names of nvme-cli.
pub(crate) fn help() -> String {
    let rows =
        ALIASES.iter().map(|Alias { name, words }| format!("  {name:<20} {}", words.join(" ")));
    let rows: Vec<_> = rows.collect();
    format!("Names of nvme-cli, and the command that each stands for:\n{}", rows.join("\n"))
}

/// Command line with words of nvme-cli replaced by those for them: the command, and its options.
pub(crate) fn replace_words(arguments: Vec<OsString>, nvmf: &Command) -> Vec<OsString> {
    replace_options(replace_alias(arguments), nvmf)
}

/// Command line in which options have our names: `-n` with a number is a namespace id where the
/// command takes one, and `-o binary` is `-b` where it has bytes to print.
fn replace_options(arguments: Vec<OsString>, nvmf: &Command) -> Vec<OsString> {
    let mut names = arguments.iter().skip(1).filter_map(|word| word.to_str());
    let command = names.find_map(|name| nvmf.find_subcommand(name));
    let has = |is: fn(&Arg) -> bool| command.is_some_and(|it| it.get_arguments().any(is));
    let takes_namespace = has(|option| option.get_id() == "ns");
    let has_bytes = has(|option| option.get_short() == Some('b'));
    let mut replaced = Vec::with_capacity(arguments.len());
    let mut words = arguments.into_iter().peekable();
    while let Some(word) = words.next() {
        let text = word.to_str().unwrap_or_default();
        let next = words.peek().and_then(|next| next.to_str()).unwrap_or_default();
        let attached =
            text.strip_prefix("-n").map(|value| value.strip_prefix('=').unwrap_or(value));
        let is_format = matches!(text, "-o" | "--output-format");
        if text == "--" {
            replaced.push(word);
            replaced.extend(words);
            break;
        } else if takes_namespace && text == "-n" && is_number(next) {
            replaced.push("--ns".into());
        } else if let Some(number) = attached.filter(|&it| takes_namespace && is_number(it)) {
            replaced.push(format!("--ns={number}").into());
        } else if has_bytes && is_format && next == "binary" {
            words.next();
            replaced.push("-b".into());
        } else if has_bytes && ["-obinary", "-o=binary", "--output-format=binary"].contains(&text) {
            replaced.push("-b".into());
        } else {
            replaced.push(word);
        }
    }
    replaced
}

fn is_number(text: &str) -> bool {
    size::number(text).is_ok()
}

/// Command line with an alias, if its first word is one, replaced by the words for it.
fn replace_alias(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let is_word = |argument: &&OsString| !argument.as_encoded_bytes().starts_with(b"-");
    let position = arguments.iter().skip(1).position(|argument| is_word(&argument));
    let Some(index) = position.map(|position| position + 1) else { return arguments };
    if let Some(alias) = ALIASES.iter().find(|alias| arguments[index] == *alias.name) {
        arguments.splice(index..=index, alias.words.iter().map(OsString::from));
    }
    arguments
}

/// Sentence on a command that nvmf lacks.
pub(crate) fn way_to_command(name: &str) -> Option<&'static str> {
    ABSENT.iter().find(|absent| absent.names.contains(&name)).map(|absent| absent.way)
}

/// Sentence on an option of nvme-cli or fio.
pub(crate) fn way_to_option(name: &str) -> Option<&'static str> {
    let name = name.split('=').next().unwrap_or(name);
    OPTIONS.iter().find(|(known, _)| *known == name).map(|(_, way)| *way)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(words: &str) -> String {
        let arguments = words.split(' ').map(OsString::from).collect();
        let words = replace_alias(arguments).into_iter().map(|word| word.into_string().unwrap());
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_name_of_nvme_cli_stands_for_its_command() {
        assert_eq!(replaced("nvmf smart-log TARGET -o json"), "nvmf log health TARGET -o json");
        assert_eq!(replaced("nvmf -v gen-dhchap-key -l 48"), "nvmf -v key gen -l 48");
        // Only the command is replaced.
        assert_eq!(replaced("nvmf identify list"), "nvmf identify list");
        assert_eq!(replaced("nvmf"), "nvmf");
    }

    #[test]
    fn options_have_the_meaning_that_they_have_in_nvme_cli() {
        let nvmf = Command::new("nvmf")
            .subcommand(
                Command::new("id-ns")
                    .arg(Arg::new("ns").long("ns"))
                    .arg(Arg::new("raw").short('b').long("raw")),
            )
            .subcommand(Command::new("monitor"));
        for (words, ours) in [
            ("nvmf id-ns T -n 1 -o binary", "nvmf id-ns T --ns 1 -b"),
            ("nvmf -v id-ns T -n0x2 --output-format=binary", "nvmf -v id-ns T --ns=0x2 -b"),
            ("nvmf id-ns T -n=0 -o json", "nvmf id-ns T --ns=0 -o json"),
            // A name is that of a subsystem, and other commands have neither.
            ("nvmf id-ns -a A -n nqn.x", "nvmf id-ns -a A -n nqn.x"),
            ("nvmf monitor -n 1 -o binary", "nvmf monitor -n 1 -o binary"),
            ("nvmf id-ns -- -n 1", "nvmf id-ns -- -n 1"),
        ] {
            let arguments = words.split(' ').map(OsString::from).collect();
            let found = replace_words(arguments, &nvmf).join(" ".as_ref());
            assert_eq!(found, ours);
        }
    }

    #[test]
    fn options_are_answered_with_or_without_a_value() {
        assert_eq!(way_to_option("--numjobs=4"), way_to_option("--numjobs"));
        assert!(way_to_option("--numjobs").unwrap().contains("--threads"));
        assert_eq!(way_to_option("--bogus"), None);
        for (short, long) in [("-D", "--duplicate-connect"), ("-W", "--nr-write-queues")] {
            let (short, way) = (way_to_option(short).unwrap(), way_to_option(long).unwrap());
            assert!(short.starts_with(long) && short.ends_with(way), "{short}");
        }
    }
}
