#!/usr/bin/env bash
# Every script NAME here that is a link to this file sets up what is missing and runs its program with the checkout's Python.
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
name=$(basename "$0")
# These read the tests' files, which need development tools.
case $name in boot_debian | fuzz) ensure_setup --dev ;; *) ensure_setup ;; esac
case $name in
    calibrate) program=(-m tvmmobile.virtual.calibration.calibrate) ;;
    sysroot) program=(-m tvmmobile.virtual.sysroot) ;;
    *) program=("$root/scripts/$name.py") ;;
esac
exec "$venv/bin/python" "${program[@]}" "$@"
