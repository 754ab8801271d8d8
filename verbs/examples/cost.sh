#!/usr/bin/env bash
# Counts our own instructions for each operation, by callgrind, over a device that does next to
# nothing, and the system calls and allocations: those of the engine over a provider that is a stub
# (`cost.rs`), and all of ours through `RdmaCore` over a stub of the system's libraries
# (`stub_device.c`). Fails if anything costs more than `cost-limits.txt` allows, or if polling an
# empty queue depends on how many queue pairs it serves by more than 5 %.
#
#   verbs/examples/cost.sh
set -euo pipefail
cd "$(dirname "$0")/../.."

if ! command -v valgrind >/dev/null; then
  echo 'SKIPPED: no valgrind to count instructions with; run: apt-get install valgrind'
  exit 0
fi
{ read -r program && read -r program_device; } < <(benches/programs cost cost_device) || exit 1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$program" >"$folder/counts"

# The own cost of every function but the device's; a line after `calls=` is of the function called.
own='
  /^c?fn=/ {
    match($0, /\([0-9]+\)/)
    id = substr($0, RSTART, RLENGTH)
    if (length($0) > RSTART + RLENGTH) device[id] = /device_/
    if (/^fn/) ours = !device[id]
  }
  /^calls=/ { getline; next }
  /^[-+*0-9]/ && ours { instructions += $2; calls += $3 }
  END { print instructions + 0, calls + 0 }'

failed=0
check() { # NAME COUNT UNIT
  limit=$(awk -v name="$1" '$1 == name { print $2 }' verbs/examples/cost-limits.txt)
  printf '%-22s %4d of at most %s %s\n' "$1" "$2" "${limit:-?}" "$3"
  if [ -z "$limit" ] || [ "$2" -gt "$limit" ]; then failed=1; fi
}

declare -A costs
while read -r name count; do
  if [ "$name" = allocations ]; then
    check "$name" "$count" "for everything"
    continue
  fi
  valgrind --tool=callgrind --callgrind-out-file="$folder/out" --collect-systime=yes \
    --toggle-collect="*::$name" "$program" >"$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
  read -r total calls < <(awk "$own" "$folder/out")
  costs[$name]=$total
  check "${name#cost_}" $(((total + count - 1) / count)) instructions
  if [ "$calls" -gt 0 ]; then
    echo "${name#cost_} makes system calls: $calls in $count"
    failed=1
  fi
done <"$folder/counts"

one=${costs[cost_poll_empty]} many=${costs[cost_poll_empty_of_64]}
echo "an empty poll, all runs: $one with 1 queue pair, $many with 64"
if [ $((many * 100)) -gt $((one * 105)) ] || [ "$one" -eq 0 ]; then failed=1; fi

# What is in our program, and in no library; then the system calls of all, and the allocations.
program=$program_device
through='
  /^(ob|cob|cfn|fn)=/ {
    key = substr($0, 1, index($0, "=") - 1)
    match($0, /\([0-9]+\)/)
    id = substr($0, RSTART, RLENGTH)
    name = substr($0, RSTART + RLENGTH + 1)
    if (key ~ /ob/ && name != "") ours[id] = name ~ /cost_device$/
    if (key == "ob") here = ours[id]
    if (key ~ /fn/ && name != "") allocates[id key] = name ~ /^(malloc|calloc|realloc|free)/
    if (key == "fn") allocating = allocates[id key] || allocates[id "cfn"]
  }
  /^calls=/ { getline; next }
  /^[-+*0-9]/ { if (here) instructions += $2; calls += $3; if (allocating) allocations += $2 }
  END { print instructions + 0, calls + 0, allocations + 0 }'

stub=$folder/stub.so
if ! cc -O2 -shared -fPIC -o "$stub" verbs/examples/stub_device.c 2>"$folder/log"; then
  echo "SKIPPED: a stub of the libraries cannot be built here: $(head -n 1 "$folder/log")"
  exit "$failed"
fi
export RDMA_TEST_ADDRESS=10.0.0.1 RDMA_TEST_API=legacy
LD_PRELOAD=$stub LD_BIND_NOW=1 "$program" >"$folder/counts"
while read -r name count; do
  LD_PRELOAD=$stub LD_BIND_NOW=1 valgrind --tool=callgrind --callgrind-out-file="$folder/out" \
    --collect-systime=yes --toggle-collect="*::$name" "$program" >"$folder/log" 2>&1 ||
    { cat "$folder/log"; exit 1; }
  read -r total calls allocations < <(awk "$through" "$folder/out")
  check "core${name#cost}" $(((total + count - 1) / count)) instructions
  if [ "$total" -eq 0 ] || [ "$calls" -gt 0 ] || [ "$allocations" -gt 0 ]; then
    echo "core${name#cost}: $total instructions, $calls system calls, $allocations allocations"
    failed=1
  fi
done < <(tail -n +2 "$folder/counts")
exit "$failed"
