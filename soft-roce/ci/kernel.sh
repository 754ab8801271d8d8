#!/usr/bin/env bash
# Makes the kernel ready that SOFT_ROCE_KERNEL names (6.12 if not set). Needs soft-roce on the path.
#
#   kernel.sh key           prints the key under which a cache should keep the file of `cached`
#   kernel.sh import FILE   takes the kernel from a file that `soft-roce export` wrote
#   kernel.sh cached FILE   takes it from FILE; where FILE has none that fits, builds the kernel
#                           and writes FILE
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

fail() { printf '%s: %s\n' "$(basename "$0")" "$1" >&2; exit 1; }

key() { soft-roce build --print-key; }

build() {
  # Packages of the kernel's source and of compilers; only root can have them installed.
  "$here"/packages.sh build
  soft-roce build >/dev/null
}

cached() {
  local file=$1 key
  key=$(key)
  if [ -s "$file" ] && [ "$(cat "$file.key" 2>/dev/null)" = "$key" ]; then
    soft-roce import "$file" && return
    printf '%s: %s is not usable; the kernel is built instead\n' "$(basename "$0")" "$file" >&2
  fi
  build
  mkdir -p "$(dirname "$file")"
  rm -f "$file" "$file.key"
  soft-roce export "$file"
  printf '%s\n' "$key" >"$file.key"
}

case ${1:-} in
  key) key ;;
  import | cached)
    [ -n "${2:-}" ] || fail "give a file: $1 FILE"
    if [ "$1" = cached ]; then cached "$2"; else soft-roce import "$2"; fi
    ;;
  *) fail 'give key, import FILE or cached FILE' ;;
esac
