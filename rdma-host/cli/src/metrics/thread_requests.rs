//! Requests to the threads that serve queues, and their numbers in return.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use super::queue_numbers::QueueNumbers;

/// Requests to threads that poll: one number, so that a turn of their loops reads one value.
#[derive(Debug, Default)]
pub(crate) struct ThreadRequests(AtomicU64);

/// Number of the latest request that a thread has answered, and its numbers then.
pub(crate) type Report = (u64, QueueNumbers);

/// Threads whose numbers can be asked for.
#[derive(Debug)]
pub(crate) struct ReportingThreads {
    pub(crate) requests: Arc<ThreadRequests>,
    pub(crate) reports: Vec<watch::Receiver<Report>>,
}

/// Longest time that a report is waited for; a thread that sleeps wakes up several times in it.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

impl ThreadRequests {
    /// Request to end, which stays.
    pub(crate) const LEAVE: u64 = u64::MAX;

    /// Number of the latest request; 0 before the first. Relaxed: nothing else is handed over.
    #[inline]
    pub(crate) fn latest(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Asks all threads to end.
    pub(crate) fn leave(&self) {
        self.0.store(Self::LEAVE, Ordering::Relaxed);
    }

    /// Asks all threads for their numbers, and returns the number of that request.
    fn ask(&self) -> u64 {
        let next = |latest: u64| latest.checked_add(1).filter(|next| *next != Self::LEAVE);
        let asked = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        asked.map_or(Self::LEAVE, |before| before + 1)
    }
}

impl ReportingThreads {
    /// Numbers of each queue: those of now, or the latest of a thread that does not answer in time.
    pub(crate) async fn numbers(&self) -> Vec<QueueNumbers> {
        let request = self.requests.ask();
        let deadline = tokio::time::Instant::now() + REPORT_TIMEOUT;
        let mut numbers = Vec::new();
        for report in &self.reports {
            let mut report = report.clone();
            let is_new = |(answered, _): &Report| *answered >= request;
            // Late, or the thread has ended: what is there is its last report.
            let _ = tokio::time::timeout_at(deadline, report.wait_for(is_new)).await;
            numbers.push(report.borrow().1.clone());
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_is_asked_for_its_numbers_and_told_to_leave() {
        let requests = Arc::new(ThreadRequests::default());
        let (sender, receiver) = watch::channel(Report::default());
        let threads = ReportingThreads { requests: Arc::clone(&requests), reports: vec![receiver] };
        let asked = tokio::spawn(async move { (threads.numbers().await, threads) });
        while requests.latest() == 0 {
            tokio::task::yield_now().await;
        }
        let numbers = QueueNumbers { in_flight: 7, ..QueueNumbers::default() };
        sender.send_replace((requests.latest(), numbers));
        let (numbers, threads) = asked.await.unwrap();
        assert_eq!((numbers[0].in_flight, requests.latest()), (7, 1));
        drop(sender); // The thread has ended: what it reported last is there.
        assert_eq!(threads.numbers().await[0].in_flight, 7);
        requests.leave();
        threads.numbers().await;
        assert_eq!(requests.latest(), ThreadRequests::LEAVE, "a later request takes nothing back");
    }
}
