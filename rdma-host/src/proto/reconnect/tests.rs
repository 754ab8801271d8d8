//! Decisions of Linux, row by row, and the effect of the options.

use super::*;
use crate::{
    error::{Error, Rejected},
    wire::{CmReject, QueueId, RejectCode, Status},
};

const SECOND: Duration = Duration::from_secs(1);

fn failure(kind: FailureKind) -> ConnectionFailure {
    ConnectionFailure { kind, attempts: 1, elapsed: SECOND, jitter_seed: 0 }
}

/// A controller that ends while its I/O queues are being connected is unknown to the target by the
/// next Connect, which fails with DNR. Linux gives up then.
#[test]
fn a_controller_that_ends_during_the_connect_is_a_loss() {
    let refused = |queue, result| {
        let status = Status(0x182).with_do_not_retry();
        FailureKind::from(&Error::Rejected(Rejected::Connect { queue, status, result }))
    };
    let for_good = FailureKind::Status(Status(0x182).with_do_not_retry());
    assert_eq!(refused(QueueId(1), 0x0001_0010), FailureKind::Disconnected);
    assert_eq!(refused(QueueId::ADMIN, 0x0001_0010), for_good);
    assert_eq!(refused(QueueId(1), 0x0000_002a), for_good, "the queue id");
    assert_eq!(refused(QueueId(1), 0x0001_0100), for_good, "the subsystem");
}

/// Compares with Linux 6.19 and later (`nvmf_should_reconnect` and the errors that reach it).
#[test]
fn the_default_decides_as_linux() {
    let rejected = |reason, code: Option<u16>| {
        FailureKind::Rejected(CmReject { reason, code: code.map(RejectCode) })
    };
    let refused = |code: u16| FailureKind::Status(Status(code));
    let refused_for_good = |code: u16| FailureKind::Status(Status(code).with_do_not_retry());
    let mut rows = vec![
        ("authentication wanted, no key: ENOKEY", FailureKind::KeyMissing, false),
        ("a key rejected, by either side: EKEYREJECTED", FailureKind::KeyRejected, false),
        ("a challenge we can't answer: EPROTO", FailureKind::Incompatible, true),
        ("a secure channel (ASCR): EOPNOTSUPP", FailureKind::Incompatible, true),
        ("ICDOFF, no keyed SGLs: EOPNOTSUPP", FailureKind::Incompatible, true),
        ("Connect, another queue has the id, DNR", refused_for_good(0x00c), false),
        ("Connect, incompatible format, DNR", refused_for_good(0x180), false),
        ("Connect, controller busy, DNR", refused_for_good(0x181), false),
        ("Connect, invalid parameter, DNR", refused_for_good(0x182), false),
        ("Connect, invalid host, DNR", refused_for_good(0x184), false),
        ("Connect, controller busy", refused(0x181), true),
        ("Connect, invalid parameter", refused(0x182), true),
        ("Connect, invalid host", refused(0x184), true),
        ("internal error", refused(0x006), true),
        ("Auth Send or Receive, DNR", refused_for_good(0x002), false),
        ("Auth Send or Receive", refused(0x191), true),
        ("nobody listens: ECONNRESET", rejected(CmReject::INVALID_SERVICE, None), true),
        ("a stale connection: ECONNRESET", rejected(CmReject::STALE_CONNECTION, None), true),
        ("the target refuses, without a code", rejected(CmReject::CONSUMER, None), true),
        ("unreachable: ECONNRESET", FailureKind::Unreachable, true),
        ("address or route error: ECONNRESET", FailureKind::Address, true),
        ("disconnected", FailureKind::Disconnected, true),
        ("a work request failed", FailureKind::QueuePair, true),
        ("the device failed", FailureKind::Device, true),
        ("the port is down", FailureKind::PortDown, true),
        ("keep-alive expired", FailureKind::KeepAlive, true),
        ("a command timed out: host aborted", FailureKind::CommandTimeout, true),
        ("a step timed out", FailureKind::Timeout, true),
        ("controller fatal", FailureKind::ControllerFatal, true),
        ("the target misbehaved: error recovery", FailureKind::TargetMisbehaved, true),
        ("deleted by its owner", FailureKind::Deleted, false),
        ("our caller's mistake", FailureKind::Misuse, false),
    ];
    // Undefined codes too.
    rows.extend((0..=12).map(|code| ("every code of the target", rejected(28, Some(code)), true)));
    rows.extend((0..=40).map(|reason| ("every reason of the CM", rejected(reason, None), true)));
    for (row, cause, retried) in rows {
        let decision = ReconnectOptions::default().decide(&failure(cause));
        let expected = if retried {
            ReconnectDecision::Retry(10 * SECOND)
        } else {
            ReconnectDecision::GiveUp(GiveUpReason::NotRetryable)
        };
        assert_eq!(decision, expected, "{row}");
    }
}

#[test]
fn strict_does_not_wait_for_a_fix() {
    let strict = ReconnectOptions { strict: true, ..ReconnectOptions::default() };
    let rejected =
        |code| FailureKind::Rejected(CmReject { reason: 28, code: Some(RejectCode(code)) });
    let refused = |code| FailureKind::Status(Status(code));
    for cause in [
        FailureKind::Incompatible,
        FailureKind::TargetMisbehaved,
        rejected(4),
        rejected(3),
        refused(0x180),
        refused(0x182),
        refused(0x184),
    ] {
        assert_eq!(
            strict.decide(&failure(cause)),
            ReconnectDecision::GiveUp(GiveUpReason::NeedsFix),
            "{cause:?}"
        );
    }
    // No resources, or unknown controller: the next attempt may succeed.
    for cause in [FailureKind::Unreachable, rejected(6), rejected(9), refused(0x181)] {
        assert_eq!(
            strict.decide(&failure(cause)),
            ReconnectDecision::Retry(10 * SECOND),
            "{cause:?}"
        );
    }
}

#[test]
fn attempts_are_rounded_up() {
    for (loss, delay, max) in [(600, 10, 60), (601, 10, 61), (1, 10, 1), (0, 10, 0), (5, 0, 5000)] {
        let options = ReconnectOptions {
            delay: delay * SECOND,
            loss_timeout: Some(loss * SECOND),
            ..ReconnectOptions::default()
        };
        assert_eq!(options.attempts_max(), Some(max), "{loss} s, every {delay} s");
    }
    let for_ever = ReconnectOptions { loss_timeout: None, ..ReconnectOptions::default() };
    let late = ConnectionFailure { attempts: u32::MAX, ..failure(FailureKind::Unreachable) };
    assert_eq!(for_ever.attempts_max(), None);
    assert_eq!(for_ever.decide(&late), ReconnectDecision::Retry(10 * SECOND));
}

#[test]
fn attempts_and_time_run_out() {
    let options = ReconnectOptions {
        loss_timeout: Some(30 * SECOND),
        time_limit: Some(25 * SECOND),
        ..ReconnectOptions::default()
    };
    let after = |attempts, elapsed| {
        let elapsed = elapsed * SECOND;
        options.decide(&ConnectionFailure {
            attempts,
            elapsed,
            ..failure(FailureKind::Unreachable)
        })
    };
    assert_eq!(after(2, 15), ReconnectDecision::Retry(10 * SECOND));
    assert_eq!(after(2, 16), ReconnectDecision::GiveUp(GiveUpReason::TimeLimit));
    assert_eq!(after(3, 1), ReconnectDecision::GiveUp(GiveUpReason::Exhausted));
    assert_eq!(
        ReconnectOptions::never()
            .decide(&ConnectionFailure { attempts: 0, ..failure(FailureKind::QueuePair) }),
        ReconnectDecision::GiveUp(GiveUpReason::Exhausted)
    );
}

#[test]
fn the_delay_grows_to_its_limit() {
    let options = ReconnectOptions {
        delay: SECOND,
        delay_max: Some(5 * SECOND),
        loss_timeout: None,
        ..ReconnectOptions::default()
    };
    for (attempts, delay) in [(0, 1), (1, 2), (2, 4), (3, 5), (40, 5), (u32::MAX - 1, 5)] {
        let failed = ConnectionFailure { attempts, ..failure(FailureKind::Unreachable) };
        assert_eq!(options.decide(&failed), ReconnectDecision::Retry(delay * SECOND), "{attempts}");
    }
}

#[test]
fn jitter_shortens_the_delay_by_its_percentage_at_most() {
    let options = ReconnectOptions { jitter_percent: 25, ..ReconnectOptions::default() };
    for (jitter_seed, ms) in [(0, 10_000), (u16::MAX, 7500)] {
        let failed = ConnectionFailure { jitter_seed, ..failure(FailureKind::Unreachable) };
        assert_eq!(options.decide(&failed), ReconnectDecision::Retry(Duration::from_millis(ms)));
    }
}
