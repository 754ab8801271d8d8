//! `nvmf monitor`: one line for each state change and event of a controller, or of several paths.

use std::{sync::Arc, time::Duration};

use clap::Args;
use rdma_host::{ConnectOptions, Controller};
use tokio::{runtime::Handle, sync::mpsc};

use super::{
    monitor_line::{Line, follow_controller, print_lines},
    monitor_paths,
};
use crate::{
    Format,
    capture::{CaptureArguments, ConnectingCommand, SystemProvider},
    connect,
    failure::Failure,
    metrics::{ControllerReports, Metrics, MetricsArguments, MetricsOutputs},
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
        let has_several = options.addresses().count() > 1;
        if has_several {
            self.metrics.check_single_path()?;
        }
        let outputs = self.metrics.open()?;
        shutdown::runtime()?.block_on(async {
            let shutdown = ShutdownSignal::catch()?;
            let (lines, printer) = print_lines(self.output_format);
            let stopped = stopped(self.runtime, &shutdown, lines.clone());
            let outcome = if has_several {
                monitor_paths::watch(provider, &options, lines, stopped).await
            } else {
                watch(provider, options.connect(), outputs, lines, stopped).await
            };
            // Ends once the controllers are gone, with all printed.
            let printed = printer.await.map_err(Failure::failed)?;
            outcome.and(printed)
        })
    }
}

/// Ends when the time is over, a signal arrives or nothing more can be printed.
async fn stopped(runtime: Option<Duration>, shutdown: &ShutdownSignal, lines: mpsc::Sender<Line>) {
    let over = async {
        match runtime {
            Some(runtime) => tokio::time::sleep(runtime).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = over => {}
        signal = shutdown.received() => shutdown::print_end(signal),
        () = lines.closed() => {}
    }
}

/// Connects, and reports what changes until the controller fails or it is `stopped`.
async fn watch(
    provider: &Arc<SystemProvider>,
    options: &ConnectOptions,
    outputs: MetricsOutputs,
    lines: mpsc::Sender<Line>,
    stopped: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let connecting = Controller::connect_over(provider, options);
    tokio::spawn(follow_controller(None, connecting.changes(), connecting.events(), lines));
    let reports = ControllerReports::of(&connecting);
    let metrics = Metrics::new(options, None, None);
    let _writers = outputs.start(&Handle::current(), &metrics);
    tokio::pin!(stopped);
    let controller = tokio::select! {
        connected = connecting.into_future() => connected?,
        () = &mut stopped => return Ok(()),
    };
    connect::print_warnings(&controller.negotiated());
    let failed = async {
        tokio::select! {
            error = controller.failed() => error,
            () = async {
                metrics.follow(&controller, reports).await;
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
