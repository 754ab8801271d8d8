//! Facts that a result is tied to: the program, the host, its device, the target, the load and the
//! other load of the machine.

use serde_json::{Map, Value};

use super::{
    super::report::{Disturbance, PointReport},
    number::{NO_VALUE, group_digits},
};
use crate::size;

/// Facts of one kind.
#[derive(Clone, PartialEq)]
pub(super) struct Group {
    pub(super) name: &'static str,
    pub(super) facts: Vec<Fact>,
}

#[derive(Clone, PartialEq)]
pub(super) struct Fact {
    pub(super) name: String,
    pub(super) value: String,
}

/// Keys of a report's configuration in the order of the page, with their names there.
const PROGRAM: [(&str, &str); 4] = [
    ("command_line", "command line"),
    ("began", "began"),
    ("version", "version of nvmf"),
    ("commit", "commit"),
];
const HOST: [(&str, &str); 7] = [
    ("host", "host"),
    ("cpu_model", "processor"),
    ("processors", "processors"),
    ("cpus", "processors of the threads"),
    ("cpu_governor", "frequency governor"),
    ("numa_node", "NUMA node of the device"),
    ("kernel", "kernel"),
];
const DEVICE: [(&str, &str); 13] = [
    ("device", "RDMA device"),
    ("device_is_software", "device is software"),
    ("device_firmware", "firmware"),
    ("port_speed", "speed of the port"),
    ("mtu", "MTU of the path"),
    ("netdev_mtu", "MTU of the network interface"),
    ("gid_type", "type of GID"),
    ("source", "local address"),
    ("tos", "type of service"),
    ("ack_timeout", "exponent of the ACK timeout"),
    ("retry_count", "transport retries"),
    ("disable_sqflow", "submission queue flow control off"),
    ("keep_alive_s", "keep-alive timeout"),
];
const TARGET: [(&str, &str); 10] = [
    ("target", "address"),
    ("paths", "addresses of the paths"),
    ("iopolicy", "choice of a path"),
    ("fence", "fence for writes"),
    ("nqn", "NQN"),
    ("nsid", "namespace"),
    ("also", "further targets"),
    ("target_model", "model"),
    ("target_firmware", "firmware"),
    ("authentication", "authentication"),
];
const MEMORY: [(&str, &str); 4] = [
    ("memory_mode", "memory mode"),
    ("memory_fallback", "cause of that mode"),
    ("reachable_bytes_at_rest", "within the target's reach at rest"),
    ("reachable_bytes_in_flight", "within its reach in flight"),
];
const LOAD: [(&str, &str); 17] = [
    ("name", "name"),
    ("rw", "pattern"),
    ("read_percent", "share of reads"),
    ("bs_in_words", "block size"),
    ("iodepth", "queue depth"),
    ("queues", "queues"),
    ("threads", "threads"),
    ("loop", "loop"),
    ("rate", "commands a second, asked"),
    ("ramp_s", "warm-up"),
    ("runtime_s", "run time, asked"),
    ("interval_s", "interval, asked"),
    ("until_percent", "steady state that ends it, within"),
    ("until_window_s", "window of the steady state"),
    ("queue_entries", "entries of a queue"),
    ("capture", "captured meanwhile"),
    ("region_bytes", "region"),
];
/// Keys without which a result can't be reproduced: it is said that they are not known.
const NEEDED: [&str; 7] =
    ["command_line", "commit", "host", "cpu_model", "cpu_governor", "port_speed", "netdev_mtu"];

impl Fact {
    /// True for a value that wants lines of its own.
    pub(super) fn is_long(&self) -> bool {
        self.value.chars().count() > 48
    }
}

/// All facts of a point.
pub(super) fn of_point(point: &PointReport) -> Vec<Group> {
    let settings = serde_json::to_value(&point.configuration).expect("plain data");
    let Value::Object(mut settings) = settings else { unreachable!("it has fields") };
    // The block size is there in both forms; the readable one is enough.
    settings.remove("bs");
    let mut groups: Vec<_> = [
        ("Program", PROGRAM.as_slice()),
        ("Host", &HOST),
        ("Device and network", &DEVICE),
        ("Target", &TARGET),
        ("Memory", &MEMORY),
        ("Load", &LOAD),
    ]
    .map(|(name, keys)| group(name, keys, &mut settings))
    .into();
    // What has no place above belongs to the load.
    let others =
        settings.iter().filter_map(|(key, value)| fact(key, &key.replace('_', " "), value));
    groups.last_mut().expect("six").facts.extend(others);
    groups[4].facts.push(resident_memory(point));
    groups.extend(point.disturbance.as_ref().map(disturbance));
    groups.push(costs(point));
    groups
}

/// Facts that all points have, and of each point those that not all have.
pub(super) fn split(points: &[&PointReport]) -> (Vec<Group>, Vec<Vec<Group>>) {
    let all: Vec<_> = points.iter().map(|point| of_point(point)).collect();
    let everywhere = |fact: &Fact| {
        all.iter().all(|groups| groups.iter().any(|group| group.facts.contains(fact)))
    };
    let keep = |groups: &[Group], is_kept: &dyn Fn(&Fact) -> bool| -> Vec<Group> {
        let kept = groups.iter().map(|group| Group {
            name: group.name,
            facts: group.facts.iter().filter(|fact| is_kept(fact)).cloned().collect(),
        });
        kept.filter(|group| !group.facts.is_empty()).collect()
    };
    let common = all.first().map(|groups| keep(groups, &everywhere)).unwrap_or_default();
    let own = all.iter().map(|groups| keep(groups, &|fact| !everywhere(fact))).collect();
    (common, own)
}

/// Takes these keys from the settings.
fn group(name: &'static str, keys: &[(&str, &str)], settings: &mut Map<String, Value>) -> Group {
    let facts = keys.iter().filter_map(|(key, name)| {
        let value = settings.remove(*key).unwrap_or_default();
        fact(key, name, &value)
    });
    Group { name, facts: facts.collect() }
}

fn fact(key: &str, name: &str, value: &Value) -> Option<Fact> {
    let value = match value {
        Value::Null if NEEDED.contains(&key) => "not known".to_owned(),
        Value::Null => return None,
        value => shown(key, value),
    };
    Some(Fact { name: name.to_owned(), value })
}

/// Value of a setting, with its unit.
pub(super) fn shown(key: &str, value: &Value) -> String {
    match (key, value) {
        (_, Value::Null) => NO_VALUE.to_owned(),
        ("began", Value::String(text)) => time(text),
        (_, Value::String(text)) => text.clone(),
        (_, Value::Bool(yes)) => if *yes { "yes" } else { "no" }.to_owned(),
        ("authentication", Value::Array(queues)) if queues.iter().all(Value::is_null) => {
            "none".to_owned()
        }
        (_, Value::Number(number)) if key.ends_with("_bytes") || key.contains("_bytes_") => {
            size::format_bytes(number.as_u64().unwrap_or_default())
        }
        ("io_size", Value::Number(number)) => {
            size::format_bytes(number.as_u64().unwrap_or_default())
        }
        ("mtu" | "netdev_mtu", Value::Number(number)) => format!("{number} B"),
        (_, Value::Number(number)) if key.ends_with("_s") => format!("{number} s"),
        (_, Value::Number(number)) if key.ends_with("_percent") => format!("{number} %"),
        (_, other) => other.to_string(),
    }
}

/// Time in UTC from the form of RFC 3339.
pub(super) fn time(rfc3339: &str) -> String {
    rfc3339.replace('T', " ").replace('Z', " UTC")
}

/// Name of a setting for a page.
pub(super) fn setting_name(key: &str) -> String {
    let all = [&PROGRAM[..], &HOST, &DEVICE, &TARGET, &MEMORY, &LOAD].concat();
    let named = all.into_iter().find(|(known, _)| *known == key);
    named.map_or_else(|| key.replace('_', " "), |(_, name)| name.to_owned())
}

fn resident_memory(point: &PointReport) -> Fact {
    let before = size::format_bytes(point.resident_bytes.begin);
    let value = match point.resident_bytes.end {
        Some(end) => format!("{before} and {}", size::format_bytes(end)),
        None => before,
    };
    Fact { name: "resident, before and after".to_owned(), value }
}

/// Other load of the machine, if the report knows of it.
fn disturbance(disturbance: &Disturbance) -> Group {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let wait = disturbance.run_queue_wait_share.map_or("not known".to_owned(), percent);
    let idle = if disturbance.idle_class { "yes: all other programs came first" } else { "no" };
    let busy = if disturbance.busy_at_start { "yes" } else { "no" };
    let facts = [
        ("involuntary context switches", group_digits(disturbance.involuntary_switches as f64)),
        ("threads waited for a processor", wait),
        ("threads did not get to run for", format!("{:.1} s", disturbance.starved_s)),
        ("processors' time of other programs", percent(disturbance.other_programs_share)),
        ("processors' time of other guests (steal)", percent(disturbance.steal_share)),
        ("other programs wanted to run at the start", busy.to_owned()),
        ("threads were in the idle class", idle.to_owned()),
    ];
    Group { name: "What else the machine did", facts: facts.map(named).into() }
}

fn costs(point: &PointReport) -> Group {
    let cost = &point.per_io;
    let mut facts: Vec<_> = [
        ("CPU time per I/O", format!("{:.2} µs", cost.cpu_ns / 1000.0)),
        ("commands completed", group_digits(point.totals.completed as f64)),
        ("commands failed", group_digits(point.totals.errors as f64)),
    ]
    .map(named)
    .into();
    for (name, per_io) in [
        ("doorbells per I/O", cost.doorbells),
        ("completions per I/O", cost.completions),
        ("empty polls per I/O", cost.empty_polls),
    ] {
        facts.extend(per_io.map(|per_io| named((name, format!("{per_io:.3}")))));
    }
    for path in point.targets.iter().flat_map(|target| &target.paths) {
        facts.push(named((&format!("path {}", path.address), path.describe())));
    }
    if let Some(retried) = point.totals.retried {
        facts.push(named(("commands sent again", group_digits(retried as f64))));
    }
    let (by_target, here) = (point.windows.by_target, point.windows.here);
    if by_target + here > 0 {
        let value = format!("{by_target} by the target, {here} here");
        facts.push(named(("memory windows invalidated", value)));
    }
    if let Some(state) = &point.steady_state {
        let attained = if state.attained { "attained" } else { "not attained" };
        let deviation = state.deviation_percent.map(|percent| {
            format!(": IOPS of the last {} s within {percent:.1} % of the mean", state.window_s)
        });
        let value = format!(
            "{attained}{}; the limit is {} %",
            deviation.unwrap_or_default(),
            state.limit_percent
        );
        facts.push(named(("steady state", value)));
    }
    Group { name: "Counts and costs", facts }
}

fn named((name, value): (&str, String)) -> Fact {
    Fact { name: name.to_owned(), value }
}

#[cfg(test)]
mod tests {
    use super::{super::super::report::Configuration, *};

    fn point(iodepth: u16, host: Option<&str>) -> PointReport {
        let configuration = Configuration {
            iodepth,
            host: host.map(str::to_owned),
            command_line: Some("nvmf bench T".to_owned()),
            mtu: Some(4096),
            netdev_mtu: Some(4200),
            ..Configuration::default()
        };
        let disturbance = Some(Disturbance { steal_share: 0.02, ..Disturbance::default() });
        PointReport { configuration, disturbance, ..PointReport::default() }
    }

    fn find<'a>(groups: &'a [Group], name: &str) -> Option<&'a str> {
        let facts = groups.iter().flat_map(|group| &group.facts);
        facts.filter(|fact| fact.name == name).map(|fact| fact.value.as_str()).next()
    }

    #[test]
    fn each_setting_is_shown_once() {
        let point = point(1, Some("h"));
        let settings = serde_json::to_value(&point.configuration).unwrap();
        let groups = of_point(&point);
        let count: usize = groups[..6].iter().map(|group| group.facts.len()).sum();
        let nulls =
            |(key, value): &(&String, &Value)| value.is_null() && !NEEDED.contains(&&***key);
        let absent = settings.as_object().unwrap().iter().filter(nulls).count();
        // The block size is there twice, and the resident memory is no setting.
        assert_eq!(count, settings.as_object().unwrap().len() - absent - 1 + 1);
        for (name, value) in [
            ("command line", "nvmf bench T"),
            ("host", "h"),
            ("commit", "not known"),
            ("speed of the port", "not known"),
            ("MTU of the path", "4096 B"),
            ("MTU of the network interface", "4200 B"),
            ("processors' time of other guests (steal)", "2.0 %"),
            ("involuntary context switches", "0"),
        ] {
            assert_eq!(find(&groups, name), Some(value), "{name}");
        }
    }

    #[test]
    fn what_points_have_in_common_is_told_once() {
        let points = [point(1, Some("h")), point(8, Some("h"))];
        let (common, own) = split(&points.each_ref());
        assert_eq!((find(&common, "host"), find(&common, "queue depth")), (Some("h"), None));
        assert_eq!((find(&own[1], "host"), find(&own[1], "queue depth")), (None, Some("8")));
    }
}
