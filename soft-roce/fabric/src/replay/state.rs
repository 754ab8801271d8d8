//! State of a replayed run: what the recording has left for each object.

use std::{collections::VecDeque, io, sync::Arc};

use verbs::{
    DeviceEvent, DeviceEventKind, EventSubject, Limits, RemoteKey, Status, memory::Mapping,
    provider::WorkCompletion,
};

use crate::{
    recording::{self, CmEventRecord, CompletionRecord, MemoryChange, PostedRequest, Record},
    signal::Signal,
};

#[derive(Default)]
pub(super) struct ReplayState {
    pub(super) endpoints: Vec<RecordedCalls<CmEventRecord>>,
    pub(super) pairs: Vec<ReplayPair>,
    pub(super) domains: Vec<VecDeque<Report<DeviceEvent>>>,
    pub(super) limits: Option<Limits>,
    pub(super) registrations: VecDeque<(u32, u32)>,
    pub(super) regions: Vec<Option<Arc<Mapping>>>,
    pub(super) queues: VecDeque<(u32, u32)>,
    pub(super) numbers: VecDeque<u32>,
    /// Number of objects created so far, by kind.
    pub(super) made: ObjectCounts,
    /// Number of calls so far, and the signals of objects that may be waited for.
    calls_made: usize,
    signals: Vec<(Object, Arc<Signal>)>,
    pub(super) divergence: Option<String>,
}

#[derive(Default)]
pub(super) struct ObjectCounts {
    pub(super) endpoints: usize,
    pub(super) domains: usize,
    pub(super) pairs: usize,
    pub(super) queues: usize,
}

/// Recorded calls of an object, and its events or completions.
pub(super) struct RecordedCalls<T> {
    pub(super) calls: VecDeque<(String, Option<i32>)>,
    pub(super) reports: VecDeque<Report<T>>,
}

/// Event or completion of the recorded run.
pub(super) struct Report<T> {
    /// Position among the reports of all objects.
    position: usize,
    /// Number of calls that must precede it.
    pub(super) calls: usize,
    pub(super) report: T,
}

impl<T> Default for RecordedCalls<T> {
    fn default() -> Self {
        Self { calls: VecDeque::new(), reports: VecDeque::new() }
    }
}

#[derive(Default)]
pub(super) struct ReplayPair {
    pub(super) number: u32,
    /// Index of its completion queue in this run.
    pub(super) queue: Option<usize>,
    recorded: RecordedCalls<CompletionRecord>,
    /// Number of posts that must precede each completion.
    needs: VecDeque<usize>,
    posted: usize,
    sends: Vec<u64>,
    receives: Vec<u64>,
}

/// Object of a replayed run, by its number.
#[derive(Clone, Copy)]
pub(super) enum Object {
    Domain(usize),
    Endpoint(usize),
    Queue(usize),
    QueuePair(usize),
}

/// Numbers of calls and reports so far, while a recording is loaded.
#[derive(Default)]
pub(super) struct LoadedCounts {
    pub(super) calls: usize,
    pub(super) reports: usize,
}

impl LoadedCounts {
    fn report<T>(&mut self, calls: usize, report: T) -> Report<T> {
        self.reports += 1;
        Report { position: self.reports, calls, report }
    }
}

impl ReplayState {
    pub(super) fn load(&mut self, entry: Record, counts: &mut LoadedCounts) {
        match entry {
            Record::Request { endpoint, what, errno } => {
                counts.calls += 1;
                entry_of(&mut self.endpoints, endpoint).calls.push_back((what, errno));
            }
            Record::Event(event) => {
                let endpoint = entry_of(&mut self.endpoints, event.endpoint);
                endpoint.reports.push_back(counts.report(counts.calls, event));
            }
            Record::Limits { names, numbers, .. } => {
                self.limits.get_or_insert_with(|| recording::limits_in(&names, &numbers));
            }
            Record::Registered { local, remote } => self.registrations.push_back((local, remote)),
            Record::CompletionQueue { capacity, number } => {
                self.queues.push_back((capacity, number))
            }
            Record::QueuePair { number } => self.numbers.push_back(number),
            Record::Post { pair, what } => {
                counts.calls += 1;
                entry_of(&mut self.pairs, pair).recorded.calls.push_back((what, None));
            }
            Record::Refused { pair, untaken, errno } => {
                let calls = &mut entry_of(&mut self.pairs, pair).recorded.calls;
                let first = calls.len().saturating_sub(untaken);
                calls.truncate(first + 1); // those after it were not tried
                if let Some(first) = calls.get_mut(first) {
                    first.1 = Some(errno);
                }
            }
            Record::Completion(completion) => {
                let pair = entry_of(&mut self.pairs, completion.pair);
                // A success depends on the earlier posts of its queue pair only; a failure may
                // result from any earlier call.
                let failed = completion.status != Status::SUCCESS.0;
                let calls = if failed { counts.calls } else { 0 };
                pair.needs.push_back(pair.recorded.calls.len());
                pair.recorded.reports.push_back(counts.report(calls, completion));
            }
            Record::DeviceEvent { domain, kind, subject } => {
                let subject = match subject {
                    (1, number) => EventSubject::Port(number),
                    (2, number) => EventSubject::QueuePair(number),
                    (3, number) => EventSubject::CompletionQueue(number),
                    _ => EventSubject::Device,
                };
                let event = DeviceEvent { kind: DeviceEventKind(kind), subject };
                let report = counts.report(counts.calls, event);
                entry_of(&mut self.domains, domain).push_back(report);
            }
        }
    }

    /// Compares a call with the next recorded one, and returns the recorded errno.
    pub(super) fn call(&mut self, next: Option<(String, Option<i32>)>, what: &str) -> Option<i32> {
        self.calls_made += 1;
        let (recorded, errno) = next?;
        if recorded != what {
            let text = format!("call {}: {what}, and not {recorded}", self.calls_made);
            self.divergence.get_or_insert(text);
        }
        errno
    }

    pub(super) fn post(&mut self, pair: usize, post: &PostedRequest) -> Option<i32> {
        let next = self.pairs[pair].recorded.calls.pop_front();
        let errno = self.call(next, &post.what);
        let known = &mut self.pairs[pair];
        known.posted += 1;
        if errno.is_none() {
            let tokens = if post.receive { &mut known.receives } else { &mut known.sends };
            tokens.push(post.token);
        }
        errno
    }

    /// Returns the next completion of a queue, if it is due.
    pub(super) fn completion(&mut self, queue: usize) -> Option<WorkCompletion> {
        let next = self.next();
        let pair = self.pairs.iter_mut().find(|pair| pair.ready(queue, next))?;
        pair.needs.pop_front();
        let Report { report: entry, .. } = pair.recorded.reports.pop_front()?;
        let tokens = if entry.receive { &pair.receives } else { &pair.sends };
        let token = tokens[entry.nth];
        let completion =
            WorkCompletion::new(token, Status(entry.status), pair.number, entry.length);
        entry.written.iter().for_each(|patch| self.apply(patch));
        Some(match entry.invalidated {
            Some(key) => completion.with_invalidated(RemoteKey(key)),
            None => completion,
        })
    }

    fn apply(&self, patch: &MemoryChange) {
        let region = self.regions.get(patch.registration).and_then(Option::as_ref);
        let bytes = patch.decode();
        let end = patch.offset.saturating_add(bytes.len());
        if let Some(region) = region.filter(|region| end <= region.len()) {
            region.device_write(patch.offset, &bytes);
        }
    }

    pub(super) fn signal(&mut self, owner: Object) -> io::Result<Arc<Signal>> {
        let signal = Arc::new(Signal::new()?);
        self.signals.push((owner, signal.clone()));
        Ok(signal)
    }

    /// Position of the first report of all that are left, which is due once its calls are made.
    pub(super) fn next(&self) -> Next {
        let endpoints =
            self.endpoints.iter().filter_map(|one| one.reports.front()?.position.into());
        let pairs =
            self.pairs.iter().filter_map(|one| one.recorded.reports.front()?.position.into());
        let domains = self.domains.iter().filter_map(|one| one.front()?.position.into());
        let position = endpoints.chain(pairs).chain(domains).min();
        Next { position, calls_made: self.calls_made }
    }

    /// Discards the reports left for an object that is destroyed.
    pub(super) fn discard(&mut self, object: Object) {
        match object {
            Object::Domain(index) => entry_of(&mut self.domains, index).clear(),
            Object::Endpoint(index) => entry_of(&mut self.endpoints, index).reports.clear(),
            Object::QueuePair(index) => {
                let pair = entry_of(&mut self.pairs, index);
                pair.recorded.reports.clear();
                pair.needs.clear();
            }
            Object::Queue(_) => {} // no queue pair outlives it
        }
    }

    pub(super) fn wake(&self) {
        let next = self.next();
        for (owner, signal) in &self.signals {
            let ready = match *owner {
                Object::Domain(index) => next.is_first(self.domains.get(index)),
                Object::Endpoint(index) => {
                    next.is_first(self.endpoints.get(index).map(|one| &one.reports))
                }
                Object::Queue(index) => self.pairs.iter().any(|pair| pair.ready(index, next)),
                Object::QueuePair(_) => false, // its queue has a signal
            };
            if ready {
                signal.raise();
            } else {
                signal.clear();
            }
        }
    }
}

impl ReplayPair {
    /// Returns true if its next completion is due and belongs to this queue.
    pub(super) fn ready(&self, queue: usize, next: Next) -> bool {
        let reports = &self.recorded.reports;
        let (Some(Report { report: entry, .. }), Some(posted)) =
            (reports.front(), self.needs.front())
        else {
            return false;
        };
        let tokens = if entry.receive { &self.receives } else { &self.sends };
        let there = self.posted >= *posted && tokens.len() > entry.nth;
        self.queue == Some(queue) && there && next.is_first(Some(reports))
    }
}

/// Position of the next report of all, and the number of calls made.
#[derive(Clone, Copy)]
pub(super) struct Next {
    position: Option<usize>,
    calls_made: usize,
}

impl Next {
    /// Returns true if the first of these reports is due.
    pub(super) fn is_first<T>(self, reports: Option<&VecDeque<Report<T>>>) -> bool {
        reports.and_then(VecDeque::front).is_some_and(|report| {
            Some(report.position) == self.position && report.calls <= self.calls_made
        })
    }
}

/// Returns the object with this number; creates it and those before it if necessary.
pub(super) fn entry_of<T: Default>(all: &mut Vec<T>, index: usize) -> &mut T {
    while all.len() <= index {
        all.push(T::default());
    }
    &mut all[index]
}
