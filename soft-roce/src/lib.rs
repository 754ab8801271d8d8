//! The test bed: a Linux kernel with soft-RoCE and an NVMe target, run as an ordinary process.
//!
//! A [`Guest`] runs a program inside a User-Mode Linux kernel that has soft-RoCE (rxe), the NVMe
//! target (nvmet) and the kernel's own NVMe initiator. It needs no root, no KVM, no module and no
//! device, and a run takes a fraction of a second more than the program itself.
//!
//! ```text
//!  caller                               reaper                  kernel (User-Mode Linux)
//!  soft-roce run ── liveness pipe ───▶ soft-roce reaper ─ exec ─▶ init: soft-roce init
//!     │  ▲                               kills and removes all     │ mounts, rxe0, target
//!     │  └── frames: output, error, exit status ───────────────────┤
//!     └───── frames: input ────────────────────────────────────────▶ program
//! ```
//!
//! The guest's root is the host's file system, with the rights of the user who runs it, so a
//! program built outside runs inside as it is, in the same folder and on the same files.
//!
//! # Quick start
//!
//! ```sh
//! soft-roce build                                       # once; a first run does it too
//! soft-roce run -- rdma link                            # rxe alone
//! soft-roce run --device both -- rdma link              # and soft-iWARP beside it
//! soft-roce run --target soft-roce/targets/basic.toml -- nvme discover -t rdma \
//!     -a 10.10.10.1 -s 4420
//! soft-roce run --shell                                 # look around
//! CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="soft-roce run --" cargo test
//! ```
//!
//! The same from a program; it finds the `soft-roce` program beside itself, on the search path, or
//! in `SOFT_ROCE_PROGRAM`:
//!
//! ```no_run
//! use soft_roce::{RunStatus, Guest, Output};
//!
//! # fn main() -> soft_roce::Result<()> {
//! let guest = Guest::new("cat").args(["/sys/class/infiniband/rxe0/node_guid"]);
//! let outcome = guest.stdout(Output::Capture).run()?;
//! assert_eq!(outcome.ending, RunStatus::Exited(0));
//! assert!(outcome.kernel_warnings.is_empty(), "the kernel broke: {:?}", outcome.excerpt());
//! # Ok(())
//! # }
//! ```
//!
//! # Machines
//!
//! | `--machine` | kernel | asks of the host |
//! | --- | --- | --- |
//! | `uml` | User-Mode Linux, built here | x86-64, ptrace, a folder that may execute |
//! | `qemu` | a distribution's, from a package or by `--kernel VMLINUZ` | QEMU; KVM or patience |
//! | `auto`, the default | `uml`; `qemu` where the host forbids that, which is told | |
//!
//! On QEMU the root is the host's file system by 9p, with the caller's rights too; `--cpus N` gives
//! several processors. KVM is used if a guest boots with it, which is tried once after each boot of
//! the host. Without, the processor is emulated: a boot takes 5 to 15 s, a program ten to twenty
//! times as long, and deadlines inside and outside know it. A kernel by path needs its modules
//! where the distribution has them, or in `modules/RELEASE` beside it. `modprobe` works inside,
//! also where the host has none. Debian's kernels lack nvmet's debugfs (no `target fatal`,
//! controllers are not counted) and siw; its 6.12 and 7.x have authentication, 6.1 has not.
//!
//! # The kernel's source
//!
//! `soft-roce build` takes it from the first of these that has the series: a source package that is
//! installed (`linux-source-6.12`; this needs no network), the suites that apt reads, and the suite
//! of Debian that is known to have it. That one is read through package lists of our own in the
//! cache, from the Debian mirror that apt uses or that `SOFT_ROCE_DEBIAN_MIRROR` names; its
//! signature must be one of `debian-archive-keyring` or of apt's trusted keys. Where none has the
//! series, as in Ubuntu, the nearest release of 5.15 to 7.x replaces it: told in one line, and kept
//! under its own version. `--source` takes a tree or tarball.
//!
//! # Inside
//!
//! The program finds itself as root, on one processor unless told otherwise, with `/proc`, `/sys`,
//! `/dev` and `/run` of its own, locked memory without limit, the network device `dum0` at
//! 10.10.10.1 and fd10:10:10::1, the RDMA device `rxe0` on it, and in its environment:
//!
//! | name | value |
//! | --- | --- |
//! | `SOFT_ROCE` | `1` |
//! | `SOFT_ROCE_ADDRESS`, `RDMA_TEST_ADDRESS` | `10.10.10.1` |
//! | `SOFT_ROCE_DEVICE` | `rxe`, `siw` or `both` |
//! | `SOFT_ROCE_SIW_ADDRESS` | `10.10.11.1`, with both devices |
//! | `SOFT_ROCE_TARGET` | the target file, when there is one |
//! | `SOFT_ROCE_DEADLINE_FACTOR` | the factor for deadlines: 1, emulated 5 |
//! | `SUDO_UID` | the id of the user who runs `soft-roce`, unless that is root |
//!
//! With `--device siw` the device is `siw0`, soft-iWARP, at the same addresses: the same target
//! file, the same tests, another transport. With `--device both` rxe0 stays there, and siw0 is on
//! `dum1` at 10.10.11.1 and fd10:10:11::1. A target listens at 10.10.10.1 unless its file says
//! otherwise.
//!
//! A program that reads the time-stamp counter finds its frequency in `/proc/cpuinfo`, and
//! `modprobe` on the search path succeeds for what the kernel has built in. `soft-roce run` inside
//! a guest executes its program in that guest, so that the runner also works for a cargo that a
//! test calls (trybuild, for example).
//!
//! `soft-roce target` changes the target while the program runs; `target set --help` lists what
//! can be set. The target file is described at [`target::Target`]; examples are in the
//! folder `targets`.
//!
//! # Ends
//!
//! The guest ends with the program. What that left running is killed, the kernel's initiators are
//! stopped, the target is taken down, and the status is the program's: 128 + N for signal N, 127
//! or 126 when it could not be started. It is 124 when the time was up; 101 when the kernel
//! panicked, oopsed, hit a BUG or a WARN, wrote a line that `--deny` forbids, or gave no result;
//! and 2 when nothing was run at all. A status that the guest has reported is never lost: it is
//! read to the end of the guest's output before the result is decided. A run without a result
//! names the cause if it is a known one ([`Outcome::cause`]).
//!
//! With `--artifacts FOLDER` (`SOFT_ROCE_ARTIFACTS`) a run that fails leaves there, in a folder of
//! its own, the kernel's log and the output of `rdma link`, `rdma resource` and `rdma statistic`,
//! taken when the program had failed, or shortly before the time was up.
//!
//! However the caller ends, by Ctrl-C or SIGKILL, the reaper sees the liveness pipe end, kills
//! every process of the guest and removes its files. When both are killed, the user's next run
//! does so. There is no signal handler and no global state: guests may be run from any number of
//! threads at once, each on a processor of its own while there are enough.
//!
//! # Other users and other runs
//!
//! A run's folders have mode 0700 and its files 0600, under any umask: the program's environment,
//! arguments and input may be secrets. They lie in `TMPDIR`, `/tmp` or `/var/tmp`, the first in
//! which no other user can rename them. The guest's memory is a file without a name in `/dev/shm`
//! or, where that has no space, in one of these. Each run reserves its memory there and counts
//! what the user's other runs may still use; a run that does not fit is refused.
//!
//! # Another processor
//!
//! `soft-roce sysroot FOLDER --arch aarch64` unpacks Debian packages for that processor, without
//! installing them; FOLDER also serves a cross linker (`-L FOLDER/usr/lib/aarch64-linux-gnu`). With
//! `soft-roce` itself, cross-built, as `FOLDER/usr/bin/soft-roce`, `soft-roce run --sysroot FOLDER`
//! runs programs in a QEMU guest of that processor: its `/bin`, `/etc`, `/lib`, `/sbin` and `/usr`
//! are the folder's, all other files are the host's. The script `tests/longer` does all of it.
//!
//! # What it does not do
//!
//! * User-Mode Linux has one processor; QEMU gives more.
//! * Standard streams are pipes, or terminals where ours are. Input is read ahead of the program,
//!   and a program that was given a file as standard input cannot seek in it.
//! * The guest sees neither the host's network nor its `/dev`, `/run`, `/proc` and `/sys`; a
//!   program or working folder there cannot be used.
//! * Two programs that both poll without end take turns on the one processor. On an idle machine
//!   `ibv_rc_pingpong` takes 70 to 100 µs a message, polling or waiting for events (`-e`); beside
//!   other load polling took 0.4 to 51 ms, and waiting less than 1 ms. No scheduling class helps;
//!   with `--machine qemu --cpus 2` each has a processor.
//! * Absolute speeds say nothing: a system call costs some ten microseconds. Ratios within one
//!   run are sound.
//! * Where a kernel's own `rdma_rxe` and `nvmet` can be loaded, [`native`] sets up the
//!   same bed without a guest.

#![forbid(unsafe_code)]

mod artifacts;
mod check;
mod deadline_factor;
pub mod doctor;
mod error;
mod folder;
mod helper;
mod init;
pub mod internal_commands;
pub mod kernel;
pub mod machine;
pub mod native;
mod packages;
mod program;
mod progress;
pub mod run;
pub mod size;
pub mod target;

pub use error::{Error, Result};
pub use kernel::{Kernel, Series};
pub use machine::{Architecture, MACHINE_VARIABLE, Machine};
pub use packages::make_sysroot;
pub use program::PROGRAM_VARIABLE;
pub use run::{
    ADDRESS, ADDRESS_V6, CpuAffinity, Device, Guest, Input, MEMORY_BYTES, Outcome, Output,
    RunStatus, SECOND_ADDRESS, SECOND_ADDRESS_V6,
};
