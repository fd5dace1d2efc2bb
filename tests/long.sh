#!/bin/sh
# What takes too long for every change, by hand before a release: an upgrade on the engine in memory that is killed before
# and after each of its calls, each statement that a start sends to its database with each fault, and kills of tarsup at
# random moments of an upgrade of the real framework (master, slave and two nodes), each resumed, and everything looked at
# afterwards; upstream's containers adopted, moved over two releases of three years apart, and back; clients through a restart, an upgrade, a
# rollback, a kill, a registry that is down or in another zone, an administrator's hand, and on two engines that roll at once over one
# database; a server that runs in a container beside its node.
#
#   long.sh [KILLS [SEED]]     30 kills; the seed is printed, and shows the same moments again
#
# Each fuzz target for an hour, or for FUZZ seconds: on two processors five hours.
#
# With PART=2 PARTS=4 in the environment it is the second quarter of the statements: a machine each, and the rest on the first.
#
# Half of the kills are resumed at once, half after 15 s, every third after a `docker system prune -f` of this deployment's
# containers (the engine is shared with other tests). tests/all.sh runs three of them. Needs what all.sh needs, and the real
# framework's packages in ../shared/tars/real. About half a minute a kill; gives up after two minutes a kill.
# shellcheck disable=SC2086 # $alike is a list of words
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tests/lib.sh
. "$root/tests/lib.sh"
cd "$root"

kills=${1:-30} seed=${2:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
part=${PART:-1} parts=${PARTS:-1}
case $kills$seed$part$parts in '' | *[!0-9]*) sed -n '2,18s/^# *//p' "$0" >&2; exit 2 ;; esac
{ [ "$part" -ge 1 ] && [ "$part" -le "$parts" ]; } || die "there is no part $part of $parts"
is_root || die "an engine of its own needs root"
[ -d "${TARSUP_SHARED:-../shared}/tars/real" ] || die "the real framework's packages are not in ${TARSUP_SHARED:-../shared}/tars/real"
install_packages mariadb-server docker.io iptables iproute2 util-linux mmdebstrap
compile
sh tests/bases.sh framework database real web upstream >/dev/null || die "the root file systems could not be made"
export TARSUP_TEST_BASES="${TARSUP_TEST_CACHE:-/var/tmp/tarsup-cache}/bases"
export TARSUP_TEST_INIT="$init_program" TARSUP_TEST_STANDIN="$standin_program"

# Each statement of a first boot, a migration and an ordinary start, with each fault: some forty minutes.
TARSUP_EVERY=1 TARSUP_PART=$part TARSUP_PARTS=$parts \
    cargo test --quiet $alike --test init -- --nocapture faults::
[ "$part" = 1 ] || exit 0

# The bill of materials of the real framework with its console, by CycloneDX's own schema.
sh tests/bill.sh

trap 'sh tests/engine.sh stop long; sh tests/engine.sh stop long-new' EXIT
trap 'exit 130' INT TERM
sh tests/engine.sh stop long
sh tests/engine.sh start long
cargo test --quiet $alike --test docker --no-run
TARSUP_EVERY=1 cargo test --quiet $alike --test it rollout::
sh tests/fuzz.sh "${FUZZ:-3600}"
# Every hostile input: tests/all.sh runs one in six of the large classes, and a third of those of memory. And what the program that is shipped needs of memory.
TARSUP_EVERY=1 cargo test --quiet $alike --test hostile
cargo build --quiet --release --bin tarsup
TARSUP_EVERY=1 TARSUP_TELL=1 TARSUP_HOSTILE=$target/release/tarsup cargo test --quiet $alike --test hostile -- --nocapture memory::
CI=1 TARSUP_EVERY=1 sh tests/engine.sh run long -- cargo test --quiet $alike --test docker -- --nocapture \
    --skip real::kills real:: e2e:: shapes::
# Docker 26.1 with either store: all.sh runs the upgrade on one of them.
for store in --containerd --new; do
    sh tests/engine.sh start long-new "$store"
    CI=1 TARSUP_EVERY=1 sh tests/engine.sh run long-new -- cargo test --quiet $alike --test docker -- shapes:: recreate:: compose_beside:: e2e::upgrade
    sh tests/engine.sh stop long-new
done
# Three hundred containers with random settings, adopted and replaced: some twenty minutes.
TARSUP_RECREATE=300 TARSUP_SEED=$seed sh tests/engine.sh run long -- \
    cargo test --quiet $alike --test docker -- --nocapture recreate::
say "$kills kills, seed $seed"
# In CI's way: what cannot run has failed.
CI=1 TARSUP_EVERY=1 TARSUP_KILLS=$kills TARSUP_SEED=$seed timeout $((300 + kills * 120)) \
    sh tests/engine.sh run long -- cargo test --quiet $alike --test docker -- --nocapture real::kills
