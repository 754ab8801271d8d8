//! `nvmf monitor`: one line for each state change and event of a controller.

use std::{sync::Arc, time::Duration};

use clap::Args;
use rdma_host::{
    Controller, ControllerEvent, ControllerEvents, Provider, StateChange, StateChanges,
};
use tokio::{runtime::Handle, sync::oneshot};

use super::{
    monitor_line::{change_to_json, clock, event_to_json, since_epoch, sleep},
    monitor_paths,
};
use crate::{
    Format,
    capture::{CaptureArguments, ConnectingCommand, SystemProvider},
    connect,
    failure::Failure,
    metrics::{ControllerReports, Metrics, MetricsArguments},
    output,
    shutdown::{self, ShutdownSignal},
    target::TargetArguments,
};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Output format; json: one value a line.
    #[arg(short, long, value_name = "FORMAT", default_value = "normal")]
    output_format: Format,

    /// Seconds after which to disconnect [default: never].
    #[arg(long, value_name = "SECONDS", value_parser = crate::size::duration)]
    runtime: Option<Duration>,

    #[command(flatten)]
    target: TargetArguments,

    #[command(flatten)]
    metrics: MetricsArguments,

    #[command(flatten)]
    capture: CaptureArguments,
}

impl ConnectingCommand for Arguments {
    fn capture(&self) -> &CaptureArguments {
        &self.capture
    }

    fn run(&self, provider: &Arc<SystemProvider>) -> Result<(), Failure> {
        let options = self.target.subsystem_options()?;
        if options.addresses().count() > 1 {
            self.metrics.check_single_path()?;
            return monitor_paths::run(provider, &options, self.runtime, self.output_format);
        }
        let (options, outputs) = (options.connect(), self.metrics.open()?);
        shutdown::runtime()?.block_on(async {
            let shutdown = ShutdownSignal::catch()?;
            let connecting = Controller::connect_over(provider, options);
            let (changes, events) = (connecting.changes(), connecting.events());
            let reports = ControllerReports::of(&connecting);
            let metrics = Metrics::new(options, None, None);
            let _writers = outputs.start(&Handle::current(), &metrics);
            let format = self.output_format;
            let (sender, output_closed) = oneshot::channel();
            let printer = tokio::spawn(async move {
                let printed = print_all(changes, events, format).await;
                if !matches!(printed, Ok(true)) {
                    // The receiver is gone only when the command ends anyway.
                    let _ = sender.send(());
                }
                printed.map(drop)
            });
            let follow = async |controller: &Controller<_>| {
                metrics.follow(controller, reports).await;
            };
            let connect = connecting.into_future();
            let outcome = watch(connect, follow, self.runtime, &shutdown, output_closed).await;
            // Ends once the controller is gone, with all printed.
            let printed = printer.await.map_err(Failure::failed)?;
            outcome.and(printed)
        })
    }
}

/// Keeps the connection until the controller fails, the time is over, a signal arrives or nothing
/// more can be printed.
async fn watch<P: Provider>(
    connect: impl Future<Output = Result<Controller<P>, rdma_host::Error>>,
    follow: impl AsyncFnOnce(&Controller<P>),
    runtime: Option<Duration>,
    shutdown: &ShutdownSignal,
    output_closed: oneshot::Receiver<()>,
) -> Result<(), Failure> {
    let stopped = async {
        tokio::select! {
            () = sleep(runtime) => {}
            signal = shutdown.received() => shutdown::print_end(signal),
            Ok(()) = output_closed => {}
        }
    };
    tokio::pin!(stopped);
    let controller = tokio::select! {
        connected = connect => connected?,
        () = &mut stopped => return Ok(()),
    };
    connect::print_warnings(&controller.negotiated());
    let failed = async {
        tokio::select! {
            error = controller.failed() => error,
            () = async {
                follow(&controller).await;
                std::future::pending().await
            } => unreachable!("it is pending"),
        }
    };
    tokio::select! {
        error = failed => Err(error.into()),
        () = stopped => {
            controller.shutdown().await;
            Ok(())
        }
    }
}

/// Prints changes and events until both streams end, with the controller; returns false if the
/// reader has closed the pipe before.
async fn print_all(
    mut changes: StateChanges,
    mut events: ControllerEvents,
    format: Format,
) -> Result<bool, Failure> {
    loop {
        let line = tokio::select! {
            Some(change) = changes.next() => describe_change(&change, format),
            Some(event) = events.next() => describe_event(&event, format),
            else => return Ok(true),
        };
        if !output::try_print(&format!("{line}\n"))? {
            return Ok(false);
        }
    }
}

fn describe_change(change: &StateChange, format: Format) -> String {
    let since_epoch = since_epoch(change.at);
    match format {
        Format::Normal => format!("{} {change}", clock(since_epoch)),
        Format::Json => change_to_json(change, since_epoch).to_string(),
    }
}

fn describe_event(event: &ControllerEvent, format: Format) -> String {
    let since_epoch = since_epoch(event.at);
    match format {
        Format::Normal => format!("{} notice: {event}", clock(since_epoch)),
        Format::Json => event_to_json(event, since_epoch).to_string(),
    }
}
