# shellcheck shell=bash
# Sourced by ./scripts/tvmmobile and ./scripts/test: `ensure_setup [--dev]` makes .venv and what it needs.
#
# A stamp in .venv, keyed by what the set-up depends on, says that it is complete; with it a call costs a few milliseconds.
# An interrupted set-up leaves no stamp and is simply run again. Two at once: the second waits for the first.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv

ensure_setup() {
    local dev=${1:-} key
    key=$(_setup_key)
    if _is_set_up "$key" "$dev"; then return; fi
    # The lock is on a file that is always there, so that .venv can be removed at any time. It ends with this subshell.
    (
        flock -n 9 || { _say "waiting for another set-up"; flock 9; }
        if ! _is_set_up "$key" "$dev"; then _set_up "$key" "$dev"; fi
    ) 9<"$root/scripts/requirements.txt" </dev/null >&2
}

# The folder counts: a moved checkout has a .venv that points to the old one.
_setup_key() {
    { printf '%s\n' "$root"; cat "$root"/pyproject.toml "$root"/scripts/*.lock "$root"/scripts/setup.sh; } | sha256sum | cut -c1-16
}

_is_set_up() {
    local key=$1 dev=$2
    [[ -f $venv/.set-up-$key && -x $venv/bin/python && -x $venv/bin/tvmmobile ]] && { [[ -z $dev ]] || [[ -f $venv/.set-up-$key-dev ]]; } && [[ -z $(_missing_packages) ]]
}

_say() { printf 'tvmmobile set-up: %s\n' "$1"; }

_fail() {
    _say "$1"
    exit 1
}

_set_up() {
    local key=$1 dev=$2 python
    _install_system_packages
    python=$(_find_python) || _fail "no Python 3.11 or newer with venv was found. Run: apt-get install -y python3 python3-venv"
    if [[ ! -f $venv/.set-up-$key ]]; then
        rm -f "$venv"/.set-up-*
        # An interrupted `venv` leaves a python without pip.
        if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
            _say "virtual environment (.venv, $("$python" --version))"
            "$python" -m venv --clear "$venv"
        fi
        _say "Python packages (one to two minutes)"
        _install_torch
        _pip --no-deps --require-hashes -r "$root/scripts/requirements.lock"
        _pip --no-deps --no-build-isolation -e "$root"
        _say "device agent and QEMU plugin"
        "$venv/bin/python" -m tvmmobile.devices.agent || _fail "the device agent could not be built; the lines above say why"
        _keep_byte_code
        touch "$venv/.set-up-$key"
    fi
    if [[ -n $dev && ! -f $venv/.set-up-$key-dev ]]; then
        _say "development tools"
        _pip --no-deps --require-hashes -r "$root/scripts/requirements-dev.lock"
        _install_test_programs
        touch "$venv/.set-up-$key-dev"
    fi
    _say "done"
}

# PyTorch, the build that pip would choose here, if it is a published one. With --require-hashes pip passes over builds in a local folder.
# PyPI's build for AArch64 does not work without CUDA's libraries; PyTorch's own index has one that does, which pip prefers.
_install_torch() {
    local pin wheels=$venv/torch index=()
    if [[ $HOSTTYPE == aarch64 ]]; then index=(--extra-index-url https://download.pytorch.org/whl/cpu); fi
    pin=$(grep -o '^torch==[^ ]*' "$root/scripts/torch.lock")
    compgen -G "$venv/lib/python3*/site-packages/${pin/==/-}*.dist-info" >/dev/null && return
    rm -rf "$wheels"
    _run_pip download --no-deps --only-binary=:all: "${index[@]}" --dest "$wheels" "$pin"
    grep -q "sha256:$(sha256sum "$wheels"/* | cut -c1-64)" "$root/scripts/torch.lock" ||
        _fail "$(cd "$wheels" && echo *) is not a build of PyTorch in scripts/torch.lock. If you trust it, add its SHA-256 to scripts/torch-builds.txt and run ./scripts/lock."
    _pip --no-deps "$wheels"/*
    rm -rf "$wheels"
}

# Byte code is left to the first import of each module: most are never imported.
_pip() {
    _run_pip install --no-compile --root-user-action=ignore "$@"
}

# pip, quietly; its output only if it fails.
_run_pip() {
    local log=$venv/pip.log
    if ! "$venv/bin/python" -m pip "$1" --quiet --disable-pip-version-check --no-input "${@:2}" >"$log" 2>&1; then
        tail -n 20 "$log"
        _fail "pip failed; the lines above say why, $log has all of it. Run the same command again to go on."
    fi
}

# Byte code of what most commands import. Where PYTHONDONTWRITEBYTECODE is set, as in many containers, every process would make its own, for
# ten seconds.
_keep_byte_code() {
    _say "byte code"
    env -u PYTHONDONTWRITEBYTECODE "$venv/bin/python" - <<-'END' || _fail "the installed packages cannot be imported; the lines above say why"
	from importlib import import_module
	for module in ("torch._dynamo", "torch.export._trace", "tvm.relax.frontend.torch", "tvm.s_tir.meta_schedule", "pydantic", "xgboost",
	               "paramiko", "tvmmobile.cli.tune", "tvmmobile.pipeline.build", "tvmmobile.devices.registry"):
	    import_module(module)
	END
}

# Debian packages of the programs that are not there. Only built-in commands: this is on the path of every call.
_missing_packages() {
    local missing=()
    command -v qemu-aarch64 >/dev/null || missing+=(qemu-user)
    local cross=g++-aarch64-linux-gnu
    if [[ $HOSTTYPE == aarch64 ]]; then cross=g++; fi  # Debian's own compiler has the cross compiler's name there as well
    command -v aarch64-linux-gnu-g++ >/dev/null || missing+=("$cross")
    _has_llvm || missing+=(llvm-16)
    command -v gcc >/dev/null || command -v cc >/dev/null || missing+=(gcc libc6-dev)
    printf '%s' "${missing[*]}"
}

# Debian's plain llvm-mca may be too old; the versioned names are sure. Elsewhere `tvmmobile doctor` looks at the version.
_has_llvm() {
    local version
    for version in 16 17 18 19; do
        if command -v "llvm-mca-$version" >/dev/null; then return; fi
    done
    ! command -v apt-get >/dev/null && command -v llvm-mca >/dev/null
}

_install_system_packages() {
    local packages
    packages=$(_missing_packages)
    _find_python >/dev/null || packages+=" python3 python3-venv"
    # shellcheck disable=SC2086  # one word a package
    set -- $packages
    [[ $# -gt 0 ]] || return 0
    command -v apt-get >/dev/null || _fail "these Debian packages or their like are missing: $*"
    [[ $(id -u) -eq 0 ]] || _fail "system packages are missing. Run as root: apt-get update && apt-get install -y ${*/llvm-16/$(_offered_llvm)}"
    _apt_install "$@"
}

# For tests, which skip with a reason where these are missing: the other ends of SSH and adb, this machine's own C++ for the agent under
# sanitizers, what examples/native is built with, QEMU's machine and what makes a disk for it, Google Benchmark's compare.py, and a browser for
# the report's page. Not on a machine that runs services: Debian would start an SSH server there.
_install_test_programs() {
    local missing=()
    PATH=$PATH:/usr/sbin command -v sshd >/dev/null || missing+=(openssh-server openssh-client)
    command -v adb >/dev/null || missing+=(adb)
    command -v g++ >/dev/null || missing+=(g++)
    command -v make >/dev/null || missing+=(make)
    command -v cmake >/dev/null || missing+=(cmake)
    command -v rustc >/dev/null || missing+=(rustc)
    command -v ld.lld >/dev/null || missing+=(lld)
    command -v qemu-system-aarch64 >/dev/null || missing+=(qemu-system-arm)
    command -v qemu-img >/dev/null || missing+=(qemu-utils)
    command -v cpio >/dev/null || missing+=(cpio)
    [[ -f /usr/share/benchmark/compare.py ]] || missing+=(libbenchmark-tools)
    command -v chromium >/dev/null || missing+=(chromium)
    [[ ${#missing[@]} -gt 0 && $(id -u) -eq 0 && ! -d /run/systemd/system ]] && command -v apt-get >/dev/null || return 0
    _apt_install "${missing[@]}"
}

_apt_install() {
    _say "system packages ($*)"
    local log
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    if ! { apt-get update -q && apt-get install -q -y --no-install-recommends "${@/llvm-16/$(_offered_llvm)}"; } >"$log" 2>&1; then
        tail -n 20 "$log"
        rm -f "$log"
        _fail "apt-get failed; the lines above say why"
    fi
    rm -f "$log"
}

# Debian 13 has no llvm-16: the first after it that apt has, if it knows of any.
_offered_llvm() {
    local version
    for version in 16 17 18 19; do
        if apt-cache show "llvm-$version" >/dev/null 2>&1; then
            printf 'llvm-%s' "$version"
            return
        fi
    done
    printf 'llvm-16'
}

# The first Python that can make a virtual environment. 3.11 first: torch and TVM have wheels for it everywhere.
_find_python() {
    local candidate
    for candidate in python3.11 /usr/bin/python3.11 python3 python3.12 python3.13; do
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            printf '%s' "$candidate"
            return
        fi
    done
    return 1
}
