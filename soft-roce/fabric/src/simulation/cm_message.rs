//! Messages of the connection manager.

use std::net::SocketAddr;

use verbs::{ConnectParameters, ConnectionParameters, PrivateData};

use super::PairId;

#[derive(Clone)]
pub(crate) enum CmMessage {
    Accept(CmConnectData),
    Disconnect,
    DisconnectReply,
    Ready,
    Reject { reason: i32, data: PrivateData },
    Request(CmConnectData),
}

/// Contents of a connection request or acceptance.
#[derive(Clone)]
pub(crate) struct CmConnectData {
    pub(crate) destination: Option<SocketAddr>,
    pub(crate) pair: Option<PairId>,
    pub(crate) data: PrivateData,
    pub(crate) parameters: ConnectionParameters,
}

impl CmConnectData {
    pub(crate) fn to(destination: SocketAddr) -> Self {
        Self::new(&ConnectParameters::default(), None, Some(destination))
    }

    pub(crate) fn new(
        parameters: &ConnectParameters<'_>,
        pair: Option<PairId>,
        destination: Option<SocketAddr>,
    ) -> Self {
        let data = PrivateData::new(parameters.private_data);
        let parameters = ConnectionParameters {
            responder_resources: parameters.responder_resources,
            initiator_depth: parameters.initiator_depth,
            retry_count: parameters.retry_count,
            rnr_retry_count: parameters.rnr_retry_count,
            queue_pair: pair.map_or(0, |pair| pair.0),
        };
        Self { destination, pair, data, parameters }
    }

    /// Parameters from the peer's perspective: the initiator depth of one side is the responder
    /// resources of the other.
    pub(crate) fn peer_parameters(&self) -> ConnectionParameters {
        ConnectionParameters {
            responder_resources: self.parameters.initiator_depth,
            initiator_depth: self.parameters.responder_resources,
            ..self.parameters
        }
    }
}
