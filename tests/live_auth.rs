//! Exchanges with the kernel's target, byte by byte, with known randomness on our side: what both
//! said is computed again in Python, by `auth/vectors/check.py`.

// bed: long --target tests/targets/secret.toml

mod live_auth {
    mod exchange;
    mod queue;
    mod recorded;
    mod vectors;
}
