//! The kernel's log: which messages make a run fail.

use regex_lite::Regex;

/// Number of lines shown from a kernel warning on: about one call trace.
const CONTEXT_LINES: usize = 40;

/// Number of lines shown of a log without warnings.
const LAST_LINES: usize = 15;

/// Rules by which a line of the kernel's log makes a run fail.
#[derive(Clone, Debug)]
pub struct KernelLogMatcher {
    broken: Regex,
    denied: Vec<Regex>,
    allowed: Vec<Regex>,
}

/// A line that makes a run fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelWarning {
    /// The kind: panic, oops, bug, warn, hung or denied.
    pub kind: &'static str,
    /// The line.
    pub line: String,
    /// Number of the line in the log, from 0.
    pub index: usize,
}

impl KernelLogMatcher {
    /// Panics, oopses, BUGs, WARNs and hung tasks are fatal, and lines that match one of `denied`.
    #[must_use]
    pub fn new(denied: Vec<Regex>) -> Self {
        // The messages follow the time stamp and, where configured, the caller's id.
        let broken = concat!(
            r"^(?:\[ *[0-9.]+\](?:\[ *[TC][0-9]+\])? )?(?:",
            r"(?P<panic>Kernel panic - not syncing|---\[ end Kernel panic)|",
            r"(?P<oops>Oops\b|Internal error: |general protection fault|Kernel mode fault|",
            r"Kernel mode signal|Unable to handle kernel|BUG: unable to handle)|",
            r"(?P<bug>kernel BUG at |BUG: |BUG at |Bad page |list_(?:add|del) corruption)|",
            r"(?P<warn>WARNING: |UBSAN: |refcount_t: |DEBUG_LOCKS_WARN_ON)|",
            r"(?P<hung>INFO: task .* blocked for more than|.*self-detected stall))",
        );
        Self {
            broken: Regex::new(broken).expect("the pattern is a constant"),
            denied,
            allowed: Vec::new(),
        }
    }

    /// WARNs in lines that match one of `allowed` are not fatal.
    #[must_use]
    pub fn allowing(self, allowed: Vec<Regex>) -> Self {
        Self { allowed, ..self }
    }

    /// The lines of `log` that make the run fail, in order.
    #[must_use]
    pub fn kernel_warnings(&self, log: &str) -> Vec<KernelWarning> {
        let judged = log.lines().enumerate();
        let kernel_warning = |(index, line): (usize, &str)| {
            let kind = self.kind(line)?;
            Some(KernelWarning { kind, line: line.to_owned(), index })
        };
        judged.filter_map(kernel_warning).collect()
    }

    fn kind(&self, line: &str) -> Option<&'static str> {
        let denied = || self.denied.iter().any(|regex| regex.is_match(line)).then_some("denied");
        let Some(found) = self.broken.captures(line) else { return denied() };
        let names = ["panic", "oops", "bug", "warn", "hung"];
        let kind = names.into_iter().find(|name| found.name(name).is_some())?;
        let allowed = kind == "warn" && self.allowed.iter().any(|regex| regex.is_match(line));
        if allowed { denied() } else { Some(kind) }
    }
}

/// Part of the log to show to a user: from the first warning on, or the last lines.
#[must_use]
pub fn excerpt<'a>(log: &'a str, kernel_warnings: &[KernelWarning]) -> Vec<&'a str> {
    let lines: Vec<_> = log.lines().collect();
    let Some(first) = kernel_warnings.first() else {
        return lines[lines.len().saturating_sub(LAST_LINES)..].to_vec();
    };
    let shown = |index: &usize| {
        kernel_warnings
            .iter()
            .any(|known| (known.index..known.index + CONTEXT_LINES).contains(index))
    };
    (first.index..lines.len()).filter(shown).map(|index| lines[index]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(log: &str) -> Vec<&'static str> {
        KernelLogMatcher::new(vec![])
            .kernel_warnings(log)
            .into_iter()
            .map(|kernel_warning| kernel_warning.kind)
            .collect()
    }

    #[test]
    fn each_kind_of_breakage_is_told_apart() {
        let log = "\
[    0.100000] Linux version 6.12
[    0.300000] Kernel panic - not syncing: sysrq triggered crash
[    0.310000][    T1] WARNING: CPU: 0 PID: 1 at drivers/infiniband/core/cq.c:10 x+0x1
[    0.320000] kernel BUG at fs/inode.c:5!
[    0.330000] BUG: scheduling while atomic: init/1/0x00000002
[    0.340000] Oops: 0000 [#1]
[   61.000000] INFO: task nvme:33 blocked for more than 60 seconds.
Kernel mode fault at addr 0x0, ip 0x60000000
";
        assert_eq!(kinds(log), ["panic", "warn", "bug", "bug", "oops", "hung", "oops"]);
    }

    #[test]
    fn ordinary_lines_are_not_complaints() {
        let log = "\
[    0.2] nvme nvme0: new ctrl: NQN \"nqn.x\", addr 10.10.10.1:4420
[    0.3] rdma_rxe: loaded
[    0.4] a WARNING: in the middle says nothing
[    0.5] rxe0: qp#17 set error non-flush error
[    0.6] debug: BUG: quoted by a program
";
        assert_eq!(kinds(log), [""; 0]);
    }

    #[test]
    fn denied_lines_are_found() {
        let judge = KernelLogMatcher::new(vec![Regex::new("non-flush error").unwrap()]);
        let kernel_warnings = judge.kernel_warnings("[ 1.0] ok\n[ 1.1] rxe0: non-flush error\n");
        assert_eq!(kernel_warnings.len(), 1);
        assert_eq!((kernel_warnings[0].kind, kernel_warnings[0].index), ("denied", 1));
    }

    #[test]
    fn allowed_warnings_are_no_complaints() {
        let judge = KernelLogMatcher::new(vec![]).allowing(vec![Regex::new("known").unwrap()]);
        let log = "WARNING: at known+0x1\nWARNING: at other+0x1\nkernel BUG at known:1\n";
        let kinds: Vec<_> = judge.kernel_warnings(log).into_iter().map(|one| one.kind).collect();
        assert_eq!(kinds, ["warn", "bug"]);
    }

    #[test]
    fn the_excerpt_starts_at_the_first_complaint() {
        let mut log: String = (0..100).map(|line| format!("[ 0.1] line {line}\n")).collect();
        assert_eq!(excerpt(&log, &[]).len(), LAST_LINES);
        log.push_str("[ 0.2] Kernel panic - not syncing: x\n[ 0.3] after\n");
        let kernel_warnings = KernelLogMatcher::new(vec![]).kernel_warnings(&log);
        assert_eq!(excerpt(&log, &kernel_warnings).len(), 2);
    }
}
