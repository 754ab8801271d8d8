//! What all rounds came to.

use super::{
    contestant::{Contestant, Scenario},
    sample::Sample,
};

/// Every run, in turns: round by round, and in each everybody once.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    scenario: Scenario,
    contestant: Contestant,
    /// One for each round.
    samples: Vec<Sample>,
}

/// The middle of some numbers, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Ledger {
    pub(crate) fn note(&mut self, scenario: &Scenario, contestant: &Contestant, sample: Sample) {
        let found = self
            .entries
            .iter_mut()
            .find(|entry| entry.scenario == *scenario && entry.contestant == *contestant);
        match found {
            Some(entry) => entry.samples.push(sample),
            None => self.entries.push(Entry {
                scenario: *scenario,
                contestant: contestant.clone(),
                samples: vec![sample],
            }),
        }
    }

    /// Every run of a contestant in a scenario, by round.
    pub(crate) fn samples(&self, scenario: &Scenario, contestant: &Contestant) -> &[Sample] {
        let found = self
            .entries
            .iter()
            .find(|entry| entry.scenario == *scenario && entry.contestant == *contestant);
        found.map_or(&[], |entry| &entry.samples)
    }

    pub(crate) fn contestants(&self, scenario: &Scenario) -> impl Iterator<Item = &Contestant> {
        let entries = self.entries.iter().filter(move |entry| entry.scenario == *scenario);
        entries.map(|entry| &entry.contestant)
    }

    /// In the order in which they came.
    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        let mut all = Vec::new();
        for entry in &self.entries {
            if !all.contains(&entry.scenario) {
                all.push(entry.scenario);
            }
        }
        all
    }

    /// Of those that are asked about, the one with the most commands a second.
    pub(crate) fn best(
        &self,
        scenario: &Scenario,
        wanted: impl Fn(&Contestant) -> bool,
    ) -> Option<&Contestant> {
        self.contestants(scenario).filter(|contestant| wanted(contestant)).max_by(|a, b| {
            let iops = |who| self.spread(scenario, who, |sample| Some(sample.iops));
            let median = |who| iops(who).map_or(0.0, |spread| spread.median);
            median(a).total_cmp(&median(b))
        })
    }

    /// One number of a contestant over all rounds.
    pub(crate) fn spread(
        &self,
        scenario: &Scenario,
        contestant: &Contestant,
        number: impl Fn(&Sample) -> Option<f64>,
    ) -> Option<Spread> {
        Spread::of(self.samples(scenario, contestant).iter().filter_map(number))
    }

    /// The same against somebody else's, round by round.
    pub(crate) fn ratio(
        &self,
        scenario: &Scenario,
        [contestant, base]: [&Contestant; 2],
        number: impl Fn(&Sample) -> Option<f64>,
    ) -> Option<Spread> {
        let pairs = self.samples(scenario, contestant).iter().zip(self.samples(scenario, base));
        Spread::of(pairs.filter_map(|(ours, theirs)| Some(number(ours)? / number(theirs)?)))
    }
}

impl Spread {
    pub(crate) fn of(numbers: impl Iterator<Item = f64>) -> Option<Self> {
        let mut all: Vec<f64> = numbers.filter(|number| number.is_finite()).collect();
        all.sort_by(f64::total_cmp);
        let (&least, &most) = (all.first()?, all.last()?);
        let (low, high) = (all[(all.len() - 1) / 2], all[all.len() / 2]);
        Some(Self { median: f64::midpoint(low, high), least, most })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::contestant::Class, *};

    #[test]
    fn the_middle_of_an_even_number_lies_between() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0].into_iter()).unwrap();
        assert_eq!(spread, Spread { median: 2.5, least: 1.0, most: 4.0 });
        assert_eq!(Spread::of([].into_iter()), None);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let scenario = Scenario { write: false, random: true, bytes: 4096, depth: 1 };
        let ours = Contestant::Nvmf("poll", Class::Normal);
        let base = Contestant::Floor("spin", Class::Idle);
        let mut ledger = Ledger::default();
        for (fast, slow) in [(20.0, 10.0), (300.0, 100.0), (8.0, 8.0)] {
            ledger.note(&scenario, &ours, Sample { iops: fast, ..Sample::default() });
            ledger.note(&scenario, &base, Sample { iops: slow, ..Sample::default() });
        }
        let ratio = ledger.ratio(&scenario, [&ours, &base], |sample| Some(sample.iops));
        assert_eq!(ratio, Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
        assert_eq!(ledger.best(&scenario, |_| true), Some(&ours));
    }
}
