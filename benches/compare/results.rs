//! Results of all rounds.

use super::{
    initiator::{Initiator, Scenario},
    sample::Sample,
};

/// Runs of every initiator in every scenario.
#[derive(Debug, Default)]
pub(crate) struct Results {
    series: Vec<Series>,
}

#[derive(Debug)]
struct Series {
    scenario: Scenario,
    initiator: Initiator,
    /// Result of each round.
    samples: Vec<Sample>,
}

/// Median, minimum and maximum of some numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Results {
    pub(crate) fn note(&mut self, scenario: &Scenario, initiator: &Initiator, sample: Sample) {
        let found = self
            .series
            .iter_mut()
            .find(|entry| entry.scenario == *scenario && entry.initiator == *initiator);
        match found {
            Some(entry) => entry.samples.push(sample),
            None => self.series.push(Series {
                scenario: *scenario,
                initiator: initiator.clone(),
                samples: vec![sample],
            }),
        }
    }

    /// Runs of an initiator in a scenario, by round.
    pub(crate) fn samples(&self, scenario: &Scenario, initiator: &Initiator) -> &[Sample] {
        let found = self
            .series
            .iter()
            .find(|entry| entry.scenario == *scenario && entry.initiator == *initiator);
        found.map_or(&[], |entry| &entry.samples)
    }

    pub(crate) fn initiators(&self, scenario: &Scenario) -> impl Iterator<Item = &Initiator> {
        let series = self.series.iter().filter(move |entry| entry.scenario == *scenario);
        series.map(|entry| &entry.initiator)
    }

    /// Scenarios in the order in which they were first run.
    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        let mut all = Vec::new();
        for entry in &self.series {
            if !all.contains(&entry.scenario) {
                all.push(entry.scenario);
            }
        }
        all
    }

    /// The initiator with the most IOPS among those that `wanted` selects.
    pub(crate) fn best(
        &self,
        scenario: &Scenario,
        wanted: impl Fn(&Initiator) -> bool,
    ) -> Option<&Initiator> {
        self.initiators(scenario).filter(|initiator| wanted(initiator)).max_by(|a, b| {
            let iops = |who| self.spread(scenario, who, |sample| Some(sample.iops));
            let median = |who| iops(who).map_or(0.0, |spread| spread.median);
            median(a).total_cmp(&median(b))
        })
    }

    /// One number of an initiator over all rounds.
    pub(crate) fn spread(
        &self,
        scenario: &Scenario,
        initiator: &Initiator,
        number: impl Fn(&Sample) -> Option<f64>,
    ) -> Option<Spread> {
        Spread::of(self.samples(scenario, initiator).iter().filter_map(number))
    }

    /// One number of an initiator divided by that of a base, round by round.
    pub(crate) fn ratio(
        &self,
        scenario: &Scenario,
        initiator: &Initiator,
        base: &Initiator,
        number: impl Fn(&Sample) -> Option<f64>,
    ) -> Option<Spread> {
        let pairs = self.samples(scenario, initiator).iter().zip(self.samples(scenario, base));
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
    use super::{super::initiator::Class, *};

    #[test]
    fn the_middle_of_an_even_number_lies_between() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0].into_iter()).unwrap();
        assert_eq!(spread, Spread { median: 2.5, least: 1.0, most: 4.0 });
        assert_eq!(Spread::of([].into_iter()), None);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let scenario = Scenario { write: false, random: true, bytes: 4096, depth: 1 };
        let ours = Initiator::Nvmf("poll", Class::Normal);
        let base = Initiator::BareVerbs("spin", Class::Idle);
        let mut results = Results::default();
        for (fast, slow) in [(20.0, 10.0), (300.0, 100.0), (8.0, 8.0)] {
            results.note(&scenario, &ours, Sample { iops: fast, ..Sample::default() });
            results.note(&scenario, &base, Sample { iops: slow, ..Sample::default() });
        }
        let ratio = results.ratio(&scenario, &ours, &base, |sample| Some(sample.iops));
        assert_eq!(ratio, Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
        assert_eq!(results.best(&scenario, |_| true), Some(&ours));
    }
}
