//! State machine of the exchange, one type per state: messages sent, awaited and accepted.
//!
//! ```text
//!   host                                                        controller
//!   Negotiation::start
//!      | ---- Negotiate: hashes, groups -------------------------> |
//!   AwaitChallenge
//!      | <--- Challenge: choice, S1, C1, public value ------------ |
//!      |      or Failure1                                          |
//!      | ---- Reply: R1, S2, C2, public value -------------------> |
//!   AwaitSuccess1                                         R1 is checked
//!      | <--- Success1: R2 --------------------------------------- |
//!      |      or Failure1                                          |
//!   R2 is checked                                                  |
//!      | ---- Success2, if C2 was sent --------------------------> |
//!   Authenticated
//! ```
//!
//! Each step consumes the state and returns the next one, so that no message is accepted twice or
//! out of order. A step that fails returns a [`Failure`] instead, with the Failure2 to send. NVMe
//! Base Specification 2.2, section 8.3.4.5.

use subtle::ConstantTimeEq;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::{
    ChallengeInput, Credentials, EXPONENT_LENGTH_MAX, ExchangeError, Failure, GroupId, HashId, Key,
    Policy, PrivateKey, PublicValueError, ResponseInput, SecureChannel, SequenceNumber,
    SharedSecret, Tag, TransactionId, Warning, WireTag, augmented_challenge, controller_response,
    host_response,
    message::{
        Challenge, FailureMessage, Header, MessageError, MessageId, Negotiate, Reply, Success1,
        Success2,
    },
};

/// Parameters of one exchange: credentials, policy, names and transaction id.
#[derive(Clone, Copy)]
pub struct Negotiation<'a> {
    /// Secrets; with a controller's secret, the controller must authenticate itself too.
    pub credentials: &'a Credentials,
    /// Hashes and groups to offer and accept.
    pub policy: Policy,
    /// The host's NQN, as in Connect.
    pub host_nqn: &'a str,
    /// The subsystem's NQN, as in Connect.
    pub subsystem_nqn: &'a str,
    /// T_ID, different from those of the controller's recent exchanges.
    pub transaction_id: TransactionId,
}

impl Negotiation<'_> {
    /// Returns the Negotiate to send, 72 bytes, and the state that waits for the Challenge.
    ///
    /// # Errors
    ///
    /// [`NqnError`] if one of the names is not valid in a Connect command.
    pub fn start(&self) -> Result<(Vec<u8>, AwaitChallenge), NqnError> {
        check_nqn(self.host_nqn)?;
        check_nqn(self.subsystem_nqn)?;
        let negotiate = Negotiate {
            transaction_id: self.transaction_id,
            secure_channel: SecureChannel::NONE,
            hashes: self.policy.hashes().collect(),
            groups: self.policy.groups().collect(),
        };
        let controller = self.credentials.controller();
        let next = AwaitChallenge {
            policy: self.policy,
            transaction_id: self.transaction_id,
            host_nqn: self.host_nqn.into(),
            subsystem_nqn: self.subsystem_nqn.into(),
            host_key: self.credentials.host().transform(self.host_nqn),
            controller_key: controller.map(|secret| secret.transform(self.subsystem_nqn)),
        };
        Ok((negotiate.encode(), next))
    }
}

/// Random bytes of one exchange, supplied by the caller, wiped on drop and never printed.
pub struct Randomness {
    challenge: Box<Zeroizing<[u8; CHALLENGE_LENGTH_MAX]>>,
    exponent: Box<Zeroizing<[u8; EXPONENT_LENGTH_MAX]>>,
}

impl Randomness {
    /// Calls `fill` for 64 bytes of challenge and then for 52 bytes of exponent.
    ///
    /// # Errors
    ///
    /// The errors of `fill`.
    ///
    /// ```
    /// // The bytes must be random: these are not.
    /// let randomness = auth::Randomness::draw(|bytes| Ok::<_, ()>(bytes.fill(7))).ok().unwrap();
    /// ```
    pub fn draw<E>(mut fill: impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let mut challenge = Box::new(Zeroizing::new([0; CHALLENGE_LENGTH_MAX]));
        let mut exponent = Box::new(Zeroizing::new([0; EXPONENT_LENGTH_MAX]));
        fill(challenge.as_mut_slice())?;
        fill(exponent.as_mut_slice())?;
        Ok(Self { challenge, exponent })
    }
}

impl ZeroizeOnDrop for Randomness {}

/// State: the Negotiate has been sent, a Challenge is expected.
///
/// Holds keys, so it cannot be printed. Consumed by each step, so a failed message cannot be
/// followed by another.
///
/// ```compile_fail,E0277
/// fn print(state: &auth::AwaitChallenge) {
///     println!("{state:?}");
/// }
/// ```
pub struct AwaitChallenge {
    policy: Policy,
    transaction_id: TransactionId,
    host_nqn: Box<str>,
    subsystem_nqn: Box<str>,
    host_key: Key,
    controller_key: Option<Key>,
}

impl AwaitChallenge {
    /// Takes the payload of an Authentication Receive and returns the Reply to send, at most
    /// [`SEND_LENGTH_MAX`](crate::message::SEND_LENGTH_MAX) bytes.
    ///
    /// `sequence_number` is S2. If the controller chose a group, this blocks for two
    /// exponentiations, about 1 ms for ffdhe2048 and 21 ms for ffdhe8192: do not call it on a
    /// thread that serves I/O.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the controller refused, or if its message is not acceptable.
    pub fn handle(
        self,
        payload: &[u8],
        randomness: Randomness,
        sequence_number: SequenceNumber,
    ) -> Result<(Vec<u8>, AwaitSuccess1), Failure> {
        let transaction_id = self.transaction_id;
        self.reply(payload, randomness, sequence_number)
            .map_err(|error| Failure::new(error, transaction_id, MessageId::CHALLENGE))
    }

    // Takes randomness and keys by value, so that they are wiped on every return path.
    fn reply(
        self,
        payload: &[u8],
        randomness: Randomness,
        sequence_number: SequenceNumber,
    ) -> Result<(Vec<u8>, AwaitSuccess1), ExchangeError> {
        let challenge = self.accept(payload)?;
        let own_challenge = &randomness.challenge[..challenge.challenge.len()];
        if constant_time_eq(own_challenge, challenge.challenge) {
            return Err(ExchangeError::ChallengeReflected);
        }
        let (public_value, shared_secret) = diffie_hellman(&challenge, &randomness)?;

        let keys =
            AcceptedChallenge { challenge: &challenge, shared_secret: shared_secret.as_ref() };
        let response = host_response(
            &ResponseInput {
                key: &self.host_key,
                challenge: &keys.augment(challenge.challenge),
                sequence_number: challenge.sequence_number,
                transaction_id: self.transaction_id,
                host_nqn: &self.host_nqn,
                subsystem_nqn: &self.subsystem_nqn,
            },
            SecureChannel::NONE,
        )
        .into_wire();
        let expected_response = self.controller_key.as_ref().map(|key| ExpectedResponse {
            challenge: own_challenge.into(),
            tag: controller_response(&ResponseInput {
                key,
                challenge: &keys.augment(own_challenge),
                sequence_number: sequence_number.0.get(),
                transaction_id: self.transaction_id,
                host_nqn: &self.host_nqn,
                subsystem_nqn: &self.subsystem_nqn,
            }),
        });

        let reply = Reply {
            transaction_id: self.transaction_id,
            sequence_number: sequence_number.0.get(),
            response: response.as_bytes(),
            challenge: expected_response.as_ref().map(|expected| &*expected.challenge),
            public_value: &public_value,
        }
        .encode();
        let (hash, group) = (challenge.hash, challenge.group);
        let transaction_id = self.transaction_id;
        Ok((reply, AwaitSuccess1 { transaction_id, hash, group, response, expected_response }))
    }

    /// Decodes the Challenge and makes all checks that need no calculation.
    fn accept<'a>(&self, payload: &'a [u8]) -> Result<Challenge<'a>, ExchangeError> {
        expect(payload, MessageId::CHALLENGE, self.transaction_id)?;
        let challenge =
            Challenge::decode(payload).map_err(|error| malformed(MessageId::CHALLENGE, error))?;
        if challenge.sequence_number == 0 {
            return Err(ExchangeError::SequenceNumberZero);
        }
        check_hash(self.policy, challenge.hash, challenge.challenge.len())?;
        check_group(self.policy, challenge.group)?;
        Ok(challenge)
    }
}

impl ZeroizeOnDrop for AwaitChallenge {}

/// State: the Reply has been sent, a Success1 is expected.
pub struct AwaitSuccess1 {
    transaction_id: TransactionId,
    hash: HashId,
    group: GroupId,
    response: WireTag,
    expected_response: Option<ExpectedResponse>,
}

/// Challenge sent to the controller (C2), and the response that it must return (R2).
struct ExpectedResponse {
    challenge: Box<[u8]>,
    tag: Tag,
}

impl AwaitSuccess1 {
    /// Takes the payload of an Authentication Receive and returns the outcome, with the Success2 to
    /// send, 16 bytes, if the controller had to authenticate itself.
    ///
    /// The queue may be used once the Success2 command has completed, or at once if there is none.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the controller refused, or if its message is not acceptable.
    pub fn handle(self, payload: &[u8]) -> Result<(Option<Vec<u8>>, Authenticated), Failure> {
        self.check(payload)
            .map_err(|error| Failure::new(error, self.transaction_id, MessageId::SUCCESS1))?;
        let Self { transaction_id, hash, group, expected_response, .. } = self;
        let success2 = expected_response.as_ref().map(|_| Success2 { transaction_id }.encode());
        Ok((
            success2,
            Authenticated { hash, group, controller_proved: expected_response.is_some() },
        ))
    }

    fn check(&self, payload: &[u8]) -> Result<(), ExchangeError> {
        expect(payload, MessageId::SUCCESS1, self.transaction_id)?;
        let success =
            Success1::decode(payload).map_err(|error| malformed(MessageId::SUCCESS1, error))?;
        let (hash, actual) = (self.hash, usize::from(success.hash_length));
        if hash.digest_length() != Some(actual) {
            return Err(ExchangeError::HashLength { hash, actual });
        }
        match (&self.expected_response, success.response) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err(ExchangeError::ResponseUnexpected),
            (Some(_), None) => Err(ExchangeError::ResponseMissing),
            (Some(expected), Some(response)) => self.check_response(expected, response),
        }
    }

    fn check_response(
        &self,
        expected: &ExpectedResponse,
        response: &[u8],
    ) -> Result<(), ExchangeError> {
        if expected.tag.matches(response) {
            return Ok(());
        }
        Err(if constant_time_eq(response, self.response.as_bytes()) {
            ExchangeError::ResponseReflected
        } else if constant_time_eq(response, &expected.challenge) {
            ExchangeError::ChallengeReflected
        } else {
            ExchangeError::ResponseWrong
        })
    }
}

impl ZeroizeOnDrop for AwaitSuccess1 {}

/// Outcome of a successful exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// Hash of the responses.
    pub hash: HashId,
    /// Group; null if there was no key exchange.
    pub group: GroupId,
    /// True if the controller has authenticated itself too.
    pub controller_proved: bool,
}

impl Authenticated {
    /// Returns a warning for each choice that is weaker than recommended.
    pub fn warnings(&self) -> impl Iterator<Item = Warning> {
        let group = match self.group {
            GroupId::NULL => Some(Warning::NullGroup),
            group if group < GroupId::FFDHE_3072 => Some(Warning::SmallGroup(group)),
            _ => None,
        };
        let one_way = (!self.controller_proved).then_some(Warning::OneWay);
        group.into_iter().chain(one_way)
    }
}

/// Error: the name is empty, longer than 223 bytes or contains a NUL byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name of {length} bytes is no NQN; use 1 to 223 bytes without NUL")]
pub struct NqnError {
    /// The length of the name in bytes.
    pub length: usize,
}

/// Accepted Challenge, with the shared secret if it chose a group.
struct AcceptedChallenge<'a> {
    challenge: &'a Challenge<'a>,
    shared_secret: Option<&'a SharedSecret>,
}

impl AcceptedChallenge<'_> {
    fn augment(&self, challenge: &[u8]) -> crate::AugmentedChallenge {
        augmented_challenge(&ChallengeInput {
            hash: self.challenge.hash,
            group: self.challenge.group,
            challenge,
            shared_secret: self.shared_secret.map(SharedSecret::as_bytes).unwrap_or_default(),
        })
        .expect("hash, group and their lengths were checked when the challenge was accepted")
    }
}

/// Computes the host's public value and the shared secret; for the null group, an empty value and
/// `None`.
fn diffie_hellman(
    challenge: &Challenge<'_>,
    randomness: &Randomness,
) -> Result<(Box<[u8]>, Option<SharedSecret>), ExchangeError> {
    let (group, received) = (challenge.group, challenge.public_value);
    let Some(private) = PrivateKey::from_random(group, &randomness.exponent) else {
        let (expected, actual) = (0, received.len());
        let error = PublicValueError::Length { expected, actual };
        return match actual {
            0 => Ok((Box::default(), None)),
            _ => Err(ExchangeError::PublicValue { group, error }),
        };
    };
    let shared_secret = private
        .shared_secret(received)
        .map_err(|error| ExchangeError::PublicValue { group, error })?;
    let public_value = private.public_value();
    if constant_time_eq(&public_value, received) {
        return Err(ExchangeError::PublicValueReflected);
    }
    Ok((public_value, Some(shared_secret)))
}

/// Checks that the payload begins with the message expected next in this exchange.
///
/// A Failure1 is accepted with any transaction id: a target that no longer knows the exchange, such
/// as Linux after its timeout, still reports its reason.
fn expect(
    payload: &[u8],
    expected: MessageId,
    transaction_id: TransactionId,
) -> Result<(), ExchangeError> {
    let header = Header::decode(payload).map_err(|error| malformed(expected, error))?;
    if header.id == MessageId::FAILURE1 {
        let failure =
            FailureMessage::decode(payload).map_err(|error| malformed(expected, error))?;
        return Err(ExchangeError::Refused(failure.explanation));
    }
    if header.id != expected {
        return Err(ExchangeError::OutOfOrder { expected, actual: header.id });
    }
    if header.transaction_id != transaction_id {
        let (expected, actual) = (transaction_id.0, header.transaction_id.0);
        return Err(ExchangeError::TransactionId { expected, actual });
    }
    Ok(())
}

fn check_hash(policy: Policy, chosen: HashId, actual: usize) -> Result<(), ExchangeError> {
    let Some(length) = chosen.digest_length() else {
        return Err(ExchangeError::HashNotOffered(chosen));
    };
    if !policy.allows_hash(chosen) {
        let minimum = policy.hash_min();
        return Err(ExchangeError::HashBelowMinimum { chosen, minimum });
    }
    if length != actual {
        return Err(ExchangeError::HashLength { hash: chosen, actual });
    }
    Ok(())
}

fn check_group(policy: Policy, chosen: GroupId) -> Result<(), ExchangeError> {
    if policy.allows_group(chosen) {
        return Ok(());
    }
    Err(match (chosen.value_length(), chosen.name()) {
        (Some(_), _) => ExchangeError::GroupBelowMinimum { chosen, minimum: policy.group_min() },
        (None, Some(_)) => ExchangeError::GroupUnsupported(chosen),
        (None, None) => ExchangeError::GroupNotOffered(chosen),
    })
}

fn malformed(expected: MessageId, error: MessageError) -> ExchangeError {
    ExchangeError::Malformed { expected, error }
}

fn check_nqn(nqn: &str) -> Result<(), NqnError> {
    let length = nqn.len();
    if (1..=NQN_LENGTH_MAX).contains(&length) && !nqn.contains('\0') {
        return Ok(());
    }
    Err(NqnError { length })
}

/// Compares two values in time that depends on their lengths only.
fn constant_time_eq(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

/// Length in bytes of the longest digest.
const CHALLENGE_LENGTH_MAX: usize = 64;
/// Maximum length of an NQN in bytes. NVMe Base Specification 2.2, section 4.7.
const NQN_LENGTH_MAX: usize = 223;
