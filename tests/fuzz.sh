#!/bin/sh
# Fuzzes what reads what others wrote, each target for so many seconds, with libFuzzer on the stable toolchain.
#
#   fuzz.sh SECONDS [TARGET...]     all targets of fuzz/fuzz_targets, or these
#
# Inputs are begun from fuzz/corpus/TARGET; what is found on the way stays in target/corpus/TARGET. An input that fails is
# named at the end of what is printed, and lies in target/fuzz-TARGET-*: `target/debug/TARGET FILE` shows it again. Beyond a
# minute for each the targets are optimised, which takes some minutes to compile. Needs a C++ compiler, for libFuzzer itself.
#
# TARSUP_SEED shows the same inputs again; in CI it is 1, so that a change is not red for what it has not touched.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tests/lib.sh
. "$root/tests/lib.sh"
cd "$root"

case "${1:-}" in '' | *[!0-9]*) sed -n '2,10s/^# *//p' "$0" >&2; exit 2 ;; esac
seconds=$1
shift
if [ $# = 0 ]; then
    for path in fuzz/fuzz_targets/*.rs; do set -- "$@" "$(basename "$path" .rs)"; done
fi
if ! command -v c++ >/dev/null && is_root && command -v apt-get >/dev/null; then install_packages g++; fi

seed=${TARSUP_SEED:-}
[ -n "$seed" ] || if [ -n "${CI:-}" ]; then seed=1; else seed=$(od -An -N4 -tu4 /dev/urandom | tr -d ' '); fi
case $seed in *[!0-9]*) die "TARSUP_SEED is no number" ;; esac
level=0
[ "$seconds" -le 60 ] || level=1
began=$(now)
# Both levels would have the same name: each lies in a folder of its own, and the first shares it with the tests.
[ "$level" = 0 ] || target=$target/fuzz
programs=''
for name; do programs="$programs --bin $name"; done
# shellcheck disable=SC2086 # lists of words
TARSUP_FUZZ_LEVEL=$level RUSTC_WORKSPACE_WRAPPER=$root/fuzz/instrumented.sh \
    cargo build --quiet $alike $programs --examples --target-dir "$target" || die "the fuzz targets could not be compiled"
say "compiled in $(since "$began"); seed $seed"

# As many at once as there are processors; each says one line.
one() {
    corpus=$target/corpus/$1 log=$target/fuzz-$1.log
    mkdir -p "$corpus"
    if "$target/debug/$1" "$corpus" "fuzz/corpus/$1" -max_total_time="$seconds" -seed="$seed" -timeout=10 -rss_limit_mb=1024 \
        -max_len=65536 -artifact_prefix="$target/fuzz-$1-" >"$log" 2>&1; then
        say "test fuzz::$1 ... ok ($(sed -n 's/^Done \([0-9]*\) runs in \([0-9]*\) second.*/\1 runs in \2 s/p' "$log"))"
    else
        say "test fuzz::$1 ... FAILED"
        tail -n 25 "$log" | cut -c1-1000
    fi
}
results=$(mktemp)
trap 'rm -f "$results"' EXIT
running=0
for name; do
    [ -x "$target/debug/$name" ] || die "there is no target $name in fuzz/fuzz_targets"
    one "$name" >>"$results" &
    running=$((running + 1))
    [ $((running % $(nproc))) != 0 ] || wait
done
wait
cat "$results"
failed=$(grep -c '^test fuzz::.* FAILED$' "$results" || true)
say "test result: $([ "$failed" = 0 ] && echo ok || echo FAILED). $(($# - failed)) passed; $failed failed; 0 ignored"
[ "$failed" = 0 ]
