//! Every hash and group, one-way and two-way: the rows of `auth/vectors/live.json`.

use std::num::NonZeroU32;

use auth::{HashId, Secret};
use tests::{SUBSYSTEM, noise};

use super::exchange::{Inputs, check_in_python, kernel, set_host};

/// The host that the target file names.
const HOST: &str = "nqn.2026-11.org.soft-roce:secret";

/// A secret whose transformation and length change with `kind`.
fn secret(kind: u16, seed: u16) -> String {
    let transformation = HashId(u8::try_from(kind % 4).expect("below 4"));
    let length = [32, 48, 64][usize::from(kind) % 3];
    let bytes = noise(length, u64::from(seed) + 1);
    let secret = Secret::from_bytes(transformation, &bytes).expect("a length");
    secret.encode().as_str().to_owned()
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn exchanges_with_known_randomness_succeed() {
    let groups = ["null", "ffdhe2048", "ffdhe3072", "ffdhe4096", "ffdhe6144", "ffdhe8192"];
    let hashes = ["sha256", "sha384", "sha512"];
    let mut rows = Vec::new();
    for (group, name) in groups.iter().enumerate() {
        set_host(HOST, "dhchap_dhgroup", name);
        for (hash, name) in (1..).zip(hashes) {
            set_host(HOST, "dhchap_hash", name);
            for two_way in [false, true] {
                let number = u16::try_from(rows.len()).expect("36 at most");
                let host = secret(number, 2 * number);
                let controller = two_way.then(|| secret(number + 1, 2 * number + 1));
                set_host(HOST, "dhchap_key", &host);
                if let Some(controller) = &controller {
                    set_host(HOST, "dhchap_ctrl_key", controller);
                }
                let inputs = Inputs {
                    note: format!("{} number {number}", kernel()),
                    host_nqn: HOST,
                    subsystem_nqn: SUBSYSTEM,
                    host_secret: &host,
                    controller_secret: controller.as_deref(),
                    transaction_id: 0x4000 + number,
                    s2: NonZeroU32::new(0x0102_0300 + u32::from(number)).expect("not zero"),
                    challenge_random: noise(64, u64::from(number) + 1000),
                    exponent_random: noise(52, u64::from(number) + 2000),
                };
                let row = inputs.run();
                let how = &row["outcome"]["authenticated"];
                assert_eq!((&how["hash"], &how["group"]), (&hash.into(), &group.into()));
                println!("TRANSCRIPT {row}");
                rows.push(row);
            }
        }
    }
    assert_eq!(rows.len(), 36);
    check_in_python(&rows);
}
