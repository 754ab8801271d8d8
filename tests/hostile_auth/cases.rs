//! Messages that a target must not send, and the error that each must cause.

use auth::{GroupId, message::MessageId};
use rdma_host::ErrorClass;
use tests::authentication_hook::OutgoingMessage;

/// Expected outcome of an attack.
pub(crate) struct Expected {
    /// The beginning of the error's name, as Rust shows it.
    pub(crate) error: &'static str,
    pub(crate) class: ErrorClass,
    /// Failure2's explanation.
    pub(crate) told: Option<u8>,
    /// Another attempt is made.
    pub(crate) retried: bool,
}

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) group: GroupId,
    pub(crate) two_way: bool,
    pub(crate) attack: fn(OutgoingMessage<'_>),
    pub(crate) expected: Expected,
}

const fn row(
    name: &'static str,
    attack: fn(OutgoingMessage<'_>),
    error: &'static str,
    told: Option<u8>,
) -> Row {
    let expected = Expected { error, class: ErrorClass::Failed, told, retried: true };
    Row { name, group: GroupId::NULL, two_way: false, attack, expected }
}

impl Row {
    const fn two_way(mut self) -> Self {
        self.two_way = true;
        self
    }

    const fn ffdhe(mut self) -> Self {
        self.group = GroupId::FFDHE_2048;
        self
    }

    /// Access is refused, and no other attempt is made.
    const fn access(mut self) -> Self {
        self.expected.class = ErrorClass::Access;
        self.expected.retried = false;
        self
    }

    /// No other attempt is made.
    const fn terminal(mut self) -> Self {
        self.expected.retried = false;
        self
    }
}

/// Changes the Challenge.
macro_rules! challenge {
    ($message:ident => $change:expr) => {
        |out| {
            if out.id == MessageId::CHALLENGE {
                let $message = out.message;
                $change;
            }
        }
    };
}

/// Changes the Success1.
macro_rules! success {
    ($out:ident => $change:expr) => {
        |$out| {
            if $out.id == MessageId::SUCCESS1 {
                $change;
            }
        }
    };
}

/// A Failure1 in place of the Challenge.
macro_rules! failure {
    ($explanation:expr) => {
        challenge!(m => *m = vec![0, 0xf1, 0, 0, m[4], m[5], 1, $explanation])
    };
}

/// The public value of the Challenge becomes this, in place.
fn set_public_value(message: &mut [u8], value: &[u8]) {
    let (place, end) = (message.len() - value.len(), message.len());
    message[place..end].copy_from_slice(value);
}

/// The modulus of ffdhe2048, big-endian.
fn modulus() -> Vec<u8> {
    let text = include_str!("../../auth/src/dh/primes.rs");
    let after = text.split("FFDHE_2048: &str").nth(1).expect("the modulus");
    let literal = after.split('"').nth(1).expect("a literal");
    let digits: Vec<u8> = literal.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16);
    digits.chunks(2).map(|digits| pair(digits).expect("hexadecimal")).collect()
}

/// Incorrect payload.
const BAD: Option<u8> = Some(6);
/// Incorrect message.
const ORDER: Option<u8> = Some(7);
/// Authentication failed.
const UNPROVED: Option<u8> = Some(1);

/// Attacks.
pub(crate) const ROWS: &[Row] = &[
    row("challenge: nothing", challenge!(m => m.clear()), "OutOfOrder", ORDER).terminal(),
    row("challenge: noise", challenge!(m => *m = vec![0xff; 4096]), "OutOfOrder", ORDER).terminal(),
    row("challenge: Negotiate", challenge!(m => m[..2].fill(0)), "OutOfOrder", ORDER).terminal(),
    row("challenge: Reply", challenge!(m => m[1] = 2), "OutOfOrder", ORDER).terminal(),
    row("challenge: Success1 first", challenge!(m => m[1] = 3), "OutOfOrder", ORDER).terminal(),
    row("challenge: Success2", challenge!(m => m[1] = 4), "OutOfOrder", ORDER).terminal(),
    row(
        "challenge: Failure2",
        challenge!(m => m[..2].copy_from_slice(&[0, 0xf0])),
        "OutOfOrder",
        ORDER,
    )
    .terminal(),
    row("challenge: message type", challenge!(m => m[0] = 0), "OutOfOrder", ORDER).terminal(),
    row("challenge: T_ID", challenge!(m => m[4] ^= 1), "TransactionId", BAD).terminal(),
    row("challenge: S1 = 0", challenge!(m => m[12..16].fill(0)), "SequenceNumberZero", BAD),
    row("challenge: HL 0", challenge!(m => m[6] = 0), "Malformed", BAD),
    row("challenge: HL of another hash", challenge!(m => m[6] = 48), "HashLength", BAD),
    row("challenge: HL 255", challenge!(m => m[6] = 255), "HashLength", BAD),
    row("challenge: hash none", challenge!(m => m[8] = 0), "HashNotOffered", Some(4)),
    row("challenge: hash unknown", challenge!(m => m[8] = 9), "HashNotOffered", Some(4)),
    row("challenge: hash of another length", challenge!(m => m[8] = 2), "HashLength", BAD),
    row("challenge: group unknown", challenge!(m => m[9] = 0x99), "GroupNotOffered", Some(5)),
    row(
        "challenge: DHVLEN beyond the buffer",
        challenge!(m => m[10..12].fill(0xff)),
        "Malformed",
        BAD,
    ),
    row(
        "challenge: a value for the null group",
        challenge!(m => { m[10] = 4; m.extend([1; 4]) }),
        "PublicValue",
        BAD,
    ),
    row("challenge: trailing bytes", challenge!(m => m.extend([0, 0, 1])), "Malformed", BAD),
    row(
        "challenge: a page of trailing bytes",
        challenge!(m => m.resize(4096, 1)),
        "Malformed",
        BAD,
    ),
    row(
        "challenge: cut short",
        challenge!(m => { m[10] = 0; m[11] = 1; m.resize(48, 0) }),
        "PublicValue",
        BAD,
    )
    .ffdhe(),
    row(
        "challenge: DHVLEN 0 for a group",
        challenge!(m => { m[10..12].fill(0); m.truncate(48) }),
        "PublicValue",
        BAD,
    )
    .ffdhe(),
    row(
        "challenge: public value 0",
        challenge!(m => set_public_value(m, &[0; 256])),
        "PublicValue",
        BAD,
    )
    .ffdhe(),
    row(
        "challenge: public value 1",
        challenge!(m => {
            set_public_value(m, &[0; 256]);
            set_public_value(m, &[1]);
        }),
        "PublicValue",
        BAD,
    )
    .ffdhe(),
    row(
        "challenge: public value p",
        challenge!(m => {
            set_public_value(m, &modulus());
        }),
        "PublicValue",
        BAD,
    )
    .ffdhe(),
    row(
        "challenge: public value p-1",
        challenge!(m => {
            set_public_value(m, &modulus());
            set_public_value(m, &[0xfe]);
        }),
        "PublicValue",
        BAD,
    )
    .ffdhe(),
    row(
        "challenge: public value above p",
        challenge!(m => set_public_value(m, &[0xff; 256])),
        "PublicValue",
        BAD,
    )
    .ffdhe(),
    row(
        "challenge: another public value in range",
        challenge!(m => set_public_value(m, &[2; 256])),
        "Refused",
        None,
    )
    .ffdhe()
    .access(),
    row("Failure1: authentication failed", failure!(1), "Refused", None).access(),
    row("Failure1: protocol", failure!(2), "Refused", None).terminal(),
    row("Failure1: secure channel", failure!(3), "Refused", None).terminal(),
    row("Failure1: hash", failure!(4), "Refused", None).terminal(),
    row("Failure1: group", failure!(5), "Refused", None).terminal(),
    row("Failure1: payload", failure!(6), "Refused", None).terminal(),
    row("Failure1: message", failure!(7), "Refused", None).terminal(),
    row("Failure1: explanation 0", failure!(0), "Refused", None).access(),
    row("Failure1: explanation 255", failure!(255), "Refused", None).access(),
    row(
        "success: Failure1",
        success!(out => *out.message = vec![0, 0xf1, 0, 0, 0, 0, 1, 1]),
        "Refused",
        None,
    )
    .access(),
    row("success: nothing", success!(out => out.message.clear()), "OutOfOrder", ORDER).terminal(),
    row("success: another Challenge", success!(out => out.message[1] = 1), "OutOfOrder", ORDER)
        .terminal(),
    row(
        "success: our Reply",
        success!(out => *out.message = out.sent.to_vec()),
        "OutOfOrder",
        ORDER,
    )
    .terminal(),
    row("success: T_ID", success!(out => out.message[5] ^= 0x80), "TransactionId", BAD).terminal(),
    row("success: HL 0", success!(out => out.message[6] = 0), "HashLength", BAD).terminal(),
    row("success: HL of another hash", success!(out => out.message[6] = 64), "HashLength", BAD)
        .terminal(),
    row("success: trailing bytes", success!(out => out.message.push(1)), "Malformed", BAD),
    row(
        "success: a response nobody asked for",
        success!(out => { out.message[8] = 1; out.message.extend([5; 32]) }),
        "ResponseUnexpected",
        BAD,
    )
    .terminal(),
    row(
        "success: RVALID 0 when asked",
        success!(out => { out.message[8] = 0; out.message.truncate(16) }),
        "ResponseMissing",
        UNPROVED,
    )
    .two_way()
    .access(),
    row(
        "success: a wrong response",
        success!(out => out.message[16] ^= 1),
        "ResponseWrong",
        UNPROVED,
    )
    .two_way()
    .access(),
    row(
        "success: a response of zeros",
        success!(out => out.message[16..].fill(0)),
        "ResponseWrong",
        UNPROVED,
    )
    .two_way()
    .access(),
    row(
        "success: our own response",
        success!(out => {
            out.message[16..].copy_from_slice(&out.sent[16..48]);
        }),
        "ResponseReflected",
        UNPROVED,
    )
    .two_way()
    .terminal(),
    row(
        "success: our own challenge",
        success!(out => {
            out.message[16..].copy_from_slice(&out.sent[48..80]);
        }),
        "ChallengeReflected",
        UNPROVED,
    )
    .two_way()
    .terminal(),
];
