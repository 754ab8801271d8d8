#!/usr/bin/env bash
# All steps in one, for CI systems without a template here: packages, program, kernel. Prints the
# environment of later steps as shell commands.
#
#   environment=$(soft-roce/ci/prepare.sh FOLDER) && eval "$environment"
#
# FOLDER keeps the program and, for the CI's cache, FOLDER/kernels and FOLDER/kernels.key. Taken from
# the environment, besides what environment.sh takes:
#   SOFT_ROCE_PROGRAM       a built soft-roce program; else cargo builds it
#   SOFT_ROCE_KERNEL_FILE   a file of `soft-roce export`; else the kernel is built once
#   SOFT_ROCE_PACKAGES      more Debian packages to install, separated by spaces
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

[ $# = 1 ] || { printf 'prepare.sh: give a folder\n' >&2; exit 1; }
mkdir -p "$1"
folder=$(realpath "$1")
read -ra packages <<<"${SOFT_ROCE_PACKAGES:-}"
{
  "$here"/packages.sh run "${packages[@]}"
  "$here"/program.sh "$folder" "${SOFT_ROCE_PROGRAM:-}"
  if [ -n "${SOFT_ROCE_KERNEL_FILE:-}" ]; then
    PATH=$folder:$PATH "$here"/kernel.sh import "$SOFT_ROCE_KERNEL_FILE"
  else
    PATH=$folder:$PATH "$here"/kernel.sh cached "$folder/kernels"
  fi
} >&2
"$here"/environment.sh "$folder"
