//! Targets that demand DH-HMAC-CHAP.

use super::{
    case::{
        Case, Options, Outcome,
        Outcome::{CameBack, Connected, GaveUp, Refused, StillTrying, Undisturbed},
        Schedule, TargetSpec,
    },
    case_target::CaseTarget,
};

/// Samples: everybody can read them here.
pub(crate) const KEY: &str = "DHHC-1:00:ThGV3wIN5Z4NZaM6QnnxGD565OXZgOMJ+LVa3/LmHD6mvAWr:";
pub(crate) const OTHER: &str = "DHHC-1:01:wCwLll4COr7oCPK1SNjVGTqLUim+bzEhpvFuLUGkSbMz46ns:";
const KEY_48: &str =
    "DHHC-1:02:EixZcIO9Q4t/bXKvddAllIiZZHcRuAa90s2C+mlxPbPQ9jHKHduo2zvPy54FfNyYeyaVjg==:";
const KEY_64: &str = "DHHC-1:03:CtUuM4ZiySOxX9Rac8bpczbvzPKKeu+USUQ8xt10FfuLU2OfFSyPxu8wgC/eRiugv\
                      pzwhfdYDcae/XLgAqu7NRXoy3s=:";
/// [`KEY`] with another checksum.
const WRONG_SUM: &str = "DHHC-1:00:ThGV3wIN5Z4NZaM6QnnxGD565OXZgOMJ+LVa3/LmHD6nvAWr:";
/// Well made, but of no length that there is.
const ODD: &str = "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gBYOQ5A==:";
const NO_SECRET: &str = "DHHC-2:00:ThGV3wIN5Z4NZaM6QnnxGD565OXZgOMJ+LVa3/LmHD6mvAWr:";

const REFUSED: &str = "Linux does not act on a connection that ends while it authenticates, and \
                       waits for its commands' timeouts of 60 s";

const UNASKED: &str = "Linux goes on without a word when the target does not ask: anybody can pose \
                       as the target by not asking; ours fails closed";

/// A target that demands [`KEY`].
const DEMANDING: TargetSpec = TargetSpec {
    closed: true,
    namespace: false,
    subsystem: &[],
    port: &[],
    hosts: &[("key", KEY)],
    companion: false,
    prepare: None,
    fake: None,
    mapped: false,
};

/// One that also proves to know [`OTHER`].
const MUTUAL: TargetSpec = TargetSpec { hosts: &[("key", KEY), ("ctrl_key", OTHER)], ..DEMANDING };

/// One that demands nothing of the same hosts.
const CLOSED: TargetSpec = TargetSpec { hosts: &[], ..DEMANDING };

pub(crate) fn cases() -> Vec<Case> {
    [without_secrets(), keys(), algorithms(), key_changes(), demand_changes(), renewals()].concat()
}

fn knows(options: &mut Options) {
    options.secrets = [Some(KEY), None];
}

fn knows_both(options: &mut Options) {
    options.secrets = [Some(KEY), Some(OTHER)];
}

fn first(
    name: &'static str,
    spec: TargetSpec,
    options: fn(&mut Options),
    outcome: Outcome,
) -> Case {
    Case::first(name).target(spec).with(options).both(outcome)
}

/// Demands on hosts that have no secrets.
fn without_secrets() -> Vec<Case> {
    vec![
        Case::first("no secret where one is demanded").target(DEMANDING).both(Refused),
        Case::first("no secret where any host may connect")
            .target(TargetSpec {
                prepare: Some(|target| {
                    target.disallow();
                    target.subsystem("allow_any_host", "1");
                }),
                ..DEMANDING
            })
            .both(Connected),
        Case::live("a key is set for the host, connection left alone", |target| {
            target.host("key", KEY);
        })
        .target(CLOSED)
        .watched(std::time::Duration::from_secs(4))
        .both(Undisturbed),
        Case::live("a key is set for the host, controller fatal", |target| {
            target.host("key", KEY);
            target.fatal();
        })
        .target(CLOSED)
        .both(GaveUp),
        Case::live("a key is set for the host, reset", |target| target.host("key", KEY))
            .target(CLOSED)
            .request(super::case::OwnerRequest::Reset)
            .both(GaveUp),
        Case::live("a key is set for the host, port closed for a while", |target| {
            target.host("key", KEY);
            target.unlink();
        })
        .target(CLOSED)
        .heal(CaseTarget::link)
        .both(GaveUp),
    ]
}

fn keys() -> Vec<Case> {
    vec![
        first("the right secret", DEMANDING, knows, Connected),
        first("a secret with a wrong checksum", DEMANDING, wrong_sum, Refused),
        first("what is no secret", DEMANDING, |o| o.secrets = [Some(NO_SECRET), None], Refused),
        first("a secret of 33 bytes", DEMANDING, |o| o.secrets = [Some(ODD), None], Refused),
        first("a controller secret alone", DEMANDING, |o| o.secrets = [None, Some(OTHER)], Refused),
        first("right secrets both ways", MUTUAL, knows_both, Connected),
        first("no controller secret where the target has one", MUTUAL, knows, Connected),
        first("a secret that nobody asks for", CLOSED, knows, Refused)
            .differs(Connected, Refused, UNASKED),
        first("secrets both ways that nobody asks for", CLOSED, knows_both, Refused)
            .differs(Connected, Refused, UNASKED),
    ]
}

fn wrong_sum(options: &mut Options) {
    options.secrets = [Some(WRONG_SUM), None];
}

fn algorithms() -> Vec<Case> {
    const SHA384: TargetSpec =
        TargetSpec { hosts: &[("key", KEY_48), ("hash", "sha384")], ..DEMANDING };
    const SHA512: TargetSpec =
        TargetSpec { hosts: &[("key", KEY_64), ("hash", "sha512")], ..DEMANDING };
    const GROUP: TargetSpec =
        TargetSpec { hosts: &[("key", KEY), ("dhgroup", "ffdhe2048")], ..DEMANDING };
    vec![
        first("SHA-384, 48 bytes", SHA384, |o| o.secrets = [Some(KEY_48), None], Connected),
        first("SHA-512, 64 bytes", SHA512, |o| o.secrets = [Some(KEY_64), None], Connected),
        first("ffdhe2048", GROUP, knows, Connected),
    ]
}

/// Changes of keys between an authenticated connection and the next.
fn key_changes() -> Vec<Case> {
    vec![
        live(
            "key changed, controller fatal",
            DEMANDING,
            knows,
            |target| {
                target.host("key", OTHER);
                target.fatal();
            },
            GaveUp,
        )
        .schedule(Schedule::OneByOne)
        .abandoned()
        // nvmet closes the connection before its refusal is out.
        .differs(StillTrying, GaveUp, REFUSED),
        live(
            "controller key changed, controller fatal",
            MUTUAL,
            knows_both,
            |target| {
                target.host("ctrl_key", KEY);
                target.fatal();
            },
            GaveUp,
        )
        .schedule(Schedule::OneByOne)
        .abandoned()
        .differs(StillTrying, GaveUp, REFUSED),
    ]
}

/// Changes of the demand for authentication and its algorithms between two connections.
fn demand_changes() -> Vec<Case> {
    vec![
        live(
            "authentication no longer demanded, controller fatal",
            DEMANDING,
            knows,
            |target| {
                target.disallow();
                target.subsystem("allow_any_host", "1");
                target.fatal();
            },
            CameBack,
        )
        .differs(CameBack, GaveUp, UNASKED),
        live(
            "hash changed, controller fatal",
            DEMANDING,
            knows,
            |target| {
                target.host("hash", "sha512");
                target.fatal();
            },
            CameBack,
        ),
        live(
            "group changed, controller fatal",
            DEMANDING,
            knows,
            |target| {
                target.host("dhgroup", "ffdhe2048");
                target.fatal();
            },
            CameBack,
        ),
    ]
}

fn live(
    name: &'static str,
    spec: TargetSpec,
    options: fn(&mut Options),
    fault: fn(&CaseTarget),
    outcome: Outcome,
) -> Case {
    Case::live(name, fault).target(spec).with(options).both(outcome)
}

/// Cases in which the same key is set again.
fn renewals() -> Vec<Case> {
    vec![
        Case::live("authenticated, controller fatal", CaseTarget::fatal)
            .target(MUTUAL)
            .with(knows_both)
            .both(CameBack),
        Case::live("authenticated, target down and up", CaseTarget::down)
            .target(DEMANDING)
            .with(knows)
            .heal(CaseTarget::make)
            .both(CameBack),
        Case::live("authenticated, reset", |_| ())
            .target(DEMANDING)
            .with(knows)
            .request(super::case::OwnerRequest::Reset)
            .both(CameBack),
        Case::live("key changed and changed back, port closed for a while", |target| {
            target.host("key", OTHER);
            target.unlink();
        })
        .target(DEMANDING)
        .with(knows)
        .heal(|target| {
            target.host("key", KEY);
            target.link();
        })
        .both(CameBack),
    ]
}
