//! `--metrics-file` and `--metrics-socket`: numbers of a command that stays connected.

mod controller_numbers;
mod exposition;
mod file;
mod queue_numbers;
mod socket;
mod thread_requests;

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use rdma_host::{
    ConnectOptions, Connecting, Controller, ControllerEvents, EventDetail, FenceChanges,
    LifecycleState, Provider, StateChanges,
};
use tokio::{
    runtime::Handle,
    sync::{Mutex, watch},
    task::JoinSet,
};

use self::{
    controller_numbers::ControllerNumbers,
    exposition::{Label, Snapshot},
    file::MetricsFile,
    socket::MetricsSocket,
};
use crate::failure::Failure;

pub(crate) use queue_numbers::{QueueNumbers, RequestNumbers};
pub(crate) use thread_requests::{Report, ReportingThreads, ThreadRequests};

/// Time from one write of the file to the next.
const FILE_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Metrics")]
pub(crate) struct MetricsArguments {
    /// Write metrics to a file for node_exporter's textfile collector, which reads names that end
    /// with .prom: every 5 s, by renaming, until the command ends.
    #[arg(long, value_name = "FILE")]
    metrics_file: Option<PathBuf>,

    /// Answer HTTP on a Unix socket (mode 600) with metrics in OpenMetrics format:
    /// curl --unix-socket PATH http://localhost/metrics
    #[arg(long, value_name = "PATH")]
    metrics_socket: Option<PathBuf>,
}

/// File and socket, before there is something to tell.
pub(crate) struct MetricsOutputs {
    file: Option<MetricsFile>,
    socket: Option<MetricsSocket>,
}

/// Reports of a controller, from its first connect on.
pub(crate) struct ControllerReports {
    changes: StateChanges,
    events: ControllerEvents,
}

/// Numbers of a command, which its controller and its threads change.
pub(crate) struct Metrics {
    labels: Vec<Label>,
    controller: std::sync::Mutex<ControllerNumbers>,
    threads: Option<ReportingThreads>,
    /// Number of changes of the controller.
    version: watch::Sender<u64>,
}

/// Writers of the metrics; on drop they end, and the file and the socket are removed.
pub(crate) struct MetricsWriters {
    _tasks: JoinSet<()>,
    /// None once the file is removed: its task may be in a write.
    file: Arc<Mutex<Option<MetricsFile>>>,
}

impl MetricsArguments {
    /// Refuses metrics of several paths.
    pub(crate) fn check_single_path(&self) -> Result<(), Failure> {
        match self.metrics_file.is_none() && self.metrics_socket.is_none() {
            true => Ok(()),
            false => Err(Failure::usage("metrics are of one path: give one address")),
        }
    }

    /// Opens what is asked for; relative paths are those of now.
    pub(crate) fn open(&self) -> Result<MetricsOutputs, Failure> {
        let file = self.metrics_file.as_deref().map(MetricsFile::create).transpose()?;
        let socket = self.metrics_socket.as_deref().map(MetricsSocket::bind).transpose()?;
        Ok(MetricsOutputs { file, socket })
    }
}

impl MetricsOutputs {
    /// Starts to write and to answer.
    pub(crate) fn start(self, runtime: &Handle, metrics: &Arc<Metrics>) -> MetricsWriters {
        let mut tasks = JoinSet::new();
        if let Some(socket) = self.socket {
            let metrics = Arc::clone(metrics);
            let render = move || {
                let metrics = Arc::clone(&metrics);
                async move { metrics.snapshot().await.openmetrics() }
            };
            let served = async move {
                if let Err(error) = socket.serve(render).await {
                    tracing::warn!("--metrics-socket: {error}");
                }
            };
            tasks.spawn_on(served, runtime);
        }
        let has_file = self.file.is_some();
        let file = Arc::new(Mutex::new(self.file));
        if has_file {
            tasks.spawn_on(write_file(Arc::clone(&file), Arc::clone(metrics)), runtime);
        }
        MetricsWriters { _tasks: tasks, file }
    }
}

impl Drop for MetricsWriters {
    fn drop(&mut self) {
        // Called outside of the runtime, or on one of its threads: the lock is held for a write.
        while let Err(_held) = self.file.try_lock().map(|mut file| drop(file.take())) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Writes the file at each change of the controller, and at least once in an interval.
async fn write_file(file: Arc<Mutex<Option<MetricsFile>>>, metrics: Arc<Metrics>) {
    let mut version = metrics.version.subscribe();
    loop {
        let content = metrics.snapshot().await.prometheus();
        match &mut *file.lock().await {
            Some(file) => file.write(&content),
            None => return,
        }
        // Not more often than once in a second.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let _ = tokio::time::timeout(FILE_INTERVAL, version.changed()).await;
    }
}

impl ControllerReports {
    /// Subscribes, before the connect.
    pub(crate) fn of<P: Provider>(connecting: &Connecting<P>) -> Self {
        Self { changes: connecting.changes(), events: connecting.events() }
    }
}

impl Metrics {
    /// Numbers of a connection, and of the threads that serve the block device `device` with it.
    pub(crate) fn new(
        options: &ConnectOptions,
        device: Option<String>,
        threads: Option<ReportingThreads>,
    ) -> Arc<Self> {
        let mut labels = vec![
            ("subsystem", options.subsystem.to_string()),
            ("address", options.address.to_string()),
        ];
        labels.extend(device.map(|device| ("device", device)));
        let controller = std::sync::Mutex::new(ControllerNumbers::new());
        Arc::new(Self { labels, controller, threads, version: watch::Sender::new(0) })
    }

    /// Follows a controller's reports; never ends.
    pub(crate) async fn follow<P: Provider>(
        &self,
        controller: &Controller<P>,
        reports: ControllerReports,
    ) {
        let ControllerReports { mut changes, mut events } = reports;
        let mut fence: FenceChanges = controller.fence_changes();
        let mut reads_ana = self.connected(controller);
        loop {
            tokio::select! {
                Some(change) = changes.next() => {
                    self.update(|numbers| numbers.change_state(&change));
                    if change.state == LifecycleState::Live {
                        reads_ana = self.connected(controller);
                    }
                }
                Some(event) = events.next() => {
                    self.update(|numbers| numbers.events += 1);
                    if let EventDetail::Ana(log) = &event.detail {
                        self.update(|numbers| numbers.set_ana(log));
                    }
                }
                Some(change) = fence.next() => {
                    self.update(|numbers| numbers.change_fence(&change));
                }
                log = controller.ana_log(), if reads_ana => {
                    reads_ana = false;
                    // Without an answer, the states are those of before.
                    if let Ok(log) = &log {
                        self.update(|numbers| numbers.set_ana(log));
                    }
                }
                else => std::future::pending().await,
            }
        }
    }

    /// Notes the controller of the live connection; returns true if it has ANA groups.
    fn connected<P: Provider>(&self, controller: &Controller<P>) -> bool {
        let negotiated = controller.negotiated();
        self.update(|numbers| {
            numbers.id = Some(negotiated.controller);
            numbers.admin = Some(controller.admin_counters());
        });
        negotiated.info.reports_ana
    }

    fn update(&self, change: impl FnOnce(&mut ControllerNumbers)) {
        change(&mut self.controller.lock().expect("no holder panics"));
        self.version.send_modify(|version| *version += 1);
    }

    async fn snapshot(&self) -> Snapshot {
        let queues = match &self.threads {
            Some(threads) => threads.numbers().await,
            None => Vec::new(),
        };
        let controller = self.controller.lock().expect("no holder panics").clone();
        Snapshot { labels: self.labels.clone(), controller, queues }
    }
}
