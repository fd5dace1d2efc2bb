#!/bin/sh
# A restart of twenty nodes, and of two, on the engine in memory, where nothing but waiting takes time: with drains, side by side, without.
#
#   sh benches/rollout.sh
#
# Writes benches/rollout.md, which benches/page.sh puts into docs/performance.md.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
{
    echo '| a restart of twenty nodes | s | the plan says at least | at the most |'
    echo '|---|---|---|---|'
    cargo test --quiet --test it -- --nocapture rollout_of_twenty_nodes 2>&1 | grep '^| '
} >"$root/benches/rollout.md.new"
mv "$root/benches/rollout.md.new" "$root/benches/rollout.md"
cat "$root/benches/rollout.md"
