#!/usr/bin/env bash
# Every script NAME here that is a link to this file sets up what is missing and runs NAME.py with the checkout's Python.
set -euo pipefail
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/setup.sh"
# bench_peers draws with matplotlib, which is a development tool.
if [[ $(basename "$0") == bench_peers ]]; then ensure_setup --dev; else ensure_setup; fi
exec "$venv/bin/python" "$root/scripts/$(basename "$0").py" "$@"
