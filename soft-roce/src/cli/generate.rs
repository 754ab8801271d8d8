//! `soft-roce generate`: manual pages and shell completions.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Command;
use command_manual::{Generate, Manual, Section};

use super::{print_message, printed};

const SECTIONS: [Section; 4] = [
    Section {
        heading: "EXIT STATUS",
        applies: |command| command.get_name() != "run",
        entries: &[
            ("0", "The command is done."),
            ("1", "It failed; of doctor: no program can be run here."),
            ("2", "Nothing was done: wrong use, no kernel, or packages that are missing."),
        ],
    },
    Section {
        heading: "EXIT STATUS",
        applies: |command| command.get_name() == "run",
        entries: &[
            ("0 to 255", "Status of the program, unless one of the following."),
            ("128 + N", "Signal N killed the program."),
            ("127", "The program was not found."),
            ("126", "The program could not be started."),
            ("124", "The time of --timeout was up."),
            ("101", "The kernel crashed or warned, or the guest ended without a result."),
            (
                "2",
                "Nothing was run: wrong use, no kernel, no memory, or packages that are missing.",
            ),
        ],
    },
    Section {
        heading: "ENVIRONMENT",
        applies: |_| true,
        entries: &[
            ("SOFT_ROCE_KERNEL", "Kernel, for --kernel."),
            ("SOFT_ROCE_DEVICE", "RDMA device, for --device."),
            ("SOFT_ROCE_MACHINE", "Machine, for --machine."),
            ("SOFT_ROCE_TARGET", "File of the NVMe target, for --target."),
            ("SOFT_ROCE_ARTIFACTS", "Folder for what a run that fails leaves, for --artifacts."),
            ("SOFT_ROCE_DEBIAN_MIRROR", "Debian mirror that has the kernel's source."),
            ("SOFT_ROCE_KERNEL_SOURCE", "Kernel's source, for --source of build."),
            ("XDG_CACHE_HOME", "Folder of caches; the usual one is ~/.cache."),
            ("TMPDIR", "Folder for the guest's memory where /dev/shm is too small."),
        ],
    },
    Section {
        heading: "FILES",
        applies: |_| true,
        entries: &[
            ("~/.cache/soft-roce", "Kernels that were built or imported."),
            ("/dev/shm", "Memory of guests."),
        ],
    },
];

pub(super) fn run(generate: &Generate, command: Command) -> ExitCode {
    let see_also = &["nvmf(1)", "nvme(1)", "rdma(8)", "ibv_devinfo(1)"];
    match generate.run(Manual { command, sections: &SECTIONS, see_also }) {
        Ok(text) => printed(io::stdout().write_all(text.as_bytes())),
        Err(error) => {
            print_message(format_args!("soft-roce: {error}"));
            ExitCode::FAILURE
        }
    }
}
