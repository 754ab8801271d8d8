//! `nvmf attach`: a namespace as a block device, which this process serves.

mod daemon;
mod detach;
mod device;
mod device_name;
mod registry;
mod serve;
mod served_device;
mod shared_file;
mod translate;

use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
    thread::{Builder, JoinHandle},
    time::Duration,
};

use clap::Args;
use rdma_host::{
    ConnectOptions, Controller, Fence, Poller, SharedMemory, StateChanges, WaitMode, Waiter,
    error::Misuse,
    wire::{BlockRange, ControllerId, NamespaceInfo},
};
use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    watch,
};
use ublk::{Control, Device, DeviceInfo, DeviceState};

use self::{
    device_name::DeviceName,
    registry::Entry,
    serve::{QueueParts, Server},
    served_device::{End, OnLoss, ServedDevice},
    shared_file::SharedFile,
    translate::Blocks,
};
use crate::{
    connect,
    failure::Failure,
    metrics::{
        ControllerReports, Metrics, MetricsArguments, MetricsOutputs, Report, ReportingThreads,
        ThreadRequests,
    },
    output,
    shutdown::InterruptibleRuntime,
    size,
    target::TargetArguments,
    termination_signal::TerminationSignal,
};

pub(crate) use detach::{DetachArguments, ListArguments, detach, list};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Namespace id [default: the only one].
    #[arg(long, visible_alias = "namespace-id", value_name = "N",
          value_parser = size::namespace_id)]
    ns: Option<u32>,

    /// Number of the device, N of /dev/ublkbN [default: the first that is free].
    #[arg(long, value_name = "N")]
    id: Option<u32>,

    /// Serve device N, whose process has ended, again; make it if there is none.
    #[arg(long, value_name = "N", conflicts_with = "id")]
    recover: Option<u32>,

    /// Name of the device, as a link /dev/nvmf/NAME to it [default: none; of a device that is
    /// recovered, the name that it has].
    #[arg(long, value_name = "NAME")]
    name: Option<DeviceName>,

    /// Refuse writes.
    #[arg(long, visible_alias = "ro")]
    read_only: bool,

    /// Memory that programs share with the device (Linux 7.1): a memfd (/proc/PID/fd/N), or a file
    /// of tmpfs or of huge pages, which they map. Requests with their data there are not copied.
    #[arg(long, value_name = "FILE")]
    share: Option<PathBuf>,

    /// Fate of the device once the controller is given up (--ctrl-loss-tmo), and requests fail with
    /// EIO: `fail` keeps it until it is detached, `remove` removes it, also in use.
    #[arg(
        long,
        value_name = "FATE",
        value_enum,
        default_value = "fail",
        hide_possible_values = true
    )]
    on_loss: OnLoss,

    /// Serve the device from this process, until a signal or `nvmf detach`; messages go to standard
    /// error. A device that is in use at a signal waits to be recovered.
    #[arg(long)]
    foreground: bool,

    /// Go on where the memory of the process cannot be locked.
    #[arg(long)]
    unlocked: bool,

    /// The process in the background.
    #[arg(long, hide = true)]
    daemon: bool,

    #[command(flatten)]
    target: TargetArguments,

    #[command(flatten)]
    metrics: MetricsArguments,
}

/// Timeout of the start of a thread.
const THREAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Time for which the end of the controllers before is awaited without a fence; targets take
/// milliseconds for that, unless their medium is slow.
const SUPERSEDE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connection, before there is a device.
struct Connection {
    runtime: InterruptibleRuntime,
    options: ConnectOptions,
    controller: Controller,
    pollers: Vec<Poller>,
    changes: StateChanges,
    /// For the metrics; none once they have them.
    reports: Option<ControllerReports>,
    namespace: NamespaceInfo,
    /// Memory that programs share with the device.
    shared: Option<SharedMemory>,
}

/// Threads that serve the queues of a device.
struct Threads {
    threads: Vec<JoinHandle<()>>,
    requests: Arc<ThreadRequests>,
    /// Numbers of the queues.
    reports: Vec<watch::Receiver<Report>>,
    ends: UnboundedReceiver<Result<(), Failure>>,
}

/// Reason for which this process ends its device.
enum Cause {
    Signal(TerminationSignal),
    /// The controller was given up, for this reason.
    Loss(String),
}

/// Reports of one thread: that it serves, and how that ended.
struct Reports {
    started: mpsc::Sender<Result<(), Failure>>,
    ended: UnboundedSender<Result<(), Failure>>,
}

/// Runs `nvmf attach`.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut control = Control::open().map_err(device::failure)?;
    if !arguments.foreground && !arguments.daemon {
        return daemon::start_in_background();
    }
    // Before the folder changes, to which paths are relative.
    let (outputs, options) = (arguments.metrics.open()?, arguments.target.options()?);
    let shared = arguments.share.as_deref().map(|path| SharedFile::open(path, &mut control));
    let shared = shared.transpose()?;
    if arguments.daemon {
        daemon::leave_session()?;
    }
    daemon::prepare(arguments.unlocked, arguments.recover)?;
    let former = match arguments.recover {
        Some(id) => device::find(&mut control, id)?,
        None => None,
    };
    if let Some(former) = &former {
        device::check_sharing(former, shared.is_some())?;
    }
    if let Some(name) = &arguments.name {
        name.check_free(former.as_ref().map(DeviceInfo::id))?;
    }
    let mut connection = Connection::new(arguments, options, former.as_ref())?;
    let registered = shared.map(|file| file.register(&connection.controller));
    connection.shared = registered.transpose()?;
    serve(arguments, &mut control, former, connection, outputs)
}

impl Connection {
    /// Connects with as many queues as the device has that is taken over.
    fn new(
        arguments: &Arguments,
        mut options: ConnectOptions,
        former: Option<&DeviceInfo>,
    ) -> Result<Self, Failure> {
        // The kernel makes no more hardware queues than it may have processors.
        let queues = former.map_or(device::queues_max().min(options.io_queues), DeviceInfo::queues);
        options.io_queues = options.io_queues.max(queues);
        if let Some(former) = former {
            options.queue_entries = former.depth() + 1;
        }
        let runtime = InterruptibleRuntime::new()?;
        let (controller, pollers, streams) = runtime.run(async {
            let connecting = Controller::connect(&options);
            let (changes, reports) = (connecting.changes(), ControllerReports::of(&connecting));
            let connected = connecting.polled(queues.into()).await;
            connected.map(|(controller, pollers)| (controller, pollers, (changes, reports)))
        })?;
        let (changes, reports) = streams;
        let negotiated = controller.negotiated();
        connect::print_warnings(&negotiated);
        if let Some(former) = former
            && (pollers.len() < queues.into() || negotiated.queue_entries <= former.depth())
        {
            return Err(Failure::failed(format!(
                "{} has {queues} queues of {} requests, and the controller {} of {} entries: \
                 detach the device, with --force",
                device::path(former.id()),
                former.depth(),
                negotiated.io_queues,
                negotiated.queue_entries
            )));
        }
        let id = runtime.run(connect::namespace_id(&controller, arguments.ns))?;
        let namespace = runtime.run(controller.identify_namespace(id))?;
        Misuse::check_no_metadata(&namespace).map_err(rdma_host::Error::from)?;
        let reports = Some(reports);
        let shared = None;
        Ok(Self { runtime, options, controller, pollers, changes, reports, namespace, shared })
    }
}

/// Serves the device of a connection until its end.
fn serve(
    arguments: &Arguments,
    control: &mut Control,
    former: Option<DeviceInfo>,
    mut connection: Connection,
    outputs: MetricsOutputs,
) -> Result<(), Failure> {
    let Connection { runtime, options, controller, namespace, pollers, .. } = &connection;
    let wanted = device::parameters(controller, namespace, arguments.read_only);
    let wanted = runtime.run(wanted)?;
    let is_new = former.is_none();
    let info = match former {
        Some(former) => {
            device::take_over(control, &former, namespace, wanted)?;
            former
        }
        None => {
            let (id, resend) = (arguments.id.or(arguments.recover), options.reconnect.resend);
            let queues = u16::try_from(pollers.len()).expect("as many as were asked for");
            let depth = controller.negotiated().queue_entries - 1;
            let shares = connection.shared.is_some();
            device::add(control, id, (queues, depth), wanted, resend, shares)?
        }
    };
    let mut threads = None;
    let name = arguments.name.as_ref();
    let started = start(control, &info, (is_new, name), &mut connection, &mut threads);
    let outcome = started.and_then(|entry| {
        let threads = threads.as_mut().expect("they were started");
        wait(control, &info, &mut connection, (threads, outputs), (entry, arguments))
    });
    if let Some(threads) = threads {
        if outcome.is_err() {
            threads.requests.leave();
        }
        threads.join();
    }
    finish(control, &info, is_new, connection, outcome)
}

/// Deletes a device that this process has stopped, or made and not started, and disconnects.
fn finish(
    control: &mut Control,
    info: &DeviceInfo,
    is_new: bool,
    connection: Connection,
    mut outcome: Result<End, Failure>,
) -> Result<(), Failure> {
    let Connection { runtime, controller, pollers, .. } = connection;
    drop(pollers);
    // The device is closed: nothing but its deletion is left.
    let delete = match &outcome {
        Ok(end) => matches!(end, End::Stopped | End::Lost(_)),
        // One that was started waits for the next process.
        Err(_) => {
            is_new && control.info(info.id()).is_ok_and(|now| now.state() == DeviceState::Dead)
        }
    };
    if delete {
        let _ = Entry::remove(info.id());
        let deleted = match &outcome {
            Ok(End::Lost(_)) => control.delete_when_closed(info).map(drop),
            _ => control.delete(info),
        };
        let deleted = deleted.map_err(device::failure);
        outcome = outcome.and_then(|end| deleted.map(|()| end));
    }
    runtime.runtime.block_on(controller.shutdown());
    match outcome? {
        End::Lost(reason) => Err(Failure::failed(format!(
            "{} was removed, since its controller is gone: {reason}",
            device::path(info.id())
        ))),
        End::Detached | End::Left | End::Stopped => Ok(()),
    }
}

/// Starts the threads, then the device.
fn start(
    control: &mut Control,
    info: &DeviceInfo,
    (is_new, name): (bool, Option<&DeviceName>),
    connection: &mut Connection,
    threads: &mut Option<Threads>,
) -> Result<Entry, Failure> {
    let device = control.open_device(info.id()).map_err(device::failure)?;
    *threads = Some(Threads::start(&device, connection)?);
    if !is_new {
        until_superseded(info.id(), connection)?;
    }
    let Connection { options, controller, namespace, shared, .. } = connection;
    // Before the device is there: udev asks for it.
    let mut entry = Entry::new(info.id(), options, &controller.negotiated(), namespace);
    let former = Entry::read(info.id()).filter(|_| !is_new).and_then(|entry| entry.name);
    entry.name = name.or(former.as_ref()).cloned();
    entry.write().map_err(|error| {
        let path = device::path(info.id());
        Failure::failed(format!("the entry of {path} for `nvmf list` and `nvmf detach`: {error}"))
    })?;
    if let Some(former) = former.filter(|former| name.is_some_and(|name| name != former)) {
        // One that is left is replaced by the next device of its name.
        let _ = former.unlink(info.id());
    }
    if let Some(name) = &entry.name {
        name.link(info.id())?;
    }
    let share = |control: &mut Control| match &*shared {
        Some(memory) => control.share(info, &device, memory).map_err(device::failure),
        None => Ok(()),
    };
    if is_new {
        share(control)?;
        control.start(info).map_err(device::failure)?;
    } else {
        control.end_recovery(info).map_err(device::failure)?;
        // The queues are served: what was shared before is, once its requests have completed.
        if let Err(error) = share(control) {
            let path = device::path(info.id());
            output::print_message(format_args!("nvmf: {path}: its requests are copied: {error}"));
        }
    }
    output::print_text(&format!("{}\n", device::path(info.id())))?;
    daemon::notify_ready();
    Ok(entry)
}

/// Waits until it is proved that the controllers of the process before this one execute nothing
/// more: its writes are repeated, and later ones to the same blocks follow.
fn until_superseded(id: u32, connection: &Connection) -> Result<(), Failure> {
    let Connection { runtime, options, controller, .. } = connection;
    let former = Entry::read(id).map_or_else(Vec::new, |entry| entry.controllers);
    let is_fenced = options.fence.mode != Fence::Off;
    let limit = if is_fenced { options.fence.timeout } else { SUPERSEDE_TIMEOUT };
    for former in former {
        let proved = runtime.run(async {
            Ok::<_, Failure>(controller.until_gone(ControllerId(former), limit).await)
        })?;
        let path = device::path(id);
        if !proved && is_fenced {
            return Err(Failure::failed(format!(
                "controller {former} may still execute writes of the process that served {path}, \
                 and nothing proves that it does not: try again later, or give --fence off"
            )));
        }
        if !proved {
            output::print_message(format_args!(
                "nvmf: warning: {path}: controller {former} may still execute writes of the \
                 process before this one; --fence proof waits until it does not"
            ));
        }
    }
    Ok(())
}

/// Waits for the end of the device.
fn wait(
    control: &mut Control,
    info: &DeviceInfo,
    connection: &mut Connection,
    (threads, outputs): (&mut Threads, MetricsOutputs),
    (entry, arguments): (Entry, &Arguments),
) -> Result<End, Failure> {
    let Connection { runtime, options, changes, controller, reports, namespace, .. } = connection;
    let path = device::path(info.id());
    let metrics = Metrics::new(options, Some(path), Some(threads.reporting()));
    let reports = reports.take().expect("nothing else takes them");
    let _writers = outputs.start(runtime.runtime.handle(), &metrics);
    let sectors = control.parameters(info).map_err(device::failure)?.sectors;
    let (namespace, is_background) = (namespace.id, arguments.daemon);
    let info = *info;
    let mut device =
        ServedDevice { control, info, controller, namespace, sectors, entry, is_background };
    let cause = runtime.runtime.block_on(async {
        let mut events = controller.events();
        let mut follow = std::pin::pin!(metrics.follow(controller, reports));
        device.follow_namespace();
        loop {
            tokio::select! {
                () = &mut follow => {}
                Some(change) = changes.next() => {
                    let reason = device.change_state(&change);
                    if let Some(reason) = reason.filter(|_| arguments.on_loss == OnLoss::Remove) {
                        return Ok(Some(Cause::Loss(reason)));
                    }
                }
                Some(event) = events.next() => device.event(&event),
                signal = runtime.shutdown.received() => return Ok(Some(Cause::Signal(signal))),
                ended = threads.ends.recv() => {
                    return ended.unwrap_or(Ok(())).map(|()| None);
                }
            }
        }
    })?;
    match cause {
        Some(cause) => end(control, info.id(), cause, threads),
        None => Ok(End::Detached),
    }
}

/// Ends the device, or leaves it to the next process.
fn end(control: &mut Control, id: u32, cause: Cause, threads: &Threads) -> Result<End, Failure> {
    let info = control.info(id).map_err(device::failure)?;
    match cause {
        Cause::Loss(reason) => {
            device::stop(control, &info, true)?;
            Ok(End::Lost(reason))
        }
        Cause::Signal(_) if device::stop(control, &info, false)? => Ok(End::Stopped),
        Cause::Signal(signal) => {
            let path = device::path(id);
            output::print_message(format_args!(
                "nvmf: ended by {signal}; {path} is in use, and waits for \
                 `nvmf attach --recover {id}`"
            ));
            threads.requests.leave();
            Ok(End::Left)
        }
    }
}

impl Threads {
    /// Starts a thread for each queue; all of them serve then.
    fn start(device: &Arc<Device>, connection: &mut Connection) -> Result<Self, Failure> {
        let Connection { controller, pollers, namespace, options, shared, .. } = connection;
        let (ended, ends) = unbounded_channel();
        let (started, starts) = mpsc::channel();
        let requests = Arc::new(ThreadRequests::default());
        let mut this = Self { threads: Vec::new(), requests, reports: Vec::new(), ends };
        let (wait, count) = (options.wait, pollers.len());
        if count != usize::from(device.queues()) {
            let queues = device.queues();
            return Err(Failure::failed(format!("the kernel made {queues} queues of {count}")));
        }
        let blocks = Blocks { namespace: namespace.id, size: namespace.block_size };
        for (index, poller) in (0..).zip(pollers.drain(..)) {
            let (report, reports) = watch::channel(Report::default());
            this.reports.push(reports);
            let parts = QueueParts {
                index,
                poller,
                memory: controller.allocate_shared(device.memory_bytes())?,
                shared: shared.clone(),
                ranges: controller.allocate_many(device.depth().into(), BlockRange::SIZE)?,
                blocks,
                requests: Arc::clone(&this.requests),
                report,
            };
            let reports = Reports { started: started.clone(), ended: ended.clone() };
            let device = Arc::clone(device);
            let thread = Builder::new()
                .name(format!("ublk{index}"))
                .spawn(move || reports.run(&device, parts, wait, count))
                .map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;
            this.threads.push(thread);
        }
        for _ in 0..count {
            let late = |_| Failure::failed("a thread that serves a queue did not start in time");
            if let Err(failure) = starts.recv_timeout(THREAD_TIMEOUT).map_err(late).flatten() {
                this.requests.leave();
                this.join();
                return Err(failure);
            }
        }
        Ok(this)
    }

    /// Threads whose numbers are metrics.
    fn reporting(&self) -> ReportingThreads {
        ReportingThreads { requests: Arc::clone(&self.requests), reports: self.reports.clone() }
    }

    /// Waits until all have ended, as they do once the device is stopped or they are to leave.
    fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                output::print_message(format_args!("nvmf: a thread that served a queue panicked"));
            }
        }
    }
}

impl Reports {
    fn run(self, device: &Arc<Device>, parts: QueueParts, wait: WaitMode, count: usize) {
        let Self { started, ended } = self;
        let served = Server::new(device, parts).and_then(|mut server| {
            // The receivers are there for as long as the threads.
            let _ = started.send(Ok(()));
            server.run(waiter(wait, count))
        });
        if let Err(failure) = &served {
            let _ = started.send(Err(failure.clone()));
        }
        let _ = ended.send(served);
    }
}

/// Way to wait of each of `count` threads. A thread that spins where there is no processor for it
/// alone sleeps early instead: in the idle class, as that of a benchmark, it would be starved by
/// the very programs that use the device.
fn waiter(wait: WaitMode, count: usize) -> Waiter {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    if wait == WaitMode::Poll || count < processors {
        Waiter::on_own_thread(wait, count)
    } else {
        Waiter::new(wait)
    }
}
