//! Stages of a command, by the time that each took, as a bar and in words.

use askama::{Template, filters::HtmlSafe};

use super::{
    super::report::StageMeans,
    colour::{PALETTE, Palette},
    key::{Key, KeyShape},
    number::{NO_VALUE, Unit, decimal},
    picture::{Frame, Picture, Size, Svg, tenths},
};

/// Mean time of a command in each stage.
pub(super) struct Stages {
    pub(super) all: [Stage; 5],
}

/// Stage of a command's time, and its mean.
pub(super) struct Stage {
    pub(super) name: &'static str,
    pub(super) description: String,
    /// None if the report does not know it.
    nanoseconds: Option<f64>,
    /// Share in the time of all stages, from 0 to 1.
    share: f64,
}

/// Bar in a table.
#[derive(Template)]
#[template(path = "stage-strip.svg")]
pub(super) struct Strip {
    palette: &'static Palette,
    segments: Vec<Segment>,
    description: String,
}

impl HtmlSafe for Strip {}

#[derive(Template)]
#[template(path = "stages.svg")]
struct Bar {
    frame: Frame,
    segments: Vec<Segment>,
}

/// Part of a bar.
struct Segment {
    left: f64,
    width: f64,
    title: String,
}

impl Stages {
    /// All stages, in the order in which a command passes them.
    pub(super) fn new(mean: &StageMeans, device_is_software: Option<bool>) -> Self {
        let until = match mean.doorbell {
            Some(_) => "until the doorbell's call",
            None => "with the doorbell's call",
        };
        let software = match device_is_software {
            Some(true) => {
                "; software RDMA sends within it, and a target on this host receives, too"
            }
            _ => "",
        };
        let stages = [
            ("queue", "due, not yet submitted".to_owned(), Some(mean.queue)),
            ("submit", until.to_owned(), Some(mean.submit)),
            ("doorbell", format!("in the doorbell's call{software}"), mean.doorbell),
            ("wire + target", "until a poll found it done".to_owned(), Some(mean.wire_and_target)),
            ("completion", "until its result was handed over".to_owned(), Some(mean.completion)),
        ];
        let total: f64 = stages.iter().filter_map(|(.., nanoseconds)| *nanoseconds).sum();
        let all = stages.map(|(name, description, nanoseconds)| Stage {
            name,
            description,
            nanoseconds,
            share: (nanoseconds.unwrap_or_default() / total.max(1.0)).clamp(0.0, 1.0),
        });
        Self { all }
    }

    pub(super) fn strip(&self) -> Strip {
        let shown = self.all.iter().filter(|stage| stage.share >= 0.005);
        let description: Vec<_> = shown.map(Stage::in_short).collect();
        Strip {
            palette: &PALETTE,
            segments: self.segments(120.0),
            description: description.join(", "),
        }
    }

    fn segments(&self, width: f64) -> Vec<Segment> {
        let mut at = 0.0;
        let segments = self.all.iter().map(|stage| {
            let left = at;
            at += stage.share * width;
            let title = stage.in_short();
            Segment { left: tenths(left), width: tenths(at) - tenths(left), title }
        });
        segments.collect()
    }
}

impl Stage {
    pub(super) fn micros(&self) -> String {
        self.nanoseconds.map_or(NO_VALUE.to_owned(), |it| decimal(it / 1000.0, 2))
    }

    pub(super) fn percent(&self) -> String {
        match self.nanoseconds {
            Some(_) => format!("{:.1}", self.share * 100.0),
            None => NO_VALUE.to_owned(),
        }
    }

    fn in_short(&self) -> String {
        let Some(nanoseconds) = self.nanoseconds else { return format!("{} not known", self.name) };
        let time = Unit::Time.short(nanoseconds);
        format!("{} {time} ({:.0} %)", self.name, self.share * 100.0)
    }
}

impl Picture for Stages {
    fn name(&self) -> &'static str {
        "stages"
    }

    fn title(&self) -> &'static str {
        "Where the time went, mean of a command"
    }

    fn keys(&self) -> Vec<Key> {
        let keys = self.all.iter().enumerate();
        keys.map(|(stage, it)| Key::new(&it.in_short(), KeyShape::Stage(stage))).collect()
    }

    fn draw(&self, frame: Frame, size: &Size) -> Svg {
        let height = frame.top + 30.0;
        Svg::new(&Bar { frame: Frame { height, ..frame }, segments: self.segments(size.width) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_in_proportion_and_fill_the_bar() {
        let means = StageMeans {
            queue: 0.0,
            submit: 1000.0,
            doorbell: Some(3000.0),
            wire_and_target: 5000.0,
            completion: 1000.0,
        };
        let stages = Stages::new(&means, Some(true));
        let places: Vec<_> =
            stages.segments(100.0).iter().map(|it| (it.left, it.width.round())).collect();
        assert_eq!(places, [(0.0, 0.0), (0.0, 10.0), (10.0, 30.0), (40.0, 50.0), (90.0, 10.0)]);
        assert_eq!(
            (stages.all[2].micros(), stages.all[2].percent()),
            ("3.00".into(), "30.0".into())
        );
        assert!(stages.all[2].description.contains("software RDMA"));
    }
}
