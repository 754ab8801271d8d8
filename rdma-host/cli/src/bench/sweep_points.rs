//! Points of a sweep.

use std::{fmt, str::FromStr};

use super::{block_sizes::BlockSizes, rate::Rate};
use crate::size;

/// Settings of a load that a sweep can vary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Point {
    /// Commands in flight on each queue, if not the default number.
    pub(super) iodepth: Option<u16>,
    /// I/O queues of each target, if not the default number.
    pub(super) queues: Option<u16>,
    pub(super) bs: BlockSizes,
    /// Commands per second for each target, in an open loop.
    pub(super) rate: Option<Rate>,
}

/// Values of one setting of a sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Axis(Vec<Setting>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Setting {
    Iodepth(u16),
    Queues(u16),
    BlockSizes(BlockSizes),
    Rate(u64),
}

impl FromStr for Axis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, values) = text.split_once('=').ok_or("write WHAT=VALUES, as in queues=1,2")?;
        let parse: fn(&str) -> Result<Setting, String> = match name {
            "iodepth" => |value| number(value, 1023).map(Setting::Iodepth),
            "queues" => |value| number(value, u16::MAX).map(Setting::Queues),
            "rate" => |value| size::rate(value).map(Setting::Rate),
            "bs" => |value| value.parse().map(Setting::BlockSizes),
            _ => return Err(format!("{name:?} is no axis; use iodepth, queues, bs or rate")),
        };
        values.split(',').map(parse).collect::<Result<_, _>>().map(Self)
    }
}

fn number<T: FromStr + PartialOrd + From<u8>>(text: &str, max: T) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| (T::from(1)..=max).contains(number));
    number.ok_or(format!("{text:?} is no number that fits here"))
}

/// All combinations of the values of a sweep, the last axis changing fastest; or the one point.
pub(super) fn expand(start: Point, axes: &[Axis]) -> Vec<Point> {
    axes.iter().fold(vec![start], |points, axis| {
        let settings = |point: Point| axis.0.iter().map(move |setting| point.with(setting));
        points.into_iter().flat_map(settings).collect()
    })
}

impl Point {
    fn with(&self, setting: &Setting) -> Self {
        let mut point = self.clone();
        match setting {
            Setting::Iodepth(iodepth) => point.iodepth = Some(*iodepth),
            Setting::Queues(queues) => point.queues = Some(*queues),
            Setting::BlockSizes(bs) => point.bs = bs.clone(),
            Setting::Rate(rate) => point.rate = Some(Rate::All(*rate)),
        }
        point
    }
}

impl Axis {
    /// Name of the setting.
    pub(super) fn name(&self) -> &'static str {
        match self.0.first() {
            Some(Setting::Iodepth(_)) => "iodepth",
            Some(Setting::Queues(_)) => "queues",
            Some(Setting::BlockSizes(_)) => "bs",
            Some(Setting::Rate(_)) => "rate",
            None => unreachable!("an axis has a value"),
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.bs.describe())?;
        if let Some(iodepth) = self.iodepth {
            write!(f, ", depth {iodepth}")?;
        }
        if let Some(queues) = self.queues {
            write!(f, " on {}", size::format_count(queues.into(), "queue"))?;
        }
        match self.rate {
            Some(rate) => write!(f, ", {rate}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_is_all_combinations() {
        let start = Point { iodepth: Some(1), queues: None, bs: "4K".parse().unwrap(), rate: None };
        let axes: Vec<Axis> =
            ["iodepth=1,8", "queues=1,2"].iter().map(|text| text.parse().unwrap()).collect();
        let points = expand(start.clone(), &axes);
        let shapes: Vec<_> = points.iter().map(|point| (point.iodepth, point.queues)).collect();
        let shape = |iodepth, queues| (Some(iodepth), Some(queues));
        assert_eq!(shapes, [shape(1, 1), shape(1, 2), shape(8, 1), shape(8, 2)]);
        assert_eq!(points[3].to_string(), "4 KiB, depth 8 on 2 queues");
        assert_eq!(expand(start.clone(), &[]), [start]);
    }

    #[test]
    fn axes_are_checked() {
        assert_eq!(
            "bs=4K,8K".parse(),
            Ok(Axis(["4K", "8K"].map(|bs| Setting::BlockSizes(bs.parse().unwrap())).to_vec()))
        );
        for wrong in ["iodepth", "iodepth=", "iodepth=0", "iodepth=1024", "bs=x", "depth=1"] {
            assert!(wrong.parse::<Axis>().is_err(), "{wrong}");
        }
    }
}
