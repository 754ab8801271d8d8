//! The authentication of one queue: the messages of [`auth`] in commands.

use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use auth::{
    Authenticated, Failure, Negotiation, Randomness, SequenceNumber, TransactionId,
    message::{MessageId, RECEIVE_LENGTH},
};
use verbs::Provider;

use crate::{
    config::{AUTHENTICATION_TIMEOUT, AuthenticationOptions, ConnectOptions, HostIdentity},
    driver::{
        data_path::admin_queue::{client::AdminClient, queue::AdminQueue},
        runtime,
    },
    error::{AuthenticationFailure, Error, Rejected, Transport},
    proto::{Execute, Negotiated, Transfer},
    wire::{AuthenticationCommand, Cqe, Nqn, QueueId},
};

/// Host, subsystem and credentials of an authentication.
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

/// Queue to execute fabrics commands on, in whatever state its connection is.
pub(crate) trait CommandChannel {
    /// Executes one command; returns a response of any status, and the data.
    async fn execute(&mut self, execute: Execute) -> Result<(Cqe, Vec<u8>), Error>;
}

/// Executes commands on whichever connection is live.
impl<P: Provider> CommandChannel for &AdminClient<P> {
    async fn execute(&mut self, execute: Execute) -> Result<(Cqe, Vec<u8>), Error> {
        self.response_to(execute).await
    }
}

impl<P: Provider> CommandChannel for AdminQueue<P> {
    async fn execute(&mut self, execute: Execute) -> Result<(Cqe, Vec<u8>), Error> {
        self.execute(execute).await
    }
}

/// Authenticates a queue within [`AUTHENTICATION_TIMEOUT`].
pub(crate) async fn authenticate(
    channel: &mut impl CommandChannel,
    queue: QueueId,
    parties: &AuthenticationParties,
) -> Result<Authenticated, Error> {
    let after = AUTHENTICATION_TIMEOUT;
    let timeout = Error::Timeout { step: "authentication", after };
    let mut exchange = Exchange { channel, queue };
    let outcome = runtime::timeout(after, exchange.run(parties)).await;
    let authenticated = outcome.unwrap_or(Err(timeout))?;
    for warning in authenticated.warnings() {
        tracing::warn!(%queue, "{warning}");
    }
    Ok(authenticated)
}

/// Warns if a queue was not authenticated though there are secrets. [`authenticate`] logs all other
/// warnings.
pub(crate) fn warn_if_unauthenticated(negotiated: &Negotiated) {
    if negotiated.unauthenticated_with_secrets {
        tracing::warn!("{}", auth::Warning::NotRequired);
    }
}

struct Exchange<'a, C> {
    channel: &'a mut C,
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
        let randomness =
            Randomness::draw(runtime::fill_random).map_err(|error| self.failed(error))?;
        let sequence_number = sequence_number().map_err(|error| self.failed(error))?;
        let (negotiate, state) = negotiation.start().map_err(|error| self.failed(error))?;
        self.send(negotiate).await?;
        let challenge = self.receive(MessageId::CHALLENGE).await?;
        // Exponentiation takes milliseconds to a second: not here, where I/O may be waiting.
        let replied =
            runtime::blocking(move || state.handle(&challenge, randomness, sequence_number));
        let (reply, state) = self.or_report(replied.output().await?).await?;
        self.send(reply).await?;
        let success = self.receive(MessageId::SUCCESS1).await?;
        let (success, authenticated) = self.or_report(state.handle(&success)).await?;
        if let Some(success) = success {
            self.send(success).await?;
        }
        Ok(authenticated)
    }

    /// Sends the controller the failure message, if the failure has one.
    async fn or_report<T>(&mut self, outcome: Result<T, Failure>) -> Result<T, Error> {
        match outcome {
            Ok(value) => Ok(value),
            Err(failure) => {
                if let Some(message) = failure.message() {
                    // The connection is dropped whatever comes of it.
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

    /// Receives the message `due`.
    async fn receive(&mut self, due: MessageId) -> Result<Vec<u8>, Error> {
        let length = u32::try_from(RECEIVE_LENGTH).expect("a page");
        let sqe = AuthenticationCommand::receive(length).to_sqe();
        let transfer = Transfer::FromController(RECEIVE_LENGTH);
        let name = "Authentication Receive";
        let received = self.execute(Execute { queue: self.queue, sqe, transfer, name }).await;
        received.map_err(|error| {
            if is_disconnect(&error, Some(self.queue)) {
                self.failed(AuthenticationFailure::Disconnected(due))
            } else {
                error
            }
        })
    }

    async fn execute(&mut self, execute: Execute) -> Result<Vec<u8>, Error> {
        let command = execute.name;
        let (response, data) = self.channel.execute(execute).await?;
        match response.status() {
            status if status.is_success() => Ok(data),
            status => Err(Rejected::Command { command, status }.into()),
        }
    }

    fn failed(&self, failure: impl Into<AuthenticationFailure>) -> Error {
        Error::Authentication { queue: self.queue, failure: failure.into() }
    }
}

/// Returns true if the target closed the connection of `queue`, or of any queue if `None`. It did
/// so on purpose: a network failure has no such event. Of a live controller it closes all
/// connections, and any may be noticed first; of queues that are brought up each on its own.
fn is_disconnect(error: &Error, queue: Option<QueueId>) -> bool {
    match error {
        Error::NotConnected(lost) => is_disconnect(&lost.cause, None),
        Error::Transport(Transport::Disconnected(closed)) => {
            queue.is_none_or(|queue| *closed == queue)
        }
        _ => false,
    }
}

/// Next transaction identifier (T_ID), from a counter of the process: exchanges that overlap have
/// different ones.
fn transaction_id() -> TransactionId {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    TransactionId(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Next sequence number (SEQNUM), from a counter with a random start; never 0 (Base 8.3.4.5).
fn sequence_number() -> Result<SequenceNumber, getrandom::Error> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = runtime::random_u32()?;
    // The first call sets the start.
    let _ = NEXT.compare_exchange(0, start.max(1), Ordering::Relaxed, Ordering::Relaxed);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        if let Ok(number) = number.try_into() {
            return Ok(SequenceNumber(number));
        }
    }
}
