#!/usr/bin/env bash
# Every script NAME here that is a link to this file sets up what is missing and runs NAME.py with the checkout's Python.
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
# bench_peers draws with matplotlib and fuzz reads the tests' samples, which need development tools.
case $(basename "$0") in bench_peers | fuzz) ensure_setup --dev ;; *) ensure_setup ;; esac
exec "$venv/bin/python" "$root/scripts/$(basename "$0").py" "$@"
