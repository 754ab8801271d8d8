//! Ranks that a launcher started: they begin each point together, and rank 0 gathers the results.
//!
//! ```text
//!  connect ─ "ready" ─ exchange ─▶ fence, fence ─ ramp, measure ─ "result" ─ exchange ─▶ rank 0
//!                         └─▶ all fail if one is not ready                     next point
//! ```
//!
//! What a rank says is published by PMIx under a key of the point. An exchange, a fence after which
//! all have what all said, takes as long as the slowest rank, and fails once the time for late ones
//! is over: a launcher may not tell that a process has died. Rank 0 then asks for the words of each
//! rank, names those that have said nothing, and no rank enters another fence.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use pmix::{Call, Client, Fence};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    rank_position::{RankPosition, RankRegions},
    rank_totals::FailedRank,
};
use crate::{environment, failure::Failure, output, shutdown::ShutdownSignal};

/// Time for the launcher to answer a process at its start.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a call that waits for the launcher alone.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the words of all ranks, once they have been exchanged or an exchange has failed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for answers once a signal has arrived: launchers kill a second later.
const INTERRUPTED_TIMEOUT: Duration = Duration::from_millis(150);
/// Time for the answer of a rank when that for all is over.
const LATE_TIMEOUT: Duration = Duration::from_millis(50);
/// Interval at which a wait looks for signals.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Most bytes that a rank publishes.
const BYTES_MAX: usize = 8 << 20;

/// Connection to the other ranks of this process's job.
pub(super) struct RankGroup {
    client: Client,
    /// Time for which ranks wait for others that are late.
    limit: Duration,
    host: String,
    /// Hosts of the ranks, as far as they have said.
    hosts: RefCell<Vec<Option<String>>>,
    /// Rank that did not answer: none of the points after it can be measured.
    lost: RefCell<Option<FailedRank>>,
}

/// Words of a rank before a point.
#[derive(Deserialize, Serialize)]
struct Readiness {
    host: String,
    /// Cause for which it cannot measure the point.
    error: Option<String>,
}

/// Answer of a rank, or the cause for which there is none.
pub(super) type Answer<T> = Result<T, FailedRank>;

impl RankGroup {
    /// Connects to the launcher; nothing if there is none, or it started a single process.
    pub(super) fn connect(limit: Duration) -> Result<Option<Self>, Failure> {
        if !pmix::is_launched() {
            warn_of_other_launcher();
            return Ok(None);
        }
        let client = Client::connect(CONNECT_TIMEOUT).map_err(|error| no_launcher(&error))?;
        let hosts = RefCell::new(vec![None; client.size() as usize]);
        let (host, lost) = (environment::host(), RefCell::default());
        Ok((client.size() > 1).then_some(Self { client, limit, host, hosts, lost }))
    }

    pub(super) fn rank(&self) -> u32 {
        self.client.rank()
    }

    pub(super) fn count(&self) -> u32 {
        self.client.size()
    }

    /// True for the rank that reports.
    pub(super) fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Says that this rank takes no part in a point, nor in those after it.
    pub(super) fn leave(&self, point: usize, failure: &Failure) {
        let words = Readiness { host: self.host.clone(), error: Some(failure.to_string()) };
        // The failure is told by this process, too, if the others do not hear of it.
        let _ = self.publish("ready", point, &words);
    }

    /// Says that this rank takes part in no point, and waits until rank 0 has reported that.
    pub(super) fn abandon(&self, failure: Failure) -> Result<(), Failure> {
        self.leave(0, &failure);
        self.exchange(self.limit, None);
        let is_told = self.finish(None);
        if is_told && !self.is_first() { Ok(()) } else { Err(failure) }
    }

    /// Waits until all ranks are ready for a point. Fails on all of them if one is not, with the
    /// names and causes.
    pub(super) fn wait_ready(
        &self,
        point: usize,
        own: Option<&Failure>,
        shutdown: &ShutdownSignal,
    ) -> Result<(), Failure> {
        if !self.is_lost() {
            let words = Readiness { host: self.host.clone(), error: own.map(ToString::to_string) };
            self.publish("ready", point, &words)?;
            self.exchange(self.limit, Some(shutdown));
        }
        let failed = Vec::from_iter(self.lost.borrow().clone());
        let answers = if failed.is_empty() || self.is_first() {
            self.gather("ready", point, Some(shutdown))
        } else {
            Vec::new()
        };
        let of_ranks = answers.into_iter().zip(0..).filter_map(|(answer, rank)| match answer {
            Ok(Readiness { host, error }) => {
                if let Some(known) = self.hosts.borrow_mut().get_mut(rank as usize) {
                    *known = Some(host);
                }
                Some(self.failed(rank, error?))
            }
            Err(failed) => Some(failed),
        });
        let of_ranks: Vec<_> = of_ranks.collect();
        let failed = if of_ranks.is_empty() { failed } else { of_ranks };
        match failed.split_first() {
            None => Ok(()),
            Some((first, [])) => Err(describe(first)),
            Some((first, others)) => {
                let first = describe(first);
                Err(Failure::failed(format!("{first}; and {} more failed", others.len())))
            }
        }
    }

    /// Leaves a fence at the same time as all others, within the time that the slowest spent in it.
    pub(super) fn start(&self, shutdown: &ShutdownSignal) -> Result<Fence, Failure> {
        let fence = || {
            let done = wait(&self.client.fence(CALL_TIMEOUT), CALL_TIMEOUT, Some(shutdown));
            done.map_err(|error| {
                self.lose(&error);
                error.context("no common start of the ranks")
            })
        };
        // All come to the second one straight from the first.
        fence()?;
        fence()
    }

    /// Publishes the result of a point.
    pub(super) fn send<T: Serialize>(&self, point: usize, result: &T) -> Result<(), Failure> {
        self.publish("result", point, result)
    }

    /// Waits until all ranks have results. `left` is the time until the slowest is due to end.
    pub(super) fn exchange_results(&self, left: Duration, shutdown: &ShutdownSignal) {
        self.exchange(left + self.limit, Some(shutdown));
    }

    /// Results of all ranks, by rank, once they were exchanged or are as late as they may be.
    pub(super) fn results<T: DeserializeOwned>(
        &self,
        point: usize,
        shutdown: &ShutdownSignal,
    ) -> Vec<Answer<T>> {
        self.gather("result", point, Some(shutdown))
    }

    /// Waits until rank 0 has reported, or says so: a launcher may end all ranks when one ends.
    /// Returns false if rank 0 does not answer.
    pub(super) fn finish(&self, shutdown: Option<&ShutdownSignal>) -> bool {
        // Rank 0 may have waited for late ranks once more.
        let limit = self.limit * 2 + CALL_TIMEOUT;
        if !self.is_lost() {
            return wait(&self.client.fence(limit), limit, shutdown).is_ok();
        }
        if self.is_first() {
            let published = self.publish("end", 0, &());
            self.wait_seen(shutdown);
            return published.is_ok();
        }
        let end = self.words_of::<()>(0, "end", 0, limit, shutdown);
        end.is_ok() && self.publish("seen", 0, &()).is_ok()
    }

    /// Waits until the other ranks, but for the lost one, have seen the end: what a process has
    /// published may go with it. They learn of the loss when their own time for late ranks is over.
    fn wait_seen(&self, shutdown: Option<&ShutdownSignal>) {
        let lost = self.lost.borrow().as_ref().map(|lost| lost.rank);
        let deadline = Instant::now() + self.limit;
        for rank in (1..self.count()).filter(|rank| Some(*rank) != lost) {
            let left = deadline.saturating_duration_since(Instant::now()).max(LATE_TIMEOUT);
            let _: Answer<()> = self.words_of(rank, "seen", 0, left, shutdown);
        }
    }

    /// Waits until all ranks are in an exchange, unless one has been lost.
    fn exchange(&self, limit: Duration, shutdown: Option<&ShutdownSignal>) {
        if !self.is_lost() {
            let exchanged = wait(&self.client.exchange(limit), limit, shutdown);
            let _ = exchanged.inspect_err(|error| self.lose(error));
        }
    }

    fn is_lost(&self) -> bool {
        self.lost.borrow().is_some()
    }

    /// Notes that a fence has failed, on whatever side.
    fn lose(&self, error: &Failure) {
        let error = format!("waited for a rank that did not come ({error})");
        *self.lost.borrow_mut() = Some(self.failed(self.rank(), error));
    }

    /// Words of all ranks. The first that has none is the one that was lost.
    fn gather<T: DeserializeOwned>(
        &self,
        what: &str,
        point: usize,
        shutdown: Option<&ShutdownSignal>,
    ) -> Vec<Answer<T>> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let answer = |rank| {
            let left = deadline.saturating_duration_since(Instant::now()).max(LATE_TIMEOUT);
            self.words_of(rank, what, point, left, shutdown)
        };
        let answers: Vec<_> = (0..self.count()).map(answer).collect();
        if let Some(Err(missing)) = answers.iter().find(|answer| answer.is_err()) {
            *self.lost.borrow_mut() = Some(missing.clone());
        }
        answers
    }

    fn publish<T: Serialize>(&self, what: &str, point: usize, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(Failure::failed)?;
        if text.len() > BYTES_MAX {
            return Err(Failure::failed(format!(
                "the results of this rank are {} bytes, and ranks send at most {BYTES_MAX}: give a \
                 longer --interval",
                text.len()
            )));
        }
        let published = self.client.publish(&key(what, point), text, CALL_TIMEOUT);
        published.map_err(|error| Failure::failed(format!("the launcher: {error}")))
    }

    /// Value that a rank has published, or publishes in time.
    fn words_of<T: DeserializeOwned>(
        &self,
        rank: u32,
        what: &str,
        point: usize,
        limit: Duration,
        shutdown: Option<&ShutdownSignal>,
    ) -> Answer<T> {
        let call = self.client.text_of(rank, &key(what, point), limit);
        let text = wait(&call, limit, shutdown);
        let text =
            text.map_err(|_| self.failed(rank, "no answer: it has ended, or is late".to_owned()))?;
        serde_json::from_str(&text)
            .map_err(|_| self.failed(rank, "answers as another version of nvmf".to_owned()))
    }

    fn failed(&self, rank: u32, error: String) -> FailedRank {
        let known = self.hosts.borrow().get(rank as usize).cloned().flatten();
        let host = known.or_else(|| (rank == self.rank()).then(|| self.host.clone()));
        FailedRank { rank, file: None, host, error }
    }

    pub(super) fn position(&self, regions: RankRegions) -> RankPosition {
        RankPosition { rank: self.rank(), count: self.count(), regions }
    }

    pub(super) fn host(&self) -> String {
        self.host.clone()
    }
}

fn key(what: &str, point: usize) -> String {
    format!("nvmf.{what}.{point}")
}

fn describe(failed: &FailedRank) -> Failure {
    Failure::failed(format!("{}: {}", failed.name(), failed.error))
}

/// Waits for a call; briefly, once a signal has arrived.
fn wait<T>(
    call: &Call<T>,
    limit: Duration,
    shutdown: Option<&ShutdownSignal>,
) -> Result<T, Failure> {
    let mut deadline = Instant::now() + limit;
    let mut interrupted = false;
    loop {
        if let Some(result) = call.poll(LOOK_INTERVAL) {
            return result.map_err(Failure::failed);
        }
        if let Some(signal) = shutdown.and_then(ShutdownSignal::get) {
            if !interrupted {
                interrupted = true;
                deadline = deadline.min(Instant::now() + INTERRUPTED_TIMEOUT);
            }
            if Instant::now() >= deadline {
                return Err(Failure::interrupted(signal));
            }
        }
    }
}

/// Numbers of processes that launchers put into the environment of each, whether or not they offer
/// PMIx.
const TASKS: [&str; 3] = ["SLURM_STEP_NUM_TASKS", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"];

/// Says that other processes do the same, each for itself, if a launcher without PMIx started them.
fn warn_of_other_launcher() {
    let count = |name: &str| std::env::var(name).ok()?.parse().ok();
    let mut tasks = TASKS.into_iter().filter_map(|name| Some((name, count(name)?)));
    if let Some((name, count)) = tasks.find(|(_, count): &(&str, u64)| *count > 1) {
        output::print_warning(&format_args!(
            "{name} is {count}, but there is no PMIx: each process measures alone, and writes its \
             own files; give srun --mpi=pmix, or names that differ, for nvmf bench --merge"
        ));
    }
}

/// Failure of a process that its environment says a launcher started.
fn no_launcher(error: &pmix::Error) -> Failure {
    let launched = "PMIX_RANK says that a launcher started this process";
    Failure::failed(match error {
        pmix::Error::Library(error) => format!(
            "{launched}, and its library is not there ({error}): install libpmix2 (Debian) or pmix \
             (Fedora), or name its folder in LD_LIBRARY_PATH; without it, unset PMIX_RANK, and \
             join the reports of all by nvmf bench --merge"
        ),
        error => format!(
            "{launched}, and none answers ({error}): start it by srun --mpi=pmix or mpirun, or \
             unset PMIX_RANK to measure alone"
        ),
    })
}
