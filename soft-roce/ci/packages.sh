#!/usr/bin/env bash
# Installs Debian packages, as root or by sudo; does nothing where they are there already.
#
#   packages.sh run [PACKAGE…]     to run guests, and to build and run programs for RDMA
#   packages.sh build [PACKAGE…]   to build a kernel
set -euo pipefail

fail() { printf '%s: %s\n' "$(basename "$0")" "$1" >&2; exit 1; }

case ${1:-} in
  run) packages=(iproute2 ibverbs-providers libibverbs-dev librdmacm-dev) ;;
  # As soft-roce asks for them; soft-roce/ci/check compares.
  build) packages=(gcc libc6-dev make flex bison bc bzip2 xz-utils libelf-dev patch perl) ;;
  *) fail 'give run or build' ;;
esac
packages+=("${@:2}")

command -v apt-get >/dev/null ||
  fail "this system has no apt-get; install what corresponds to: ${packages[*]}"
missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=none
  [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null ||
    fail "only root can install: apt-get install -y --no-install-recommends ${missing[*]}"
  as_root=(sudo)
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
printf 'installing %s\n' "${missing[*]}" >&2
{
  "${as_root[@]}" apt-get -q -o DPkg::Lock::Timeout=120 update &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get -q -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "${missing[@]}"
} >"$log" 2>&1 || { tail -n 20 "$log" >&2; fail "installing ${missing[*]} failed"; }
