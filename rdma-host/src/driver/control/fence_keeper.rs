//! Opens the write fence once the old controllers are proved to execute nothing more.

use std::{convert::Infallible, future::pending};

use tokio::sync::mpsc;
use verbs::Provider;

use crate::{
    config::FENCE_PROBE_TIMEOUT,
    driver::{
        connect::controller_probe::ProbeContext,
        control::shared::ProbeRequest,
        data_path::{admin_queue::client::AdminClient, fence::SharedFence},
        runtime,
    },
    proto::{
        Execute, FenceAction, ProbeAnswer, ProbeQuestion, ResetAnswer, ResetCommand, ResetStep,
        Transfer,
    },
    wire::{CrossControllerResetLog, GetLogPage, LogPage, QueueId},
};

/// Admin queue of a live connection, whose controller resets others.
pub(crate) struct ResetContext<'a, P: Provider> {
    pub(crate) admin: &'a AdminClient<P>,
    /// Generation of the connection.
    pub(crate) generation: u64,
}

impl<P: Provider> ResetContext<'_, P> {
    /// Executes a command of a reset. A response that is late proves nothing.
    async fn execute(&self, command: &ResetCommand) -> ResetAnswer {
        let (sqe, bytes, name) = match command.step {
            ResetStep::Reset => (command.to_sqe(), 0, "Cross-Controller Reset"),
            ResetStep::ReadLog { remove_ended } => {
                let mut read =
                    GetLogPage::new(LogPage::CROSS_CONTROLLER_RESET, CrossControllerResetLog::SIZE);
                read.specific_field =
                    u8::from(remove_ended) * CrossControllerResetLog::REMOVE_ENDED;
                (read.to_sqe(), CrossControllerResetLog::SIZE as usize, "Get Log Page (resets)")
            }
        };
        let transfer = match bytes {
            0 => Transfer::None,
            bytes => Transfer::FromController(bytes),
        };
        let execute = Execute { queue: QueueId::ADMIN, sqe, transfer, name };
        let executed = self.admin.response_on_connection(self.generation, execute);
        let executed = runtime::timeout(FENCE_PROBE_TIMEOUT, executed).await;
        let ResetCommand { controller, step, .. } = command;
        let answer = match (command.step, executed) {
            (ResetStep::Reset, Ok(Ok((response, _)))) => {
                ResetAnswer::Response(response.status(), response.result_dword())
            }
            (ResetStep::ReadLog { .. }, Ok(Ok((response, page))))
                if response.status().is_success() =>
            {
                CrossControllerResetLog::parse(&page).map_or(ResetAnswer::None, ResetAnswer::Log)
            }
            _ => ResetAnswer::None,
        };
        tracing::debug!(%controller, ?step, ?answer, "another controller was asked to reset it");
        answer
    }
}

/// Performs the actions of the fence, on a live connection.
pub(crate) async fn keep_fence<P: Provider>(
    fence: &SharedFence,
    probe: &ProbeContext<'_, P>,
    reset: &ResetContext<'_, P>,
) -> Infallible {
    let target = probe.options.address;
    loop {
        let version = fence.version();
        match fence.action(target) {
            FenceAction::None => fence.until_changed(version).await,
            FenceAction::Probe(question) => {
                let answer = probe.ask(question).await;
                fence.answered(target, question, answer);
            }
            FenceAction::Reset(command) => {
                let answer = reset.execute(&command).await;
                fence.reset_answered(&command, &answer);
            }
            FenceAction::Wait(until) => {
                // A change is due at once: it may have opened the fence.
                let _ = runtime::timeout_at(until, fence.until_changed(version)).await;
            }
        }
        fence.elapse();
    }
}

/// Asks the target what the owner wants to know of other controllers, on a live connection.
/// Requests are dropped where its answers are no proof.
pub(crate) async fn answer_probes<P: Provider>(
    requests: &mut mpsc::Receiver<ProbeRequest>,
    ids_prove: bool,
    probe: &ProbeContext<'_, P>,
) -> Infallible {
    while let Some(ProbeRequest { controller, gone }) = requests.recv().await {
        if ids_prove {
            let answer = probe.ask(ProbeQuestion { controller, queue: None }).await;
            let _ = gone.send(answer == ProbeAnswer::Gone); // who asked may be gone
        }
    }
    pending().await
}
