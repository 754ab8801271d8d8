#!/usr/bin/env bash
# Puts the soft-roce program into a folder: a copy of the given one, else the one of this
# repository, built by cargo.
#
#   program.sh FOLDER [PROGRAM]
set -euo pipefail

fail() { printf '%s: %s\n' "$(basename "$0")" "$1" >&2; exit 1; }

[ $# -ge 1 ] || fail 'give a folder for the program'
mkdir -p "$1"
folder=$(realpath "$1")
program=${2:-}
if [ -z "$program" ]; then
  command -v cargo >/dev/null ||
    fail 'cargo is missing; install Rust 1.95 or later, or give a built soft-roce program'
  # The caller's flags and target are for the caller's own code.
  unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET
  cd "$(dirname "$0")/../.."
  export CARGO_TARGET_DIR="$folder/target"
  cargo build --quiet --locked --release -p soft-roce
  program=$CARGO_TARGET_DIR/release/soft-roce
fi
[ -x "$program" ] || fail "$program is not a program"
install -m 755 "$program" "$folder/soft-roce.new"
"$folder/soft-roce.new" --version >/dev/null ||
  { rm -f "$folder/soft-roce.new"; fail "$program does not run on this machine (see above)"; }
mv "$folder/soft-roce.new" "$folder/soft-roce"
rm -rf "$folder/target"
