//! Credentials of a host: its own secret, and the controller's if the controller is authenticated
//! too.

use std::sync::Arc;

use crate::Secret;

/// Secrets of one host for one subsystem.
///
/// With the host's secret alone, only the host is authenticated. With both, host and controller
/// authenticate each other. Shared by all exchanges of a controller; wiped on drop.
pub struct Credentials {
    host: Arc<Secret>,
    controller: Option<Secret>,
}

impl Credentials {
    /// Authenticates the host only.
    pub fn one_way(host: Secret) -> Self {
        Self { host: Arc::new(host), controller: None }
    }

    /// Authenticates host and controller, each with its own secret.
    ///
    /// # Errors
    ///
    /// [`SameSecret`] if both secrets have the same bytes: a peer that can verify the host's
    /// response could then compute the controller's.
    pub fn two_way(host: Secret, controller: Secret) -> Result<Self, SameSecret> {
        if host.has_same_bytes(&controller) {
            return Err(SameSecret);
        }
        Ok(Self { host: Arc::new(host), controller: Some(controller) })
    }

    /// Credentials that authenticate the host only, with the same secret.
    #[must_use]
    pub fn without_controller(&self) -> Self {
        Self { host: Arc::clone(&self.host), controller: None }
    }

    /// Returns true if the controller must authenticate itself too.
    pub fn is_two_way(&self) -> bool {
        self.controller.is_some()
    }

    pub(crate) fn host(&self) -> &Secret {
        &self.host
    }

    pub(crate) fn controller(&self) -> Option<&Secret> {
        self.controller.as_ref()
    }
}

/// Error: host and controller have the same secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("host and controller have the same secret; give the controller a secret of its own")]
pub struct SameSecret;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HashId;

    fn secret(hash: HashId, byte: u8) -> Secret {
        Secret::from_bytes(hash, &[byte; 32]).ok().unwrap()
    }

    #[test]
    fn one_secret_cannot_serve_both_ways() {
        let same = Credentials::two_way(secret(HashId::NONE, 1), secret(HashId::SHA_512, 1)).err();
        assert_eq!(same, Some(SameSecret));
        let other = Credentials::two_way(secret(HashId::NONE, 1), secret(HashId::NONE, 2));
        let other = other.expect("two secrets");
        assert!(other.is_two_way() && !other.without_controller().is_two_way());
        assert!(!Credentials::one_way(secret(HashId::NONE, 1)).is_two_way());
    }
}
