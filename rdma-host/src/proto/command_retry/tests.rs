//! Committed table of decisions.

use std::fmt::Write as _;

use super::*;

const ANATT: Duration = Duration::from_secs(10);

const LEGEND: &str = "\
What becomes of an I/O command that failed: rows are statuses, columns are its history. A test
compares this with the code; UPDATE_MATRIX=1 cargo test -p nvme-rdma command_retry writes it again.

  complete   with its status
  retry T    sent again after T, which counts
  path T     sent again after T, which does not count: the path's state is to change

  first      a Read that was sent once
  4, 5       the same after this number of counted retries
  20 s       the same after 20 s, twice the controller's ANATT
  no ANA     first, of a controller without asymmetric access
  other      first, but of an opcode that is none of a block device
  no resend  first, where the options forbid to send again

The controller's delays (CRDT1 to CRDT3) are 100 ms, 2 s and 6553.5 s; at most a minute is waited.

Against Linux (nvme_decide_disposition, nvme_failover_req): persistent loss is final, where Linux
holds the command for another path; a command on a path in change fails after twice ANATT, where
Linux resets the controller and holds it on; other statuses of a path are counted, since there is no
other path; a queue that is to be authenticated again is left to the owner; a command that was
aborted, since it took too long, is not given that time again.

";

const STATUSES: [(&str, u16); 14] = [
    ("0x006 internal error", 0x006),
    ("0x006, CRD 1", 0x806),
    ("0x006, CRD 2", 0x1006),
    ("0x006, CRD 3", 0x1806),
    ("0x006, DNR", 0x4006),
    ("0x007 aborted", 0x007),
    ("0x021 interrupted", 0x021),
    ("0x082 not ready", 0x082),
    ("0x191 authentication", 0x191),
    ("0x300 path error", 0x300),
    ("0x301 persistent loss", 0x301),
    ("0x302 inaccessible", 0x302),
    ("0x303 transition", 0x303),
    ("0x303, DNR", 0x4303),
];

fn word(disposition: Disposition) -> String {
    match disposition {
        Disposition::Complete => "complete".to_owned(),
        Disposition::Retry(delay) => format!("retry {delay:?}"),
        Disposition::RetryPath(delay) => format!("path {delay:?}"),
    }
}

fn matrix() -> String {
    let delays = [100, 2_000, 6_553_500].map(Duration::from_millis);
    let rules = CommandRetry { enabled: true, delays, path_timeout: 2 * ANATT };
    let first = FailedResponse {
        opcode: Opcode::READ,
        status: Status::SUCCESS,
        retries: 0,
        age: Duration::from_millis(1),
    };
    let columns = [
        ("first", rules, first),
        ("4", rules, FailedResponse { retries: 4, ..first }),
        ("5", rules, FailedResponse { retries: 5, ..first }),
        ("20 s", rules, FailedResponse { age: 2 * ANATT, ..first }),
        ("no ANA", CommandRetry { path_timeout: Duration::ZERO, ..rules }, first),
        ("other", rules, FailedResponse { opcode: Opcode(0x05), ..first }),
        ("no resend", CommandRetry { enabled: false, ..rules }, first),
    ];
    let mut text = LEGEND.to_owned();
    let mut line = |name: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("{cell:<13}")).collect();
        writeln!(text, "{}", format!("{name:<22} {cells}").trim_end()).unwrap();
    };
    line("", columns.iter().map(|column| column.0.to_owned()).collect());
    for (name, status) in STATUSES {
        let decide = |&(_, rules, failed): &(&str, CommandRetry, FailedResponse)| {
            word(rules.decide(&FailedResponse { status: Status(status), ..failed }))
        };
        line(name, columns.iter().map(decide).collect());
    }
    text
}

#[test]
fn the_matrix_is_the_committed_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/proto/command_retry/matrix.txt");
    if std::env::var_os("UPDATE_MATRIX").is_some() {
        std::fs::write(path, matrix()).unwrap();
    }
    assert_eq!(matrix(), std::fs::read_to_string(path).unwrap());
}
