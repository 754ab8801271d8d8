//! Launchers of ranks: Open MPI's `mpirun`, and the processes that it has started.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use tests::{command as run_command, deadline_factor, note};

/// Words for one or more ranks.
pub(crate) struct Ranks<'a> {
    count: usize,
    words: Vec<&'a str>,
}

pub(crate) fn ranks<'a>(count: usize, words: &[&[&'a str]]) -> Ranks<'a> {
    Ranks { count, words: words.concat() }
}

/// Command that starts ranks, the first ones first, or nothing, with a message, if there is no
/// launcher.
pub(crate) fn mpirun(options: &[&str], all: &[Ranks<'_>], folder: &Path) -> Option<Command> {
    if Command::new("mpirun").arg("--version").output().is_err() {
        println!("SKIPPED: no mpirun; run: apt-get install openmpi-bin");
        return None;
    }
    let mut command = Command::new("mpirun");
    command.args(["--oversubscribe", "--quiet"]).args(options).current_dir(folder);
    for (index, Ranks { count, words }) in all.iter().enumerate() {
        if index > 0 {
            command.arg(":");
        }
        command.args(["-n", &count.to_string()]).args(words);
    }
    command.envs([
        ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
        ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
        ("OMPI_MCA_btl", "self,sm,tcp"),
        // Each process has the values of the others in its own memory, as in PMIx 5. The store in
        // shared memory of PMIx 4.2 has a lock that a process may leave locked as it ends, on
        // which the launcher then waits for good.
        ("PMIX_MCA_gds", "hash"),
    ]);
    Some(command)
}

/// Lets a launcher take this machine for two, `node1` and `node2`, with two ranks each: what it
/// would start there by ssh is started here, with the name of that host. The values of ranks are
/// kept by PMIx's own choice, in memory that those of a host share.
pub(crate) fn on_two_hosts(mut launcher: Command, folder: &Path) -> Command {
    let agent = folder.join("agent");
    let script = r#"#!/bin/sh
host=$1; shift
exec unshare --uts sh -c 'hostname "$1"; shift; exec sh -c "$*"' sh "$host" "$@"
"#;
    fs::write(&agent, script).expect("the script is written");
    run_command("chmod", &format!("755 {}", agent.display()));
    launcher.env("OMPI_MCA_plm_rsh_agent", agent).env("OMPI_MCA_oob_tcp_if_include", "lo");
    launcher.env("OMPI_MCA_orte_default_hostfile", hosts_file(folder)).env_remove("PMIX_MCA_gds");
    launcher
}

fn hosts_file(folder: &Path) -> PathBuf {
    let hosts = folder.join("hosts");
    fs::write(&hosts, "node1 slots=2\nnode2 slots=2\n").expect("the file is written");
    hosts
}

/// Output of a launcher; or nothing, with a message, if it does not end after all its ranks have.
pub(crate) fn launch(mut command: Command) -> Option<Output> {
    note(&format!("the end of {command:?}"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    output_of(command.spawn().expect("mpirun starts"))
}

pub(crate) fn output_of(launcher: Child) -> Option<Output> {
    let process = launcher.id().to_string();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(launcher.wait_with_output()));
    let output = receiver.recv_timeout(Duration::from_secs(60) * deadline_factor());
    if output.is_err() && processes_of_ranks().is_empty() {
        run_command("kill", &format!("-9 {process}"));
        println!("SKIPPED: mpirun did not end after its ranks had");
        return None;
    }
    let output = output.unwrap_or_else(|_| receiver.recv().expect("a result"));
    Some(output.expect("mpirun ends"))
}

/// Process of each rank, by the environment that the launcher gave it.
pub(crate) fn processes_of_ranks() -> BTreeMap<u32, String> {
    let rank_of = |folder: &Path| {
        let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
        let environment = fs::read(folder.join("environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0).filter(|_| name.trim() == "nvmf");
        let rank = variables.find_map(|variable| variable.strip_prefix(b"PMIX_RANK="))?;
        text(rank).parse().ok()
    };
    let folders = fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
    let process = |folder: PathBuf| Some(folder.file_name()?.to_string_lossy().into_owned());
    folders.filter_map(|folder| Some((rank_of(&folder)?, process(folder)?))).collect()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
