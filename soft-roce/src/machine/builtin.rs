//! `modprobe` for a kernel without loadable modules: it says what is built in.
//!
//! Scripts that set up RDMA or NVMe call it before they use a driver. It reads the options of
//! kmod's program and ends with the status that kmod's has for a kernel with these drivers built
//! in: nothing is loaded, nothing can be removed, and parameters have no effect.

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

/// Configuration of the kernels that this program builds.
const CONFIGURATION: &str = include_str!("../../kernel/uml.config");

/// Modules by the options that build them in.
const MODULES: [(&str, &[&str]); 22] = [
    ("BLK_DEV_DM", &["dm_mod"]),
    ("BLK_DEV_LOOP", &["loop"]),
    ("BLK_DEV_NULL_BLK", &["null_blk"]),
    ("BLK_DEV_RAM", &["brd"]),
    ("BLK_DEV_UBLK", &["ublk_drv"]),
    ("CONFIGFS_FS", &["configfs"]),
    ("DM_DELAY", &["dm_delay"]),
    ("DM_FLAKEY", &["dm_flakey"]),
    ("DUMMY", &["dummy"]),
    ("EXT4_FS", &["ext4"]),
    ("INFINIBAND", &["ib_core"]),
    ("INFINIBAND_ADDR_TRANS", &["ib_cm", "iw_cm", "rdma_cm"]),
    ("INFINIBAND_USER_ACCESS", &["ib_uverbs", "rdma_ucm"]),
    ("INFINIBAND_USER_MAD", &["ib_umad"]),
    ("NET_SCH_NETEM", &["sch_netem"]),
    ("NVME_HOST_AUTH", &["nvme_auth"]),
    ("NVME_RDMA", &["nvme_core", "nvme_fabrics", "nvme_rdma"]),
    ("NVME_TARGET", &["nvmet"]),
    ("NVME_TARGET_RDMA", &["nvmet_rdma"]),
    ("RDMA_RXE", &["rdma_rxe"]),
    ("RDMA_SIW", &["siw"]),
    ("VETH", &["veth"]),
];

/// Answers a command line, without the program's name.
pub(super) fn run(words: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let answer = answer(&words);
    // A reader that is gone needs no answer.
    let _ = io::stdout().write_all(answer.output.as_bytes());
    let _ = io::stderr().write_all(answer.error.as_bytes());
    ExitCode::from(answer.status)
}

/// Answer to a command line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    status: u8,
    output: String,
    error: String,
}

#[derive(Default)]
struct Options {
    all: bool,
    quiet: bool,
    remove: bool,
    show_depends: bool,
    resolve_alias: bool,
    first_time: bool,
    version: bool,
}

fn answer(words: &[String]) -> Answer {
    let mut options = Options::default();
    let mut names = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.strip_prefix('-') {
            None => names.push(word),
            Some("-dirname" | "-config" | "-set-version") => drop(words.next()),
            Some(long) if long.starts_with('-') => options.long(long),
            Some(letters) => {
                letters.chars().for_each(|letter| options.short(letter));
                if letters.ends_with(['d', 'C', 'S']) {
                    words.next();
                }
            }
        }
    }
    if options.version {
        return Answer { output: "modprobe of soft-roce\n".into(), ..Answer::default() };
    }
    // Without -a and -r, the words after the first are parameters.
    let count = if options.all || options.remove { names.len() } else { names.len().min(1) };
    if count == 0 {
        let error = "modprobe: no module was named\n".into();
        return Answer { status: 1, error, ..Answer::default() };
    }
    let mut answer = Answer::default();
    names[..count].iter().for_each(|name| options.answer_one(name, &mut answer));
    answer
}

impl Options {
    fn short(&mut self, letter: char) {
        match letter {
            'a' => self.all = true,
            'q' => self.quiet = true,
            'r' => self.remove = true,
            'D' => self.show_depends = true,
            'R' => self.resolve_alias = true,
            'V' => self.version = true,
            _ => {}
        }
    }

    fn long(&mut self, name: &str) {
        match name {
            "-all" => self.all = true,
            "-quiet" => self.quiet = true,
            "-remove" => self.remove = true,
            "-show-depends" => self.show_depends = true,
            "-resolve-alias" => self.resolve_alias = true,
            "-first-time" => self.first_time = true,
            "-version" => self.version = true,
            _ => {}
        }
    }

    fn answer_one(&self, name: &str, answer: &mut Answer) {
        let module = name.replace('-', "_");
        let refusal = if !is_built_in(&module) {
            format!("Module {name} not found in this kernel, which has no loadable modules.")
        } else if self.remove || self.first_time {
            format!("Module {name} is builtin.")
        } else {
            if self.show_depends {
                answer.output += &format!("builtin {module}\n");
            } else if self.resolve_alias {
                answer.output += &format!("{module}\n");
            }
            return;
        };
        answer.status = 1;
        if !self.quiet {
            answer.error += &format!("modprobe: FATAL: {refusal}\n");
        }
    }
}

fn is_built_in(module: &str) -> bool {
    let mut of_module = MODULES.iter().filter(|(_, modules)| modules.contains(&module));
    let is_on = |option: &str| {
        let mut lines = CONFIGURATION.lines().filter_map(|line| line.strip_prefix("CONFIG_"));
        lines.any(|line| line.strip_suffix("=y") == Some(option))
    };
    of_module.any(|(option, _)| is_on(option))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &str) -> (u8, String, String) {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let Answer { status, output, error } = answer(&words);
        (status, output, error)
    }

    #[test]
    fn what_is_built_in_is_there() {
        let done = (0, String::new(), String::new());
        for line in [
            "rdma_rxe",
            "rdma-rxe",
            "-n -q nvmet",
            "-qn nvme-rdma",
            "null_blk nr_devices=0",
            "-a loop nvmet",
        ] {
            assert_eq!(ask(line), done, "{line}");
        }
        assert_eq!(ask("--show-depends nvmet-rdma").1, "builtin nvmet_rdma\n");
        assert_eq!(ask("-R nvmet-rdma").1, "nvmet_rdma\n");
    }

    #[test]
    fn the_rest_is_not() {
        let (status, output, error) = ask("mlx5_ib");
        assert_eq!((status, output.as_str()), (1, ""));
        assert!(error.contains("mlx5_ib not found"), "{error}");
        assert_eq!(ask("-q mlx5_ib"), (1, String::new(), String::new()));
        assert_eq!(ask("-n --quiet mlx5_ib").0, 1);
        assert_eq!(ask("-a loop mlx5_ib").0, 1);
        assert!(ask("-r loop").2.contains("loop is builtin"));
        assert_eq!(ask("-rq loop"), (1, String::new(), String::new()));
        assert_eq!(ask("--first-time loop").0, 1);
        assert_eq!(ask("-n").0, 1);
        assert_eq!(ask("-S 6.12 loop").0, 0);
    }
}
