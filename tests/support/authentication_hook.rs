//! A hook for the scripted target: every queue must authenticate before it is used.
//!
//! The hook has the controller's side of DH-HMAC-CHAP for each queue of each connection. It records
//! what the host sent, and a test may change the messages that go out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use auth::message::{FailureMessage, MessageId};

use crate::{
    authenticator::{Authenticator, Settings},
    target::{Answer, ReceivedCommand},
};

/// ATR in the result of a Connect.
const ATR: u8 = 1 << 1;

/// A message of the controller before it is sent.
#[derive(Debug)]
pub struct OutgoingMessage<'a> {
    /// Queue that it is sent on.
    pub queue: u16,
    /// Kind of the message, unless the test changes it.
    pub id: MessageId,
    /// Last message of the host.
    pub sent: &'a [u8],
    /// The message, without zeros behind it.
    pub message: &'a mut Vec<u8>,
}

/// Changes messages of the controller.
pub type Attack = Box<dyn FnMut(OutgoingMessage<'_>) + Send>;

/// Record of the commands of a host.
#[derive(Debug, Default)]
pub struct Report {
    /// Connects of the admin queue.
    pub connects: u32,
    /// Commands on queues that were not authenticated: queue, opcode, Fabrics type.
    pub early: Vec<(u16, u8, u8)>,
    /// Queues that were authenticated, as often as they were.
    pub authenticated: Vec<u16>,
    /// The explanations of Failure2 messages.
    pub failures: Vec<(u16, u8)>,
    /// Authentication Sends and Receives.
    pub commands: u32,
}

/// The hook. Clones share their state.
#[derive(Clone)]
pub struct AuthenticationHook {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    settings: Box<dyn Fn(u16) -> Settings + Send>,
    attack: Attack,
    queues: HashMap<u16, Authenticator>,
    report: Report,
}

impl std::fmt::Debug for AuthenticationHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthenticationHook").finish_non_exhaustive()
    }
}

impl AuthenticationHook {
    /// A hook that keeps to the protocol, with the settings of each queue.
    pub fn new(settings: impl Fn(u16) -> Settings + Send + 'static) -> Self {
        Self::hostile(settings, |_| ())
    }

    /// A hook whose messages `attack` changes before they are sent.
    pub fn hostile(
        settings: impl Fn(u16) -> Settings + Send + 'static,
        attack: impl FnMut(OutgoingMessage<'_>) + Send + 'static,
    ) -> Self {
        let inner = Inner {
            settings: Box::new(settings),
            attack: Box::new(attack),
            queues: HashMap::new(),
            report: Report::default(),
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Takes the record of all commands since the last call.
    #[must_use]
    pub fn report(&self) -> Report {
        std::mem::take(&mut self.lock().report)
    }

    /// Changes the answer to a command that authentication concerns; leaves others as they are.
    pub fn answer(&self, seen: ReceivedCommand, answer: &mut Answer) {
        self.lock().answer(seen, answer);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn answer(&mut self, seen: ReceivedCommand, answer: &mut Answer) {
        if seen.is_fabrics(0x01) {
            self.report.connects += u32::from(seen.queue == 0);
            let settings = (self.settings)(seen.queue);
            self.queues.insert(seen.queue, Authenticator::new(settings));
            answer.messages[0][2] |= ATR;
            return;
        }
        let Some(authenticator) = self.queues.get_mut(&seen.queue) else { return };
        if seen.is_fabrics(0x05) {
            self.report.commands += 1;
            authenticator.send(&answer.carried);
            if let Ok(failure) = FailureMessage::decode(&answer.carried)
                && failure.id == MessageId::FAILURE2
            {
                self.report.failures.push((seen.queue, failure.explanation.0));
            }
        } else if seen.is_fabrics(0x06) {
            self.report.commands += 1;
            let length = seen.u32_at(44) as usize;
            let sent = authenticator.last_sent().to_vec();
            let (id, mut message) = authenticator.next_message();
            let (queue, sent) = (seen.queue, &sent[..]);
            (self.attack)(OutgoingMessage { queue, id, sent, message: &mut message });
            if message.len() < length {
                message.resize(length, 0);
            }
            answer.data = message;
        } else if !authenticator.is_authenticated() {
            self.report.early.push((seen.queue, seen.sqe[0], seen.sqe[4]));
        }
        let done = authenticator.is_authenticated();
        if done && (seen.is_fabrics(0x05) || seen.is_fabrics(0x06)) {
            self.report.authenticated.push(seen.queue);
        }
    }
}
