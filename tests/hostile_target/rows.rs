//! Faults of the target, and the words that the caller is told.

use tests::target::{Answer, ReceivedCommand};

/// Change of an answer, by the number of the I/O command, from 1 on.
type Misbehave = fn(u32, &ReceivedCommand, &mut Answer);

/// Play of one fault.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) misbehave: Misbehave,
    /// Private data of its accepts, if not the usual.
    pub(crate) accept: Option<&'static [u8]>,
    /// Private data of its rejects, if it rejects.
    pub(crate) reject: Option<&'static [u8]>,
    /// Words of the outcome.
    pub(crate) outcome: &'static str,
}

const fn row(name: &'static str, outcome: &'static str, misbehave: Misbehave) -> Row {
    Row { name, misbehave, accept: None, reject: None, outcome }
}

/// Fault at the fourth I/O command, a read.
const AT: u32 = 4;

fn is_connect(seen: &ReceivedCommand) -> bool {
    seen.is_fabrics(0x01)
}

fn is_identify(seen: &ReceivedCommand, structure: u8) -> bool {
    seen.queue == 0 && seen.sqe[0] == 0x06 && seen.sqe[40] == structure
}

fn is_read(seen: &ReceivedCommand) -> bool {
    seen.is_io() && seen.sqe[0] == 0x02
}

/// Private data that receives two commands at once.
const TWO_COMMANDS: [u8; 32] = {
    let mut data = [0; 32];
    data[2] = 2;
    data
};

pub(crate) const ROWS: [Row; 31] = [
    row("an honest target", "done; the controller went on", |_, _, _| ()),
    row(
        "a response to nothing",
        "which is not in flight; the controller ended",
        |count, seen, answer| {
            if count == AT && seen.is_io() {
                answer.messages[0][12..14].copy_from_slice(&[0xff, 0x7f]);
            }
        },
    ),
    row(
        "a response sent twice",
        "which is not in flight; the controller ended",
        |count, seen, answer| {
            if count == AT && seen.is_io() {
                let again = answer.messages[0].clone();
                answer.messages.push(again);
            }
        },
    ),
    row("a response of 8 bytes", "8 bytes", |count, seen, answer| {
        resize(count, seen, answer, 8);
    }),
    row("a response of 15 bytes", "15 bytes", |count, seen, answer| {
        resize(count, seen, answer, 15);
    }),
    row("a response of 17 bytes", "17 bytes", |count, seen, answer| {
        resize(count, seen, answer, 17);
    }),
    row("a response of 32 bytes", "32 bytes", |count, seen, answer| {
        resize(count, seen, answer, 32);
    }),
    row("a response longer than its buffer", "Transport", |count, seen, answer| {
        resize(count, seen, answer, 200);
    }),
    row("no response, and none to the Abort", "nor to its Abort", |count, seen, answer| {
        if count >= AT && (seen.is_io() || is_abort(seen)) {
            *answer = Answer::default();
        }
    }),
    row(
        "no response, and an Abort that is said to abort",
        "has aborted it",
        |count, seen, answer| {
            if is_abort(seen) {
                answer.messages = vec![seen.response(0, 0)];
            } else if count >= AT && seen.is_io() {
                *answer = Answer::default();
            }
        },
    ),
    row(
        "no response, and an Abort that does not abort",
        "did not abort it",
        |count, seen, answer| {
            if is_abort(seen) {
                answer.messages = vec![seen.response(0, 1)];
            } else if count >= AT && seen.is_io() {
                *answer = Answer::default();
            }
        },
    ),
    row("data past the buffer", "Transport", |count, seen, answer| {
        if count == AT && is_read(seen) {
            answer.data = vec![0; 1 << 20];
        }
    }),
    row("data to a key that is none", "Transport", |count, seen, answer| {
        if let Some((address, key)) = seen.place().filter(|_| count == AT && is_read(seen)) {
            answer.place = Some((address, key ^ 0x5a5a_5a00));
        }
    }),
    row("a connection that ends instead of a response", "Transport", |count, seen, answer| {
        if count == AT && seen.is_io() {
            answer.messages.clear();
            answer.disconnect = true;
        }
    }),
    row("an unrecovered read", "(0x281)", |count, seen, answer| {
        status(count, seen, answer, 0x281);
    }),
    row("a status that is none", "(0x1ff)", |count, seen, answer| {
        status(count, seen, answer, 0x1ff);
    }),
    row("a status of a vendor, without a retry", "(0x7ff, do not retry)", |count, seen, answer| {
        status(count, seen, answer, 0x47ff);
    }),
    row("a demand for authentication", "Access", |_, seen, answer| {
        if is_connect(seen) {
            answer.messages = vec![seen.response(0, 0x0002_0007)];
        }
    }),
    row("a refused Connect, for the host", "allowed hosts", |_, seen, answer| {
        if is_connect(seen) {
            answer.messages = vec![seen.response(0x4184, 0)];
        }
    }),
    row("a refused Connect, for its format", "incompatible format", |_, seen, answer| {
        if is_connect(seen) {
            answer.messages = vec![seen.response(0x180, 0)];
        }
    }),
    row("a refused Connect, for now", "controller busy", |_, seen, answer| {
        if is_connect(seen) {
            answer.messages = vec![seen.response(0x181, 0)];
        }
    }),
    row(
        "a queue of another controller",
        "answered by controller 8, not by 7",
        |_, seen, answer| {
            if is_connect(seen) && seen.queue == 1 {
                answer.messages = vec![seen.response(0, 8)];
            }
        },
    ),
    row("an admin command that is not answered by 16 bytes", "4 bytes", |_, seen, answer| {
        if is_identify(seen, 0x01) {
            answer.messages[0].truncate(4);
        }
    }),
    row("Identify Controller of noise", "Failed", |_, seen, answer| {
        if is_identify(seen, 0x01) {
            answer.data = tests::noise(4096, 3);
        }
    }),
    row("Identify Namespace of noise", "Failed", |_, seen, answer| {
        if is_identify(seen, 0x00) {
            answer.data = tests::noise(4096, 3);
        }
    }),
    row("a list of namespaces in circles", "Failed", |_, seen, answer| {
        if is_identify(seen, 0x02) {
            answer.data = (1..=1024u32).flat_map(u32::to_le_bytes).collect();
        }
    }),
    Row {
        accept: Some(&[9; 32]),
        ..row("an accept with a format that is none", "record format 0x0909", |_, _, _| ())
    },
    Row {
        accept: Some(&TWO_COMMANDS),
        ..row("too few commands at once", "(CRQSIZE); 4 are needed", |_, _, _| ())
    },
    Row {
        reject: Some(&[0, 0, 6, 0]),
        ..row("a reject for want of resources", "Transport", |_, _, _| ())
    },
    Row {
        reject: Some(&[0; 148]),
        ..row("a reject that is none of NVMe's", "Transport", |_, _, _| ())
    },
    row("no answer to Connect on the I/O queue", "Transport", |_, seen, answer| {
        if is_connect(seen) && seen.queue == 1 {
            *answer = Answer { disconnect: true, ..Answer::default() };
        }
    }),
];

fn is_abort(seen: &ReceivedCommand) -> bool {
    seen.queue == 0 && seen.sqe[0] == 0x08
}

fn resize(count: u32, seen: &ReceivedCommand, answer: &mut Answer, bytes: usize) {
    if count == AT && seen.is_io() {
        answer.messages[0].resize(bytes, 0);
    }
}

/// Answers reads with a status; without DNR the host repeats them a few times.
fn status(count: u32, seen: &ReceivedCommand, answer: &mut Answer, status: u16) {
    if count >= AT && is_read(seen) {
        answer.messages = vec![seen.response(status, 0)];
        answer.data.clear();
    }
}
