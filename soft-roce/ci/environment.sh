#!/usr/bin/env bash
# Environment of the job's later steps, so that `cargo test` runs its programs in guests: added to
# the files GITHUB_ENV and GITHUB_PATH where these are set, else printed as shell commands.
#
#   environment.sh FOLDER   the folder that has the soft-roce program
#
# What is taken from the environment, all of it optional:
#   SOFT_ROCE_OPTIONS     more options of `soft-roce run`, separated by spaces
#   SOFT_ROCE_KERNEL      6.12 or 7
#   SOFT_ROCE_TARGET      the NVMe target's file
#   SOFT_ROCE_ARTIFACTS   the folder for what failed runs leave
set -euo pipefail

fail() { printf '%s: %s\n' "$(basename "$0")" "$1" >&2; exit 1; }

[ -x "${1:-}/soft-roce" ] || fail "give the folder that has the soft-roce program, not ${1:-nothing}"
folder=$(realpath "$1")

# One variable for later steps.
put() {
  case $2 in *$'\n'*) fail "$1 must be one line" ;; esac
  if [ -n "${GITHUB_ENV:-}" ]; then
    printf '%s=%s\n' "$1" "$2" >>"$GITHUB_ENV"
  else
    printf 'export %s=%q\n' "$1" "$2"
  fi
}

# A path that holds wherever a later step starts a program.
absolute() {
  local path
  path=$(realpath -e "$1") || fail "$2: there is no $1"
  put "$2" "$path"
}

if [ -n "${GITHUB_PATH:-}" ]; then
  printf '%s\n' "$folder" >>"$GITHUB_PATH"
else
  # shellcheck disable=SC2016 # the path is that of the shell that reads this
  printf 'export PATH=%q:"$PATH"\n' "$folder"
fi
# cargo divides the variable at spaces: the program is found by the path.
runner="soft-roce run${SOFT_ROCE_OPTIONS:+ $SOFT_ROCE_OPTIONS} --"
triple=${CARGO_BUILD_TARGET:-$(rustc -vV 2>/dev/null | sed -n 's/^host: //p')} || triple=
if [ -n "$triple" ]; then
  triple=${triple//-/_}
  put "CARGO_TARGET_${triple^^}_RUNNER" "$runner"
else
  printf 'no rustc here, so no runner for cargo; start a program by: %s PROGRAM\n' "$runner" >&2
fi
[ -z "${SOFT_ROCE_KERNEL:-}" ] || put SOFT_ROCE_KERNEL "$SOFT_ROCE_KERNEL"
[ -z "${SOFT_ROCE_TARGET:-}" ] || absolute "$SOFT_ROCE_TARGET" SOFT_ROCE_TARGET
if [ -n "${SOFT_ROCE_ARTIFACTS:-}" ]; then
  mkdir -p "$SOFT_ROCE_ARTIFACTS"
  absolute "$SOFT_ROCE_ARTIFACTS" SOFT_ROCE_ARTIFACTS
fi
