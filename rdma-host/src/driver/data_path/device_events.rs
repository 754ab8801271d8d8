//! Asynchronous events of the RDMA device of a live connection.

use std::os::fd::AsFd;

use verbs::{
    CompletionQueue, DeviceEvent, DeviceEventKind, EventSubject, ProtectionDomain, Provider,
};

use crate::{
    driver::{buffers::verbs_error, data_path::queue::Queue, runtime::AsyncDescriptor},
    error::{Error, Transport},
    wire::QueueId,
};

/// Watch for device events that end the connection. Without it they would show only by timeouts: a
/// completion queue that lost completions, or a queue pair that failed, completes nothing.
pub(crate) struct DeviceWatch<P: Provider> {
    domain: ProtectionDomain<P>,
    resources: Resources,
}

/// Queue pairs and completion queues of a connection, by their numbers.
#[derive(Default)]
struct Resources {
    queue_pairs: Vec<(u32, QueueId)>,
    completion_queues: Vec<u32>,
}

impl<P: Provider> DeviceWatch<P> {
    /// Creates the watch of a domain's device, without any resources.
    pub(crate) fn new(domain: ProtectionDomain<P>) -> Self {
        Self { domain, resources: Resources::default() }
    }

    /// Adds the resources of a poller.
    pub(crate) fn add(&mut self, queues: &[Queue<P>], completion_queue: &CompletionQueue<P>) {
        let queue_pairs = queues.iter().map(|queue| (queue.number(), queue.id()));
        self.resources.queue_pairs.extend(queue_pairs);
        self.resources.completion_queues.push(completion_queue.number());
    }

    /// Waits for an event that ends the connection.
    pub(crate) async fn until_fatal(&self) -> Error {
        match self.listen().await {
            Ok(error) | Err(error) => error,
        }
    }

    async fn listen(&self) -> Result<Error, Error> {
        let events = AsyncDescriptor::new(self.domain.as_fd())?;
        loop {
            while let Some(event) = self.domain.next_event().map_err(verbs_error)? {
                match self.resources.error_of(event) {
                    Some(error) => return Ok(error),
                    None => tracing::debug!(?event, "a device event was ignored"),
                }
            }
            events.wait().await?;
        }
    }
}

impl Resources {
    /// Error of an event that ends the connection; `None` for any other. Ports have a watch of
    /// their own, and an access error of a queue pair also fails its work, with more detail.
    fn error_of(&self, event: DeviceEvent) -> Option<Error> {
        let DeviceEvent { kind, subject } = event;
        match (kind, subject) {
            (DeviceEventKind::DEVICE_FATAL, _) => {
                Some(Transport::Device("it failed, or was removed").into())
            }
            (DeviceEventKind::QUEUE_PAIR_FATAL, EventSubject::QueuePair(number)) => {
                let &(_, queue) = self.queue_pairs.iter().find(|(ours, _)| *ours == number)?;
                let status = "the device reports that its queue pair failed".to_owned();
                Some(Transport::QueuePair { queue, status }.into())
            }
            (DeviceEventKind::COMPLETION_QUEUE_ERROR, EventSubject::CompletionQueue(number)) => {
                self.completion_queues
                    .contains(&number)
                    .then(|| Transport::Device("a completion queue failed, and lost some").into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_ends_the_connection() {
        let resources =
            Resources { queue_pairs: vec![(17, QueueId(2))], completion_queues: vec![5] };
        let words = |kind, subject| {
            resources.error_of(DeviceEvent { kind, subject }).map(|error| error.to_string())
        };
        let (fatal, lost) =
            (DeviceEventKind::QUEUE_PAIR_FATAL, DeviceEventKind::COMPLETION_QUEUE_ERROR);
        for (kind, subject, expected) in [
            (
                fatal,
                EventSubject::QueuePair(17),
                "queue 2: a work request failed: the device reports",
            ),
            (
                lost,
                EventSubject::CompletionQueue(5),
                "our RDMA device reports that a completion queue",
            ),
            (DeviceEventKind::DEVICE_FATAL, EventSubject::Device, "it failed, or was removed"),
        ] {
            let words = words(kind, subject).expect("it ends the connection");
            assert!(words.contains(expected), "{words}");
        }
        for (kind, subject) in [
            (fatal, EventSubject::QueuePair(5)),
            (lost, EventSubject::CompletionQueue(17)),
            (DeviceEventKind::QUEUE_PAIR_ACCESS_ERROR, EventSubject::QueuePair(17)),
            (DeviceEventKind::PORT_ERROR, EventSubject::Port(1)),
            (DeviceEventKind(99), EventSubject::Device),
        ] {
            assert_eq!(words(kind, subject), None, "{kind:?} of {subject:?}");
        }
    }
}
