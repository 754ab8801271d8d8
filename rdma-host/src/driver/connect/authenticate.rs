//! The authentication of one queue: the messages of [`auth`] in commands.

use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use auth::{
    Authenticated, Failure, Negotiation, Randomness, SequenceNumber, TransactionId,
    message::{MessageId, RECEIVE_LENGTH},
};

use crate::{
    config::{AUTHENTICATION_TIMEOUT, AuthenticationOptions, ConnectOptions, HostIdentity},
    error::{AuthenticationFailure, Error, Rejected, Transport},
    proto::{Execute, Negotiated, Transfer},
    wire::{AuthenticationCommand, Cqe, Nqn, QueueId},
};

/// Who authenticates, to whom, with what.
#[derive(Clone)]
pub(crate) struct AuthenticationParties {
    pub(crate) authentication: AuthenticationOptions,
    pub(crate) host: HostIdentity,
    pub(crate) subsystem: Nqn,
}

impl AuthenticationParties {
    pub(crate) fn of(options: &ConnectOptions) -> Self {
        Self {
            authentication: options.authentication.clone(),
            host: options.host.clone(),
            subsystem: options.subsystem.clone(),
        }
    }
}

/// Sends one command on the queue that is authenticated, and brings its answer.
pub(crate) trait CommandChannel {
    async fn carry(&mut self, execute: Execute) -> Result<(Cqe, Vec<u8>), Error>;
}

/// Authenticates a queue within [`AUTHENTICATION_TIMEOUT`].
pub(crate) async fn authenticate(
    carrier: &mut impl CommandChannel,
    queue: QueueId,
    parties: &AuthenticationParties,
) -> Result<Authenticated, Error> {
    let after = AUTHENTICATION_TIMEOUT;
    let timeout = Error::Timeout { step: "authentication", after };
    let mut exchange = Exchange { carrier, queue };
    let outcome = tokio::time::timeout(after, exchange.run(parties)).await;
    let authenticated = outcome.unwrap_or(Err(timeout))?;
    for warning in authenticated.warnings() {
        tracing::warn!(%queue, "{warning}");
    }
    Ok(authenticated)
}

/// Says so where the policy lets secrets go unused; what else is weak, [`authenticate`] has said.
pub(crate) fn warn_if_unauthenticated(negotiated: &Negotiated) {
    if negotiated.unauthenticated_with_secrets {
        tracing::warn!("{}", auth::Warning::NotRequired);
    }
}

struct Exchange<'a, C> {
    carrier: &'a mut C,
    queue: QueueId,
}

impl<C: CommandChannel> Exchange<'_, C> {
    async fn run(&mut self, parties: &AuthenticationParties) -> Result<Authenticated, Error> {
        let AuthenticationOptions { credentials, policy } = &parties.authentication;
        let Some(credentials) = credentials else {
            return Err(self.failed(auth::RequirementsError::SecretMissing));
        };
        let negotiation = Negotiation {
            credentials,
            policy: *policy,
            host_nqn: parties.host.nqn.as_str(),
            subsystem_nqn: parties.subsystem.as_str(),
            transaction_id: transaction_id(),
        };
        let randomness = Randomness::draw(getrandom::fill).map_err(|error| self.failed(error))?;
        let sequence_number = sequence_number().map_err(|error| self.failed(error))?;
        let (negotiate, state) = negotiation.start().map_err(|error| self.failed(error))?;
        self.send(negotiate).await?;
        let challenge = self.receive(MessageId::CHALLENGE).await?;
        // Exponentiation takes milliseconds to a second: not here, where I/O may be waiting.
        let replied = tokio::task::spawn_blocking(move || {
            state.handle(&challenge, randomness, sequence_number)
        });
        let replied = replied.await.map_err(|_| Error::Closed)?;
        let (reply, state) = self.or_tell(replied).await?;
        self.send(reply).await?;
        let success = self.receive(MessageId::SUCCESS1).await?;
        let (success, authenticated) = self.or_tell(state.handle(&success)).await?;
        if let Some(success) = success {
            self.send(success).await?;
        }
        Ok(authenticated)
    }

    /// Tells the controller of a failure that is ours to report.
    async fn or_tell<T>(&mut self, outcome: Result<T, Failure>) -> Result<T, Error> {
        match outcome {
            Ok(value) => Ok(value),
            Err(failure) => {
                if let Some(message) = failure.message() {
                    // The queue is given up anyway.
                    let _ = self.send(message).await;
                }
                Err(self.failed(failure))
            }
        }
    }

    async fn send(&mut self, message: Vec<u8>) -> Result<(), Error> {
        let length = u32::try_from(message.len()).expect("messages are below 2 KiB");
        let sqe = AuthenticationCommand::send(length).to_sqe();
        let transfer = Transfer::ToController(message);
        self.execute(Execute { queue: self.queue, sqe, transfer, name: "Authentication Send" })
            .await
            .map(drop)
    }

    /// Brings the message that is due.
    async fn receive(&mut self, due: MessageId) -> Result<Vec<u8>, Error> {
        let length = u32::try_from(RECEIVE_LENGTH).expect("a page");
        let sqe = AuthenticationCommand::receive(length).to_sqe();
        let transfer = Transfer::FromController(RECEIVE_LENGTH);
        let name = "Authentication Receive";
        let received = self.execute(Execute { queue: self.queue, sqe, transfer, name }).await;
        received.map_err(|error| match is_hang_up(&error, Some(self.queue)) {
            true => self.failed(AuthenticationFailure::Disconnected(due)),
            false => error,
        })
    }

    async fn execute(&mut self, execute: Execute) -> Result<Vec<u8>, Error> {
        let command = execute.name;
        let (response, data) = self.carrier.carry(execute).await?;
        match response.status() {
            status if status.is_success() => Ok(data),
            status => Err(Rejected::Command { command, status }.into()),
        }
    }

    fn failed(&self, failure: impl Into<AuthenticationFailure>) -> Error {
        Error::Authentication { queue: self.queue, failure: failure.into() }
    }
}

/// Whether the target has ended the queue's connection, or any: it did so on purpose, since a
/// network that fails says nothing. Of a controller that was live it ends all of them, and any may
/// be noticed first; of queues that come up together each is one by itself.
fn is_hang_up(error: &Error, queue: Option<QueueId>) -> bool {
    match error {
        Error::NotConnected(away) => is_hang_up(&away.cause, None),
        Error::Transport(Transport::Disconnected(ended)) => queue.is_none_or(|one| *ended == one),
        _ => false,
    }
}

/// The next of a process-wide count: no two exchanges of a controller share one for long.
fn transaction_id() -> TransactionId {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    TransactionId(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The next of a count that starts anywhere and leaves 0 out, as the specification wants it.
fn sequence_number() -> Result<SequenceNumber, getrandom::Error> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = getrandom::u32()?;
    // Whoever is first gives the start.
    let _ = NEXT.compare_exchange(0, start.max(1), Ordering::Relaxed, Ordering::Relaxed);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        if let Ok(number) = number.try_into() {
            return Ok(SequenceNumber(number));
        }
    }
}
