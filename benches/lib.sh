#!/bin/sh
# Shared by builder.sh and upgrade.sh; to be sourced, with `root` set and `help` saying which lines of the caller tell its usage.
#
# `options "$@"` reads --runs N (default: $RUNS, else 5), --write, and what the caller names in `choices`: --CHOICE VALUE sets
# the variable CHOICE. `begin NAME` makes `$work` with the release build in its bin/, and a clean-up that stops what is named
# in `$running`. $TARSUP_BENCH_BIN names a folder with tarsup and a static tars-init that are there already.
# shellcheck disable=SC2034,SC2154 # what is set here is used there, and the other way round
# shellcheck source=tests/lib.sh
. "$root/tests/lib.sh"

runs=${RUNS:-5} write='' running=''

options() {
    while [ $# -gt 0 ]; do
        option=${1#--}
        case " runs $choices " in
            *" $option "*) [ $# -ge 2 ] || die "$1 needs a value"; eval "$option=\$2"; shift ;;
            *) [ "$1" = --write ] || { sed -n "$help" "$0" | sed 's/^# *//' >&2; exit 2; }; write=1 ;;
        esac
        shift
    done
}

clean_up() {
    code=$?
    trap - EXIT
    for name in $running; do sh "$root/tests/engine.sh" stop "$name"; done
    rm -rf "$work"
    exit "$code"
}

begin() {
    is_root || die "a private engine needs root"
    programs=${TARSUP_BENCH_BIN:-}
    if [ -z "$programs" ]; then
        compile >&2
        # What is measured is what users install: the release build.
        (cd "$root" && cargo build --quiet --release --bin tarsup) >&2
        programs=$target/release
    fi
    work=$(mktemp -d "${TARSUP_BENCH_DIR:-/var/tmp}/tarsup-$1.XXXXXX")
    trap clean_up EXIT
    trap 'exit 130' INT TERM
    mkdir -p "$work/bin"
}

# A workshop of the release build and the stand-ins, with the root file systems.
workshop() {
    [ -n "${standin_program:-}" ] || compile >&2
    tarsup_program=$programs/tarsup
    make_workshop "$work"
    link_bases >&2
}

start_engine() { # NAME [OPTION]
    sh "$root/tests/engine.sh" stop "$1"
    running="$running $1"
    sh "$root/tests/engine.sh" start "$@" >&2
}

note() { printf '%s %s\n' "$(date +%H:%M:%S)" "$*" >&2; }
median() { sort -n | awk '{ v[NR] = $1 } END { if (NR % 2) print v[(NR + 1) / 2]; else printf "%.3f\n", (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
# Milliseconds that a command takes, by the clock and of processor; what it says goes to a log.
took() {
    start=$(date +%s%N)
    "$@" >>"$work/log" 2>&1 || { tail -n 30 "$work/log" >&2; die "failed: $*"; }
    end=$(date +%s%N)
    # Of this subshell's children: nothing but the command has run in it.
    times >"$work/times"
    awk -v a="$start" -v b="$end" '
        END { split($1, user, /[ms]/); split($2, kernel, /[ms]/)
              printf "%.1f %.1f\n", (b - a) / 1e6, 1000 * (60 * (user[1] + kernel[1]) + user[2] + kernel[2]) }' "$work/times"
}
