//! Axes of charts: scales, ranges and ticks.

use super::number::{Unit, count, floor};

/// Axis of a chart.
#[derive(Clone)]
pub(super) struct Axis {
    /// Quantity, as before a value that is pointed at.
    pub(super) name: &'static str,
    /// Explanation behind the name at the axis; may be empty.
    pub(super) note: &'static str,
    pub(super) scale: Scale,
    pub(super) unit: Unit,
}

/// Scale of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// Linear, from zero.
    Linear,
    /// Logarithmic, with ticks at powers of ten, and at 2 and 5 times them if there is room.
    Log10,
    /// Logarithmic, with ticks at powers of two.
    Log2,
    /// Percentiles, with 90, 99 and 99.9 at equal distances.
    Nines,
}

/// Axis with the range of its values.
pub(super) struct ScaledAxis {
    scale: Scale,
    /// Least value, as the scale measures it.
    low: f64,
    high: f64,
    pub(super) ticks: Vec<f64>,
}

/// Ticks of an axis in proportion to those of a linear one.
const LOG_TICKS: f64 = 1.8;

impl Axis {
    pub(super) fn label(&self) -> String {
        if self.note.is_empty() {
            self.name.to_owned()
        } else {
            format!("{}, {}", self.name, self.note)
        }
    }

    pub(super) fn iops() -> Self {
        Self { name: "IOPS", note: "I/O a second", scale: Scale::Linear, unit: Unit::Count }
    }

    pub(super) fn time(name: &'static str) -> Self {
        Self { name, note: "log scale", scale: Scale::Log10, unit: Unit::Time }
    }
}

impl ScaledAxis {
    /// Axis for these values, of which those that are no numbers count for nothing. `room` is the
    /// number of ticks that an axis with a linear scale has room for.
    pub(super) fn new(axis: &Axis, values: impl Iterator<Item = f64>, room: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.map(|value| axis.scale.measure(value)).filter(|it| it.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let ticks_max = count(room * LOG_TICKS).clamp(2, 16);
        let (low, high, ticks) = match axis.scale {
            Scale::Linear => linear(high, axis.unit == Unit::Seconds, room),
            Scale::Log10 => log10(low, high, ticks_max),
            Scale::Log2 => log2(low, high, ticks_max),
            Scale::Nines => {
                let all = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999, 99.99999];
                let high = high.max(2.0);
                let is_within = |tick: &f64| axis.scale.measure(*tick) <= high + 0.01;
                (0.0, high, all.into_iter().filter(is_within).collect())
            }
        };
        Self { scale: axis.scale, low, high, ticks }
    }

    /// Position of a value, from 0 at the start of the axis to 1 at its end.
    pub(super) fn position(&self, value: f64) -> f64 {
        let position = (self.scale.measure(value) - self.low) / (self.high - self.low);
        if position.is_finite() { position.clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// Range from zero, and ticks. An axis of time ends with the last value, others at a tick.
fn linear(high: f64, is_time: bool, room: f64) -> (f64, f64, Vec<f64>) {
    // Larger values are no measurements, and would overflow.
    let high = if (1e-9..1e300).contains(&high) { high } else { 1.0 };
    let step = nice_step(high, room);
    let end = if is_time { high } else { (high / step - 1e-9).ceil() * step };
    let last = count(end / step + 1e-9);
    (0.0, end, (0..=last).map(|index| index as f64 * step).collect())
}

/// Range between values of 1, 2 or 5 times a power of ten, of a scale from `low` to `high`; ticks
/// at
/// all of these, or at powers of ten.
fn log10(low: f64, high: f64, ticks_max: usize) -> (f64, f64, Vec<f64>) {
    let decades = floor(low)..=floor(high) + 1;
    let all = decades.flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)));
    let all: Vec<_> = all.filter(|value| value.is_normal()).collect();
    let first = all.iter().rposition(|value| value.log10() <= low + 1e-9).unwrap_or(0);
    let last = all.iter().position(|value| value.log10() >= high - 1e-9).unwrap_or(all.len() - 1);
    let (first, last) = (first, last.max(first + 1).min(all.len() - 1));
    let range = &all[first..=last];
    let (low, high) = (range[0].log10(), range[range.len() - 1].log10());
    if range.len() <= ticks_max {
        return (low, high, range.to_vec());
    }
    let powers = floor(low.ceil())..=floor(high);
    let step = powers.clone().count().div_ceil(ticks_max);
    (low, high, powers.step_by(step).map(|power| 10f64.powi(power)).collect())
}

fn log2(low: f64, high: f64, ticks_max: usize) -> (f64, f64, Vec<f64>) {
    let (low, high) = (low.floor(), high.ceil().max(low.floor() + 1.0));
    let powers = floor(low)..=floor(high);
    let step = powers.clone().count().div_ceil(ticks_max);
    (low, high, powers.step_by(step).map(|power| 2f64.powi(power)).collect())
}

/// Range of differences, which holds zero, and its ticks.
pub(super) fn signed(low: f64, high: f64) -> (f64, f64, Vec<f64>) {
    let (low, high) = (low.clamp(-1e9, 0.0), high.clamp(0.0, 1e9));
    let step = nice_step((high - low).max(0.1), 6.0);
    let (first, last) = (floor(low / step), floor((high / step).ceil()));
    let ticks = (first..=last).map(|index| f64::from(index) * step);
    (f64::from(first) * step, f64::from(last) * step, ticks.collect())
}

/// Step of one, two or five times a power of ten, of which about `room` make `high`.
fn nice_step(high: f64, room: f64) -> f64 {
    let rough = high / room.max(1.0);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * power >= rough * 0.999);
    step.unwrap_or(10.0) * power
}

impl Scale {
    fn measure(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log10 => value.max(1.0).log10(),
            Self::Log2 => value.max(1.0).log2(),
            // At 100 % there is no place on this scale.
            Self::Nines => -(1.0 - value.clamp(0.0, 99.999_999) / 100.0).log10(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_nice() {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9 * b;
        for (high, step) in [(10.0, 2.0), (100_000.0, 20_000.0), (7.0, 2.0), (1.0, 0.2)] {
            assert!(close(nice_step(high, 5.0), step), "{high}: {}", nice_step(high, 5.0));
        }
    }

    #[test]
    fn nines_are_at_equal_distances() {
        let nines = [0.0, 90.0, 99.0, 99.9].map(|value| Scale::Nines.measure(value));
        for (index, nine) in nines.into_iter().enumerate() {
            assert!((nine - index as f64).abs() < 1e-6);
        }
    }

    /// Axis for two values, and its end points.
    fn scaled(scale: Scale, values: [f64; 2]) -> (ScaledAxis, [f64; 2]) {
        let axis = Axis { name: "", note: "", scale, unit: Unit::Count };
        let scaled = ScaledAxis::new(&axis, values.into_iter(), 5.0);
        let positions = values.map(|value| scaled.position(value));
        (scaled, positions)
    }

    #[test]
    fn a_short_range_has_ticks_between_powers_of_ten() {
        let (axis, _) = scaled(Scale::Log10, [23.0, 180.0]);
        assert_eq!(axis.ticks, [20.0, 50.0, 100.0, 200.0]);
        let (axis, _) = scaled(Scale::Log10, [23.0, 9e6]);
        assert_eq!(axis.ticks, [1e2, 1e3, 1e4, 1e5, 1e6, 1e7]);
    }

    #[test]
    fn any_values_have_an_axis_with_a_few_ticks() {
        let values = [0.0, -1.0, 1e-300, 0.5, 1.0, 7.0, 1e9, 1e300, f64::MAX, f64::NAN];
        for scale in [Scale::Linear, Scale::Log10, Scale::Log2, Scale::Nines] {
            for (low, high) in values.iter().flat_map(|a| values.map(|b| (*a, b))) {
                let (axis, positions) = scaled(scale, [low, high]);
                let described = format!("{scale:?} {low} {high}: {:?}", axis.ticks);
                assert!((1..=18).contains(&axis.ticks.len()), "{described}");
                assert!(positions.iter().all(|at| (0.0..=1.0).contains(at)), "{described}");
                let within = |tick: &f64| axis.position(*tick).is_finite();
                assert!(axis.ticks.iter().all(within), "{described}");
            }
        }
    }
}
