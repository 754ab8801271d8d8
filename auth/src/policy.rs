//! Security policy of a host: minimum hash and group, and mandatory authentication.

use crate::{Credentials, FailureClass, GroupId, HashId};

/// Policy of a host: the hashes and groups that it offers and accepts.
///
/// The exchange does not authenticate the offer, so a controller or a man in the middle can choose
/// the weakest hash and group offered. The minimums prevent that. The default policy accepts what
/// Linux accepts, null group included; [`Warning`] then reports what was weak.
///
/// ```
/// use auth::{GroupId, HashId, Policy};
///
/// let strict = Policy::new(HashId::SHA_384, GroupId::FFDHE_3072)?;
/// assert!(!strict.allows_group(GroupId::NULL));
/// assert!(Policy::default().allows_group(GroupId::NULL));
/// # Ok::<(), auth::PolicyError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    hash_min: HashId,
    group_min: GroupId,
    unauthenticated_allowed: bool,
}

impl Policy {
    /// Accepts hashes and groups from these up; a minimum group above null makes the key exchange
    /// mandatory.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] if one of them is not implemented.
    pub fn new(hash_min: HashId, group_min: GroupId) -> Result<Self, PolicyError> {
        if !HASHES.contains(&hash_min) {
            return Err(PolicyError::Hash(hash_min));
        }
        if !GROUPS.contains(&group_min) {
            return Err(PolicyError::Group(group_min));
        }
        Ok(Self { hash_min, group_min, unauthenticated_allowed: false })
    }

    /// Allows queues without authentication though secrets are given, if the controller does not
    /// require it.
    ///
    /// Dangerous: any peer can then impersonate the controller by not requiring authentication.
    #[must_use]
    pub fn danger_allow_unauthenticated(self) -> Self {
        Self { unauthenticated_allowed: true, ..self }
    }

    /// Decides from the requirements in a Connect response whether the queue must be authenticated.
    ///
    /// # Errors
    ///
    /// [`RequirementsError`] if the queue must not be used.
    pub fn decide(
        &self,
        requirements: AuthRequirements,
        credentials: Option<&Credentials>,
    ) -> Result<AuthDecision, RequirementsError> {
        if requirements.secure_channel {
            return Err(RequirementsError::SecureChannel);
        }
        match (requirements.authentication, credentials) {
            (true, Some(_)) => Ok(AuthDecision::Authenticate),
            (true, None) => Err(RequirementsError::SecretMissing),
            (false, None) => Ok(AuthDecision::Skip(None)),
            (false, Some(_)) if self.unauthenticated_allowed => {
                Ok(AuthDecision::Skip(Some(Warning::NotRequired)))
            }
            (false, Some(_)) => Err(RequirementsError::NotRequired),
        }
    }

    /// Hashes to offer, strongest first.
    pub fn hashes(&self) -> impl Iterator<Item = HashId> {
        HASHES.into_iter().rev().filter(|&hash| self.allows_hash(hash))
    }

    /// Groups to offer, strongest first.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> {
        GROUPS.into_iter().rev().filter(|&group| self.allows_group(group))
    }

    /// Returns true if the hash is implemented and not below the minimum.
    pub fn allows_hash(&self, hash: HashId) -> bool {
        HASHES.contains(&hash) && hash >= self.hash_min
    }

    /// Returns true if the group is implemented and not below the minimum.
    pub fn allows_group(&self, group: GroupId) -> bool {
        GROUPS.contains(&group) && group >= self.group_min
    }

    /// Weakest hash accepted.
    pub fn hash_min(&self) -> HashId {
        self.hash_min
    }

    /// Weakest group accepted.
    pub fn group_min(&self) -> GroupId {
        self.group_min
    }
}

impl Default for Policy {
    /// Accepts what Linux accepts, except that a controller which does not use the secrets given is
    /// an error.
    fn default() -> Self {
        let (hash_min, group_min) = (HashId::SHA_256, GroupId::NULL);
        Self { hash_min, group_min, unauthenticated_allowed: false }
    }
}

/// Authentication and security requirements (AUTHREQ) of a Connect response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthRequirements {
    /// ATR: the queue must be authenticated before use.
    pub authentication: bool,
    /// ASCR: a secure channel must be established after authentication, which only TCP supports.
    pub secure_channel: bool,
}

/// Decision about a queue after its Connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthDecision {
    /// Authenticate before anything else is sent on the queue.
    Authenticate,
    /// Use the queue without authentication, and report the warning if there is one.
    Skip(Option<Warning>),
}

/// Error: the queue must not be used after its Connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequirementsError {
    /// Secrets are given, and the controller does not require authentication.
    #[error("secrets are set, the target asks for none; set its secret, or allow it expressly")]
    NotRequired,

    /// The controller requires authentication, and there is no secret.
    #[error("the target demands authentication; give this host's secret for the subsystem")]
    SecretMissing,

    /// The controller requires a secure channel.
    #[error("the target demands a secure channel, which RDMA has not; turn that off at the target")]
    SecureChannel,
}

impl RequirementsError {
    /// Returns the class of this failure.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::NotRequired => FailureClass::Downgraded,
            Self::SecretMissing => FailureClass::KeyMissing,
            Self::SecureChannel => FailureClass::Incompatible,
        }
    }
}

/// Warning for the administrator about a queue that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// Secrets are given, and the controller did not require authentication.
    #[error("the target asked for no authentication though secrets are set; set its secret too")]
    NotRequired,

    /// There was no key exchange: an eavesdropper can try weak secrets offline.
    #[error("authenticated without a DH group; set one at the target, ffdhe3072 or more")]
    NullGroup,

    /// The controller did not authenticate itself.
    #[error("the target has not proved itself; give its controller secret to check it")]
    OneWay,

    /// The group is smaller than recommended today.
    #[error("authenticated with {0}; set a larger group at the target, ffdhe3072 or more")]
    SmallGroup(GroupId),
}

/// Error of the parameters of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The hash is [`HashId::NONE`] or not implemented.
    #[error("{0} is no minimum; use hmac(sha256), hmac(sha384) or hmac(sha512)")]
    Hash(HashId),

    /// The group is not implemented.
    #[error("{0} is no minimum; use null or ffdhe2048 to ffdhe8192")]
    Group(GroupId),
}

/// Implemented hashes, weakest first.
const HASHES: [HashId; 3] = [HashId::SHA_256, HashId::SHA_384, HashId::SHA_512];

/// Implemented groups, weakest first.
const GROUPS: [GroupId; 6] = [
    GroupId::NULL,
    GroupId::FFDHE_2048,
    GroupId::FFDHE_3072,
    GroupId::FFDHE_4096,
    GroupId::FFDHE_6144,
    GroupId::FFDHE_8192,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    #[test]
    fn default_offers_what_linux_offers() {
        let policy = Policy::default();
        assert!(policy.hashes().eq([3, 2, 1].map(HashId)));
        assert!(policy.groups().eq([5, 4, 3, 2, 1, 0].map(GroupId)));
        assert_eq!(Policy::new(HashId::SHA_256, GroupId::NULL), Ok(policy));
        assert_eq!((policy.hash_min(), policy.group_min()), (HashId::SHA_256, GroupId::NULL));
    }

    #[test]
    fn minimums_shorten_the_offer() {
        let policy = Policy::new(HashId::SHA_384, GroupId::FFDHE_3072).unwrap();
        assert!(policy.hashes().eq([3, 2].map(HashId)));
        assert!(policy.groups().eq([5, 4, 3, 2].map(GroupId)));
        assert!(policy.allows_hash(HashId::SHA_384) && !policy.allows_hash(HashId::SHA_256));
        assert!(policy.allows_group(GroupId::FFDHE_3072));
        assert!(!policy.allows_group(GroupId::FFDHE_2048));
    }

    #[test]
    fn unknown_ids_are_neither_minimums_nor_allowed() {
        for hash in [HashId::NONE, HashId(4)] {
            assert_eq!(Policy::new(hash, GroupId::NULL), Err(PolicyError::Hash(hash)));
            assert!(!Policy::default().allows_hash(hash));
        }
        for group in [GroupId(6), GroupId::SECP256R1, GroupId::ML_KEM_1024] {
            assert_eq!(Policy::new(HashId::SHA_256, group), Err(PolicyError::Group(group)));
            assert!(!Policy::default().allows_group(group));
        }
    }

    #[test]
    fn decisions_follow_the_policy() {
        let secret = Secret::from_bytes(HashId::NONE, &[7; 32]).ok().unwrap();
        let credentials = &Credentials::one_way(secret);
        let credentials = Some(credentials);
        let (strict, loose) = (Policy::default(), Policy::default().danger_allow_unauthenticated());
        let requirements =
            |authentication, secure_channel| AuthRequirements { authentication, secure_channel };
        let cases = [
            (
                requirements(true, false),
                credentials,
                Ok(AuthDecision::Authenticate),
                Ok(AuthDecision::Authenticate),
            ),
            (
                requirements(false, false),
                credentials,
                Err(RequirementsError::NotRequired),
                Ok(AuthDecision::Skip(Some(Warning::NotRequired))),
            ),
            (
                requirements(false, false),
                None,
                Ok(AuthDecision::Skip(None)),
                Ok(AuthDecision::Skip(None)),
            ),
            (
                requirements(true, false),
                None,
                Err(RequirementsError::SecretMissing),
                Err(RequirementsError::SecretMissing),
            ),
            (
                requirements(true, true),
                credentials,
                Err(RequirementsError::SecureChannel),
                Err(RequirementsError::SecureChannel),
            ),
            (
                requirements(false, true),
                None,
                Err(RequirementsError::SecureChannel),
                Err(RequirementsError::SecureChannel),
            ),
        ];
        for (requirements, credentials, strictly, loosely) in cases {
            assert_eq!(strict.decide(requirements, credentials), strictly);
            assert_eq!(loose.decide(requirements, credentials), loosely);
        }
    }

    #[test]
    fn requirements_errors_have_their_class() {
        assert_eq!(RequirementsError::NotRequired.class(), FailureClass::Downgraded);
        assert_eq!(RequirementsError::SecretMissing.class(), FailureClass::KeyMissing);
        assert_eq!(RequirementsError::SecureChannel.class(), FailureClass::Incompatible);
    }
}
