//! Data through a network that loses, repeats, reorders and delays packets, and is cut off for
//! seconds (`loss/wire.rs`), and on a medium that is slow, fails, or loses writes
//! (`loss/medium.rs`).

// The medium fails the same way on both kernels; the wire needs network namespaces.
// bed (medium): waits --target tests/targets/fence.toml -- medium::
// bed (wire): waits --kernel 7 --target tests/targets/loss.toml -- wire::

#[path = "loss/history_load.rs"]
mod history_load;
#[path = "loss/medium.rs"]
mod medium;
#[path = "loss/wire.rs"]
mod wire;

use std::time::Duration;

/// Time of a long run: `LOSS_SECONDS`, set by `tests/longer loss`.
fn seconds_wanted() -> Option<Duration> {
    let seconds = std::env::var("LOSS_SECONDS").ok()?;
    Some(Duration::from_secs(seconds.parse().expect("LOSS_SECONDS is a number")))
}
