//! Completion queues and their channels.

use std::{collections::VecDeque, sync::Arc};

use rustix::io::Errno;
use verbs::{
    DeviceEventKind, Error, EventSubject, RemoteKey, Status,
    provider::{QueueRequest, WorkCompletion},
};

use crate::{
    fault::{Fault, FaultCounter},
    signal::Signal,
    simulation::{DeviceId, HostId, PairId, QueueId, SimEvent, Simulation},
};

pub(crate) struct CompletionQueue {
    pub(crate) device: DeviceId,
    capacity: usize,
    entries: VecDeque<WorkCompletion>,
    channel: Channel,
    /// True if a completion was lost because the queue was full.
    overrun: bool,
    /// True if the queue has failed, so that all completions are lost.
    failed: bool,
    signal: Arc<Signal>,
}

/// Completion channel.
#[derive(Default)]
struct Channel {
    /// True if the next completion raises an event.
    armed: bool,
    /// Number of events not acknowledged yet.
    events: usize,
}

impl Simulation {
    pub(crate) fn make_queue(
        &mut self,
        device: DeviceId,
        capacity: u32,
    ) -> Result<(QueueId, u32, Arc<Signal>), Error> {
        let refuse = |source| Error::CreateCompletionQueue { capacity, source };
        if !self.is_alive(device) {
            return Err(refuse(Errno::NODEV.into()));
        }
        if capacity == 0 || capacity > ENTRIES_MAX {
            return Err(refuse(Errno::INVAL.into()));
        }
        let signal = self.make_signal(device.host).map_err(refuse)?;
        let id = QueueId(self.next_id());
        let queue = CompletionQueue {
            device,
            capacity: capacity as usize,
            entries: VecDeque::new(),
            channel: Channel::default(),
            overrun: false,
            failed: false,
            signal: signal.clone(),
        };
        self.queues.insert(id, queue);
        Ok((id, capacity, signal))
    }

    pub(crate) fn serve_queue(
        &mut self,
        id: QueueId,
        request: QueueRequest<'_>,
    ) -> Result<usize, Error> {
        let device = self.queues[&id].device;
        if let QueueRequest::Arm = request {
            let faults = self.faults.take(FaultCounter::Arm, device.host.0);
            faults.iter().for_each(|fault| self.apply_fault(fault));
        }
        let alive = self.is_alive(device);
        let queue = self.queue(id);
        match request {
            QueueRequest::Acknowledge => Ok(queue.acknowledge()),
            QueueRequest::Arm if !alive => Err(Error::Arm(Errno::IO.into())),
            QueueRequest::Arm => {
                queue.channel.arm();
                Ok(0)
            }
            QueueRequest::Poll(out) => queue.poll(out),
            QueueRequest::Resize(capacity) => queue.resize(capacity),
        }
    }

    /// Completes a work request of a queue pair, subject to scheduled faults.
    pub(crate) fn complete(&mut self, id: PairId, done: RequestOutcome) {
        let Some(pair) = self.pairs.get(&id) else { return };
        let (queue, host) = (pair.queue, pair.device.host);
        let (mut status, mut copies, mut delay) = (done.status, 1, None);
        for fault in self.faults.take(FaultCounter::Completion, host.0) {
            match fault {
                Fault::Delay(by) => delay = Some(by),
                Fault::Duplicate => copies = 2,
                Fault::Fail(with) => status = with,
                Fault::Suppress => copies = 0,
                other => self.apply_fault(&other),
            }
        }
        let completion = done.completion(id, status);
        for _ in 0..copies {
            match delay {
                None => self.push_completion(queue, completion),
                Some(by) => {
                    let at = self.clock.now() + by;
                    self.clock.deliver(at, SimEvent::Complete { queue, completion });
                }
            }
        }
        if status != done.status {
            self.fail_pair(id);
        }
    }

    pub(crate) fn push_completion(&mut self, id: QueueId, completion: WorkCompletion) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        if queue.failed {
            return;
        }
        if queue.entries.len() == queue.capacity {
            queue.overrun = true;
            return self.report_queue(id);
        }
        queue.entries.push_back(completion);
        if queue.channel.fire() {
            queue.signal.raise();
        }
    }

    /// Fails all completion queues of a host.
    pub(crate) fn fail_queues(&mut self, host: HostId) {
        let queues = self.queues.iter().filter(|(_, queue)| queue.device.host == host);
        for id in queues.map(|(&id, _)| id).collect::<Vec<_>>() {
            let queue = self.queue(id);
            queue.failed = true;
            queue.entries.clear();
            self.report_queue(id);
        }
    }

    fn report_queue(&mut self, id: QueueId) {
        let device = self.queues[&id].device;
        let subject = EventSubject::CompletionQueue(id.number());
        self.report(device, DeviceEventKind::COMPLETION_QUEUE_ERROR, subject);
    }

    fn queue(&mut self, id: QueueId) -> &mut CompletionQueue {
        self.queues.get_mut(&id).expect("a handle keeps its completion queue")
    }
}

impl CompletionQueue {
    fn acknowledge(&mut self) -> usize {
        self.signal.clear();
        std::mem::take(&mut self.channel.events)
    }

    fn poll(&mut self, out: &mut [WorkCompletion]) -> Result<usize, Error> {
        if self.overrun {
            return Err(Error::Poll(Errno::OVERFLOW.into()));
        }
        let count = out.len().min(self.entries.len());
        for (slot, completion) in out.iter_mut().zip(self.entries.drain(..count)) {
            *slot = completion;
        }
        Ok(count)
    }

    fn resize(&mut self, capacity: u32) -> Result<usize, Error> {
        let wanted = capacity as usize;
        if capacity == 0 || capacity > ENTRIES_MAX || wanted < self.entries.len() {
            let source = Errno::INVAL.into();
            return Err(Error::ResizeCompletionQueue { capacity, source });
        }
        self.capacity = wanted;
        Ok(wanted)
    }
}

impl Channel {
    fn arm(&mut self) {
        self.armed = true;
    }

    /// Notes a completion; returns true if it raises an event.
    fn fire(&mut self) -> bool {
        let fires = std::mem::take(&mut self.armed);
        self.events += usize::from(fires);
        fires
    }
}

/// Outcome of a work request.
pub(crate) struct RequestOutcome {
    pub(crate) token: u64,
    pub(crate) status: Status,
    pub(crate) length: usize,
    pub(crate) invalidated: Option<RemoteKey>,
}

impl RequestOutcome {
    pub(crate) fn new(token: u64, status: Status) -> Self {
        Self { token, status, length: 0, invalidated: None }
    }

    fn completion(&self, pair: PairId, status: Status) -> WorkCompletion {
        let length = u32::try_from(self.length).unwrap_or(u32::MAX);
        let completion = WorkCompletion::new(self.token, status, pair.0, length);
        match self.invalidated {
            Some(key) => completion.with_invalidated(key),
            None => completion,
        }
    }
}

/// Maximum number of entries of one queue.
pub(crate) const ENTRIES_MAX: u32 = 1 << 22;
