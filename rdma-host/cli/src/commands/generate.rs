//! `nvmf generate`: manual pages and shell completions.

use clap::Command;
use command_manual::{Generate, Manual, Section};

use super::report_bug;
use crate::{failure::Failure, output};

const SECTIONS: [Section; 5] = [
    Section {
        heading: "EXIT STATUS",
        applies: |_| true,
        entries: &[
            ("0", "The command is done."),
            ("1", "It failed, or a part of it did."),
            ("2", "The command line or a file is wrong."),
            ("3", "Access was refused, and trying again cannot help."),
            ("4", "The target or the network cannot be reached, or the connection was lost."),
            ("5", "Data that was read differs from what was written."),
            ("130", "SIGINT ended the command."),
            ("143", "SIGTERM ended the command."),
        ],
    },
    Section {
        heading: "LINES",
        applies: |command| command.get_name() == "report-bug",
        entries: &report_bug::LINES,
    },
    Section {
        heading: "ENVIRONMENT",
        applies: |_| true,
        entries: &[("NO_COLOR", "If set and not empty, help has no colors.")],
    },
    Section {
        heading: "FILES",
        applies: connects,
        entries: &[
            (
                "/etc/nvme/hostnqn, /etc/nvme/hostid",
                "Identity of this host, if no option gives it.",
            ),
            ("/etc/machine-id", "Source of the host's identity where /etc/nvme has none."),
            (
                "/etc/nvme/config.json, /etc/nvme/discovery.conf, /etc/nvme/nvme-fabrics.conf",
                "Configuration, in the formats of nvme-cli.",
            ),
            (
                "/dev/infiniband/uverbs*, /dev/infiniband/rdma_cm",
                "RDMA devices and connection manager; the user must be able to open them.",
            ),
            (
                "/etc/security/limits.d/nvmf.conf",
                "Limit of locked memory, which memory that a device may reach counts for.",
            ),
        ],
    },
    Section {
        heading: "NOTES",
        applies: connects,
        entries: &[(
            "Secrets",
            "A file with a secret must belong to the user (under sudo, to the one who runs it) and \
             be readable by no other user.",
        )],
    },
];

/// True for the commands that connect to a target, and for `nvmf` itself.
fn connects(command: &Command) -> bool {
    let has_address = command.get_arguments().any(|option| option.get_long() == Some("traddr"));
    command.get_name() == "nvmf" || has_address
}

pub(crate) fn run(generate: &Generate, command: Command) -> Result<(), Failure> {
    let see_also = &["nvme(1)", "fio(1)", "ibv_devinfo(1)", "rdma(8)", "limits.conf(5)"];
    let manual = Manual { command, sections: &SECTIONS, see_also };
    output::print_text(&generate.run(manual).map_err(Failure::failed)?)
}
