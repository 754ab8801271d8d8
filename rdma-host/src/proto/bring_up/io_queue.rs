//! Creation of an I/O queue (Base 3.3.2.2, RDMA 3.3).

use auth::Authenticated;

use super::actions::{
    BringUpInput, Execute, Negotiated, QueueReady, RdmaConnect, connect_command, connect_data,
    needs_authentication,
};
use crate::{
    config::ConnectOptions,
    error::{Error, Rejected, TargetMisbehaved},
    wire::{CmRequestData, ControllerId, Cqe, QueueId},
};

/// Bring-up of one I/O queue. Call [`action`](Self::action), perform the action, pass the outcome
/// to [`handle`](Self::handle). The bring-ups of a controller's queues are independent.
///
/// ```text
///  RdmaConnect → Connect → Authenticate → Ready
/// ```
///
/// The queue is authenticated if its Connect response requires it, or if the admin queue was. Any
/// error ends the bring-up; `action` and `handle` return the same error from then on.
#[derive(Debug)]
pub struct QueueBringUp {
    options: ConnectOptions,
    queue: QueueId,
    controller: ControllerId,
    entries: u16,
    in_capsule_bytes: u32,
    /// True if the admin queue was authenticated.
    expect_authentication: bool,
    step: Step,
}

/// Next action of the driver for the queue.
#[derive(Debug)]
pub enum QueueBringUpAction {
    /// Authenticate the queue and report the outcome.
    Authenticate,
    /// Send this command on the queue and report its response.
    Execute(Execute),
    /// Establish an RDMA connection for the queue and report the target's private data.
    RdmaConnect(RdmaConnect),
    /// None: the queue accepts commands.
    Ready(QueueReady),
}

#[derive(Debug, Default)]
enum Step {
    #[default]
    RdmaConnect,
    Connect,
    Authenticate,
    Ready(Option<Authenticated>),
    Failed(Error),
}

impl QueueBringUp {
    pub(super) fn new(
        options: &ConnectOptions,
        agreed: &Negotiated,
        queue: QueueId,
        expect_authentication: bool,
    ) -> Self {
        Self {
            options: options.clone(),
            queue,
            controller: agreed.controller,
            entries: agreed.queue_entries,
            in_capsule_bytes: agreed.in_capsule_bytes,
            expect_authentication,
            step: Step::RdmaConnect,
        }
    }

    /// Queue to bring up.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.queue
    }

    /// Returns the next action of the driver.
    ///
    /// # Errors
    ///
    /// The error that ended the bring-up, on every call.
    pub fn action(&self) -> Result<QueueBringUpAction, Error> {
        Ok(match &self.step {
            Step::RdmaConnect => QueueBringUpAction::RdmaConnect(self.rdma_connect()),
            Step::Connect => QueueBringUpAction::Execute(self.connect_command()),
            Step::Authenticate => QueueBringUpAction::Authenticate,
            Step::Ready(authenticated) => {
                let (entries, authenticated) = (self.entries, *authenticated);
                QueueBringUpAction::Ready(QueueReady { entries, authenticated })
            }
            Step::Failed(error) => return Err(error.clone()),
        })
    }

    /// Passes the outcome of the last action.
    ///
    /// # Errors
    ///
    /// When the outcome ends the bring-up.
    ///
    /// # Panics
    ///
    /// If the input is not an outcome of the last action.
    pub fn handle(&mut self, input: &BringUpInput<'_>) -> Result<(), Error> {
        let step = std::mem::take(&mut self.step);
        match self.advance(step, input) {
            Ok(next) => {
                self.step = next;
                Ok(())
            }
            Err(error) => {
                self.step = Step::Failed(error.clone());
                Err(error)
            }
        }
    }

    fn advance(&mut self, step: Step, input: &BringUpInput<'_>) -> Result<Step, Error> {
        match (step, input) {
            (Step::Failed(error), _) => Err(error),
            (Step::RdmaConnect, BringUpInput::RdmaConnected(accept)) => {
                // Limits the commands in flight to the receives that the target has posted; 0 is no
                // limit. A queue has two entries at least.
                if accept.receive_size > 0 {
                    self.entries = self.entries.min(accept.receive_size).max(2);
                }
                Ok(Step::Connect)
            }
            (Step::Connect, BringUpInput::Completed(response, _)) => self.connected(*response),
            (Step::Authenticate, BringUpInput::Authenticated(how)) => Ok(Step::Ready(Some(*how))),
            (step, input) => panic!("the step is {step:?}, the input {input:?}"),
        }
    }

    fn connected(&self, response: Cqe) -> Result<Step, Error> {
        let (queue, status, result) = (self.queue, response.status(), response.result_dword());
        if !status.is_success() {
            return Err(Rejected::Connect { queue, status, result }.into());
        }
        let (granted, answered) = (self.controller, ControllerId::of_connect_result(result));
        if answered != granted {
            return Err(TargetMisbehaved::AnotherController { queue, granted, answered }.into());
        }
        let expected = self.expect_authentication;
        if needs_authentication(&self.options, queue, result, expected)? {
            Ok(Step::Authenticate)
        } else {
            Ok(Step::Ready(None))
        }
    }

    fn rdma_connect(&self) -> RdmaConnect {
        RdmaConnect {
            queue: self.queue,
            entries: self.entries,
            request: CmRequestData::new(self.queue, self.entries, self.controller),
            in_capsule_bytes: self.in_capsule_bytes,
        }
    }

    fn connect_command(&self) -> Execute {
        Execute {
            queue: self.queue,
            sqe: connect_command(&self.options, self.queue, self.entries, 0),
            transfer: connect_data(&self.options, self.controller),
            name: "Connect on an I/O queue",
        }
    }
}
