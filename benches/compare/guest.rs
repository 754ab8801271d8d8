//! The guest: the kernel's initiator, our block device, and the time of the processor.

use std::{
    error::Error,
    fs::{self, File},
    io::{self, BufRead, Read, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    initiator::{Initiator, Length, Scenario, Setup},
    sample::Sample,
};

/// The kernel's initiator, which is connected until this is dropped.
pub(crate) struct KernelInitiator {
    _control: File,
    /// Path of the block device.
    pub(crate) device: String,
}

impl KernelInitiator {
    /// Connects, with one I/O queue that takes 128 commands at a time.
    pub(crate) fn connect(address: &str, nqn: &str) -> Result<Self, Box<dyn Error>> {
        let mut control = File::options().read(true).write(true).open("/dev/nvme-fabrics")?;
        let options = format!(
            "transport=rdma,traddr={address},trsvcid=4420,nqn={nqn},nr_io_queues=1,queue_size=256"
        );
        control.write_all(options.as_bytes())?; // in one piece, as each write is a connect
        let patience = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(device) = block_device()? {
                break Ok(Self { _control: control, device });
            }
            if Instant::now() > patience {
                break Err("the kernel's initiator made no block device".into());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A block device of `nvmf attach`, which is there until this is dropped.
pub(crate) struct AttachedDevice<'a> {
    nvmf: &'a Path,
    /// Path of the block device.
    pub(crate) device: String,
}

impl<'a> AttachedDevice<'a> {
    /// Attaches namespace 1, with one queue.
    pub(crate) fn attach(nvmf: &'a Path, address: &str, nqn: &str) -> Result<Self, Box<dyn Error>> {
        let target = format!("nvmf-rdma://{address}/{nqn}");
        let words = ["attach", &target, "--ns", "1", "--nr-io-queues", "1"];
        let output = Command::new(nvmf).args(words).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        let printed = String::from_utf8(output.stdout)?;
        let device = printed.split_whitespace().next().ok_or("nvmf attach printed no path")?;
        Ok(Self { nvmf, device: device.into() })
    }
}

impl Drop for AttachedDevice<'_> {
    fn drop(&mut self) {
        // The guest ends after this.
        let _ = Command::new(self.nvmf).args(["detach", &self.device]).status();
    }
}

/// Finds the block device that is no path of another one.
fn block_device() -> Result<Option<String>, Box<dyn Error>> {
    for entry in fs::read_dir("/sys/block")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let device = format!("/dev/{name}");
        if name.strip_prefix("nvme").is_some_and(|rest| !rest.contains('c'))
            && fs::metadata(&device).is_ok()
        {
            return Ok(Some(device));
        }
    }
    Ok(None)
}

/// Runs one initiator twice, once for a few commands and once for as many more as take some
/// seconds. A command's share of the machine's processors is the difference of both, so that
/// connecting and ending cancel out; it holds on a machine that is busy with other things, too.
pub(crate) fn run_twice(
    initiator: &Initiator,
    scenario: &Scenario,
    setup: &Setup,
    seconds: f64,
) -> Result<Sample, Box<dyn Error>> {
    let few = 2_000 + 500 * u64::from(scenario.depth);
    let run_for = |count| {
        let before = processor_time()?;
        let setup = Setup { length: Length::Commands(count), ..setup.clone() };
        let sample = run(initiator, scenario, &setup)?;
        Ok::<_, Box<dyn Error>>((sample, processor_time()? - before))
    };
    let (sample, of_few) = run_for(few)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some million")]
    let more = (sample.iops * seconds) as u64;
    let (sample, of_many) = run_for(few + more)?;
    Ok(Sample { machine_us: Some((of_many - of_few) * 1e6 / more as f64), ..sample })
}

/// Processor time of the guest, in seconds since it was started, as the machine counts it:
/// `processor_time`, which runs the guest, answers.
fn processor_time() -> Result<f64, Box<dyn Error>> {
    println!("{QUESTION}");
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    answer.trim().parse().map_err(|_| "not run by benches/versus: no processor time is told".into())
}

/// Runs one initiator once.
pub(crate) fn run(
    initiator: &Initiator,
    scenario: &Scenario,
    setup: &Setup,
) -> Result<Sample, Box<dyn Error>> {
    let words = initiator.command(scenario, setup);
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", words[0]))?;
    let (out, errors) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let idle = match setup.length {
        Length::Seconds(seconds) => watch(seconds)?,
        Length::Commands(_) => 0.0,
    };
    let status = child.wait()?;
    let text = out.join().unwrap_or_default();
    let failed = |what: &str| format!("{}: {what}: {}", initiator.name(), words.join(" "));
    if !status.success() {
        let errors = errors.join().unwrap_or_default();
        return Err(format!("{}\n{errors}", failed(&status.to_string())).into());
    }
    let sample = initiator.read(&text).ok_or_else(|| failed("its output has no numbers"))?;
    Ok(Sample { idle, ..sample })
}

/// Reads a pipe to its end, on a thread of its own.
fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        pipe.map(|mut pipe| pipe.read_to_string(&mut text));
        text
    })
}

/// Measures the share of the time in which the processor was idle, in the middle of a run.
fn watch(seconds: f64) -> Result<f64, Box<dyn Error>> {
    thread::sleep(Duration::from_secs_f64(STARTING + seconds * 0.3));
    let (before, began) = (idle_ticks()?, Instant::now());
    thread::sleep(Duration::from_secs_f64(seconds * 0.4));
    let ticks = idle_ticks()? - before;
    Ok((ticks / TICKS_PER_SECOND / began.elapsed().as_secs_f64()).clamp(0.0, 1.0))
}

/// Time in which the processor had nothing to do, waiting for I/O included, in ticks since boot.
fn idle_ticks() -> Result<f64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/stat")?;
    let total = text.lines().next().ok_or("/proc/stat is empty")?;
    let numbers: Vec<f64> = total.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [_, _, _, idle, waiting, ..] => Ok(idle + waiting),
        _ => Err("/proc/stat has no idle time".into()),
    }
}

/// Seconds from the start of a program to its measurement: connecting and warming up.
const STARTING: f64 = 0.8;

/// Line that `processor_time` answers.
const QUESTION: &str = "processor time?";

/// USER_HZ, which is the same on every machine.
const TICKS_PER_SECOND: f64 = 100.0;
