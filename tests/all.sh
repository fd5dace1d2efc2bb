#!/bin/sh
# Every test of tarsup, and the demo. Ends with one line: "N passed, N failed", and ", N skipped" where some could not run.
#
#   all.sh [--fast]     --fast: only what needs no engine; it says what it left out
#
# On a bare Debian 12 with Rust, as root, it installs what is missing; it starts a private Docker engine and stops it.
#
# Of large classes of inputs, of kills and of long tests that are much alike a part runs each time, and its seed is said: `TARSUP_SEED`
# brings it back, and long.sh runs them all.
# shellcheck disable=SC2086 # $tests is a list of words
# shellcheck disable=SC2030,SC2031 # what runs beside the rest counts for itself
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tests/lib.sh
. "$root/tests/lib.sh"

fast=''
case "${1:-}" in
    '') ;;
    --fast) fast=1 ;;
    *) sed -n '2,9s/^# *//p' "$0" >&2; exit 2 ;;
esac
cd "$root"

passed=0 failed=0 skipped=0 began=$(now)
results=$(mktemp -d)
clean_up() {
    trap - EXIT INT TERM
    [ -n "$fast" ] || for engine in all all-new all-classic; do sh "$root/tests/engine.sh" stop "$engine" || true; done
    rm -rf "$results"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# With the features of one another, and of the programs: each crate is compiled once.
tests="cargo test $alike"

# Runs cargo's tests and adds up what each of them says; a target that does not even run counts as one failure.
count() {
    title=$1
    shift
    printf '\n== %s\n' "$title"
    part=$(now) code=0
    "$@" >"$results/out" 2>&1 </dev/null || code=$?
    grep -E '^(test .*FAILED|failures:|---- |error|warning: unused)' "$results/out" || true
    # With what it says, which may be long.
    grep -E -A9 '^thread .* panicked' "$results/out" | cut -c1-1000 || true
    ok=$(sed -n 's/^test result: .* \([0-9]*\) passed; .*/\1/p' "$results/out" | awk '{ n += $1 } END { print n + 0 }')
    bad=$(sed -n 's/^test result: .* \([0-9]*\) failed; .*/\1/p' "$results/out" | awk '{ n += $1 } END { print n + 0 }')
    ignored=$(sed -n 's/^test result: .* \([0-9]*\) ignored; .*/\1/p' "$results/out" | awk '{ n += $1 } END { print n + 0 }')
    # A test that finds no data says so and ends well; where it must find them (CI is set) it fails by itself.
    sed -n 's/^SKIPPED /skipped: /p' "$results/out"
    left=$(sed -n 's/^SKIPPED \([^:]*\):.*/\1/p' "$results/out" | sort -u | wc -l)
    # One whose twin has its turn in this run says that as well.
    sed -n 's/^ANOTHER TIME /another time: /p' "$results/out"
    later=$(sed -n 's/^ANOTHER TIME \([^:]*\):.*/\1/p' "$results/out" | sort -u | wc -l)
    ok=$((ok - left - later))
    [ "$later" = 0 ] || later_too=", $later another time"
    if [ "$code" != 0 ] && [ "$bad" = 0 ]; then bad=1; fi
    if [ "$code" != 0 ]; then tail -n 60 "$results/out"; fi
    if [ "$ignored" != 0 ]; then
        say "$ignored ignored: here nothing is skipped in silence, so they count as failed"
        bad=$((bad + ignored))
    fi
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + left))
    say "$ok passed, $bad failed, $left skipped${later_too:-} ($(since "$part"))"
    later_too=''
}

# The same beside what follows, for a function that counts; `wait_beside` shows it and adds it up.
beside() {
    (
        passed=0 failed=0 skipped=0 results=$results/beside
        mkdir "$results"
        "$@"
        echo "$passed $failed $skipped" >"$results/counts"
    ) >"$results/beside.said" 2>&1 &
    beside=$!
}
wait_beside() {
    wait "$beside" || true
    cat "$results/beside.said"
    read -r also_passed also_failed also_skipped <"$results/beside/counts" || die "what ran beside it broke off"
    rm -r "$results/beside" "$results/beside.said"
    passed=$((passed + also_passed)) failed=$((failed + also_failed)) skipped=$((skipped + also_skipped))
}

hostile_inputs() { count "hostile inputs: packages, bases, images, deployments" $tests --test hostile; }
registries() { count "a real registry, beside skopeo" $tests --test registry; }
on_newer_engines() {
    # Both stores take what is built. A whole upgrade runs on one of them, and of what containers are made of one half.
    of_all="daemon_copy bases:: far:: looked_at::" upgrade=upgrade_replaces_every_role with_containerd='' with_classic=''
    seed=$((${TARSUP_SEED:-$(date +%s)} % 2))
    if [ "$seed" = 0 ]; then with_containerd="$upgrade recreate:: compose_beside::"; else with_containerd=shapes:: with_classic=$upgrade; fi
    say "Docker 26.1: TARSUP_SEED=$seed runs $with_containerd $with_classic; the other seed runs the rest of $upgrade shapes:: recreate:: compose_beside::"
    if sh tests/engine.sh start all-new --containerd; then
        count "images, the engine's contract, adoption and $with_containerd on Docker 26.1 with containerd's image store" \
            sh tests/engine.sh run all-new -- $tests --test docker -- $of_all engine_contract run_lines:: $with_containerd
    else
        failed=$((failed + 1))
    fi
    sh tests/engine.sh stop all-new
    if sh tests/engine.sh start all-classic --new; then
        count "images${with_classic:+, and an upgrade,} on Docker 26.1 with its classic store" \
            sh tests/engine.sh run all-classic -- $tests --test docker -- $of_all $with_classic
    else
        failed=$((failed + 1))
    fi
    sh tests/engine.sh stop all-classic
}
the_demo() {
    printf '\n== the demo\n'
    if sh tests/demo.sh </dev/null; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}
beside_the_engine() {
    on_newer_engines
    the_demo
}

real_bases() { [ ! -d "${TARSUP_SHARED:-../shared}/tars/real" ] || echo real web upstream; }

if [ -z "$fast" ]; then
    is_root || die "the tests with an engine need root: run this as root, or with --fast for the others"
    command -v apt-get >/dev/null || die "the tests with an engine need Debian: run this with --fast for the others"
    install_packages docker.io docker-compose iptables iproute2 util-linux mmdebstrap mariadb-server nodejs skopeo umoci jq busybox-static ca-certificates docker-registry python3-jsonschema golang-github-opencontainers-image-spec-dev
    # Meanwhile what is made of Debian's packages. Of the real framework's bases, where its packages lie beside the project.
    # shellcheck disable=SC2046 # a list of words, or none
    sh tests/bases.sh framework database $(real_bases) >"$results/bases" &
    making=$!
    sh tests/engine.sh stop all-new
    # Whether it runs is asked where it is needed.
    sh tests/engine.sh start all-new --containerd 2>"$results/all-new" &
    starting=$!
    with_tests=1
    compile
    wait "$making" || die "the root file systems could not be made"
    wait "$starting" || cat "$results/all-new" >&2
    bases=$(cat "$results/bases")
    say "root file systems: $(printf '%s' "$bases" | tr '\n' ' ')"
    export TARSUP_TEST_BASES="${TARSUP_TEST_CACHE:-/var/tmp/tarsup-cache}/bases"
    export TARSUP_TEST_INIT="$init_program" TARSUP_TEST_STANDIN="$standin_program"
    # Without stand-ins and a static tars-init beside it the demo would test something else than the tests.
    sh tests/engine.sh stop all
    sh tests/engine.sh start all
fi

count "unit tests and documentation examples" $tests --lib --bin tarsup --bin tars-init --bin standin
# Neither has enough to do for two processors.
beside hostile_inputs
count "tests without an engine" $tests --test it
wait_beside
count "fuzz targets, five seconds each" sh tests/fuzz.sh 5
if [ -n "$fast" ]; then
    printf '\nLeft out by --fast: real processes and a real MariaDB (tests/init), a real Docker engine (tests/docker), the demo.\n'
else
    beside registries
    # Most of them wait most of the time, as those below.
    count "tars-init with real processes and a real MariaDB" \
        $tests --test init -- --test-threads=$(($(nproc) * 2 + 1))
    wait_beside
    # An engine works for two thirds of the time: the newer ones, and the demo's, have the rest.
    beside beside_the_engine
    count "a real Docker engine: images, upgrades, crashes, the guard" \
        sh tests/engine.sh run all -- $tests --test docker -- --test-threads=$(($(nproc) * 2 + 1))
    wait_beside
fi

[ "$skipped" = 0 ] || also=", $skipped skipped"
printf '\nTook %s.\n%s passed, %s failed%s\n' "$(since "$began")" "$passed" "$failed" "${also:-}"
[ "$failed" = 0 ]
