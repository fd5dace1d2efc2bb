#!/bin/sh
# Shared by demo.sh, all.sh and the benches; to be sourced, with `root` set to the project's folder.
# shellcheck disable=SC2034 # what is set here is used there

target=${CARGO_TARGET_DIR:-$root/target}

# Cargo adds up the features of what it is asked for, and compiles a crate once for each sum: whoever compiles asks for this,
# so that programs, tests and fuzz targets share one. `--examples` (there are none) counts the tests' features in for a program.
alike='--workspace --features engine-tests'

say() { printf '%s\n' "$*"; }
die() { printf '\n%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }
is_root() { [ "$(id -u)" = 0 ]; }

# Seconds since the epoch with tenths, and the difference of two such times.
now() { date +%s.%N | cut -c1-12; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f s", b - a }'; }

# Installs the Debian packages among its arguments that are missing. Nothing that they bring is started.
install_packages() {
    missing=''
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "installing$missing"
    policy=/usr/sbin/policy-rc.d made=''
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        made=1
    fi
    log=$(mktemp)
    # shellcheck disable=SC2086 # a list of words
    { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy -o DPkg::Lock::Timeout=300 install \
        --no-install-recommends $missing; } >"$log" 2>&1 </dev/null && installed=1 || installed=''
    [ -z "$made" ] || rm -f "$policy"
    [ -n "$installed" ] || { tail -n 20 "$log" >&2; die "the packages$missing could not be installed; the whole log is $log"; }
    rm -f "$log"
}

# Compiles tarsup, the static tars-init and the stand-ins, and the tests where `with_tests` is set. The first time this takes minutes.
compile() {
    began=$(now)
    command -v cargo >/dev/null || die "cargo is missing: install Rust first (rustup, or your distribution's)"
    if ! command -v cc >/dev/null && is_root && command -v apt-get >/dev/null; then install_packages gcc libc6-dev; fi
    command -v cc >/dev/null || die "cc is missing, which Rust needs for linking: apt-get install gcc libc6-dev"
    host=$(rustc -vV | sed -n 's/^host: //p')
    say "compiling tarsup, tars-init and the stand-ins (minutes at the first time, then nothing)"
    # Side by side: each links, or optimises, on one processor for half of its time.
    building=''
    if [ -n "${with_tests:-}" ]; then host_part='test --no-run --tests'; else host_part='build --bin tarsup --examples'; fi
    # shellcheck disable=SC2086 # lists of words
    {
        (cd "$root" && cargo $host_part --quiet $alike) &
        building="$building $!"
        (cd "$root" && RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet --profile init --no-default-features \
            --features init --bin tars-init --target "$host") &
        building="$building $!"
        (cd "$root" && cargo build --quiet --profile standin -p standin) &
        building="$building $!"
    }
    for one in $building; do wait "$one" || die "the compiler failed, see above"; done
    tarsup_program=$target/debug/tarsup
    init_program=$target/$host/init/tars-init
    standin_program=$target/standin/standin
    say "compiled in $(since "$began")"
}

# A folder with bin/, base/ and images/ as the recipes expect them; `pack VERSION ...` fills it with packages.
make_workshop() {
    work=$1
    mkdir -p "$work/bin" "$work/base" "$work/pack"
    # tarsup takes the tars-init that lies beside it.
    for program in "$tarsup_program" "$init_program" "$standin_program"; do
        ln -f "$program" "$work/bin/" 2>/dev/null || cp -f "$program" "$work/bin/"
    done
    cp -R "$root/images" "$work/"
    PATH=$work/bin:$PATH
    export TARSUP_STORE="$work/store" TARSUP_CACHE="$work/cache"
}

# pack VERSION [OPTION...]: packages of VERSION, made the current ones.
pack() {
    version=$1
    shift
    standin pack --out "$work/pack/$version" --version "$version" "$@" || die "packing $version failed"
    ln -sfn "$work/base" "$work/pack/$version/base"
    ln -sfn "pack/$version" "$work/build"
}

# Links the root file systems into the workshop; fails where they cannot be made.
link_bases() {
    paths=$(sh "$root/tests/bases.sh") || return 1
    for path in $paths; do ln -sf "$path" "$work/base/$(basename "$path")"; done
}
