//! A trial of a kernel: whether it boots here, rxe and the target answer, and it ends.

use std::{
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use super::{Guest, Input, Kernel, Outcome, Output, RunStatus, paths};
use crate::{Error, Machine, Result, machine::uml};

/// Deadline of a trial; it takes a second on a machine that is not loaded.
const DEADLINE: Duration = Duration::from_secs(60);

/// The target of the trial.
const TARGET: &str = include_str!("../../targets/basic.toml");

/// Connects the kernel's initiator to the kernel's target over rxe, and reads a block.
const SCRIPT: &str = "
    rdma link show rxe0/1 | grep -q 'state ACTIVE' || { echo 'rxe0 is not active'; exit 1; }
    echo transport=rdma,traddr=$SOFT_ROCE_ADDRESS,trsvcid=4420,\
nqn=nqn.2026-11.org.soft-roce:basic,hostnqn=nqn.2026-11.org.soft-roce:trial,\
hostid=1c5a2f8e-4f61-4d1c-9d0e-6a7f1c0f7a10 \
        > /dev/nvme-fabrics || { echo 'the initiator does not connect over rxe0'; exit 1; }
    for try in $(seq 100); do test -b /dev/nvme0n1 && break; sleep 0.05; done
    test $(head -c 4096 /dev/nvme0n1 | wc -c) = 4096 \
        || { echo 'no block is read over rxe0'; exit 1; }
";

/// Tries a kernel program and returns the time from its start to its end; nothing on this machine
/// changes.
///
/// # Errors
///
/// [`Error::Machine`] when this machine forbids what every such kernel needs, else
/// [`Error::Trial`] with the cause in words.
pub fn duration(linux: &Path) -> Result<Duration> {
    let started = Instant::now();
    let base = paths::private_base()?;
    let cannot = |error| Error::io("create a file in", &base)(error);
    let mut target = tempfile::NamedTempFile::new_in(&base).map_err(cannot)?;
    target.write_all(TARGET.as_bytes()).map_err(Error::io("write", target.path()))?;
    let guest = Guest::new("sh")
        .args(["-c", SCRIPT])
        .kernel(Kernel::Program(linux.into()))
        .machine(Machine::Uml)
        .target(target.path())
        .current_dir("/")
        .stdin(Input::Null)
        .stdout(Output::Capture)
        .stderr(Output::Capture)
        .timeout(DEADLINE)
        .installing_nothing();
    let outcome = guest.run()?;
    if outcome.success() {
        return Ok(started.elapsed());
    }
    if let Some(reason) = uml::refused_by_host(&outcome) {
        return Err(Error::Machine { name: uml::NAME, reason });
    }
    Err(Error::Trial { kernel: linux.into(), reason: reason(&outcome) })
}

/// Tries a kernel program that was just built, or imported.
///
/// # Errors
///
/// As [`duration`].
pub fn run(linux: &Path) -> Result<()> {
    duration(linux).map(drop)
}

/// The cause of a failed trial, in one line.
fn reason(outcome: &Outcome) -> String {
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().replace('\n', "; ");
    if let Some(warning) = outcome.kernel_warnings.first() {
        return format!("its log has a {}: {}", warning.kind, warning.line);
    }
    match &outcome.ending {
        RunStatus::Exited(_) => said(&[&outcome.stdout[..], &outcome.stderr].concat()),
        RunStatus::NotSetUp(reason)
        | RunStatus::NotStarted(_, reason)
        | RunStatus::OutputFailed(reason) => reason.clone(),
        RunStatus::NoResult(reason) => {
            let last = outcome.kernel_log.lines().last().unwrap_or("it logged nothing");
            let last = format!("its last message: {last}");
            format!("{reason}; {}", outcome.cause().unwrap_or(&last))
        }
        RunStatus::TimedOut(limit) => format!("no end after {} s", limit.as_secs()),
        RunStatus::BrokenPipe | RunStatus::Killed(_) => "it was killed".into(),
    }
}
