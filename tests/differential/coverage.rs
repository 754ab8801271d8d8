//! Tests by rule: the causes that Linux decides on (`nvmf_should_reconnect`, and the errors that
//! reach it), and the attributes by which nvmet can be made to fail.

use std::{collections::HashSet, path::Path};

use super::case::Case;

/// A rule or attribute, and its tests: names of cases, or a test as `file: function`.
type Row = (&'static str, &'static [&'static str]);

/// Causes to connect again or to give up.
const CAUSES: &[Row] = &[
    (
        "authentication demanded, no host secret: ENOKEY, the end",
        &[
            "no secret where one is demanded",
            "a key is set for the host, controller fatal",
            "Connect demands authentication, no key (ATR)",
        ],
    ),
    (
        "a controller secret without a usable key: ENOKEY, the end",
        &["a controller secret alone", "a key is set for the host, reset"],
    ),
    ("checksum of a secret: EKEYREJECTED, no connect", &["a secret with a wrong checksum"]),
    (
        "length or prefix of a secret: EINVAL, no connect",
        &["what is no secret", "a secret of 33 bytes"],
    ),
    (
        "Failure1, whatever its reason: EKEYREJECTED, the end",
        &[
            "Failure1 for the Challenge: failed (1)",
            "Failure1 for the Challenge: hash (4)",
            "Failure1 for the Challenge: group (5)",
            "Failure1 for the Success1: failed (1)",
            "Failure1 for the Success1: payload (6)",
            "key changed, controller fatal",
        ],
    ),
    (
        "another message or T_ID than is due: EKEYREJECTED, the end",
        &[
            "Challenge: another message",
            "Challenge: another T_ID",
            "Success1: another message",
            "Success1: another T_ID",
        ],
    ),
    (
        "a bad Success1: EKEYREJECTED, the end",
        &[
            "Success1: another hash length",
            "Success1: a wrong response",
            "controller key changed, controller fatal",
        ],
    ),
    (
        "an unusable Challenge: EPROTO, retried",
        &[
            "Challenge: unknown hash",
            "Challenge: unknown group",
            "Challenge: another hash length",
            "Challenge: no value for a group",
        ],
    ),
    (
        "Authentication Send or Receive refused: by its DNR",
        &[
            "Authentication Send refused (0x002 DNR)",
            "Authentication Send refused (0x006)",
            "Authentication Receive refused (0x002 DNR)",
            "Authentication Receive refused (0x006)",
        ],
    ),
    ("a secure channel (ASCR): retried", &["Connect demands a secure channel (ASCR)"]),
    ("ICDOFF, no keyed SGLs: retried", &["ICDOFF is not 0", "no keyed SGLs"]),
    (
        "CM reject, unreachable, address error: ECONNRESET, retried",
        &[
            "CM reject: invalid length (1)",
            "CM reject: invalid record format (2)",
            "CM reject: invalid queue id (3)",
            "CM reject: invalid HSQSIZE (4)",
            "CM reject: invalid HRQSIZE (5)",
            "CM reject: no resources (6)",
            "CM reject: invalid IRD (7)",
            "CM reject: invalid ORD (8)",
            "CM reject: invalid CNTLID (9)",
            "CM reject: a code that nobody knows",
            "CM reject: without a code",
            "port closed for good",
            "first connect: nobody at the address",
            "first connect: no route to the address",
        ],
    ),
    (
        "Connect refused: by its DNR",
        &[
            "Connect: queue in use (0x00c DNR)",
            "Connect: incompatible format (0x180 DNR)",
            "Connect: controller busy (0x181 DNR)",
            "Connect: invalid parameters (0x182 DNR)",
            "Connect: invalid host (0x184 DNR)",
            "Connect: queue in use (0x00c)",
            "Connect: incompatible format (0x180)",
            "Connect: controller busy (0x181)",
            "Connect: invalid parameters (0x182)",
            "Connect: invalid host (0x184)",
            "Connect: internal error (0x006)",
        ],
    ),
    (
        "a command timeout or the end of the connection during set-up: retried",
        &["the connection ends in the middle of a connect", "the controller is never ready"],
    ),
];

/// Attributes that make nvmet fail, and other ways to it.
const FAULT_ATTRIBUTES: &[Row] = &[
    (
        "a subsystem leaves its port, the last or not, and comes back",
        &[
            "port closed for good",
            "port closed for a while",
            "subsystem taken from a port that stays open (0x182 DNR)",
            "subsystem taken from an open port, back before the attempt",
        ],
    ),
    (
        "a namespace is disabled, enabled, deleted",
        &[
            "namespace disabled, read",
            "namespace disabled and enabled, read",
            "namespace removed, read",
        ],
    ),
    (
        "ana_state",
        &[
            "ANA group non-optimized, read",
            "ANA group inaccessible, read",
            "ANA group lost persistently, read",
            "ANA group in change, read, optimized",
            "blktests/events.rs: access_states_are_told",
        ],
    ),
    ("attr_qid_max", &["fewer queues (qid_max 4 to 1)", "more queues (qid_max 1 to 4)"]),
    ("a controller turns fatal", &["controller fatal (CSTS.CFS)"]),
    (
        "the target is removed and made again under load",
        &["target down and up", "recovery.rs: data_survives_a_restart_of_the_target"],
    ),
    ("allowed_hosts", &["host removed, controller fatal (0x184 DNR)"]),
    ("attr_cntlid_min = max", &["controller ids used up, controller fatal (0x181 DNR)"]),
    (
        "dhchap_key changed, or no longer demanded",
        &["key changed, controller fatal", "authentication no longer demanded, controller fatal"],
    ),
    (
        "param_inline_data_size, param_max_queue_size, param_mdts",
        &[
            "in-capsule data 4 KiB to none",
            "smaller queues (max_queue_size 128 to 16)",
            "smaller transfers (MDTS 8 to 1)",
            "recovery/limits.rs: limits_change_and_data_does_not",
        ],
    ),
    (
        "everything is lost on the way: a silent peer",
        &[
            "silent link for 6 s, keep_alive_tmo=2",
            "flaps.rs: a_silent_peer_is_noticed_by_the_clock",
        ],
    ),
    (
        "the device is removed",
        &[
            "recovery.rs: z_a_device_that_was_removed_is_used_again",
            "kills.rs: z_the_device_is_deleted",
        ],
    ),
    (
        "the initiator is killed: a stale connection",
        &["faults.rs: a_killed_initiator_leaves_room_for_the_next"],
    ),
    (
        "slow, failing and hanging media",
        &[
            "medium slow (dm-delay 300 ms), read",
            "medium fails (dm-error), read",
            "medium fails (dm-flakey), read",
            "medium hangs, read, goes on",
            "medium hangs past the command timeout of 2 s, read, goes on",
        ],
    ),
];

/// Rules and attributes without a test.
pub(crate) fn missing(cases: &[Case]) -> Vec<String> {
    let names: HashSet<_> = cases.iter().map(|case| case.name).collect();
    let rows = CAUSES.iter().chain(FAULT_ATTRIBUTES);
    let lacks = rows.flat_map(|(rule, proofs)| {
        let lacking = proofs.iter().filter(|proof| !names.contains(*proof) && !is_test(proof));
        lacking.map(move |proof| format!("{rule}: {proof}"))
    });
    lacks.collect()
}

/// Tells if there is a test `file: function` below this package.
fn is_test(proof: &str) -> bool {
    let Some((file, function)) = proof.split_once(".rs: ") else { return false };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file).with_extension("rs");
    let source = std::fs::read_to_string(path).unwrap_or_default();
    source.contains(&format!("fn {function}()"))
}
