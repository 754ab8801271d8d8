//! Processors to run threads on.

use std::{fmt, str::FromStr, thread};

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::failure::Failure;

/// Processor numbers, in the order in which threads are pinned to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CpuList(Vec<usize>);

impl CpuList {
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Refuses processors on which this process may not run.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        thread::scope(|scope| {
            // Of a thread of its own, so that this one stays where it is.
            let pinned = scope.spawn(|| self.0.iter().try_for_each(|&cpu| pin(Some(cpu))));
            pinned.join().expect("to be pinned does not panic")
        })
    }

    /// Processor of thread number `thread`; more threads than processors start over.
    pub(crate) fn for_thread(&self, thread: usize) -> usize {
        self.0[thread % self.0.len()]
    }
}

/// Pins the calling thread to a processor, if one is given.
pub(crate) fn pin(cpu: Option<usize>) -> Result<(), Failure> {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|error| {
        Failure::usage(format!("processor {cpu} of --cpus can't be used here: {error}"))
    })
}

impl FromStr for CpuList {
    type Err = String;

    /// Parses a list as of taskset: 0-3,8.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let number = text.parse::<usize>().ok().filter(|&number| number < CpuSet::MAX_CPU);
            number.ok_or(format!("{text:?} is no processor; write a list as in 0-3,8"))
        };
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = number(first)?..=number(last)?;
            if range.is_empty() {
                return Err(format!("{part:?} ends before it begins"));
            }
            cpus.extend(range);
        }
        Ok(Self(cpus))
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&numbers.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_dealt_out_in_turn() {
        let cpus: CpuList = "2-3,0".parse().unwrap();
        assert_eq!(cpus, CpuList(vec![2, 3, 0]));
        assert_eq!((0..4).map(|thread| cpus.for_thread(thread)).collect::<Vec<_>>(), [2, 3, 0, 2]);
        assert_eq!(cpus.to_string(), "2,3,0");
        for wrong in ["", "a", "1-", "3-1", "1,,2", "4096"] {
            assert!(wrong.parse::<CpuList>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_thread_goes_where_it_is_told() {
        let own = rustix::thread::sched_getaffinity(None).unwrap();
        let allowed = (0..CpuSet::MAX_CPU).find(|&cpu| own.is_set(cpu)).unwrap();
        let pinned = std::thread::spawn(move || {
            assert!(pin(Some(allowed)).is_ok());
            rustix::thread::sched_getaffinity(None).unwrap()
        });
        let set = pinned.join().unwrap();
        assert!(set.is_set(allowed) && set.count() == 1);
    }
}
