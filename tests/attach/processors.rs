//! Hardware queues: one for each processor.

use std::num::NonZero;

use tests::metrics::Metrics;

use super::*;

/// Number of queues of the device.
const QUEUES: usize = 4;

/// Four jobs, each on a processor of its own, write and verify parts of their own, while the
/// process is killed and its device taken over.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn four_hardware_queues_serve_four_processors() {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    if processors < QUEUES {
        println!("SKIPPED: the guest has no four processors; run: tests/longer processors");
        return;
    }
    // A module of a distribution's kernel.
    command("modprobe", "ublk_drv");
    // No socket can be made in what a virtual machine has of the host.
    let folder = tempfile::tempdir_in("/run").unwrap();
    let socket = folder.path().join("socket");
    let metrics = ["--metrics-socket", socket.to_str().expect("text")];
    let device = Attached::new(&["--ns", "1", "--queues", "4"]);
    let queues = fs::read_dir(format!("/sys/block/ublkb{}/mq", device.id)).expect("a folder");
    assert_eq!(queues.count(), QUEUES);
    let start = || {
        let spread = ["--numjobs=4", "--cpus_allowed=0-3", "--cpus_allowed_policy=split"];
        let parts = ["--rw=randwrite", "--bs=4k", "--size=2m", "--offset_increment=2m"];
        let verify = ["--loops=2", "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0"];
        Fio::run(&device.path, &[&spread[..], &parts, &verify].concat())
    };
    let Some(mut fio) = start() else { return };
    let mut kills = 0;
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(700));
        kills += usize::from(fio.runs());
        device.kill_and_recover_with(&metrics);
    }
    fio.succeed();
    assert!(kills > 0, "no kill met a job");
    start().expect("it was there").succeed();
    let metrics = Metrics::ask(&socket);
    for queue in 0..QUEUES {
        let labels = [&*format!("queue=\"{queue}\""), "operation=\"write\""];
        let written = metrics.sum("nvmf_commands_total", &labels);
        assert!(written >= 1024.0, "queue {queue} has executed {written} writes of 1024");
    }
    assert!(device.detach(&[]).status.success());
}
