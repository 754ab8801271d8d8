//! Damaged secrets in any place of a target file of soft-roce: no reason shows them, and nothing
//! panics.

#[path = "../rdma-host/options/src/configuration/tests/damage.rs"]
mod damage;

use damage::{KINDS, Random, places, positions, repetitions, shown_piece};
use soft_roce::target::Target;

/// Target file with the keys of each table, and `SECRET` where secrets belong.
const TEXT: &str = r#"# One host and one subsystem.
[[hosts]]
nqn = "nqn.host:1"
dhchap_key = "SECRET"
dhchap_ctrl_key = "SECRET"
dhchap_hash = "sha256"
dhchap_dhgroup = "ffdhe3072"
[[subsystems]]
nqn = "nqn.disk:1"
hosts = ["nqn.host:1"]
namespaces = [{ nsid = 1, backing = { null_blk = { size = "16MiB", block_size = 512 } } }]
[[ports]]
service = "4420"
ana_groups = [{ id = 1, state = "optimized" }]
"#;

/// In the place of each word, or before it; by `tests/longer` also between any two characters.
#[test]
fn no_damage_of_a_secret_shows_it_in_any_place() {
    let mut random = Random(3);
    for _ in 0..repetitions(1) {
        let between = positions(TEXT).filter(|_| repetitions(1) > 1);
        for place in places(TEXT).into_iter().chain(between) {
            let secret = random.secret();
            for kind in 0..KINDS {
                let damaged = random.damage(&secret, kind);
                let end = if random.below(3) == 0 { place.start } else { place.end };
                let file = format!("{}{damaged}{}", &TEXT[..place.start], &TEXT[end..]);
                assert_not_shown(&file, &damaged);
            }
        }
    }
}

#[test]
fn no_mutated_file_panics_or_shows_its_secret() {
    let mut random = Random(14);
    for _ in 0..repetitions(1000) {
        let secret = random.secret();
        let changes = 1 + random.below(12);
        let file = random.mutate(&TEXT.replace("SECRET", &secret), changes);
        assert_not_shown(&file, &secret);
    }
}

fn assert_not_shown(file: &str, secret: &str) {
    let printed = match Target::parse(file) {
        Ok(target) => format!("{target:?}"),
        Err(reason) => reason,
    };
    assert_eq!(shown_piece(secret, &printed), None, "{file}\nprints\n{printed}");
}
