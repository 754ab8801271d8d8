//! Points of a sweep.

use std::str::FromStr;

use super::block_sizes::BlockSizes;

/// Settings of a load that a sweep can vary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) iodepth: u16,
    /// I/O queues of each target, if not the default number.
    pub(super) queues: Option<u16>,
    pub(super) bs: BlockSizes,
    /// Commands per second for each target, in an open loop.
    pub(super) rate: Option<u64>,
}

/// Values of one setting of a sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    Iodepth(Vec<u16>),
    Queues(Vec<u16>),
    BlockSize(Vec<BlockSizes>),
    Rate(Vec<u64>),
}

impl FromStr for Axis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, values) = text.split_once('=').ok_or("write WHAT=VALUES, as in queues=1,2")?;
        match name {
            "iodepth" => Ok(Self::Iodepth(numbers(values, 1023)?)),
            "queues" => Ok(Self::Queues(numbers(values, u16::MAX)?)),
            "rate" => Ok(Self::Rate(numbers(values, u64::MAX)?)),
            "bs" => {
                Ok(Self::BlockSize(values.split(',').map(str::parse).collect::<Result<_, _>>()?))
            }
            _ => Err(format!("{name:?} is no axis; use iodepth, queues, bs or rate")),
        }
    }
}

fn numbers<T: FromStr + PartialOrd + From<u8>>(text: &str, max: T) -> Result<Vec<T>, String> {
    let fits = T::from(1)..=max;
    let parse = |part: &str| {
        let number = part.parse().ok().filter(|number| fits.contains(number));
        number.ok_or(format!("{part:?} is no number that fits here"))
    };
    text.split(',').map(parse).collect()
}

/// All combinations of the values of a sweep, the last axis changing fastest; or the one point.
pub(super) fn expand(start: Point, axes: &[Axis]) -> Vec<Point> {
    axes.iter().fold(vec![start], |points, axis| {
        points.iter().flat_map(|point| axis.apply(point)).collect()
    })
}

impl Axis {
    fn apply(&self, point: &Point) -> Vec<Point> {
        match self {
            Self::Iodepth(values) => {
                values.iter().map(|&iodepth| Point { iodepth, ..point.clone() }).collect()
            }
            Self::Queues(values) => values
                .iter()
                .map(|&queues| Point { queues: Some(queues), ..point.clone() })
                .collect(),
            Self::BlockSize(values) => {
                values.iter().map(|bs| Point { bs: bs.clone(), ..point.clone() }).collect()
            }
            Self::Rate(values) => {
                values.iter().map(|&rate| Point { rate: Some(rate), ..point.clone() }).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_is_all_combinations() {
        let start = Point { iodepth: 1, queues: None, bs: "4K".parse().unwrap(), rate: None };
        let axes: Vec<Axis> =
            ["iodepth=1,8", "queues=1,2"].iter().map(|text| text.parse().unwrap()).collect();
        let points = expand(start.clone(), &axes);
        let shapes: Vec<_> = points.iter().map(|point| (point.iodepth, point.queues)).collect();
        assert_eq!(shapes, [(1, Some(1)), (1, Some(2)), (8, Some(1)), (8, Some(2))]);
        assert_eq!(expand(start.clone(), &[]), [start]);
    }

    #[test]
    fn axes_are_checked() {
        assert_eq!(
            "bs=4K,8K".parse(),
            Ok(Axis::BlockSize(vec!["4K".parse().unwrap(), "8K".parse().unwrap()]))
        );
        for wrong in ["iodepth", "iodepth=", "iodepth=0", "iodepth=1024", "bs=x", "depth=1"] {
            assert!(wrong.parse::<Axis>().is_err(), "{wrong}");
        }
    }
}
