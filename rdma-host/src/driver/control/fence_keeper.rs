//! Opens the write fence once the old controllers are proved to execute nothing more.

use std::{convert::Infallible, future::pending};

use tokio::sync::mpsc;
use verbs::Provider;

use crate::{
    driver::{
        connect::controller_probe::ProbeContext, control::shared::ProbeRequest,
        data_path::fence::SharedFence, runtime,
    },
    proto::{FenceAction, ProbeAnswer, ProbeQuestion},
};

/// Performs the actions of the fence, on a live connection.
pub(crate) async fn keep_fence<P: Provider>(
    fence: &SharedFence,
    probe: &ProbeContext<'_, P>,
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
