//! Opens the write fence once the old controllers are proved to execute nothing more.

use std::convert::Infallible;

use verbs::Provider;

use crate::{
    driver::{connect::controller_probe::ProbeContext, data_path::fence::SharedFence, runtime},
    proto::FenceAction,
};

/// Performs the actions of the fence, on a live connection.
pub(crate) async fn keep_fence<P: Provider>(
    fence: &SharedFence,
    probe: &ProbeContext<'_, P>,
) -> Infallible {
    loop {
        let version = fence.version();
        match fence.action() {
            FenceAction::None => fence.until_changed(version).await,
            FenceAction::Probe(question) => {
                let answer = probe.ask(question).await;
                fence.answered(question, answer);
            }
            FenceAction::Wait(until) => {
                // A change is due at once: it may have opened the fence.
                let _ = runtime::timeout_at(until, fence.until_changed(version)).await;
            }
        }
        fence.elapse();
    }
}
