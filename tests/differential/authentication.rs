//! Targets that demand DH-HMAC-CHAP.

use super::{
    case::{
        Case, Life,
        Life::{CameBack, Connected, GaveUp, Refused, StillTrying, Undisturbed},
        Made, Options, Turn,
    },
    case_target::Stage,
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
const DEMANDING: Made = Made {
    closed: true,
    namespace: false,
    subsystem: &[],
    port: &[],
    hosts: &[("key", KEY)],
    companion: false,
    prepare: None,
    script: None,
    mapped: false,
};

/// One that also proves to know [`OTHER`].
const MUTUAL: Made = Made { hosts: &[("key", KEY), ("ctrl_key", OTHER)], ..DEMANDING };

/// One that demands nothing of the same hosts.
const CLOSED: Made = Made { hosts: &[], ..DEMANDING };

pub(crate) fn cases() -> Vec<Case> {
    [without_secrets(), keys(), algorithms(), changes(), renewals()].concat()
}

fn knows(options: &mut Options) {
    options.secrets = [Some(KEY), None];
}

fn knows_both(options: &mut Options) {
    options.secrets = [Some(KEY), Some(OTHER)];
}

fn first(name: &'static str, made: Made, options: fn(&mut Options), life: Life) -> Case {
    Case::first(name).made(made).with(options).both(life)
}

/// What can be asked of hosts that have no secrets.
fn without_secrets() -> Vec<Case> {
    vec![
        Case::first("no secret where one is demanded").made(DEMANDING).both(Refused),
        Case::first("no secret where any host may connect")
            .made(Made {
                prepare: Some(|stage| {
                    stage.disallow();
                    stage.subsystem("allow_any_host", "1");
                }),
                ..DEMANDING
            })
            .both(Connected),
        Case::live("a key is set for the host, connection left alone", |stage| {
            stage.host("key", KEY);
        })
        .made(CLOSED)
        .watched(std::time::Duration::from_secs(4))
        .both(Undisturbed),
        Case::live("a key is set for the host, controller fatal", |stage| {
            stage.host("key", KEY);
            stage.fatal();
        })
        .made(CLOSED)
        .both(GaveUp),
        Case::live("a key is set for the host, reset", |stage| stage.host("key", KEY))
            .made(CLOSED)
            .wish(super::case::Wish::Reset)
            .both(GaveUp),
        Case::live("a key is set for the host, port closed for a while", |stage| {
            stage.host("key", KEY);
            stage.unlink();
        })
        .made(CLOSED)
        .heal(Stage::link)
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
    const SHA384: Made = Made { hosts: &[("key", KEY_48), ("hash", "sha384")], ..DEMANDING };
    const SHA512: Made = Made { hosts: &[("key", KEY_64), ("hash", "sha512")], ..DEMANDING };
    const GROUP: Made = Made { hosts: &[("key", KEY), ("dhgroup", "ffdhe2048")], ..DEMANDING };
    vec![
        first("SHA-384, 48 bytes", SHA384, |o| o.secrets = [Some(KEY_48), None], Connected),
        first("SHA-512, 64 bytes", SHA512, |o| o.secrets = [Some(KEY_64), None], Connected),
        first("ffdhe2048", GROUP, knows, Connected),
    ]
}

/// Changes of the target between an authenticated connection and the next.
fn changes() -> Vec<Case> {
    let live = |name, made, options: fn(&mut Options), fault: fn(&Stage), life: Life| {
        Case::live(name, fault).made(made).with(options).both(life)
    };
    vec![
        live(
            "key changed, controller fatal",
            DEMANDING,
            knows,
            |stage| {
                stage.host("key", OTHER);
                stage.fatal();
            },
            GaveUp,
        )
        .turn(Turn::OneByOne)
        .abandoned()
        // nvmet closes the connection before its refusal is out.
        .differs(StillTrying, GaveUp, REFUSED),
        live(
            "controller key changed, controller fatal",
            MUTUAL,
            knows_both,
            |stage| {
                stage.host("ctrl_key", KEY);
                stage.fatal();
            },
            GaveUp,
        )
        .turn(Turn::OneByOne)
        .abandoned()
        .differs(StillTrying, GaveUp, REFUSED),
        live(
            "authentication no longer demanded, controller fatal",
            DEMANDING,
            knows,
            |stage| {
                stage.disallow();
                stage.subsystem("allow_any_host", "1");
                stage.fatal();
            },
            CameBack,
        )
        .differs(CameBack, GaveUp, UNASKED),
        live(
            "hash changed, controller fatal",
            DEMANDING,
            knows,
            |stage| {
                stage.host("hash", "sha512");
                stage.fatal();
            },
            CameBack,
        ),
        live(
            "group changed, controller fatal",
            DEMANDING,
            knows,
            |stage| {
                stage.host("dhgroup", "ffdhe2048");
                stage.fatal();
            },
            CameBack,
        ),
    ]
}

/// The same key again.
fn renewals() -> Vec<Case> {
    vec![
        Case::live("authenticated, controller fatal", Stage::fatal)
            .made(MUTUAL)
            .with(knows_both)
            .both(CameBack),
        Case::live("authenticated, target down and up", Stage::down)
            .made(DEMANDING)
            .with(knows)
            .heal(Stage::make)
            .both(CameBack),
        Case::live("authenticated, reset", |_| ())
            .made(DEMANDING)
            .with(knows)
            .wish(super::case::Wish::Reset)
            .both(CameBack),
        Case::live("key changed and changed back, port closed for a while", |stage| {
            stage.host("key", OTHER);
            stage.unlink();
        })
        .made(DEMANDING)
        .with(knows)
        .heal(|stage| {
            stage.host("key", KEY);
            stage.link();
        })
        .both(CameBack),
    ]
}
