//! Metrics of a device: their counters are those of the I/O that was done.

use std::fs;

use tests::metrics::Metrics;

use super::*;

/// Device whose process writes metrics to a file and answers on a socket.
struct Measured {
    device: Attached,
    file: PathBuf,
    socket: PathBuf,
}

impl Measured {
    fn new(folder: &Path) -> Self {
        let (file, socket) = (folder.join("nvmf.prom"), folder.join("socket"));
        let words = [&file, &socket].map(|path| path.to_str().expect("text"));
        let metrics = ["--metrics-file", words[0], "--metrics-socket", words[1]];
        let device = Attached::new(&[&["--ns", "1", "--queues", "2"], &metrics[..]].concat());
        Self { device, file, socket }
    }

    /// Commands of a kind, their bytes, and those in the histogram.
    fn counted(&self, operation: &str) -> [f64; 3] {
        let metrics = Metrics::ask(&self.socket);
        let device = format!("device=\"{}\"", self.device.path.display());
        let labels = [&*format!("operation=\"{operation}\""), &device];
        ["commands_total", "transferred_bytes_total", "command_latency_seconds_count"]
            .map(|name| metrics.sum(&format!("nvmf_{name}"), &labels))
    }

    /// Counts of reads and of writes in the same form, as the kernel has them
    /// (Documentation/block/stat.rst).
    fn counted_by_kernel(&self) -> [[f64; 3]; 2] {
        let path = format!("/sys/block/ublkb{}/stat", self.device.id);
        let text = fs::read_to_string(path).expect("an attribute");
        let fields: Vec<f64> =
            text.split_whitespace().map(|word| word.parse().expect("a number")).collect();
        [0, 4].map(|first| [fields[first], 512.0 * fields[first + 2], fields[first]])
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn metrics_count_the_io_that_was_done() {
    let folder = tempfile::tempdir().unwrap();
    let measured = Measured::new(folder.path());
    let path = measured.device.path.display();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut reads, mut last) = (0, 0.0);
            while !done.load(Ordering::Relaxed) {
                let now = measured.counted("write")[0];
                assert!(now >= last, "a counter went from {last} to {now}");
                (reads, last) = (reads + 1, now);
            }
            reads
        });
        command("dd", &format!("if=/dev/zero of={path} bs=16k count=500 oflag=direct status=none"));
        command("dd", &format!("if={path} of=/dev/null bs=4k count=800 iflag=direct status=none"));
        done.store(true, Ordering::Relaxed);
        let reads = reader.join().unwrap();
        println!("the metrics were read {reads} times meanwhile");
    });
    // The kernel reads ahead where it looks for partitions.
    wait_for("the kernel has counted the same", LIMIT, || {
        measured.counted_by_kernel() == ["read", "write"].map(|kind| measured.counted(kind))
    });
    let [read, write] = ["read", "write"].map(|kind| measured.counted(kind));
    assert!(read[0] >= 800.0 && read[1] >= f64::from(800 << 12), "{read:?}");
    assert_eq!(write, [500.0, f64::from(500 << 14), 500.0]);
    let metrics = Metrics::ask(&measured.socket);
    let subsystem = format!("subsystem=\"{SUBSYSTEM}\"");
    assert_eq!(metrics.sum("nvmf_controller_state", &["state=\"live\"", &subsystem]), 1.0);
    assert_eq!(metrics.sum("nvmf_controller_state", &[]), 1.0);
    assert_eq!(metrics.sum("nvmf_commands_in_flight", &["queue=\"0\""]), 0.0);
    assert_eq!(metrics.sum("nvmf_command_errors_total", &[]), 0.0);
    wait_for("the file has what the socket has", LIMIT, || {
        let written = Metrics(fs::read_to_string(&measured.file).unwrap_or_default());
        written.0.contains("nvmf_commands_total")
            && written.sum("nvmf_commands_total", &["operation=\"write\""]) == write[0]
    });
}

/// A process that is killed leaves the file and the socket; the next one takes them.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn metrics_outlive_a_process_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let measured = Measured::new(folder.path());
    let Measured { device, file, socket } = &measured;
    let _ = measured.counted("write");
    assert_eq!(fs::metadata(socket).unwrap().permissions().mode() & 0o777, 0o600);
    kill_process(device.process(), Signal::KILL).unwrap();
    assert!(socket.exists());
    let mut again = nvmf();
    again.args(["attach", &uri(SUBSYSTEM), "--recover", &device.id, "--ns", "1"]);
    again.arg("--metrics-file").arg(file).arg("--metrics-socket").arg(socket);
    let recovered = run(&mut again, &[]);
    assert!(recovered.status.success(), "{recovered:?}");
    assert_eq!(measured.counted("write")[0], 0.0, "they are those of the process");
    assert!(device.detach(&[]).status.success());
    wait_for("both are removed", LIMIT, || !file.exists() && !socket.exists());
}
