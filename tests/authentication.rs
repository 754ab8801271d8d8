//! DH-HMAC-CHAP against the kernel's target: every secret, hash and group, one-way and two-way,
//! what happens when a key is wrong, missing or changed, and authenticating again.

// bed: long --target tests/targets/secret.toml
// bed (siw): --device siw --target tests/targets/secret.toml -- changes:: reauthentication:: refusals::

mod authentication {
    pub(crate) mod bed;
    mod changes;
    mod configured;
    mod failures;
    mod fake_target;
    mod matrix;
    mod reauthentication;
    mod wrong_keys;
}
