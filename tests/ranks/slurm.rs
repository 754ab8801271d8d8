//! Slurm on this machine: its controller and two nodes, for `srun`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tests::wait_for;

/// File name of the configuration.
const CONFIGURATION: &str = "slurm.conf";

/// Daemons of Slurm, which are killed when this is dropped.
pub(crate) struct Slurm {
    folder: PathBuf,
    daemons: Vec<Child>,
}

impl Slurm {
    /// Starts the controller and the nodes `node1` and `node2`; or nothing, with a message, if
    /// Slurm is not installed.
    pub(crate) fn start(folder: &Path) -> Option<Self> {
        if Command::new("slurmctld").arg("-V").output().is_err() {
            println!("SKIPPED: no Slurm; run: apt-get install slurm-wlm libpmix-dev");
            return None;
        }
        let configuration = folder.join(CONFIGURATION);
        fs::write(&configuration, text(folder)).expect("the file is written");
        // The first version, which is not used, needs no mounted file system, as the choice does.
        let cgroup = folder.join("cgroup.conf");
        fs::write(cgroup, "CgroupPlugin=cgroup/v1\n").expect("the file is written");
        for made in ["state", "node1", "node2"] {
            fs::create_dir_all(folder.join(made)).expect("the folder is made");
        }
        let daemons = [
            &["slurmctld", "-D"][..],
            &["slurmd", "-D", "-N", "node1"],
            &["slurmd", "-D", "-N", "node2"],
        ];
        let start = |words: &[&str]| {
            let mut daemon = Command::new(words[0]);
            daemon.args(&words[1..]).env("SLURM_CONF", &configuration);
            daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            daemon.spawn().expect("the daemon starts")
        };
        let daemons = daemons.map(start).into();
        let slurm = Self { folder: folder.to_owned(), daemons };
        wait_for("two idle nodes of Slurm", Duration::from_secs(60), || {
            let output = slurm.command("sinfo").args(["-h", "-t", "idle", "-o", "%D"]).output();
            output.is_ok_and(|output| output.stdout == b"2\n")
        });
        Some(slurm)
    }

    /// Command of Slurm's.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SLURM_CONF", self.folder.join(CONFIGURATION));
        command
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        for log in ["slurmctld.log", "node1.log", "node2.log"].map(|log| self.folder.join(log)) {
            if thread::panicking() {
                println!("{}:\n{}", log.display(), fs::read_to_string(&log).unwrap_or_default());
            }
        }
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// Configuration of one controller and two nodes on one machine, whose only user is root.
fn text(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "ClusterName=bed
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
AuthType=auth/none
CredType=cred/none
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
TmpFS={folder}/%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
NodeName=node[1-2] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=2
PartitionName=all Nodes=node[1-2] Default=YES
"
    )
}
