#!/bin/sh
# Installs what is missing on Debian and Ubuntu: `build` (a C++ compiler, libclang, …), `test` (prometheus, faketime, a Python
# environment with the SDKs that tests drive), `bench` (the servers that Tricord is measured beside). Nothing is touched
# when everything is there.
set -eu

say() { echo "tricord: $*" >&2; }

fail() {
    say "$*"
    exit 1
}

need_rust() {
    if ! command -v cargo >/dev/null 2>&1; then
        [ -r "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
    fi
    command -v cargo >/dev/null 2>&1 || fail "cargo is missing. Install Rust 1.90 or newer first:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh
then open a new shell (or: . \"\$HOME/.cargo/env\") and run make again."
    minor=$(cargo --version | sed -E 's/^cargo 1\.([0-9]+).*/\1/')
    [ "$minor" -ge 90 ] 2>/dev/null || fail "$(cargo --version) is too old: Rust 1.90 or newer is needed (rustup update stable)."
}

have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    ls /usr/lib/llvm-*/lib/libclang.so* /usr/lib/llvm-*/lib/libclang-*.so* /usr/lib/*/libclang*.so* >/dev/null 2>&1
}

# bindgen needs clang's own headers (stddef.h and the like) besides the library.
have_clang_headers() {
    ls -d /usr/lib/llvm-*/lib/clang/*/include /usr/lib/clang/*/include >/dev/null 2>&1 || [ -n "${BINDGEN_EXTRA_CLANG_ARGS:-}" ]
}

missing=""
want() { missing="$missing $1"; }

build_packages() {
    need_rust
    command -v c++ >/dev/null 2>&1 || want g++
    command -v make >/dev/null 2>&1 || want make
    { have_libclang && have_clang_headers; } || want libclang-dev
}

test_packages() {
    command -v prometheus >/dev/null 2>&1 || want prometheus
    command -v prometheus-node-exporter >/dev/null 2>&1 || want prometheus-node-exporter
    command -v promtool >/dev/null 2>&1 || want prometheus
    ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || want faketime
    command -v curl >/dev/null 2>&1 || want curl
    command -v python3 >/dev/null 2>&1 || want python3
    python3 -c 'import venv, ensurepip' >/dev/null 2>&1 || want python3-venv
}

bench_packages() {
    command -v prometheus >/dev/null 2>&1 || want prometheus
    command -v victoria-metrics >/dev/null 2>&1 || want victoria-metrics
}

install_packages() {
    [ -z "$missing" ] && return 0
    command -v apt-get >/dev/null 2>&1 || fail "missing:$missing. Install them with this system's package manager (names are Debian's)."
    root=""
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || fail "missing:$missing. Run as root: apt-get install --yes --no-install-recommends$missing"
        root="sudo"
    fi
    say "installing$missing"
    $root apt-get update -qq
    # Debian starts a server when it installs one; tests start their own.
    # shellcheck disable=SC2086
    $root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install --yes -qq --no-install-recommends $missing >&2
}

python_environment() {
    venv="$TRICORD_CACHE/venv"
    wanted="scripts/test-requirements.txt"
    if [ -x "$venv/bin/python" ] && cmp -s "$wanted" "$venv/installed.txt"; then
        return 0
    fi
    say "making a Python environment for the tests in $venv"
    mkdir -p "$TRICORD_CACHE"
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted"
    cp "$wanted" "$venv/installed.txt"
}

cd "$(dirname "$0")/.."
: "${TRICORD_CACHE:=${XDG_CACHE_HOME:-$HOME/.cache}/tricord}"
for part in "$@"; do
    case "$part" in
        build) build_packages ;;
        test) test_packages ;;
        bench) bench_packages ;;
        *) fail "unknown part $part" ;;
    esac
done
install_packages
case " $* " in *" test "*) python_environment ;; esac
