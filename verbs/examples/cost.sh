#!/usr/bin/env bash
# Counts the engine's own instructions for each operation, by callgrind, over a device that does
# next to nothing. With a number: fails if a post of one inline send, or a poll of one completion,
# costs more than that.
#
#   verbs/examples/cost.sh [LIMIT]
set -euo pipefail
cd "$(dirname "$0")/../.."

limit=${1:-}
cargo build --quiet --locked --release -p verbs --example cost
program=${CARGO_TARGET_DIR:-target}/release/examples/cost
counts=$(mktemp)
trap 'rm -f "$counts"' EXIT
"$program" >"$counts"

failed=0
while read -r name count; do
  total=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null \
    --toggle-collect="*$name*" "$program" 2>&1 >/dev/null | awk '/Collected/ { print $NF }')
  cost=$(((total + count / 2) / count))
  printf '%-22s %4d instructions\n' "${name#cost_}" "$cost"
  case $name in
    cost_post_one | cost_poll_one)
      if [ -n "$limit" ] && [ "$cost" -gt "$limit" ]; then failed=1; fi ;;
  esac
done <"$counts"
exit "$failed"
