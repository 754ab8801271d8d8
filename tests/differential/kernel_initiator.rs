//! The kernel's initiator.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use rustix::fs::OFlags;
use tests::{address, wait_for};

use super::{
    case::{Options, OwnerRequest},
    case_target::CaseTarget,
    observe::{ControllerState, Initiator, Pending},
};

/// One controller of the kernel's.
pub(crate) struct KernelInitiator {
    name: String,
    /// Index of its first line in the log.
    since: usize,
    /// Keeps the controller's memory to the end. Else 6.12 warns where it frees a controller that
    /// has given up: it does so in a work queue that must not wait for what it waits for.
    _controller: File,
    /// Block device of the namespace, opened before the fault.
    device: Option<File>,
    /// Command timeout in seconds.
    io_timeout: Option<u32>,
}

impl KernelInitiator {
    /// Connects.
    pub(crate) fn connect(target: &CaseTarget, options: &Options) -> io::Result<Self> {
        // The log is to be read from before what is looked for there.
        let log = Log::get();
        let mut device = File::options().read(true).write(true).open("/dev/nvme-fabrics")?;
        device.write_all(words(target, options).as_bytes())?;
        let mut answer = String::new();
        device.read_to_string(&mut answer)?;
        let pairs = answer.split(',').map(str::trim);
        let instance = pairs.filter_map(|pair| pair.strip_prefix("instance=")).next();
        let name = format!("nvme{}", instance.expect("the kernel says which controller"));
        let mark = format!("nvme {name}: new ctrl: NQN \"{}\"", target.nqn());
        let mut since = 0;
        wait_for("the kernel's last word on the connect", Duration::from_secs(5), || {
            let place = log.lines().iter().rposition(|line| line.starts_with(&mark));
            since = place.map_or(0, |place| place + 1);
            place.is_some()
        });
        let controller = File::open(Path::new("/dev").join(&name))?;
        let io_timeout = options.io_timeout;
        Ok(Self { name, since, _controller: controller, device: None, io_timeout })
    }

    fn path(&self) -> PathBuf {
        Path::new("/sys/class/nvme").join(&self.name)
    }

    fn sysfs_state(&self) -> Option<String> {
        Some(fs::read_to_string(self.path().join("state")).ok()?.trim().to_owned())
    }

    fn log(&self) -> Vec<String> {
        let mark = format!("nvme {}: ", self.name);
        let lines = Log::get().lines();
        let own = lines[self.since..].iter().filter_map(|line| line.strip_prefix(&mark));
        own.map(str::to_owned).collect()
    }

    /// The device of its namespace: `nvme7c3n1` is the path of controller 3 to `nvme7n1`.
    fn block_device(&self) -> Option<PathBuf> {
        let head = self.block_path()?.split_once('c')?.0.to_owned() + "n1";
        Some(Path::new("/dev").join(head)).filter(|path| path.exists())
    }

    /// The name of the path to its namespace.
    fn block_path(&self) -> Option<String> {
        let entries = fs::read_dir(self.path()).ok()?.filter_map(Result::ok);
        let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.find(|name| name.starts_with("nvme") && name.contains('c') && name.ends_with("n1"))
    }
}

impl Initiator for KernelInitiator {
    fn state(&self) -> ControllerState {
        match self.sysfs_state().as_deref() {
            None => ControllerState::Gone,
            Some("live") => ControllerState::Live,
            Some(_) => ControllerState::Disconnected,
        }
    }

    fn mark(&self) -> usize {
        self.log().len()
    }

    fn left_since(&self, mark: usize) -> bool {
        let signs = ["Reconnecting in", "creating", "econnect attempt", "Removing"];
        self.log()[mark..].iter().any(|line| signs.iter().any(|sign| line.contains(sign)))
    }

    fn attempts(&self) -> u32 {
        // Its end is seen before the log is.
        wait_for("the kernel's last word", Duration::from_secs(5), || {
            let ended = self.log().iter().any(|line| line.starts_with("Removing ctrl"));
            ended || self.state() != ControllerState::Gone
        });
        let log = self.log();
        let counts = log.iter().filter_map(|line| {
            let rest = line.split_once("Failed reconnect attempt ")?.1;
            rest.split('/').next()?.trim().parse().ok()
        });
        counts.max().unwrap_or(0)
    }

    fn open(&mut self) {
        let mut found = None;
        wait_for("the kernel's block device", Duration::from_secs(5), || {
            found = self.block_device();
            found.is_some()
        });
        if let (Some(seconds), Some(path)) = (self.io_timeout, self.block_path()) {
            let attribute = self.path().join(path).join("queue/io_timeout");
            fs::write(attribute, (seconds * 1000).to_string()).expect("the timeout is settable");
        }
        // What is cached would prove nothing.
        let direct = i32::try_from(OFlags::DIRECT.bits()).expect("the flag is small");
        let path = found.expect("just found");
        self.device = Some(
            File::options()
                .read(true)
                .custom_flags(direct)
                .open(path)
                .expect("a device whose namespace is well opens"),
        );
    }

    fn read(&self) -> Pending {
        let device = self.device.as_ref().expect("opened before the fault");
        let device = device.try_clone().expect("descriptors are left");
        let pending = Pending::default();
        let answer = pending.clone();
        std::thread::spawn(move || {
            // Direct reads go to whole blocks of memory.
            let mut memory = vec![0; 8192];
            let start = memory.as_ptr().align_offset(4096);
            let read = device.read_at(&mut memory[start..start + 4096], 0);
            // A device that is gone has no bytes, which is no error to the kernel.
            answer.set(read.is_ok_and(|count| count == 4096));
        });
        pending
    }

    fn request(&self, request: OwnerRequest) {
        let attribute = match request {
            OwnerRequest::Delete => "delete_controller",
            OwnerRequest::Reset => "reset_controller",
        };
        // Both wait for the end. A reset that fails is reported here too; what comes of it is
        // watched anyhow, as is a controller that is gone already.
        let _ = fs::write(self.path().join(attribute), "1");
    }

    fn history(&self) -> String {
        self.log().join("; ")
    }
}

/// Options as /dev/nvme-fabrics takes them.
fn words(target: &CaseTarget, options: &Options) -> String {
    let host = target.kernel_host();
    let address = options.address.map_or_else(address, str::to_owned);
    let service = options.service.unwrap_or_else(|| target.service());
    let subsystem = options.subsystem.unwrap_or_else(|| target.nqn());
    let Options { loss_timeout, keep_alive, io_queues, queue_entries, .. } = options;
    let mut words = format!(
        "transport=rdma,traddr={address},trsvcid={service},nqn={subsystem},hostnqn={},hostid={},\
         reconnect_delay=1,ctrl_loss_tmo={loss_timeout},keep_alive_tmo={keep_alive},\
         nr_io_queues={io_queues},queue_size={queue_entries}",
        host.nqn.as_str(),
        host.id
    );
    if let Some(seconds) = options.fast_io_fail {
        words += &format!(",fast_io_fail_tmo={seconds}");
    }
    for (name, secret) in ["dhchap_secret", "dhchap_ctrl_secret"].into_iter().zip(options.secrets) {
        if let Some(secret) = secret {
            words += &format!(",{name}={secret}");
        }
    }
    words
}

/// The kernel's log since the program began.
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn get() -> &'static Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(|| {
            let lines = Arc::new(Mutex::new(Vec::new()));
            let taken = Arc::clone(&lines);
            let mut log = File::open("/dev/kmsg").expect("the kernel's log");
            std::thread::spawn(move || {
                let mut record = [0; 8192];
                loop {
                    // Each read gives one record: fields, a semicolon, the message.
                    let Ok(count) = log.read(&mut record) else { continue };
                    let text = String::from_utf8_lossy(&record[..count]);
                    let message = text.split_once(';').map_or("", |(_, message)| message);
                    let line = message.lines().next().unwrap_or("").to_owned();
                    taken.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            });
            Self(lines)
        })
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
