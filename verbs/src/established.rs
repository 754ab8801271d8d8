//! Established connections.

use crate::{ConnectionParameters, PrivateData};

/// Proof that an endpoint's connection is established; only the event makes one.
#[derive(Clone, Debug)]
pub struct Established {
    pub(crate) connection: u64,
    pub(crate) private_data: PrivateData,
    pub(crate) parameters: ConnectionParameters,
}

impl Established {
    /// Parameters that the peer accepted.
    pub fn parameters(&self) -> ConnectionParameters {
        self.parameters
    }

    /// Private data of the acceptance, padded with zeroes by the system; empty on the side that
    /// accepted.
    pub fn private_data(&self) -> &[u8] {
        &self.private_data
    }
}
