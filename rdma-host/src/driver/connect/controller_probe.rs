//! Asks the target whether it still has a controller.

use std::sync::Arc;

use verbs::{ProtectionDomain, Provider};

use crate::{
    config::{ADMIN_TIMEOUT, ConnectOptions, FENCE_PROBE_TIMEOUT, MemoryMode},
    driver::{
        buffers::verbs_error,
        connect::{
            bring_up::connect_admin_queue,
            rdma::{Plan, Resolved},
        },
        data_path::{
            admin_queue::{command_buffer::CommandBuffer, queue::AdminQueue},
            memory::completion_entries,
            poller::Poller,
        },
        runtime,
    },
    error::Error,
    proto::{ControllerProbe, ProbeAnswer, ProbeQuestion, Transfer},
};

/// Parameters of the connections that ask, each of which is closed after the answer.
pub(crate) struct ProbeContext<'a, P: Provider> {
    pub(crate) provider: &'a Arc<P>,
    pub(crate) options: &'a ConnectOptions,
    pub(crate) domain: &'a ProtectionDomain<P>,
    pub(crate) memory: MemoryMode,
}

impl<P: Provider> ProbeContext<'_, P> {
    /// Asks the target about a controller. An answer that is late, or that fails, proves nothing.
    pub(crate) async fn ask(&self, question: ProbeQuestion) -> ProbeAnswer {
        let ProbeQuestion { controller, queue } = question;
        let asked = runtime::timeout(FENCE_PROBE_TIMEOUT, self.connect(question)).await;
        match asked {
            Ok(Ok(answer)) => {
                tracing::debug!(
                    %controller, ?queue, ?answer,
                    "the target was asked for a controller"
                );
                answer
            }
            Ok(Err(error)) => {
                tracing::debug!(%controller, %error, "the target could not be asked");
                ProbeAnswer::Unproved
            }
            Err(_) => {
                tracing::debug!(%controller, "no answer about a controller in time");
                ProbeAnswer::Unproved
            }
        }
    }

    async fn connect(&self, question: ProbeQuestion) -> Result<ProbeAnswer, Error> {
        let Self { provider, options, domain, memory } = *self;
        let ControllerProbe { open, connect } = ControllerProbe::new(options, question);
        let resolved = Resolved::new(provider, options).await?;
        let entries = completion_entries(memory, 1, open.entries);
        let completion_queue =
            resolved.endpoint().completion_queue(entries).map_err(verbs_error)?;
        let Transfer::ToController(data) = &connect.transfer else {
            unreachable!("Connect has data")
        };
        let buffer = domain.allocate(data.len(), memory.access()).map_err(verbs_error)?;
        let poller = Poller::new(completion_queue, ADMIN_TIMEOUT);
        let mut queue = AdminQueue::new(poller, CommandBuffer::from(buffer), options.io_timeout);
        let plan = Plan { options, domain, open, memory };
        connect_admin_queue(&mut queue, resolved, plan).await?;
        let (response, _) = queue.execute(connect).await?;
        Ok(ProbeAnswer::of(response.status(), response.result_dword()))
    }
}
