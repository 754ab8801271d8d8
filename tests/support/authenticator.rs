//! The controller's side of DH-HMAC-CHAP, which may be told to break the protocol.
//!
//! It is fed what Authentication Sends carry, and gives what Authentication Receives bring: a whole
//! buffer, zeros behind the message, as targets do it. A [`Tamper`] sees every message before it
//! leaves and may change it, so that a test says in one line what is wrong with a target.
//!
//! This file uses `auth` and nothing else, and `auth`'s own tests include it.

use auth::{
    AugmentedChallenge, ChallengeInput, EXPONENT_LENGTH_MAX, GroupId, HashId, PrivateKey,
    ResponseInput, Secret, SecureChannel, SharedSecret, TransactionId, augmented_challenge,
    controller_response, host_response,
    message::{
        Challenge, Explanation, FailureMessage, Header, MessageId, Negotiate, Reply, Success1,
        Success2,
    },
};

/// Parameters of an authenticator.
pub struct Settings {
    /// The host's secret.
    pub host_secret: Secret,
    /// The controller's own secret, if it can prove itself.
    pub controller_secret: Option<Secret>,
    /// The hash it insists on.
    pub hash: HashId,
    /// The group it insists on, offered or not, as Linux does.
    pub group: GroupId,
    /// The host's NQN.
    pub host_nqn: String,
    /// The subsystem's NQN.
    pub subsystem_nqn: String,
    /// Seed of challenges, exponents and sequence numbers.
    pub seed: u8,
}

/// Sees each message of the controller, without zeros behind it, and may change it.
pub type Tamper = Box<dyn FnMut(MessageId, &mut Vec<u8>) + Send>;

/// The controller's side, for one queue.
pub struct Authenticator {
    settings: Settings,
    tamper: Tamper,
    state: State,
    transaction_id: TransactionId,
    shared: Option<SharedSecret>,
    last_sent: Vec<u8>,
}

/// Step of the exchange: the next message, to come or to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    ExpectNegotiate,
    SendChallenge,
    ExpectReply,
    SendSuccess1 { challenge: Option<Vec<u8>>, sequence_number: u32 },
    ExpectSuccess2,
    SendFailure1(Explanation),
    Failed(Explanation),
    Authenticated,
}

impl Authenticator {
    /// A controller that keeps to the protocol.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self::hostile(settings, Box::new(|_, _| ()))
    }

    /// A controller whose messages `tamper` changes on their way out.
    #[must_use]
    pub fn hostile(settings: Settings, tamper: Tamper) -> Self {
        Self {
            settings,
            tamper,
            state: State::ExpectNegotiate,
            transaction_id: TransactionId(0),
            shared: None,
            last_sent: Vec::new(),
        }
    }

    /// Takes what an Authentication Send carries.
    pub fn send(&mut self, payload: &[u8]) {
        self.last_sent = payload.to_vec();
        let next = self.take(payload);
        self.state = next.unwrap_or_else(State::SendFailure1);
    }

    /// Gives what an Authentication Receive brings: `length` bytes.
    pub fn receive(&mut self, length: usize) -> Vec<u8> {
        let (id, mut message) = self.next_message();
        (self.tamper)(id, &mut message);
        message.resize(length, 0);
        message
    }

    /// Tells if the exchange succeeded, so that the queue may be used.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.state == State::Authenticated
    }

    /// Explanation of the failure, in the message of either side.
    #[must_use]
    pub fn failure(&self) -> Option<Explanation> {
        match self.state {
            State::Failed(explanation) => Some(explanation),
            _ => None,
        }
    }

    /// Last message of the host.
    #[must_use]
    pub fn last_sent(&self) -> &[u8] {
        &self.last_sent
    }

    fn take(&mut self, payload: &[u8]) -> Result<State, Explanation> {
        let header = Header::decode(payload).map_err(|_| Explanation::INCORRECT_PAYLOAD)?;
        match (&self.state, header.id) {
            (State::ExpectNegotiate, MessageId::NEGOTIATE) => self.negotiate(payload),
            (_, MessageId::FAILURE2) => FailureMessage::decode(payload)
                .map(|failure| State::Failed(failure.explanation))
                .map_err(|_| Explanation::INCORRECT_PAYLOAD),
            (_, MessageId::NEGOTIATE) => Err(Explanation::INCORRECT_MESSAGE),
            _ if header.transaction_id != self.transaction_id => {
                Err(Explanation::INCORRECT_PAYLOAD)
            }
            (State::ExpectReply, MessageId::REPLY) => self.reply(payload),
            (State::ExpectSuccess2, MessageId::SUCCESS2) => Success2::decode(payload)
                .map(|_| State::Authenticated)
                .map_err(|_| Explanation::INCORRECT_PAYLOAD),
            _ => Err(Explanation::INCORRECT_MESSAGE),
        }
    }

    fn negotiate(&mut self, payload: &[u8]) -> Result<State, Explanation> {
        let negotiate = Negotiate::decode(payload).map_err(|_| Explanation::INCORRECT_PAYLOAD)?;
        self.transaction_id = negotiate.transaction_id;
        if negotiate.secure_channel != SecureChannel::NONE {
            return Err(Explanation::SECURE_CHANNEL_MISMATCH);
        }
        if !negotiate.hashes.contains(&self.settings.hash) {
            return Err(Explanation::HASH_NOT_USABLE);
        }
        Ok(State::SendChallenge)
    }

    fn reply(&mut self, payload: &[u8]) -> Result<State, Explanation> {
        let reply = Reply::decode(payload).map_err(|_| Explanation::INCORRECT_PAYLOAD)?;
        if reply.response.len() != self.digest_length() {
            return Err(Explanation::INCORRECT_PAYLOAD);
        }
        self.shared = match self.private_key() {
            Some(key) => Some(
                key.shared_secret(reply.public_value)
                    .map_err(|_| Explanation::INCORRECT_PAYLOAD)?,
            ),
            None => None,
        };
        let settings = &self.settings;
        let key = settings.host_secret.transform(&settings.host_nqn);
        let challenge = self.augment(&self.own_challenge());
        let input = self.input(&key, &challenge, self.sequence_number());
        if !host_response(&input, SecureChannel::NONE).matches(reply.response)
            || reply.challenge.is_some() && settings.controller_secret.is_none()
        {
            return Err(Explanation::AUTHENTICATION_FAILED);
        }
        let challenge = reply.challenge.map(<[u8]>::to_vec);
        Ok(State::SendSuccess1 { challenge, sequence_number: reply.sequence_number })
    }

    /// The next message, without zeros behind it.
    pub fn next_message(&mut self) -> (MessageId, Vec<u8>) {
        let (transaction_id, id) = (self.transaction_id, MessageId::FAILURE1);
        let explanation = match self.state.clone() {
            State::SendChallenge => {
                self.state = State::ExpectReply;
                return (MessageId::CHALLENGE, self.challenge());
            }
            State::SendSuccess1 { challenge, sequence_number } => {
                self.state = match challenge {
                    Some(_) => State::ExpectSuccess2,
                    None => State::Authenticated,
                };
                let challenge = challenge.as_deref();
                return (MessageId::SUCCESS1, self.success1(challenge, sequence_number));
            }
            State::SendFailure1(explanation) | State::Failed(explanation) => explanation,
            State::ExpectNegotiate
            | State::ExpectReply
            | State::ExpectSuccess2
            | State::Authenticated => Explanation::INCORRECT_MESSAGE,
        };
        self.state = State::Failed(explanation);
        (id, FailureMessage { id, transaction_id, explanation }.encode())
    }

    fn challenge(&self) -> Vec<u8> {
        let public_value = self.private_key().map(|key| key.public_value()).unwrap_or_default();
        Challenge {
            transaction_id: self.transaction_id,
            hash: self.settings.hash,
            group: self.settings.group,
            sequence_number: self.sequence_number(),
            challenge: &self.own_challenge(),
            public_value: &public_value,
        }
        .encode()
    }

    fn success1(&self, challenge: Option<&[u8]>, sequence_number: u32) -> Vec<u8> {
        let settings = &self.settings;
        let response = challenge.zip(settings.controller_secret.as_ref());
        let response = response.map(|(challenge, secret)| {
            let key = secret.transform(&settings.subsystem_nqn);
            let challenge = self.augment(challenge);
            controller_response(&self.input(&key, &challenge, sequence_number)).into_wire()
        });
        Success1 {
            transaction_id: self.transaction_id,
            hash_length: u8::try_from(self.digest_length()).expect("at most 64"),
            response: response.as_ref().map(|response| response.as_bytes()),
        }
        .encode()
    }

    fn input<'a>(
        &'a self,
        key: &'a auth::Key,
        challenge: &'a AugmentedChallenge,
        sequence_number: u32,
    ) -> ResponseInput<'a> {
        ResponseInput {
            key,
            challenge,
            sequence_number,
            transaction_id: self.transaction_id,
            host_nqn: &self.settings.host_nqn,
            subsystem_nqn: &self.settings.subsystem_nqn,
        }
    }

    fn augment(&self, challenge: &[u8]) -> AugmentedChallenge {
        augmented_challenge(&ChallengeInput {
            hash: self.settings.hash,
            group: self.settings.group,
            challenge,
            shared_secret: self.shared.as_ref().map(SharedSecret::as_bytes).unwrap_or_default(),
        })
        .unwrap_or_else(|error| panic!("the authenticator's settings: {error}"))
    }

    fn private_key(&self) -> Option<PrivateKey> {
        let random = [self.settings.seed; EXPONENT_LENGTH_MAX];
        PrivateKey::from_random(self.settings.group, &random)
    }

    fn own_challenge(&self) -> Vec<u8> {
        let first = self.settings.seed;
        (0..self.digest_length()).map(|index| first.wrapping_add(index.to_le_bytes()[0])).collect()
    }

    fn digest_length(&self) -> usize {
        self.settings.hash.digest_length().unwrap_or(32)
    }

    fn sequence_number(&self) -> u32 {
        u32::from(self.settings.seed) + 1
    }
}
