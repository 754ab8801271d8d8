//! Rules that nvmet can't be made to show: fake targets, which both initiators connect to.

use std::time::Duration;

use auth::message::MessageId;
use tests::{
    authentication_hook::OutgoingMessage,
    target::{Answer, ReceivedCommand},
};

use super::{
    authentication::{KEY, OTHER},
    case::{
        Case,
        Outcome::{self, CameBack, Exhausted, GaveUp, StillTrying, Undisturbed},
        Schedule, TargetSpec,
    },
    case_target::CaseTarget,
    fake_target::FakeTargetSpec,
};

pub(crate) fn cases() -> Vec<Case> {
    [connects(), ladder(), rejections(), messages(), commands(), connected(), passing()].concat()
}

/// A case about a target that misbehaves and closes all connections; both may try twice.
fn fake_target(name: &'static str, fake: FakeTargetSpec, outcome: Outcome) -> Case {
    let spec = TargetSpec { fake: Some(fake), ..TargetSpec::default() };
    Case::live(name, CaseTarget::misbehave)
        .target(spec)
        .with(|options| options.loss_timeout = 2)
        // Longer than it takes, by remote: many targets share a processor.
        .watched(Duration::from_secs(20))
        .both(outcome)
}

fn misbehaving(
    name: &'static str,
    misbehave: fn(ReceivedCommand, &mut Answer),
    outcome: Outcome,
) -> Case {
    fake_target(name, FakeTargetSpec::misbehaving(misbehave), outcome)
}

/// Answers the admin Connect with this status, or this result.
macro_rules! connect {
    ($status:expr, $result:expr) => {
        |seen, answer| {
            if seen.is_fabrics(0x01) && seen.queue == 0 {
                answer.messages = vec![seen.response($status, $result)];
            }
        }
    };
}

/// Answers the Connect of an I/O queue with this status, or this result.
macro_rules! io_connect {
    ($status:expr, $result:expr) => {
        |seen, answer| {
            if seen.is_fabrics(0x01) && seen.queue != 0 {
                answer.messages = vec![seen.response($status, $result)];
            }
        }
    };
}

fn connects() -> Vec<Case> {
    vec![
        misbehaving("Connect: queue in use (0x00c DNR)", connect!(0x400c, 0), GaveUp),
        misbehaving("Connect: incompatible format (0x180 DNR)", connect!(0x4180, 0), GaveUp),
        misbehaving("Connect: controller busy (0x181 DNR)", connect!(0x4181, 0), GaveUp),
        misbehaving("Connect: invalid parameters (0x182 DNR)", connect!(0x4182, 0x1_0100), GaveUp),
        misbehaving("Connect: restart discovery (0x183 DNR)", connect!(0x4183, 0), GaveUp),
        misbehaving("Connect: invalid host (0x184 DNR)", connect!(0x4184, 0), GaveUp),
        misbehaving("Connect: authentication required (0x191 DNR)", connect!(0x4191, 0), GaveUp),
        misbehaving("Connect: internal error (0x006 DNR)", connect!(0x4006, 0), GaveUp),
        misbehaving("Connect: queue in use (0x00c)", connect!(0x000c, 0), Exhausted),
        misbehaving("Connect: incompatible format (0x180)", connect!(0x0180, 0), Exhausted),
        misbehaving("Connect: controller busy (0x181)", connect!(0x0181, 0), Exhausted),
        misbehaving("Connect: invalid parameters (0x182)", connect!(0x0182, 0x1_0100), Exhausted),
        misbehaving("Connect: invalid host (0x184)", connect!(0x0184, 0), Exhausted),
        misbehaving("Connect: internal error (0x006)", connect!(0x0006, 0), Exhausted),
        misbehaving(
            "Connect of an I/O queue: queue id (0x182 DNR)",
            io_connect!(0x4182, 0x2a),
            GaveUp,
        ),
        misbehaving(
            "Connect of an I/O queue: internal error (0x006)",
            io_connect!(0x0006, 0),
            Exhausted,
        ),
        misbehaving(
            "Connect of an I/O queue: controller id (0x182 DNR)",
            io_connect!(0x4182, 0x1_0010),
            GaveUp,
        )
        .differs(
            GaveUp,
            Exhausted,
            "the target granted that id a moment ago and has dropped the controller since: that \
                 is a loss, as any other; Linux takes it for a refusal",
        ),
        misbehaving("Connect demands a secure channel (ASCR)", connect!(0, 0x0004_0007), Exhausted),
        misbehaving(
            "Connect demands authentication, no key (ATR)",
            connect!(0, 0x0002_0007),
            GaveUp,
        ),
    ]
}

/// Changes what Identify Controller says.
macro_rules! identify {
    ($data:ident => $change:expr) => {
        |seen, answer| {
            if seen.queue == 0 && seen.sqe[0] == 0x06 && seen.sqe[40] == 0x01 {
                let $data = &mut answer.data;
                $change;
            }
        }
    };
}

/// Answers this property with this value.
macro_rules! property {
    ($offset:expr, $status:expr, $value:expr) => {
        |seen, answer| {
            if seen.is_fabrics(0x04) && seen.sqe[44] == $offset {
                answer.messages = vec![seen.response($status, $value)];
            }
        }
    };
}

fn ladder() -> Vec<Case> {
    vec![
        misbehaving("ICDOFF is not 0", identify!(data => data[1800] = 1), Exhausted),
        misbehaving("no keyed SGLs", identify!(data => data[536] = 0x01), Exhausted),
        misbehaving("IOCCSZ too small", identify!(data => data[1792..1796].fill(0)), Exhausted),
        misbehaving("IORCSZ of 0", identify!(data => data[1796..1800].fill(0)), Exhausted),
        misbehaving("MAXCMD of 0", identify!(data => data[514..516].fill(0)), CameBack),
        misbehaving("KAS of 0", identify!(data => data[320..322].fill(0)), Exhausted),
        misbehaving("another CNTLID than was granted", identify!(data => data[78] = 8), Exhausted),
        misbehaving("the controller is never ready", property!(0x1c, 0, 0), Exhausted),
        misbehaving("CSTS is refused (0x002 DNR)", property!(0x1c, 0x4002, 0), GaveUp),
        misbehaving("CSTS is refused (0x002)", property!(0x1c, 0x0002, 0), Exhausted),
        misbehaving(
            "the connection ends in the middle of a connect",
            |seen, answer| {
                if seen.is_fabrics(0x04) {
                    answer.messages.clear();
                    answer.disconnect = true;
                }
            },
            Exhausted,
        )
        .differs(
            StillTrying,
            Exhausted,
            "Linux does not act on a connection that ends while it connects, and waits for its \
             command's timeout of 60 s",
        )
        .schedule(Schedule::OneByOne)
        .abandoned(),
    ]
}

/// The NVMe target refuses the connection itself, with every code there is.
fn rejections() -> Vec<Case> {
    const fn rejecting(private_data: &'static [u8]) -> FakeTargetSpec {
        FakeTargetSpec { reject: Some(private_data), ..FakeTargetSpec::misbehaving(|_, _| ()) }
    }
    let rows: [(_, &'static [u8]); 11] = [
        ("CM reject: invalid length (1)", &[0, 0, 1, 0]),
        ("CM reject: invalid record format (2)", &[0, 0, 2, 0]),
        ("CM reject: invalid queue id (3)", &[0, 0, 3, 0]),
        ("CM reject: invalid HSQSIZE (4)", &[0, 0, 4, 0]),
        ("CM reject: invalid HRQSIZE (5)", &[0, 0, 5, 0]),
        ("CM reject: no resources (6)", &[0, 0, 6, 0]),
        ("CM reject: invalid IRD (7)", &[0, 0, 7, 0]),
        ("CM reject: invalid ORD (8)", &[0, 0, 8, 0]),
        ("CM reject: invalid CNTLID (9)", &[0, 0, 9, 0]),
        ("CM reject: a code that nobody knows", &[0, 0, 0xff, 0xff]),
        ("CM reject: without a code", &[]),
    ];
    rows.into_iter().map(|(name, data)| fake_target(name, rejecting(data), Exhausted)).collect()
}

/// Changes one message of the controller.
macro_rules! message {
    ($id:ident, $message:ident => $change:expr) => {
        |out: OutgoingMessage<'_>| {
            if out.id == MessageId::$id {
                let $message = out.message;
                $change;
            }
        }
    };
}

fn attacking(name: &'static str, attack: fn(OutgoingMessage<'_>), outcome: Outcome) -> Case {
    let fake = FakeTargetSpec::attacking([KEY, OTHER], attack);
    fake_target(name, fake, outcome).with(|options| {
        options.loss_timeout = 2;
        options.secrets = [Some(KEY), None];
    })
}

fn both_ways(name: &'static str, attack: fn(OutgoingMessage<'_>), outcome: Outcome) -> Case {
    attacking(name, attack, outcome).with(|options| options.secrets = [Some(KEY), Some(OTHER)])
}

/// A Failure1 in place of a message.
macro_rules! failure {
    ($id:ident, $explanation:expr) => {
        message!($id, m => *m = vec![0, 0xf1, 0, 0, m[4], m[5], 1, $explanation])
    };
}

fn messages() -> Vec<Case> {
    vec![
        attacking("authentication goes on as before", |_| (), CameBack),
        both_ways("authentication both ways goes on as before", |_| (), CameBack),
        attacking("Failure1 for the Challenge: failed (1)", failure!(CHALLENGE, 1), GaveUp),
        attacking("Failure1 for the Challenge: hash (4)", failure!(CHALLENGE, 4), GaveUp),
        attacking("Failure1 for the Challenge: group (5)", failure!(CHALLENGE, 5), GaveUp),
        attacking("Failure1 for the Success1: failed (1)", failure!(SUCCESS1, 1), GaveUp),
        attacking("Failure1 for the Success1: payload (6)", failure!(SUCCESS1, 6), GaveUp),
        attacking("Challenge: another message", message!(CHALLENGE, m => m[1] = 3), GaveUp),
        attacking("Challenge: another T_ID", message!(CHALLENGE, m => m[4] ^= 1), GaveUp),
        attacking("Challenge: unknown hash", message!(CHALLENGE, m => m[8] = 9), Exhausted),
        attacking("Challenge: unknown group", message!(CHALLENGE, m => m[9] = 0x99), Exhausted),
        attacking("Challenge: another hash length", message!(CHALLENGE, m => m[6] = 48), Exhausted),
        attacking("Challenge: no value for a group", message!(CHALLENGE, m => m[9] = 1), Exhausted),
        attacking("Success1: another message", message!(SUCCESS1, m => m[1] = 1), GaveUp),
        attacking("Success1: another T_ID", message!(SUCCESS1, m => m[4] ^= 1), GaveUp),
        attacking(
            "Success1: a response nobody asked for",
            message!(SUCCESS1, m => {
                m[8] = 1;
                m.extend([5; 32]);
            }),
            GaveUp,
        ),
        both_ways("Success1: another hash length", message!(SUCCESS1, m => m[6] = 48), GaveUp),
        both_ways("Success1: a wrong response", message!(SUCCESS1, m => m[16] ^= 1), GaveUp),
        both_ways(
            "Success1: no response (RVALID 0)",
            message!(SUCCESS1, m => {
                m[8] = 0;
                m.truncate(16);
            }),
            GaveUp,
        ),
    ]
}

/// Answers Authentication Send or Receive with this status.
macro_rules! refused {
    ($fabrics_type:expr, $status:expr) => {
        |seen, answer| {
            if seen.is_fabrics($fabrics_type) {
                answer.data.clear();
                answer.messages = vec![seen.response($status, 0)];
            }
        }
    };
}

fn commands() -> Vec<Case> {
    let refused = |name, misbehave: fn(ReceivedCommand, &mut Answer), outcome| {
        let fake = FakeTargetSpec { misbehave, ..FakeTargetSpec::attacking([KEY, OTHER], |_| ()) };
        fake_target(name, fake, outcome).with(|options| {
            options.loss_timeout = 2;
            options.secrets = [Some(KEY), None];
        })
    };
    vec![
        refused("Authentication Send refused (0x002 DNR)", refused!(0x05, 0x4002), GaveUp),
        refused("Authentication Send refused (0x006)", refused!(0x05, 0x0006), Exhausted),
        refused("Authentication Receive refused (0x002 DNR)", refused!(0x06, 0x4002), GaveUp),
        refused("Authentication Receive refused (0x006)", refused!(0x06, 0x0006), Exhausted),
    ]
}

/// Faults on a connection that the target leaves open.
fn connected() -> Vec<Case> {
    let kept = |name, misbehave: fn(ReceivedCommand, &mut Answer), outcome| {
        let fake = FakeTargetSpec { stays: true, ..FakeTargetSpec::misbehaving(misbehave) };
        // A Keep Alive every other second is what there is to answer.
        fake_target(name, fake, outcome).with(|options| {
            options.keep_alive = 3;
            options.loss_timeout = 60;
        })
    };
    vec![
        kept(
            "Keep Alive is never answered",
            |seen, answer| {
                if is_keep_alive(&seen) {
                    answer.messages.clear();
                }
            },
            CameBack,
        ),
        kept(
            "Keep Alive is answered for a command that is none",
            |seen, answer| {
                if is_keep_alive(&seen) {
                    answer.messages[0][12..14].copy_from_slice(&[0xff, 0x7f]);
                }
            },
            CameBack,
        ),
        kept(
            "Keep Alive is answered by 8 bytes",
            |seen, answer| {
                if is_keep_alive(&seen) {
                    answer.messages[0].truncate(8);
                }
            },
            CameBack,
        ),
        kept(
            "Keep Alive is refused (0x001 DNR)",
            |seen, answer| {
                if is_keep_alive(&seen) {
                    answer.messages = vec![seen.response(0x4001, 0)];
                }
            },
            CameBack,
        )
        .differs(
            Undisturbed,
            CameBack,
            "Linux sends no more Keep Alives then, and finds out that it was forgotten when it is",
        )
        .watched(Duration::from_secs(6)),
    ]
}

const fn is_keep_alive(seen: &ReceivedCommand) -> bool {
    seen.queue == 0 && seen.sqe[0] == 0x18
}

/// Faults that pass by themselves.
fn passing() -> Vec<Case> {
    const FULL: FakeTargetSpec =
        FakeTargetSpec { reject: Some(&[0, 0, 6, 0]), ..FakeTargetSpec::misbehaving(|_, _| ()) };
    let passes = |name, fake| {
        let case = fake_target(name, fake, CameBack).heal(CaseTarget::behave);
        case.with(|options| options.loss_timeout = 60)
    };
    vec![
        passes("CM reject: no resources (6), for a while", FULL),
        passes(
            "Connect: controller busy (0x181), for a while",
            FakeTargetSpec::misbehaving(connect!(0x0181, 0)),
        ),
    ]
}
