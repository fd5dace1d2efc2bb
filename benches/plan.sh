#!/bin/sh
# `tarsup plan` for 1,000 services that are as declared, beside another build of tarsup: calls, connections, time.
#
#   sh benches/plan.sh BEFORE      BEFORE is a tarsup built from an earlier commit, in the same profile (release)
#
# The engine is a socket that a test answers (tests/it/engine_http.rs), the same for both. Writes benches/plan.md, which
# benches/page.sh puts into docs/performance.md.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
before=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$root"
for run in 1 2 3 4 5; do
    TARSUP_BEFORE=$before TARSUP_FIGURES=$work/figures-$run.json cargo test -q --release --test it plan_command_for_a_thousand >/dev/null
done
jq -rs '
    def median(f): map(f) | sort | .[2];
    "| what | now | before | ratio |", "|---|---|---|---|",
    "| engine calls | \(.[0].calls) | \(.[0].before.calls) | |",
    "| connections | \(.[0].connections) | \(.[0].before.connections) | |",
    "| `tarsup plan`, ms | \(median(.ms)) | \(median(.before.ms)) | \(100 * median(.ms) / median(.before.ms) | round / 100) |"
' "$work"/figures-*.json >"$root/benches/plan.md"
cat "$root/benches/plan.md"
