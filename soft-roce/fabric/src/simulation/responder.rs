//! Responder of a queue pair: execution of the peer's requests.

use verbs::{
    Access, DeviceEventKind, EventSubject, RemoteAddress, RemoteKey, Status, provider::Operation,
};

use crate::simulation::{
    PairId, Simulation, completion_queue::RequestOutcome, memory::AccessRequest,
};

impl Simulation {
    /// Executes a peer's request. Returns the status to respond with and the bytes read, or `None`
    /// if there is no receive for the request.
    pub(crate) fn execute(
        &mut self,
        id: PairId,
        operation: &Operation,
        bytes: &[u8],
        read_length: usize,
    ) -> Option<(Status, Vec<u8>)> {
        match *operation {
            Operation::RdmaRead(remote) => Some(self.serve_read(id, remote, read_length)),
            Operation::RdmaWrite(remote) => Some((self.serve_write(id, remote, bytes), Vec::new())),
            Operation::Send => Some((self.serve_send(id, bytes, None)?, Vec::new())),
            Operation::SendWithInvalidate(key) => {
                Some((self.serve_send(id, bytes, Some(key))?, Vec::new()))
            }
            Operation::BindWindow(_) | Operation::LocalInvalidate(_) => {
                unreachable!("these do not travel")
            }
        }
    }

    fn serve_read(
        &mut self,
        id: PairId,
        remote: RemoteAddress,
        length: usize,
    ) -> (Status, Vec<u8>) {
        match self.memory.remote(&self.access_request(id, remote, length, Access::REMOTE_READ)) {
            Some(checked) => {
                let mut bytes = Vec::new();
                checked.read(&mut bytes);
                (Status::SUCCESS, bytes)
            }
            None => (self.refuse(id), Vec::new()),
        }
    }

    fn serve_write(&mut self, id: PairId, remote: RemoteAddress, bytes: &[u8]) -> Status {
        if bytes.is_empty() {
            return Status::SUCCESS; // the key is not checked for an empty write
        }
        let access = self.access_request(id, remote, bytes.len(), Access::REMOTE_WRITE);
        match self.memory.remote(&access) {
            Some(checked) => {
                checked.write(bytes);
                Status::SUCCESS
            }
            None => self.refuse(id),
        }
    }

    fn access_request(
        &self,
        id: PairId,
        remote: RemoteAddress,
        length: usize,
        access: Access,
    ) -> AccessRequest {
        let RemoteAddress { address, key } = remote;
        AccessRequest { domain: self.pairs[&id].domain, pair: id, key, address, length, access }
    }

    /// Refuses an access: the queue pair fails, and the device event is raised.
    fn refuse(&mut self, id: PairId) -> Status {
        let device = self.pairs[&id].device;
        self.fail_pair(id);
        let subject = EventSubject::QueuePair(id.0);
        self.report(device, DeviceEventKind::QUEUE_PAIR_ACCESS_ERROR, subject);
        Status::REMOTE_ACCESS
    }

    fn serve_send(
        &mut self,
        id: PairId,
        bytes: &[u8],
        invalidate: Option<RemoteKey>,
    ) -> Option<Status> {
        let (receive, domain) = self.take_receive(id)?;
        let place = self.memory.local(domain, &receive.sge, Access::LOCAL_WRITE);
        let (here, there) = match place {
            None => (Status::LOCAL_PROTECTION, Status::REMOTE_OPERATION),
            Some(place) if bytes.len() > place.length() => {
                (Status::LOCAL_LENGTH, Status::REMOTE_INVALID_REQUEST)
            }
            Some(place) => {
                place.write(bytes);
                match invalidate {
                    // The message is received and acknowledged; the key cannot be invalidated.
                    Some(key) if !self.memory.invalidate(id, key) => {
                        (Status::REMOTE_INVALID_REQUEST, Status::SUCCESS)
                    }
                    _ => (Status::SUCCESS, Status::SUCCESS),
                }
            }
        };
        let mut done = RequestOutcome::new(receive.token, here);
        if here.is_success() {
            done.length = bytes.len();
            done.invalidated = invalidate;
        }
        self.complete(id, done);
        if !here.is_success() {
            self.fail_pair(id);
        }
        Some(there)
    }
}
